"""Schedulers by name: `pf`, `pf:50`, `alpha_fair:0.5`."""

import inspect
from collections.abc import Callable
from typing import Any

from experiments.names import UsageError, split_list, unknown
from jaxrl5g.mac import SCHEDULERS, Scheduler


def option_of(make: Callable[..., Any]) -> inspect.Parameter | None:
    """Return the parameter that a name's `:number` sets, None where it takes none."""
    return next(iter(inspect.signature(make).parameters.values()), None)


def parse_scheduler(name: str) -> Scheduler:
    """Make the scheduler called `name`, optionally `name:number`.

    The number is the first argument: the averaging window in slots of `pf` and `bet`, the
    exponent of `alpha_fair`.

    Raises:
        UsageError: unknown name (the nearest is given), or a number that is missing, not wanted
            or out of range.
    """
    base, colon, number = name.partition(":")
    if base not in SCHEDULERS:
        raise unknown("scheduler", base, SCHEDULERS)
    make = SCHEDULERS[base]
    option = option_of(make)
    if not colon:
        if option is not None and option.default is inspect.Parameter.empty:
            raise UsageError(f"scheduler {base!r} needs its {option.name}, such as {base}:0.5.")
        return make()
    if option is None:
        raise UsageError(f"scheduler {base!r} takes no number, got {name!r}.")
    try:
        return make(float(number))
    except ValueError as error:
        raise UsageError(f"scheduler {name!r}: {error}") from None


def parse_schedulers(names: str) -> dict[str, Scheduler]:
    """Make the schedulers of a comma-separated list, in its order.

    Raises:
        UsageError: none or one twice, or as `parse_scheduler`.
    """
    listed = split_list(names)
    if not listed:
        raise UsageError("--schedulers names no scheduler.")
    for name in listed:
        if listed.count(name) > 1:
            raise UsageError(f"scheduler {name!r} is named twice.")
    return {name: parse_scheduler(name) for name in listed}
