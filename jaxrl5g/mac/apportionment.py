"""Shares to whole PRBs: largest remainder, in exact integer arithmetic."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_MAX_USERS = 1 << 12
_COUNT_BITS = 15


def apportion(shares: ArrayLike, num_prbs: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Whole numbers of PRBs in proportion to shares, by largest remainder (Hamilton's method).

    User u is entitled to num_prbs * s_u / sum(s), gets the integer part of it, and the PRBs left
    go one each to the largest remainders, ties to the lowest index. So |q_u - num_prbs s_u| < 1
    for shares that sum to 1. Shares are read as integers of 30 - ceil(log2 U) bits below the
    power of two above the largest; from there on nothing is rounded, so equal shares are equal
    and counts c given as c / num_prbs come back as c.

    Args:
      shares: float[..., U], at most 4096 users; need not sum to 1. Negative, infinite and NaN
        shares count as 0, and so do those below 1.2e-38. If nothing positive is left, all unmasked
        users share equally.
      num_prbs: int[] or an int32 array that broadcasts against `...`, 0 to 32767; below 0 counts
        as 0 when traced.
      mask: bool[..., U], False for users that get nothing; None for no such user.

    Returns:
      int32[..., U] that sums to num_prbs; all zeros where every user is masked.

    Raises:
      ValueError: no user axis, too many users, or a concrete num_prbs that is not an integer
        from 0 to 32767.
    """
    shares = jnp.asarray(shares)
    if shares.ndim < 1 or not 1 <= shares.shape[-1] <= _MAX_USERS:
        raise ValueError(
            f"shares must be [..., U] with U from 1 to {_MAX_USERS}, got shape {shares.shape}."
        )
    num_users = shares.shape[-1]
    shares = shares.astype(jnp.float32)
    mask = jnp.ones(shares.shape, bool) if mask is None else jnp.asarray(mask, bool)
    shares, mask = jnp.broadcast_arrays(shares, mask)
    count = _checked_count(num_prbs)[..., None]

    valid = mask & (shares >= jnp.finfo(jnp.float32).tiny) & jnp.isfinite(shares)
    parts = _fixed_point(jnp.where(valid, shares, 0.0), 30 - (num_users - 1).bit_length())
    parts = jnp.where(jnp.any(parts > 0, axis=-1, keepdims=True), parts, mask.astype(jnp.int32))
    whole, rest = _long_division(count, parts)
    left = count - jnp.sum(whole, axis=-1, keepdims=True)
    # a user without a share has remainder 0 and never ranks among those that are rounded up
    rest = jnp.where(parts > 0, rest, -1)
    users = jnp.arange(num_users)
    ahead = (rest[..., None, :] > rest[..., :, None]) | (
        (rest[..., None, :] == rest[..., :, None]) & (users[None, :] < users[:, None])
    )
    rank = jnp.sum(ahead, axis=-1, dtype=jnp.int32)
    quotas = whole + (rank < left).astype(jnp.int32)
    return jnp.where(jnp.any(mask, axis=-1, keepdims=True), quotas, 0)


def _checked_count(num_prbs: ArrayLike) -> Array:
    limit = (1 << _COUNT_BITS) - 1
    if not isinstance(num_prbs, jax.Array):
        try:
            number = operator.index(num_prbs)  # pyright: ignore[reportArgumentType]
        except TypeError:
            number = -1
        if not 0 <= number <= limit:
            raise ValueError(f"num_prbs must be an integer from 0 to {limit}, got {num_prbs!r}.")
    return jnp.clip(jnp.asarray(num_prbs, jnp.int32), 0, limit)


def _fixed_point(values: Array, bits: int) -> Array:
    """Finite float32[..., U] >= 0 as integers, the largest of a row from 2^(bits-1) to 2^bits."""
    largest = jnp.max(values, axis=-1, keepdims=True)
    exponent = (jax.lax.bitcast_convert_type(largest, jnp.int32) >> 23) - 126  # largest < 2^it
    shift = bits - exponent
    # two exact factors, as one may lie beyond float32
    scaled = values * _power_of_two(shift // 2) * _power_of_two(shift - shift // 2)
    return scaled.astype(jnp.int32)


def _power_of_two(exponent: Array) -> Array:
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def _long_division(count: Array, parts: Array) -> tuple[Array, Array]:
    """Floor and remainder of count * parts / sum(parts), bit by bit of the count.

    The product needs up to 45 bits, but no step exceeds three times sum(parts) <= 2^30.
    """
    parts = parts.astype(jnp.uint32)
    total = jnp.sum(parts, axis=-1, keepdims=True)
    total = jnp.maximum(total, 1)

    shape = jnp.broadcast_shapes(count.shape, parts.shape)
    whole, rest = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.uint32)
    for bit in reversed(range(_COUNT_BITS)):
        rest = 2 * rest + jnp.where((count >> bit) & 1 > 0, parts, 0).astype(jnp.uint32)
        whole = 2 * whole
        for _ in range(2):  # rest < 3 total
            over = rest >= total
            whole = whole + over.astype(jnp.int32)
            rest = jnp.where(over, rest - total, rest)
    return whole, rest.astype(jnp.int32)
