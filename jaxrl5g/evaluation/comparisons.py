"""Robust aggregates of seeds and drops, tests on matched drops, and several endpoints at once.

The interquartile mean and the probability of improvement are those of Agarwal et al., Deep
reinforcement learning at the edge of the statistical precipice (2021), with drops for tasks and
seeds for runs; unlike there, drops are resampled as well, since they are a sample of a population.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxrl5g.evaluation.metrics import Metrics
from jaxrl5g.evaluation.statistics import (
    Interval,
    Statistic,
    batch_size,
    geometric_mean,
    known_values,
    mean,
    paired_hierarchical_bootstrap,
    paired_values,
    pooled_percentile,
    resampled_interval,
)


def interquartile_mean(samples: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of each resample, a statistic as `mean` is.

    Of n values the floor(n/4) smallest and as many of the largest are left out (Agarwal et al.
    2021, section 4.3). NaN does not count as a value.
    """
    ordered = np.sort(samples.reshape(samples.shape[0], -1), axis=-1)  # NaN last
    count = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    rank = np.arange(ordered.shape[-1])
    cut = count // 4
    return mean(np.where((rank >= cut) & (rank < count - cut), ordered, np.nan))


def probability_of_improvement(
    values: np.ndarray,
    reference: np.ndarray,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return how likely a policy beats another on a drop, with its bootstrap interval.

    Within a drop, the share of pairs of a seed of one and a seed of the other in which the first
    has the larger value, a tie counting half (the Mann-Whitney U divided by the number of pairs);
    then the mean over drops. Resampled are the drops, common to both, and each side's own seeds:
    two trainings that share a number have nothing else in common.

    Args:
        values: [S, D], one number per seed and drop, larger is better. A pair with a NaN is left
            out.
        reference: [S', D], the same drops; S' may differ from S.
        confidence: two-sided level in (0, 1).
        num_resamples: at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if the arrays are not two-dimensional over the same drops, are empty or all
            NaN, or a number is out of range.
    """
    ours, theirs = known_values(values), known_values(reference)
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            "values and reference must be [seeds, drops] over the same drops, "
            f"got shapes {ours.shape} and {theirs.shape}"
        )
    one, other = ours[:, None], theirs[None]
    wins = np.where(one == other, 0.5, one > other)
    wins = np.where(np.isnan(one) | np.isnan(other), np.nan, wins)

    def statistic_of(first: np.ndarray, second: np.ndarray, drops: np.ndarray) -> np.ndarray:
        return mean(
            wins[first[:, :, None, None], second[:, None, :, None], drops[:, None, None, :]]
        )

    return resampled_interval(
        statistic_of,
        wins.shape,
        wins.size,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )


def exchange_test(
    values: np.ndarray,
    reference: np.ndarray,
    statistic: Statistic = mean,
    *,
    num_permutations: int = 9999,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of a paired permutation test over drops, in (0, 1].

    The null hypothesis: on every drop the two policies could change places. Whole drops, with all
    their seeds and users, are exchanged between the two sides, and the difference of the statistic
    is compared with what that gives; for the mean this is the sign-flip test. Exact where all 2^D
    exchanges fit into `num_permutations`, otherwise a random sample of them. It holds the seeds as
    given: other trainings may give another answer, which is for the hierarchical interval to say.
    A percentile that hangs on a single drop (the lowest of a few) has next to no power here:
    exchanging any other drop changes nothing.

    Args:
        values: [S, D] or [S, D, ...]; NaN marks a masked user.
        reference: the same shape, or one seed, as in `paired_hierarchical_bootstrap`.
        statistic: reduces [R, S * D, ...] to [R].
        num_permutations: at least 1.
        seed: of the random exchanges.

    Raises:
        ValueError: if the shapes do not pair, are empty or all NaN, or `num_permutations` is below
            1, or the statistic is not finite.
    """
    ours, theirs = paired_values(values, reference)
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}")
    num_drops = ours.shape[1]
    drops = np.moveaxis(np.concatenate([ours, theirs], axis=1), 1, 0)  # [2D, S, ...]

    def side(index: np.ndarray) -> np.ndarray:
        drawn = drops[index]
        return statistic(drawn.reshape(drawn.shape[0], -1, *ours.shape[2:]))

    def difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray | float:
        del axis
        if first.ndim == 1:
            return (side(first[None]) - side(second[None]))[0]
        return side(first) - side(second)

    index = np.arange(num_drops)
    if not np.isfinite(difference(index, index + num_drops)):
        raise ValueError("the statistic must be finite on both sides to be tested")
    result = scipy.stats.permutation_test(
        (index, index + num_drops),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_permutations,
        batch=batch_size(2 * ours.size),
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p-values, [m], in the order given.

    Rejecting where they are at most a level keeps the chance of any false rejection among the m
    tests at that level, however the tests depend on one another. The i-th smallest is the largest
    of min(1, (m - j + 1) p_(j)) over j <= i. Source: Holm (1979).

    Raises:
        ValueError: if there is no p-value, or one is NaN or outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"p_values must be a non-empty list, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be in [0, 1], got {p}")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


class Endpoint(NamedTuple):
    """What two policies are compared in.

    Attributes:
        field: of `Metrics`, [D] or [D, C, U].
        statistic: over seeds and drops (and users).
        relative: whether a difference is a fraction of the reference.
    """

    field: str
    statistic: Statistic
    relative: bool


ENDPOINTS: dict[str, Endpoint] = {
    "geometric_mean": Endpoint("user_throughput", geometric_mean, True),
    "cell_throughput": Endpoint("cell_throughput", mean, True),
    "p5_user_throughput": Endpoint("user_throughput", pooled_percentile(5), True),
    "jain": Endpoint("jain", mean, False),
}
"""Endpoints by name; the first one's difference is the geometric-mean ratio less 1."""


class Comparison(NamedTuple):
    """One endpoint of one policy against another.

    Attributes:
        difference: to the reference, a fraction of it where the endpoint is relative.
        p_value: of `exchange_test`.
        adjusted: the p-value after Holm's correction over all endpoints.
    """

    difference: Interval
    p_value: float
    adjusted: float


def compare(
    metrics: Sequence[Metrics],
    reference: Sequence[Metrics],
    endpoints: Mapping[str, Endpoint] = ENDPOINTS,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Return every endpoint of a policy against a reference, p-values corrected for their number.

    The intervals are `paired_hierarchical_bootstrap`'s, each at the level given by itself.

    Args:
        metrics: one `Metrics` per seed, all on the same drops.
        reference: as many, or one (a classical scheduler); likewise `metrics`.
        endpoints: what to compare in.
        confidence: two-sided level of each interval, in (0, 1).
        num_resamples: resamples of each interval and exchanges of each test.
        seed: of both.

    Raises:
        ValueError: if there is no seed or endpoint, the shapes do not pair, or a number is out of
            range.
    """
    if not metrics or not reference or not endpoints:
        raise ValueError(
            "at least one seed of each side and one endpoint are needed, got "
            f"{len(metrics)}, {len(reference)} and {len(endpoints)}"
        )
    differences, p_values = [], []
    for endpoint in endpoints.values():
        ours = np.stack([getattr(run, endpoint.field) for run in metrics])
        theirs = np.stack([getattr(run, endpoint.field) for run in reference])
        differences.append(
            paired_hierarchical_bootstrap(
                ours,
                theirs,
                endpoint.statistic,
                relative=endpoint.relative,
                confidence=confidence,
                num_resamples=num_resamples,
                seed=seed,
            )
        )
        p_values.append(
            exchange_test(
                ours, theirs, endpoint.statistic, num_permutations=num_resamples, seed=seed
            )
        )
    rows = zip(differences, p_values, holm(p_values), strict=True)
    return {
        name: Comparison(difference, p, float(adjusted))
        for name, (difference, p, adjusted) in zip(endpoints, rows, strict=True)
    }
