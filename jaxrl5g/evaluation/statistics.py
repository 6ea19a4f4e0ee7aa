"""Bootstrap confidence intervals whose units are the drop and the seed.

Users of one drop share a realisation and slots of one episode are correlated, so neither is ever
resampled: every resample draws whole drops, and a statistic pooled over users is pooled again in
each. Two schedulers met the same drops, so their difference is resampled in pairs. What was run
with several seeds (of a training, or of the HARQ luck) on the same drops is a crossed design, and
each resample draws seeds and drops, independently of one another.
Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13; Owen,
The pigeonhole bootstrap (2007), for crossed designs.
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


def geometric_mean(samples: np.ndarray) -> np.ndarray:
    """Return the geometric mean over the drops of the geometric means over each drop's users.

    NaN (a masked user, or a drop of them) is left out; a user without a bit makes the result 0.
    The ratio of two such means is the geometric mean over drops of their ratios.

    Args:
        samples: [R, D] or [R, D, ...], at least 0.

    Raises:
        ValueError: if a value is negative.
    """
    if np.any(samples < 0):
        raise ValueError("a geometric mean needs values of at least 0, got a negative one")
    with np.errstate(divide="ignore"):
        logs = np.log(samples).reshape(*samples.shape[:2], -1)
    rows = mean(logs.reshape(-1, logs.shape[-1])).reshape(samples.shape[:2])
    return np.exp(mean(rows))


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
    values = _at_least_one_drop(np.asarray(values, dtype=float), axes=1)
    return resampled_interval(
        lambda drops: statistic(values[drops]),
        values.shape[:1],
        values.size,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
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

    _at_least_one_drop(values, axes=1)

    def difference(drops: np.ndarray) -> np.ndarray:
        return contrast(statistic(values[drops]), statistic(reference[drops]), relative)

    return resampled_interval(
        difference,
        values.shape[:1],
        values.size,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )


def hierarchical_bootstrap(
    values: np.ndarray,
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return a statistic of one policy's seeds and drops with its percentile bootstrap interval.

    The statistic pools the drops of all seeds. With one seed this is `bootstrap_interval`, and
    says nothing of what other seeds would give. The interval is a little wide where seed and drop
    interact (Owen 2007), and narrow with few seeds: where they differ as much as drops do, one of
    95 % covers about 93 % of the time with 12 seeds, 89 % with 5 and only 79 % with 3.

    Args:
        values: [S, D] or [S, D, ...], seeds of the policy or of the HARQ luck by drops, every seed
            on the same drops; NaN marks a masked user.
        statistic: reduces [R, S * D, ...] to [R].
        confidence: two-sided level in (0, 1).
        num_resamples: R, at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if there is no seed or drop, every value is NaN, or a number is out of range.
    """
    values = known_values(values)
    return resampled_interval(
        lambda seeds, drops: crossed(values, statistic, seeds, drops),
        values.shape[:2],
        values.size,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )


