"""Weights of an instance as fixed point integers that also name their user."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.mac.quota_lanes import block_of, over_users

WEIGHT_BITS = 19
"""Fixed point weights lie in [0, 2^19] and reach above 2^18."""

FAR = 1 << 28
"""Beyond every tagged weight and price: the weight of what owns a PRB that is not available."""

_LARGEST = 1e37  # prices, some ranges beyond, are still finite
_LEAST_EXPONENT = -100
_INFINITY = 0x7F800000


class FixedPoint(NamedTuple):
    """Tagged weights: `floor((weight - low) * scale + 1/2) * 2^tag_bits(R) + tag of user`.

    Attributes:
      weights: int32[N, R, B], tagged; the integer is in [0, 2^19], 0 where user or PRB takes no
        part.
      plain: int32[N, B], tagged weight of the user taking part that has the largest weight before
        rounding, ties to the lowest index.
      low: float32[B], the least weight taking part.
      scale: float32[B], a power of two, so that no multiplication by it rounds.
      peak: float32[R, B], every user's largest finite weight on an available PRB, else `low`.
    """

    weights: Array
    plain: Array
    low: Array
    scale: Array
    peak: Array


def tag_bits(num_users: int) -> int:
    """Bits below a weight's unit, enough to count the hops of any path and to name any user."""
    return num_users.bit_length()


def tags(num_users: int) -> Array:
    """Tag of each user, int32[R, 1], falling: of equal weights the lowest index is largest."""
    last = (1 << tag_bits(num_users)) - 1
    return last - jnp.arange(num_users, dtype=jnp.int32)[:, None]


def tagged_user(weight: Array, num_users: int) -> Array:
    """User named by a tagged weight; R for what owns a PRB that is not available."""
    last = (1 << tag_bits(num_users)) - 1
    return last - (weight & last)


def nobody(num_users: int) -> int:
    """Tagged weight of what owns a PRB that is not available."""
    return FAR + (1 << tag_bits(num_users)) - 1 - num_users


def quantise(weights: Array, entitled: Array, available: Array, unrolled: bool) -> FixedPoint:
    """Weights in fixed point relative to the range of those that take part.

    Args:
      weights: float32[N, R, B]; NaN and -inf count as the least finite weight taking part, +inf
        as the largest; beyond +-1e37 counts as +-1e37, and a range below 2^-101 as none.
      entitled: bool[R, B], users with a quota.
      available: bool[N, B].
      unrolled: see `quota_lanes`.
    """
    num_prbs, num_users, lanes = weights.shape
    block = block_of(num_prbs) if unrolled else num_prbs
    count = num_prbs // block
    blocks = (
        weights.reshape(count, block, num_users, lanes),
        available.reshape(count, block, lanes),
    )
    lowest, highest = jnp.int32(_order(jnp.float32(-jnp.inf))), jnp.int32(_INFINITY)

    def extend(carry: tuple[Array, Array], arrays: tuple[Array, Array]):
        floor, peak = carry
        for raw, here in zip(*arrays, strict=True) if unrolled else [arrays]:
            order = _order(raw)
            finite = here[..., None, :] & (order > lowest) & (order < highest)
            above = jnp.where(finite, order, highest)
            below = jnp.where(finite, order, lowest)
            if not unrolled:
                above, below = jnp.min(above, axis=0), jnp.max(below, axis=0)
            floor, peak = jnp.minimum(floor, above), jnp.maximum(peak, below)
        return (floor, peak), None

    start = (jnp.full((num_users, lanes), highest), jnp.full((num_users, lanes), lowest))
    (floor, peak), _ = jax.lax.scan(extend, start, blocks)
    low = over_users("min", lambda f, e: jnp.where(e, f, highest), (floor, entitled), unrolled)
    high = over_users("max", lambda p, e: jnp.where(e, p, lowest), (peak, entitled), unrolled)
    some = low <= high
    low = jnp.where(some, jnp.clip(_value(low), -_LARGEST, _LARGEST), 0.0)
    high = jnp.where(some, jnp.clip(_value(high), -_LARGEST, _LARGEST), 0.0)
    # range < 2^exponent
    exponent = (jax.lax.bitcast_convert_type(high - low, jnp.int32) >> 23) - 126
    exponent = jnp.maximum(exponent, _LEAST_EXPONENT)
    scale = jax.lax.bitcast_convert_type((WEIGHT_BITS - exponent + 127) << 23, jnp.float32)
    first, last = _order(low), _order(high)
    tag = tags(num_users)

    def convert(arrays: tuple[Array, Array]) -> Array:
        raw, here = arrays
        present = entitled & here[:, None] & (jnp.abs(raw) <= jnp.inf)  # a NaN is not
        order = jnp.where(present, jnp.clip(_order(raw), first, last), first)
        fixed = ((_value(order) - low) * scale + 0.5).astype(jnp.int32)
        return (fixed << tag_bits(num_users)) + tag

    # a loop, so that the range is computed once and not for every weight
    fixed = jax.lax.map(convert, blocks).reshape(weights.shape)
    peak = jnp.where(peak > lowest, jnp.clip(_value(peak), -_LARGEST, _LARGEST), low)
    plain = _largest(weights, fixed, entitled)
    return FixedPoint(fixed, jnp.where(available, plain, nobody(num_users)), low, scale, peak)


def _largest(weights: Array, fixed: Array, entitled: Array) -> Array:
    """Tagged weight of the entitled user of largest weight, int32[N, B]; NaN is the least."""
    lowest = _order(jnp.float32(-jnp.inf))
    best = jnp.full(weights.shape[::2], lowest - 1)
    found = jnp.zeros_like(best)
    for user in range(weights.shape[1]):
        raw = weights[:, user]
        order = jnp.where(jnp.isnan(raw), lowest, _order(raw))
        ahead = entitled[user] & (order > best)
        best = jnp.where(ahead, order, best)
        found = jnp.where(ahead, fixed[:, user], found)
    return found


def _order(values: Array) -> Array:
    """Integers in the order of float32 values: a CPU compares and limits them faster."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _value(order: Array) -> Array:
    """Inverse of `_order`, which is its own inverse on the bits."""
    return jax.lax.bitcast_convert_type(order ^ ((order >> 31) & 0x7FFFFFFF), jnp.float32)
