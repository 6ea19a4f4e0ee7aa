"""Asking a labeller: probabilities or drawn answers for pairs, rankings of K segments."""

from __future__ import annotations

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from prefs.feedback.checks import known
from prefs.feedback.labellers import Labeller
from prefs.feedback.segments import Pairs, Segments


class Rankings(struct.PyTreeNode):
    """M rankings of K segments each.

    Attributes:
      order: int32[M, K], indices into the segments, best first.
      mask: bool[M], False for a ranking that does not count.
    """

    order: Array
    mask: Array


def soft_labels(labeller: Labeller, segments: Segments, pairs: Pairs) -> Pairs:
    """`pairs` with the probability of "first" as label; those the judge skips are masked out."""
    first, second = _scores(labeller, segments, pairs)
    label = labeller.preference(first, second)
    return pairs.replace(label=label, mask=pairs.mask & labeller.keeps(first, second))


def sampled_labels(key: Array, labeller: Labeller, segments: Segments, pairs: Pairs) -> Pairs:
    """`pairs` with drawn answers: 1 for "first", 0 for "second", 1/2 for a tie; skips as above.

    The mean of many draws is the soft label.
    """
    first, second = _scores(labeller, segments, pairs)
    chance = labeller.preference(first, second)
    drawn = jax.random.bernoulli(key, chance).astype(chance.dtype)
    label = jnp.where(labeller.tied(first, second), 0.5, drawn)
    return pairs.replace(label=label, mask=pairs.mask & labeller.keeps(first, second))


def sampled_rankings(
    key: Array, labeller: Labeller, segments: Segments, groups: ArrayLike
) -> Rankings:
    """Let the labeller rank groups of K segments.

    By Plackett and Luce's rule where there are utilities, by a round robin where there is only a
    preference matrix; of two segments both give the pair's preference. A group is masked out where
    every two of it are skipped or tied. Exact ties of a teacher without noise go to the first.

    Args:
      key: random key.
      labeller: the judge.
      segments: N segments.
      groups: int32[M, K], indices into the segments; K at least 2.

    Raises:
      ValueError: groups of another shape, or a concrete index out of range.
    """
    groups = jnp.asarray(groups, jnp.int32)
    if groups.ndim != 2 or groups.shape[1] < 2:
        raise ValueError(f"groups must be [M, K] of at least two segments, got {groups.shape}.")
    values, number = known(groups), segments.mask.shape[0]
    if values is not None and values.size and not (0 <= values.min() <= values.max() < number):
        raise ValueError(f"groups must hold indices from 0 to {number - 1}.")
    scores = labeller.score(segments)[groups]
    best_first = jnp.argsort(-labeller.ranking_keys(key, scores), axis=-1, stable=True)
    first, second = scores[:, :, None], scores[:, None, :]
    others = ~jnp.eye(groups.shape[1], dtype=bool)
    says = labeller.keeps(first, second) & ~labeller.tied(first, second) & others
    order = jnp.take_along_axis(groups, best_first, axis=-1)
    return Rankings(order, jnp.any(says, axis=(1, 2)))


def ranking_pairs(rankings: Rankings) -> Pairs:
    """Every ranking as its K(K-1)/2 comparisons, the better one first: M K(K-1)/2 pairs."""
    columns = np.asarray(list(combinations(range(rankings.order.shape[1]), 2)))
    first, second = (rankings.order[:, columns[:, side]].reshape(-1) for side in (0, 1))
    mask = jnp.repeat(rankings.mask, len(columns))
    return Pairs(first, second, jnp.ones(first.shape), mask)


def _scores(labeller: Labeller, segments: Segments, pairs: Pairs) -> tuple[Array, Array]:
    scores = labeller.score(segments)
    return scores[pairs.first], scores[pairs.second]
