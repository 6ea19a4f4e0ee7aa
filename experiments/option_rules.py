"""Rules that options of an experiment have to keep, told in one sentence where they do not."""

from __future__ import annotations

import math
from typing import Any

from experiments.names import UsageError


def require(holds: bool, rule: str, got: object) -> None:
    """Refuse an option.

    Raises:
        UsageError: `holds` is false; says the rule and what was given.
    """
    if not holds:
        raise UsageError(f"{rule}; got {got}.")


def require_counts(section: Any, *names: str) -> None:
    """Refuse named options of a section that are below 1."""
    for name in names:
        value = getattr(section, name)
        require(value >= 1, f"{name} must be at least 1", value)


def require_positive(section: Any, *names: str) -> None:
    """Refuse named options of a section that are not positive and finite."""
    for name in names:
        value = getattr(section, name)
        require(0 < value < math.inf, f"{name} must be positive and finite", value)


def require_least(section: Any, least: float, *names: str) -> None:
    """Refuse named options of a section that are below `least` or not finite."""
    for name in names:
        value = getattr(section, name)
        require(least <= value < math.inf, f"{name} must be finite, at least {least:g}", value)
