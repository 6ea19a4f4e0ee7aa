"""Start prices of the quota resolver: order statistics, then dual steps with momentum."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.mac.quota_fixed_point import (
    FAR,
    WEIGHT_BITS,
    FixedPoint,
    nobody,
    tag_bits,
    tagged_user,
)
from jaxrl5g.mac.quota_lanes import lookup, over_prbs, over_users

_BISECTIONS = 9
_STEPS = 26
_SIZE_BITS = 5
_MAX_SCALED = FAR >> 1


def largest_margin(weights: Array, prices: Array, unrolled: bool) -> Array:
    """max_u (w_un - price_u), int32[N, B], from int32[N, R, B] and int32[R, B]."""
    if not unrolled:
        return jnp.max(weights - prices, axis=1)
    rows = range(prices.shape[0])
    return functools.reduce(jnp.maximum, (weights[:, row] - prices[row] for row in rows))


def best_users(weights: Array, prices: Array, available: Array, unrolled: bool) -> Array:
    """User of largest `weight - price` on every PRB, ties to the lowest index.

    Args:
      weights: int32[N, R, B], tagged.
      prices: int32[R, B], multiples of 2^tag_bits(R): the maximum keeps its user's tag.
      available: bool[N, B].
      unrolled: see `quota_lanes`.

    Returns:
      int32[N, B]; R where the PRB is not available.
    """
    user = tagged_user(largest_margin(weights, prices, unrolled), weights.shape[1])
    return jnp.where(available, user, weights.shape[1])


def best_weights(weights: Array, prices: Array, available: Array, unrolled: bool) -> Array:
    """Tagged weight of `best_users`, int32[N, B]; `nobody` where the PRB is not available."""
    num_users = weights.shape[1]
    margin = largest_margin(weights, prices, unrolled)
    own = margin + lookup(prices, tagged_user(margin, num_users), 0, unrolled)
    return jnp.where(available, own, nobody(num_users))


def count_owned(users: Array, num_users: int, unrolled: bool) -> Array:
    """PRBs of each user, int32[R, B], from owners int32[N, B]."""
    every = jnp.arange(num_users, dtype=jnp.int32)[:, None]
    zeros = jnp.zeros((num_users, users.shape[-1]), jnp.int32)
    return over_prbs("sum", lambda u: (u == every).astype(jnp.int32), (users,), zeros, unrolled)


def thresholds(weights: Array, quotas: Array, unrolled: bool) -> Array:
    """About the q-th largest weight of every user, int32[R, B], as prices.

    Nine bisections: within 1/512 of the range of weights. Above every weight for a quota of 0.
    """
    bits = tag_bits(weights.shape[1])
    top = jnp.int32(1 << (WEIGHT_BITS + bits))

    def bisect(step: Array, low: Array) -> Array:
        middle = low + (top >> (step + 1))
        zeros = jnp.zeros_like(quotas)
        count = over_prbs(
            "sum", lambda w: (w >= middle).astype(jnp.int32), (weights,), zeros, unrolled
        )
        return jnp.where(count >= quotas, middle, low)

    low = jax.lax.fori_loop(0, _BISECTIONS, bisect, jnp.zeros_like(quotas))
    return jnp.where(quotas > 0, low, top + (1 << bits))


def step_size(fixed: FixedPoint, prices: Array, quotas: Array) -> Array:
    """First dual step for one misplaced PRB, int32[B], in units of weight.

    Eight times the mean distance of a user's largest weight from its threshold, over N.
    """
    num_prbs, num_users, _ = fixed.weights.shape
    peak = ((fixed.peak - fixed.low) * fixed.scale).astype(jnp.int32)
    above = peak - (prices >> tag_bits(num_users))
    spread = jnp.sum(jnp.where(quotas > 0, above, 0), axis=0)
    users = jnp.maximum(jnp.sum(quotas > 0, axis=0, dtype=jnp.int32), 1)
    return jnp.maximum(8 * (spread // (users * num_prbs)), 1)


def dual_steps(
    weights: Array, prices: Array, size: Array, quotas: Array, available: Array, unrolled: bool
) -> Array:
    """The best prices met on the way towards counts that equal the quotas, int32[R, B].

    Subgradient steps with momentum on D(lam) = sum_n max_u (w_un - lam_u) + sum_u q_u lam_u, each
    29/32 as long as the last. Best are the first that leave the fewest PRBs misplaced.
    """
    num_prbs, num_users, _ = weights.shape
    bits = tag_bits(num_users)

    def step(_: Array, state: tuple[Array, Array, Array, Array, Array]):
        prices, speed, size, best, least = state
        users = best_users(weights, prices, available, unrolled)
        excess = count_owned(users, num_users, unrolled) - quotas
        misplaced = imbalance(excess, unrolled)
        best = jnp.where(misplaced < least, prices, best)
        speed = (speed >> 1) + (size >> _SIZE_BITS) * excess
        prices = jnp.clip(prices + (speed << bits), -_MAX_SCALED, _MAX_SCALED)
        return prices, speed, size - 3 * (size >> 5), best, jnp.minimum(misplaced, least)

    least = jnp.full(prices.shape[1:], num_prbs + 1)
    start = (prices, jnp.zeros_like(prices), size << _SIZE_BITS, prices, least)
    return jax.lax.fori_loop(0, _STEPS, step, start)[3]


def imbalance(excess: Array, unrolled: bool) -> Array:
    """PRBs owned beyond their owners' quotas, int32[B]."""
    return over_users("sum", lambda e: jnp.maximum(e, 0), (excess,), unrolled)
