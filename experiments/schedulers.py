"""Schedulers by name: `pf`, `pf:50`, `alpha_fair:0.5:200`, `pf:50+knapsack`, `controller:PATH`."""

import inspect
from collections.abc import Callable
from typing import Any

from experiments.names import UsageError, split_list, unknown
from jaxrl5g.mac import POWER_RULES, SCHEDULERS, Scheduler

CONTROLLER = "controller:"
"""What the name of a trained controller begins with; its path follows."""


def numbers_of(make: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that a name's `:numbers` set, in order."""
    parameters = inspect.signature(make).parameters.values()
    return [p for p in parameters if not isinstance(p.default, bool | str)]


def takes_power(make: Callable[..., Any]) -> bool:
    """Return whether a name may be followed by `+POWER`."""
    return "power" in inspect.signature(make).parameters


def parse_scheduler(name: str) -> Scheduler:
    """Make the scheduler called `name[:number...][+power]`.

    The numbers are the maker's arguments in order: the averaging window in slots of `pf` and
    `bet`, the exponent and the window of `alpha_fair`. The power rule is equal where not given.
    `controller:PATH` is a trained controller, as `run downlink-...` leaves them.

    Raises:
        UsageError: unknown name or power rule (the nearest is given), or a number that is missing,
            not wanted or out of range, or a path without a controller.
    """
    if name.startswith(CONTROLLER):
        return _controller(name.removeprefix(CONTROLLER))
    stem, plus, power = name.partition("+")
    base, *numbers = stem.split(":")
    if base not in SCHEDULERS:
        raise unknown("scheduler", base, SCHEDULERS)
    make = SCHEDULERS[base]
    options = numbers_of(make)
    if len(numbers) > len(options):
        wanted = ", ".join(option.name for option in options) or "no number"
        raise UsageError(f"scheduler {base!r} takes {wanted}, got {name!r}.")
    for option in options[len(numbers) :]:
        if option.default is inspect.Parameter.empty:
            raise UsageError(f"scheduler {base!r} needs its {option.name}, such as {base}:0.5.")
    keywords = {}
    if plus:
        if not takes_power(make):
            raise UsageError(f"scheduler {base!r} takes no power rule, got {name!r}.")
        if power not in POWER_RULES:
            raise unknown("power rule", power, POWER_RULES)
        keywords["power"] = power
    try:
        given = [_number(text, option) for text, option in zip(numbers, options, strict=False)]
        return make(*given, **keywords)
    except ValueError as error:
        raise UsageError(f"scheduler {name!r}: {error}") from None


def _controller(path: str) -> Scheduler:
    from jaxrl5g.agents import load_controller  # the toolbox is slow to import
    from jaxrl5g.rl import CheckpointError

    try:
        return load_controller(path)
    except CheckpointError as error:
        raise UsageError(f"{error}.") from None


def _number(text: str, option: inspect.Parameter) -> float | int:
    return int(text) if type(option.default) is int and text.isdecimal() else float(text)


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
