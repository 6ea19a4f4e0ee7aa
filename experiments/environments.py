"""Environments as a command's options name them, with errors for who typed them."""

from typing import Any

import jaxrl5g
from experiments.names import UsageError
from jaxrl5g.env import spec
from jaxrl5g.evaluation import WARM_UP_SLOTS, drop_tracks


def held_out_split(env: str) -> str | None:
    """Return the split that nothing may be tuned on; None for an analytic channel.

    Raises:
        UsageError: unknown environment.
    """
    try:
        return spec(env).held_out_split
    except ValueError as error:
        raise UsageError(str(error)) from error


def open_environment(
    env: str, split: str | None, drops: int, slots: int | None, **config: Any
) -> tuple[Any, Any]:
    """Make an environment for `drops` disjoint episodes of `slots`, by default its own number.

    Raises:
        UsageError: an option names something unknown or out of range, or there are too few tracks.
    """
    if drops < 1:
        raise UsageError(f"--drops must be at least 1, got {drops}.")
    if slots is not None:
        if slots <= WARM_UP_SLOTS:
            raise UsageError(
                f"--slots must exceed the {WARM_UP_SLOTS} that metrics leave out at the start, "
                f"got {slots}."
            )
        config["max_steps_in_episode"] = slots
    try:
        made, params = jaxrl5g.make(env, split=split, **config)
        drop_tracks(params, drops)  # are there that many disjoint ones?
    except ValueError as error:
        raise UsageError(str(error)) from error
    return made, params