def paired_hierarchical_bootstrap(
    values: np.ndarray,
    reference: np.ndarray,
    statistic: Statistic = mean,
    *,
    relative: bool = False,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return the difference of a statistic between two policies on the same seeds and drops.

    Args:
        values: [S, D] or [S, D, ...], see `hierarchical_bootstrap`.
        reference: the same shape, or one seed (a classical scheduler) that every seed of the
            other side is compared with; likewise `values`.
        statistic: reduces [R, S * D, ...] to [R]; applied to both sides of each resample.
        relative: divide by the reference: statistic(values)/statistic(reference) - 1.
        confidence: two-sided level in (0, 1).
        num_resamples: R, at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if the shapes do not pair, there is no seed or drop, every value of a side is
            NaN, or a number is out of range.
    """
    ours, theirs = paired_values(values, reference)

    def difference(seeds: np.ndarray, drops: np.ndarray) -> np.ndarray:
        return contrast(
            crossed(ours, statistic, seeds, drops),
            crossed(theirs, statistic, seeds, drops),
            relative,
        )

    return resampled_interval(
        difference,
        ours.shape[:2],
        ours.size,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )


def crossed(
    values: np.ndarray, statistic: Statistic, seeds: np.ndarray, drops: np.ndarray
) -> np.ndarray:
    """Return `statistic` of [S, D, ...] at indices [R, S] and [R, D]: [R], seeds pooled."""
    drawn = values[seeds[:, :, None], drops[:, None, :]]
    return statistic(drawn.reshape(drawn.shape[0], -1, *values.shape[2:]))


def contrast(ours: np.ndarray, theirs: np.ndarray, relative: bool) -> np.ndarray:
    """Return ours - theirs, or ours/theirs - 1."""
    if not relative:
        return ours - theirs
    with np.errstate(divide="ignore", invalid="ignore"):
        return ours / theirs - 1


def known_values(values: np.ndarray) -> np.ndarray:
    """Return `values` as float64 [S, D, ...].

    Raises:
        ValueError: if there is no seed or drop, or every value is NaN.
    """
    values = _at_least_one_drop(np.asarray(values, dtype=float), axes=2)
    if np.isnan(values).all():
        raise ValueError(
            f"at least one value must not be NaN, got only NaN of shape {values.shape}"
        )
    return values


def paired_values(values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides as float64 [S, D, ...], a single seed repeated for all of the other's.

    Raises:
        ValueError: as `known_values`, or if the shapes do not pair.
    """
    values, reference = known_values(values), known_values(reference)
    seeds = {values.shape[0], reference.shape[0]} - {1}
    if values.shape[1:] != reference.shape[1:] or len(seeds) > 1:
        raise ValueError(
            "paired values need one shape, but for a single seed on one side, "
            f"got {values.shape} and {reference.shape}"
        )
    both = np.broadcast_arrays(values, reference)
    return both[0], both[1]


def _at_least_one_drop(values: np.ndarray, axes: int) -> np.ndarray:
    if values.ndim < axes or values.size == 0:
        what = "one drop is" if axes == 1 else "one seed and one drop are"
        raise ValueError(f"at least {what} needed, got shape {values.shape}")
    return values


def batch_size(elements: int) -> int:
    """Return how many resamples of so many values each to hold at once."""
    return max(1, _BATCH_ELEMENTS // max(1, elements))


def resampled_interval(
    statistic_of: Callable[..., np.ndarray],
    sizes: tuple[int, ...],
    elements: int,
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Interval:
    """Return the percentile interval of a statistic of indices, each axis resampled by itself.

    Args:
        statistic_of: maps one index array [R, n] for each axis to [R].
        sizes: n of each axis, the drops last. An axis of one is not resampled; of a single drop
            the spread is unknown.
        elements: values behind one resample, which bounds the memory used.
        confidence, num_resamples, seed: as in `bootstrap_interval`.

    Raises:
        ValueError: if `confidence` or `num_resamples` is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    value = float(statistic_of(*(np.arange(size)[None] for size in sizes))[0])
    if sizes[-1] == 1:
        return Interval(value, -np.inf, np.inf)

    def rows(*drawn: np.ndarray, axis: int = -1) -> np.ndarray | float:
        """Apply `statistic_of` to SciPy's index arrays, each [n] or [R, n]."""
        del axis
        single = drawn[0].ndim == 1
        index = iter(np.atleast_2d(part) for part in drawn)
        fixed = np.zeros((1 if single else len(drawn[0]), 1), int)
        result = statistic_of(*(next(index) if size > 1 else fixed for size in sizes))
        return result[0] if single else result

    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # A ratio to zero or an undefined statistic has no finite interval; SciPy warns of it.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        # Indices are resampled, so that any number of paired arrays moves together.
        result = scipy.stats.bootstrap(
            tuple(np.arange(size) for size in sizes if size > 1),
            rows,
            vectorized=True,
            method="percentile",
            confidence_level=confidence,
            n_resamples=num_resamples,
            batch=batch_size(elements),
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    return Interval(value, float(low), float(high))
