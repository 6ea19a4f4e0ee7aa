"""Ranges of settings: a wrong number is refused, a wrong traced one is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prefs.feedback.checks import known


class Range(NamedTuple):
    """A range and its name in a sentence; `holds` takes arrays, and NaN is in no range."""

    name: str
    holds: Callable[[Any], Any]


POSITIVE = Range("positive", lambda x: x > 0)
NOT_NEGATIVE = Range("at least 0", lambda x: x >= 0)
SHARE = Range("in [0, 1]", lambda x: (x >= 0) & (x <= 1))
POSITIVE_SHARE = Range("in (0, 1]", lambda x: (x > 0) & (x <= 1))
INSIDE_SHARE = Range("in (0, 1)", lambda x: (x > 0) & (x < 1))


def check_ranges(config: Any, ranges: Mapping[str, Range]) -> jax.Array:
    """Whether the named fields of a config are in range: bool[], False where a traced one is not.

    Raises:
      ValueError: a value that is known is not.
    """
    sound = jnp.asarray(True)
    for name, allowed in ranges.items():
        value = getattr(config, name)
        concrete = known(value)
        if concrete is not None and not allowed.holds(concrete).all():
            raise ValueError(f"{name} must be {allowed.name}, got {value}.")
        sound &= jnp.all(allowed.holds(jnp.asarray(value)))
    return sound


def check_count(config: Any, name: str, least: int) -> None:
    """Refuse a static size.

    Raises:
      ValueError: it is below `least` or no integer.
    """
    value = getattr(config, name)
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse an unknown name.

    Raises:
      ValueError: the field is none of `choices`.
    """
    if getattr(config, name) not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}."
        )
