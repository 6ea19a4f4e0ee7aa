"""Bootstrap confidence intervals whose unit is the drop.

Users of one drop share a realisation and slots of one episode are correlated, so neither is ever
resampled: every resample draws whole drops, and a statistic pooled over users is pooled again in
each. Two schedulers met the same drops, so their difference is resampled in pairs.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

# From resampled drops [resamples, drops, ...] to one number per resample [resamples].
Statistic = Callable[[np.ndarray], np.ndarray]

_BATCH_ELEMENTS = 4_000_000  # resampled values held at once, about 32 MB


class Interval(NamedTuple):
    """A statistic with its confidence interval, in the statistic's unit.

    From a single drop the spread is unknown: `low` is -inf and `high` is inf. Bounds are infinite
    or NaN too where resamples are, such as a ratio to zero.
    """

    value: float
    low: float
    high: float


def mean(samples: np.ndarray) -> np.ndarray:
    """Return the mean of each resample over its drops (and users), ignoring NaN."""
    flat = samples.reshape(samples.shape[0], -1)
    known = ~np.isnan(flat)
    with np.errstate(invalid="ignore"):  # nothing known: 0/0, NaN
        return np.sum(np.where(known, flat, 0.0), axis=-1) / np.sum(known, axis=-1)


def pooled_percentile(percent: float) -> Statistic:
    """Return a statistic: the percentile over all users of all drops of a resample.

    Args:
        percent: in [0, 100]; interpolated linearly between order statistics. NaN is left out.

    Raises:
        ValueError: if `percent` is outside [0, 100].
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be in [0, 100], got {percent}")

    def statistic(samples: np.ndarray) -> np.ndarray:
        # np.nanpercentile loops over rows in Python; a sort that puts NaN last does not.
        ordered = np.sort(samples.reshape(samples.shape[0], -1), axis=-1)
        count = np.sum(~np.isnan(ordered), axis=-1)
        position = percent / 100 * np.maximum(count - 1, 0)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        rows = np.arange(ordered.shape[0])
        fraction = position - below
        return (1 - fraction) * ordered[rows, below] + fraction * ordered[rows, above]

    return statistic


def bootstrap_interval(
    values: np.ndarray,
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return a statistic of one scheduler's drops with its percentile bootstrap interval.

    Args:
        values: [D] or [D, ...], one row per drop; NaN marks a masked user.
        statistic: reduces [R, D, ...] to [R].
        confidence: two-sided level in (0, 1).
        num_resamples: R, at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if there is no drop, or `confidence` or `num_resamples` is out of range.
    """
    values = np.asarray(values, dtype=float)
    return _interval(
        lambda drops: statistic(values[drops]),
        values,
        confidence,
        num_resamples,
        seed,
    )


def paired_bootstrap(
    values: np.ndarray,
    reference: np.ndarray,
    statistic: Statistic = mean,
    *,
    relative: bool = False,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return the difference of a statistic between two schedulers on the same drops.

    Args:
        values: [D] or [D, ...], one row per drop; NaN marks a masked user.
        reference: the same shape, the same drops under the scheduler compared with.
        statistic: reduces [R, D, ...] to [R]; applied to both sides of each resample.
        relative: divide by the reference: statistic(values)/statistic(reference) - 1.
        confidence: two-sided level in (0, 1).
        num_resamples: R, at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if the shapes differ, there is no drop, or a number is out of range.
    """
    values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if values.shape != reference.shape:
        raise ValueError(f"paired values need one shape, got {values.shape} and {reference.shape}")

    def difference(drops: np.ndarray) -> np.ndarray:
        ours, theirs = statistic(values[drops]), statistic(reference[drops])
        if relative:
            with np.errstate(divide="ignore", invalid="ignore"):
                return ours / theirs - 1
        return ours - theirs

    return _interval(difference, values, confidence, num_resamples, seed)


def _interval(
    statistic_of: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Interval:
    """Bootstrap `statistic_of`, which maps drop indices [R, D] to [R]."""
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(f"at least one drop is needed, got shape {values.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    drops = np.arange(values.shape[0])
    value = float(statistic_of(drops[None])[0])
    if len(drops) == 1:
        return Interval(value, -np.inf, np.inf)

    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # A ratio to zero or an undefined statistic has no finite interval; SciPy warns of it.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        # Indices are resampled, so that any number of paired arrays moves together.
        result = scipy.stats.bootstrap(
            (drops,),
            lambda index, axis=-1: _rows(statistic_of, index),
            vectorized=True,
            method="percentile",
            confidence_level=confidence,
            n_resamples=num_resamples,
            batch=max(1, _BATCH_ELEMENTS // max(1, values.size)),
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    return Interval(value, float(low), float(high))


def _rows(
    statistic_of: Callable[[np.ndarray], np.ndarray], index: np.ndarray
) -> np.ndarray | float:
    """Apply `statistic_of` to SciPy's index array, [D] or [R, D]."""
    return statistic_of(np.atleast_2d(index)) if index.ndim > 1 else statistic_of(index[None])[0]
