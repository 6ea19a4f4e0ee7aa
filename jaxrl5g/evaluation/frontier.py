"""Gain over a frontier of rivals at the same fairness.

More cell throughput for a little less fairness can be had of any alpha-fair scheduler by lowering
its alpha, so a policy is measured against what the rivals could reach at the policy's own Jain's
index, drop by drop on matched realisations.
"""

from typing import NamedTuple

import numpy as np

from jaxrl5g.evaluation.statistics import Interval, hierarchical_bootstrap


class MatchedGain(NamedTuple):
    """A policy's gain over the frontier at matched Jain, mean over comparable seeds and drops.

    Attributes:
        gain: in the throughput's unit.
        relative: as a fraction of the frontier; the mean of the drops' fractions.
        gains: [S, D], gain of every seed and drop; NaN where not comparable.
        comparable: number of seeds and drops whose Jain lies within the frontier's range.
        fairer: number whose Jain lies above it, where no rival is as fair.
        less_fair: number whose Jain lies below it, where no rival is as unfair.
    """

    gain: Interval
    relative: Interval
    gains: np.ndarray
    comparable: int
    fairer: int
    less_fair: int


def concave_majorant(x: np.ndarray, points_x: np.ndarray, points_y: np.ndarray) -> np.ndarray:
    """Return the least concave function above all points, evaluated at `x`; NaN off their range.

    It is the upper side of the points' convex hull: at x the highest chord between a point on
    the left and one on the right.

    Args:
        x: [...]; NaN gives NaN.
        points_x, points_y: [P, ...], the P points of each entry of `x`; a point with a NaN is left
            out.
    """
    known = ~(np.isnan(points_x) | np.isnan(points_y))
    left_x, left_y = points_x[:, None], points_y[:, None]
    right_x, right_y = points_x[None], points_y[None]
    width = right_x - left_x
    usable = known[:, None] & known[None] & (left_x <= x) & (x <= right_x)
    # where both lie at x the higher point is found by its chord with itself
    part = np.where(width > 0, (x - left_x) / np.where(width > 0, width, 1.0), 0.0)
    chord = np.where(usable, left_y + part * (right_y - left_y), -np.inf)
    highest = np.max(chord, axis=(0, 1))
    return np.where(usable.any(axis=(0, 1)), highest, np.nan)


def matched_jain_gain(
    jain: np.ndarray,
    throughput: np.ndarray,
    frontier_jain: np.ndarray,
    frontier_throughput: np.ndarray,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> MatchedGain:
    """Return how much more a policy carries than a frontier of rivals does at the same Jain.

    On each drop the frontier is the least concave majorant of its own P points (Jain, throughput),
    from their smallest Jain to their largest, and the gain is the policy's throughput less the
    frontier's at the policy's Jain. Beyond that range nothing is extrapolated: the drop is not
    comparable for this seed, left out of the means, and counted. If all drops are left out the
    means are NaN. A frontier of alpha-fair schedulers falls with Jain; where it rises, to the left
    of its highest point, a rival is both fairer and faster, and the gain flatters the policy.

    Because the points are those of the drop itself, luck that all policies share cancels, and a
    policy that is one of the rivals gains at most 0 on every drop. What the policies do not share
    stays: the majorant is the largest of several noisy chords, which raises it on average, so the
    gain is biased downwards (against the policy), more so with more rivals and shorter episodes.
    Drops are matched throughout: one realisation, all policies.

    Args:
        jain: [D] or [S, D], the policy's Jain's index by (seed and) drop.
        throughput: the same shape, its throughput in any unit, positive on the frontier.
        frontier_jain, frontier_throughput: [P, D], the rivals' on the same drops, P at least 1; a
            NaN leaves that point out.
        confidence: two-sided level in (0, 1) of the intervals over seeds and drops.
        num_resamples: at least 1.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: if shapes do not match, something is empty or all NaN, or a number is out of
            range.
    """
    jain, throughput, frontier_jain, frontier_throughput = _checked(
        jain, throughput, frontier_jain, frontier_throughput
    )
    points_x, points_y = frontier_jain[:, None], frontier_throughput[:, None]
    frontier = concave_majorant(jain, points_x, points_y)
    gains = throughput - frontier
    known = ~np.isnan(points_x + points_y)
    placed = ~np.isnan(jain + throughput) & known.any(axis=0)
    options = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}

    def averaged(values: np.ndarray) -> Interval:
        if np.isnan(values).all():
            return Interval(np.nan, np.nan, np.nan)
        return hierarchical_bootstrap(values, **options)

    with np.errstate(divide="ignore", invalid="ignore"):
        relative = gains / frontier
    return MatchedGain(
        gain=averaged(gains),
        relative=averaged(relative),
        gains=gains,
        comparable=int(np.sum(~np.isnan(gains))),
        fairer=int(np.sum(placed & (jain > np.max(np.where(known, points_x, -np.inf), axis=0)))),
        less_fair=int(np.sum(placed & (jain < np.min(np.where(known, points_x, np.inf), axis=0)))),
    )


