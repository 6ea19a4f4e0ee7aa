"""Scores of both sides of comparisons, of all of them or of a minibatch, for any score of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from prefs.algorithms.links import Number
from prefs.algorithms.table_sums import step_weights
from prefs.feedback.segments import PreferenceData, Segments, take

Items = TypeVar("Items")

StepScore = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""(params, observations, actions) -> [...], such as a policy's `log_prob`."""

SegmentSums = Callable[[Segments, Number], Callable[[Any], jax.Array]]
"""(segments, discount) -> (params -> [N]), such as a policy's `segment_log_probs`."""


class Compared(NamedTuple):
    """Comparisons with scores.

    Attributes:
      first, second: [M], scores of the two segments.
      label: [M], probability that the first is preferred.
      mask: bool[M].
    """

    first: jax.Array
    second: jax.Array
    label: jax.Array
    mask: jax.Array


def segment_scores(
    segments: Segments,
    step_score: StepScore,
    segment_sums: SegmentSums,
    discount: Number,
    whole: bool,
) -> Callable[[Any, jax.Array], jax.Array]:
    """The function (params, index int32[...]) -> [...] of sum_t discount^t score(s_t, a_t).

    Args:
      segments: N.
      step_score: of single steps.
      segment_sums: the same, prepared for all segments at once.
      discount: [].
      whole: whether the index is about all segments, so that all are scored and then picked from;
        else only those asked for are.
    """
    if whole:
        sums = segment_sums(segments, discount)
        return lambda params, index: sums(params)[index]

    def some(params: Any, index: jax.Array) -> jax.Array:
        here = take(segments, index)
        steps = step_score(params, here.observations, here.actions)
        return jnp.sum(step_weights(here, discount) * steps, -1)

    return some


def pair_scores(
    data: PreferenceData,
    step_score: StepScore,
    segment_sums: SegmentSums,
    discount: Number,
    batch_size: int | None,
) -> Callable[[Any, jax.Array], Compared]:
    """The function (params, key) -> `Compared`, scored as by `segment_scores`.

    The key draws `batch_size` comparisons with replacement from those that count; None is all.
    """
    whole = batch_size is None
    if whole and 2 * data.pairs.mask.shape[0] <= data.segments.mask.shape[0]:
        return _in_order(data, segment_sums, discount)
    scores = segment_scores(data.segments, step_score, segment_sums, discount, whole)
    choose = chooser(data.pairs, data.pairs.mask, batch_size)

    def compared(params: Any, key: jax.Array) -> Compared:
        pairs = choose(key)
        first, second = scores(params, jnp.stack([pairs.first, pairs.second]))
        return Compared(first, second, pairs.label, pairs.mask)

    return compared


def _in_order(
    data: PreferenceData, segment_sums: SegmentSums, discount: Number
) -> Callable[[Any, jax.Array], Compared]:
    """All comparisons, their segments put in their order once: no picking in every update."""
    pairs = data.pairs
    number = pairs.mask.shape[0]
    sums = segment_sums(take(data.segments, jnp.concatenate([pairs.first, pairs.second])), discount)

    def compared(params: Any, key: jax.Array) -> Compared:
        del key
        scores = sums(params)
        return Compared(scores[:number], scores[number:], pairs.label, pairs.mask)

    return compared


def chooser(items: Items, mask: jax.Array, batch_size: int | None) -> Callable[[jax.Array], Items]:
    """The function key -> `batch_size` of the unmasked of items [M, ...], or all M if None."""
    if batch_size is None:
        return lambda key: items
    drawn = drawer(mask.astype(float), batch_size)

    def choose(key: jax.Array) -> Items:
        index = drawn(key)
        return jax.tree.map(lambda leaf: leaf[index], items)

    return choose


def drawer(weights: jax.Array, number: int) -> Callable[[jax.Array], jax.Array]:
    """The function key -> int32[number], indices by weights [n] with replacement.

    Nothing is drawn that has no weight, unless nothing has any.
    """
    cumulative = jnp.cumsum(weights)

    def draw(key: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(key, (number,), cumulative.dtype) * cumulative[-1]
        index = jnp.searchsorted(cumulative, uniform, side="right")
        return jnp.minimum(index, weights.shape[0] - 1).astype(jnp.int32)

    return draw


def mean_over(values: jax.Array, mask: jax.Array) -> jax.Array:
    """[] mean of the unmasked values [M], whatever the masked ones are; 0 where there is none."""
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1)


def accuracy(compared: Compared) -> jax.Array:
    """[] share of the decided answers that the scores agree with; NaN without any."""
    decided = compared.mask & (compared.label != 0.5)
    agrees = (compared.first > compared.second) == (compared.label > 0.5)
    share = mean_over(agrees.astype(compared.first.dtype), decided)
    return jnp.where(jnp.any(decided), share, jnp.nan)
