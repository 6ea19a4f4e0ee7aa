"""Scheduling: observations, allocations, PRB schedulers, quotas and power rules."""

from jaxrl5g.mac.apportionment import apportion
from jaxrl5g.mac.catalogue import SCHEDULERS
from jaxrl5g.mac.coordination import on_off, wmmse, wmmse_power
from jaxrl5g.mac.dual_optimum import dual_assignment, dual_optimum
from jaxrl5g.mac.eesm_split import eesm_split
from jaxrl5g.mac.equal_quotas import equal_quotas
from jaxrl5g.mac.fair_power import fair_power
from jaxrl5g.mac.mcs_power import McsPower, mcs_aware_power, mcs_knapsack_power
from jaxrl5g.mac.muting import held_on_off, muting_levels
from jaxrl5g.mac.power import equal_power
from jaxrl5g.mac.power_rules import POWER_RULES, Assignment, knapsack_power
from jaxrl5g.mac.quota_resolver import resolve_quotas
from jaxrl5g.mac.rates import owner_gains, per_prb, predicted_rates
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.reuse import fractional_reuse, reuse_three
from jaxrl5g.mac.schedulers import (
    alpha_fair,
    blind_equal_throughput,
    max_rate,
    proportional_fair,
    round_robin,
)
from jaxrl5g.mac.share_power import SHARE_RULES, share_power
from jaxrl5g.mac.types import Allocation, CellConfig, CellParams, Observation, Scheduler
from jaxrl5g.mac.water_filling import water_filling

__all__ = [
    "Allocation",
    "Assignment",
    "CellConfig",
    "CellParams",
    "McsPower",
    "Observation",
    "POWER_RULES",
    "Reservation",
    "SCHEDULERS",
    "SHARE_RULES",
    "Scheduler",
    "alpha_fair",
    "apportion",
    "blind_equal_throughput",
    "dual_assignment",
    "dual_optimum",
    "eesm_split",
    "equal_power",
    "equal_quotas",
    "fair_power",
    "fractional_reuse",
    "held_on_off",
    "knapsack_power",
    "max_rate",
    "mcs_aware_power",
    "mcs_knapsack_power",
    "muting_levels",
    "on_off",
    "owner_gains",
    "per_prb",
    "predicted_rates",
    "proportional_fair",
    "reserve_retransmissions",
    "resolve_quotas",
    "reuse_three",
    "round_robin",
    "share_power",
    "water_filling",
    "wmmse",
    "wmmse_power",
]
