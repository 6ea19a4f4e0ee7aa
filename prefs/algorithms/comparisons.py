"""The answered comparisons of a run, at the front of a buffer of fixed capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

_ROWS = 64  # rows folded at a time: what lies behind the last comparison costs nothing

Carry = TypeVar("Carry")


class Comparisons(struct.PyTreeNode):
    """Rows from 0 to count - 1 are comparisons in the order they were made; the rest is zero.

    Attributes:
      x: [M, D], feature difference, first trajectory less second.
      sign: [M], +1 where the first was preferred and -1 where the second was.
      count: int32[].
    """

    x: jax.Array
    sign: jax.Array
    count: jax.Array


def empty(capacity: int, dimension: int, dtype: DTypeLike = float) -> Comparisons:
    """No comparisons yet, room for at least `capacity`."""
    rows = -(-capacity // _ROWS) * _ROWS if capacity > _ROWS else capacity
    return Comparisons(
        jnp.zeros((rows, dimension), dtype), jnp.zeros(rows, dtype), jnp.zeros((), jnp.int32)
    )


def append(comparisons: Comparisons, x: jax.Array, sign: jax.Array, kept: jax.Array) -> Comparisons:
    """Add those of x [K, D], sign [K] that bool[K] `kept` marks; what finds no room is lost."""
    rows = comparisons.x.shape[0]
    place = comparisons.count + jnp.cumsum(kept, dtype=jnp.int32) - 1
    place = jnp.where(kept, place, rows)
    return Comparisons(
        comparisons.x.at[place].set(x, mode="drop"),
        comparisons.sign.at[place].set(sign, mode="drop"),
        jnp.minimum(comparisons.count + jnp.sum(kept, dtype=jnp.int32), rows),
    )


def fold(
    comparisons: Comparisons,
    initial: Carry,
    add: Callable[[Carry, jax.Array, jax.Array, jax.Array, jax.Array], Carry],
) -> Carry:
    """Fold `add(carry, index, x, sign, valid)` over blocks of rows.

    Args:
      comparisons: the buffer.
      initial: what is returned when there are none.
      add: gets the block's number int32[], rows [R, D] and [R], and bool[R], False behind the last.
    """
    size = min(_ROWS, comparisons.x.shape[0])

    def step(index, carry):
        start = index * size
        x = jax.lax.dynamic_slice_in_dim(comparisons.x, start, size)
        sign = jax.lax.dynamic_slice_in_dim(comparisons.sign, start, size)
        return add(carry, index, x, sign, start + jnp.arange(size) < comparisons.count)

    return jax.lax.fori_loop(0, -(-comparisons.count // size), step, initial)
