"""Sums of a table's entries along segments: all that an offline learner asks of a tabular model."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prefs.algorithms.links import Number
from prefs.feedback.segments import Segments


def discounts(length: int, discount: Number, dtype: jnp.dtype) -> jax.Array | None:
    """[length], discount^t; None where all are known to be 1."""
    if isinstance(discount, int | float) and discount == 1:
        return None
    return jnp.power(jnp.asarray(discount, dtype), jnp.arange(length, dtype=dtype))


def step_weights(segments: Segments, discount: Number = 1.0) -> jax.Array:
    """[N, k], discount^t for a segment's steps and 0 for the padding."""
    dtype = segments.rewards.dtype
    weights = discounts(segments.mask.shape[-1], discount, dtype)
    return jnp.where(segments.mask, jnp.ones((), dtype) if weights is None else weights, 0)


def table_segment_sums(
    shape: tuple[int, int], segments: Segments, discount: Number, counts: bool
) -> Callable[[jax.Array], jax.Array]:
    """The function table [S, A] -> [N], the sum over a segment's steps of discount^t table[s, a].

    Args:
      shape: (S, A).
      segments: N, states int32[N, k] in 0..S-1 and actions int32[N, k] in 0..A-1.
      discount: [].
      counts: False looks every step up, which is fastest on a CPU (its caches hold the table).
        True counts the pairs of every segment once, [N, S A], and multiplies: N S A numbers of
        memory, but no scattered additions in the gradient, which suits accelerators.
    """
    size = shape[0] * shape[1]
    index = segments.observations * shape[1] + segments.actions
    if counts:
        weights = step_weights(segments, discount)
        rows = jnp.arange(index.shape[0])[:, None]
        matrix = jnp.zeros((index.shape[0], size), weights.dtype).at[rows, index].add(weights)
        return lambda table: jnp.matmul(matrix, table.reshape(-1), precision="highest")
    index = jnp.where(segments.mask, index, size)  # the padding is an entry of its own, always 0
    powers = discounts(index.shape[1], discount, segments.rewards.dtype)

    def sums(table: jax.Array) -> jax.Array:
        return _look_up(jnp.append(table.reshape(-1), 0), index, powers)

    return sums


def table_totals(shape: tuple[int, int], segments: Segments, weights: jax.Array) -> jax.Array:
    """[S, A], the sum of the weights [N, k] of the steps in which each pair occurs."""
    return jnp.zeros(shape, weights.dtype).at[segments.observations, segments.actions].add(weights)


@jax.custom_vjp
def _look_up(entries: jax.Array, index: jax.Array, powers: jax.Array | None) -> jax.Array:
    """[N], sum_t powers[t] entries[index[n, t]].

    Looked up step by step, the sum runs over whole rows. The gradient adds step by step: neighbours
    are then of different segments, where a pair met again and again would make every addition wait,
    and the slopes are read as they are, instead of being copied out for every step.
    """
    steps = _entries(entries, index.T)
    return jnp.sum(steps if powers is None else steps * powers[:, None], 0)


def _entries(entries: jax.Array, index: jax.Array) -> jax.Array:
    return entries.at[index].get(mode="clip", wrap_negative_indices=False)


def _look_up_forward(entries, index, powers):
    return _look_up(entries, index, powers), (entries, index, powers)


def _look_up_backward(saved, slope):
    entries, index, powers = saved
    total = jnp.zeros_like(entries)
    for step in range(index.shape[1]):
        total = total.at[index[:, step]].add(slope if powers is None else powers[step] * slope)
    if powers is None:
        return total, None, None
    return total, None, jnp.sum(slope * _entries(entries, index.T), 1)


_look_up.defvjp(_look_up_forward, _look_up_backward)
