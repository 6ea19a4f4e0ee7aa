"""Every classical scheduler by its short name."""

from __future__ import annotations

from collections.abc import Callable

from jaxrl5g.mac.coordination import on_off, wmmse
from jaxrl5g.mac.dual_optimum import dual_optimum
from jaxrl5g.mac.equal_quotas import equal_quotas
from jaxrl5g.mac.muting import held_on_off
from jaxrl5g.mac.reuse import fractional_reuse, reuse_three
from jaxrl5g.mac.schedulers import (
    alpha_fair,
    blind_equal_throughput,
    max_rate,
    proportional_fair,
    round_robin,
)
from jaxrl5g.mac.types import Scheduler

SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "pf": proportional_fair,
    "rr": round_robin,
    "max_rate": max_rate,
    "alpha_fair": alpha_fair,
    "bet": blind_equal_throughput,
    "dual": dual_optimum,
    "equal_quotas": equal_quotas,
    "reuse3": reuse_three,
    "fractional_reuse": fractional_reuse,
    "on_off": on_off,
    "held_on_off": held_on_off,
    "wmmse": wmmse,
}
"""Short names used on the command line and in results."""
