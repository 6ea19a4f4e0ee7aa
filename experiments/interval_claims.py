"""Claims about a statistic with its interval, and how intervals are written."""

from __future__ import annotations

import numpy as np

from experiments.claims import Claim
from jaxrl5g.evaluation.statistics import Interval

ABOVE, BELOW = "above 0 with the whole interval", "below 0 with the whole interval"
"""Targets of differences."""


def interval_claim(
    name: str,
    statement: str,
    target: str,
    found: Interval,
    held: bool,
    sample: str,
    unit: str = "",
    reason: str = "",
) -> Claim:
    """Return a claim; one whose value is not finite, or that has a reason, was not measured."""
    if not reason and not np.isfinite(found.value):
        reason = "nothing to divide by: a mean is 0"
    known = not reason and bool(np.isfinite(found[1:]).all())
    return Claim(
        name,
        statement,
        target,
        None if reason else found.value,
        None if reason else held,
        (found.low, found.high) if known else None,
        unit,
        sample,
        reason,
    )


def interval_text(found: Interval, form: str) -> str:
    """Return "value (low, high)" in a format such as ".2f", "-" where it is not known."""
    if not np.isfinite(found).all():
        return "-"
    return f"{found.value:{form}} ({found.low:{form}}, {found.high:{form}})"
