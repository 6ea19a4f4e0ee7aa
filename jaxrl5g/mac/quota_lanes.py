"""Reductions for instances side by side on the last axis, in the form each backend runs fast.

Arrays are [PRB, user, lane], [PRB, lane] and [user, lane]. XLA's CPU backend scalarises a
reduction together with all that is fused into it, and writes out a term that many slices read;
a sum of terms, each from one slice, stays in vector registers, and a loop's operands are computed
once. So on a CPU (`unrolled`) reductions over users are written out, and reductions over PRBs are
loops over short written-out blocks. Elsewhere they are plain reductions. All of it is integer
arithmetic, or maxima and minima: the results are the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

_OPERATIONS = {
    "max": (jnp.maximum, jnp.max),
    "min": (jnp.minimum, jnp.min),
    "sum": (jnp.add, jnp.sum),
    "or": (jnp.logical_or, jnp.any),
}


def block_of(num_prbs: int) -> int:
    """PRBs in one written-out block: 12 to 20, or all of fewer, leaving the least to padding."""
    if num_prbs <= 20:
        return num_prbs
    return min(range(20, 11, -1), key=lambda block: -num_prbs % block)


def over_users(
    operation: str,
    term: Callable[..., Array],
    arrays: tuple[Array, ...],
    unrolled: bool,
    axis: int = 0,
) -> Array:
    """Reduce what `term` makes of each user's slices, by "max", "min", "sum" or "or"."""
    pair, whole = _OPERATIONS[operation]
    if not unrolled:
        return whole(jax.vmap(term, axis)(*arrays), axis=0)
    users = range(arrays[0].shape[axis])
    return functools.reduce(pair, (term(*(jnp.take(a, u, axis) for a in arrays)) for u in users))


def any_user(flags: Array, unrolled: bool) -> Array:
    """Whether any user's flag is set, bool[R, B] to bool[B]."""
    return over_users("or", lambda flag: flag, (flags,), unrolled)


def over_prbs(
    operation: str,
    term: Callable[..., Array],
    arrays: tuple[Array, ...],
    initial: Array,
    unrolled: bool,
) -> Array:
    """Reduce what `term` makes of each PRB's slices, together with `initial`, both [R, B].

    Where `unrolled`, N must be a multiple of `block_of(N)`.
    """
    pair, whole = _OPERATIONS[operation]
    if not unrolled:
        return pair(initial, whole(jax.vmap(term)(*arrays), axis=0))
    num_prbs = arrays[0].shape[0]
    block = block_of(num_prbs)

    def body(index: Array, total: Array) -> Array:
        for prb in range(block):
            at = index * block + prb
            slices = [jax.lax.dynamic_index_in_dim(a, at, keepdims=False) for a in arrays]
            total = pair(total, term(*slices))
        return total

    return jax.lax.fori_loop(0, num_prbs // block, body, initial)


def lookup(values: Array, index: Array, otherwise: int, unrolled: bool) -> Array:
    """`values[index, lane]` for values [R, B] and index [M, B] in 0..R; R reads `otherwise`.

    An index out of that range reads any of these.
    """
    rows = values.shape[0]
    if not unrolled:
        padded = jnp.concatenate([values, jnp.full_like(values[:1], otherwise)])
        return jnp.take_along_axis(padded, jnp.clip(index, 0, rows), axis=0)
    # a tree of selects by the index's bits: one operation a row, vectorised over lanes
    level = [*values, jnp.full_like(values[0], otherwise)]
    for bit in range(rows.bit_length()):
        odd = (index >> bit) & 1 != 0
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [jnp.where(odd, p[1], p[0]) if len(p) == 2 else p[0] for p in pairs]
    return jnp.broadcast_to(level[0], index.shape)