def mean_jain_gain(
    jain: np.ndarray,
    throughput: np.ndarray,
    frontier_jain: np.ndarray,
    frontier_throughput: np.ndarray,
    *,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return the fraction by which a policy's mean throughput exceeds a frontier of means.

    The frontier is the least concave majorant of the rivals' P points (mean Jain, mean throughput)
    over drops, and the gain is read at the policy's mean Jain: the frontier as it is drawn. Noise
    of single drops is averaged before the largest chord is taken, so that little is left of the
    bias of `matched_jain_gain` against the policy. Seeds and drops are resampled, means, majorant
    and gain taken anew in each; a policy that is one of the rivals gains at most 0 in all of them.

    Args:
        jain, throughput: [D] or [S, D], the policy's by (seed and) drop.
        frontier_jain, frontier_throughput: [P, D], the rivals' on the same drops.
        confidence, num_resamples, seed: as in `matched_jain_gain`.

    Returns:
        The gain and its interval; NaN where the policy's mean Jain leaves the frontier's range.

    Raises:
        ValueError: as in `matched_jain_gain`.
    """
    jain, throughput, frontier_jain, frontier_throughput = _checked(
        jain, throughput, frontier_jain, frontier_throughput
    )
    rivals = np.concatenate([frontier_jain, frontier_throughput])
    rivals = np.broadcast_to(rivals.T, (*jain.shape, len(rivals)))
    values = np.concatenate([jain[..., None], throughput[..., None], rivals], axis=-1)
    number = len(frontier_jain)

    def relative_gain(samples: np.ndarray) -> np.ndarray:
        means = np.mean(samples, axis=1).T
        own_jain, own, front_jain, front = np.split(means, (1, 2, 2 + number))
        return own[0] / concave_majorant(own_jain[0], front_jain, front) - 1.0

    return hierarchical_bootstrap(
        values, relative_gain, confidence=confidence, num_resamples=num_resamples, seed=seed
    )


def _checked(
    jain: np.ndarray,
    throughput: np.ndarray,
    frontier_jain: np.ndarray,
    frontier_throughput: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The policy's points, [S, D] each, and the rivals', [P, D] each, of shapes that match."""
    jain, throughput, frontier_jain, frontier_throughput = (
        np.asarray(part, dtype=float)
        for part in (jain, throughput, frontier_jain, frontier_throughput)
    )
    if jain.ndim not in (1, 2) or jain.shape != throughput.shape:
        raise ValueError(
            "jain and throughput must both be [drops] or [seeds, drops], "
            f"got shapes {jain.shape} and {throughput.shape}"
        )
    if (
        frontier_jain.ndim != 2
        or frontier_jain.shape != frontier_throughput.shape
        or frontier_jain.shape[1] != jain.shape[-1]
    ):
        raise ValueError(
            f"frontier_jain and frontier_throughput must both be [points, {jain.shape[-1]} drops], "
            f"got shapes {frontier_jain.shape} and {frontier_throughput.shape}"
        )
    parts = {
        "the policy": (jain, throughput),
        "the frontier": (frontier_jain, frontier_throughput),
    }
    for name, (x, y) in parts.items():
        if np.isnan(x + y).all():  # also when empty
            raise ValueError(f"at least one known point is needed of {name}, got shape {x.shape}")
    return np.atleast_2d(jain), np.atleast_2d(throughput), frontier_jain, frontier_throughput
