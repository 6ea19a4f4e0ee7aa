"""The quota resolver on a batch of instances side by side: start, phases, certificate."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.mac.quota_fixed_point import (
    WEIGHT_BITS,
    FixedPoint,
    quantise,
    tag_bits,
    tagged_user,
    tags,
)
from jaxrl5g.mac.quota_lanes import any_user, lookup, over_users
from jaxrl5g.mac.quota_paths import Assignment, phase, unbalanced
from jaxrl5g.mac.quota_prices import (
    best_users,
    best_weights,
    count_owned,
    dual_steps,
    imbalance,
    largest_margin,
    step_size,
    thresholds,
)

_MAX_PRICE = 2 << WEIGHT_BITS


class Instances(NamedTuple):
    """A batch of instances, user R - 1 standing for idle PRBs.

    Attributes:
      fixed: quantised weights.
      quotas: int32[R, B], which sum to the number of available PRBs.
      available: bool[N, B].
      valid: bool[B], the caller's quotas can be met.
    """

    fixed: FixedPoint
    quotas: Array
    available: Array
    valid: Array


def prepare(quotas: Array, weights: Array, available: Array, unrolled: bool) -> Instances:
    """Instances from int32[R - 1, B], float32[N, R, B] (last user ignored) and bool[N, B]."""
    room = jnp.sum(available, axis=0, dtype=jnp.int32)
    total = over_users("sum", lambda q: q, (quotas,), unrolled)
    valid = ~any_user((quotas < 0) | (quotas > room), unrolled) & (total <= room)
    quotas = jnp.where(valid, quotas, 0)
    idle = room - jnp.where(valid, total, 0)
    entitled = jnp.concatenate([quotas > 0, jnp.zeros_like(valid)[None]])
    fixed = quantise(weights, entitled, available, unrolled)
    return Instances(fixed, jnp.concatenate([quotas, idle[None]]), available, valid)


def begin(instances: Instances, dual: Array | None, unrolled: bool) -> Assignment:
    """Prices and owners to start from: balanced already in many lanes, nearly so in the others.

    The owners of largest weight, as they are before rounding, if they meet the quotas; else where
    dual steps lead from `dual`, float32[R - 1, B], or from thresholds, whichever misplaces fewer.
    """
    fixed, quotas, available, _ = instances
    weights = fixed.weights
    num_users = weights.shape[1]

    def excess_of(users: Array) -> Array:
        return count_owned(users, num_users, unrolled) - quotas

    prices = thresholds(weights, quotas, unrolled)
    size = step_size(fixed, prices, quotas)
    if dual is not None:
        last = _carried_prices(dual, instances)
        misplaced = [
            imbalance(excess_of(best_users(weights, p, available, unrolled)), unrolled)
            for p in (last, prices)
        ]
        prices = jnp.where(misplaced[0] <= misplaced[1], last, prices)
    prices = dual_steps(weights, prices, size, quotas, available, unrolled)
    own = best_weights(weights, prices, available, unrolled)
    settled = ~unbalanced(excess_of(tagged_user(fixed.plain, num_users)), unrolled)
    own = jnp.where(settled, fixed.plain, own)
    above = jnp.int32(_MAX_PRICE << tag_bits(num_users))
    prices = jnp.where(settled, jnp.where(quotas > 0, 0, above), prices)
    excess = excess_of(tagged_user(own, num_users))
    return Assignment(prices + tags(num_users), own, excess)


def _carried_prices(dual: Array, instances: Instances) -> Array:
    """Prices in units of weights as prices of tagged weights; NaN counts as no price."""
    fixed, quotas, _, _ = instances
    units = jnp.clip((dual - fixed.low) * fixed.scale, -_MAX_PRICE, _MAX_PRICE)
    units = jnp.where(jnp.isnan(units), 0.0, units).astype(jnp.int32)
    prices = jnp.concatenate([units, jnp.zeros_like(units[:1])])
    prices = jnp.where(quotas > 0, prices, _MAX_PRICE)
    return prices << tag_bits(prices.shape[0])


def balance(instances: Instances, state: Assignment, limit: int, unrolled: bool) -> Assignment:
    """Phases until every lane is balanced, or `limit` of them."""

    def unfinished(carry: tuple[Assignment, Array]) -> Array:
        return jnp.any(unbalanced(carry[0].excess, unrolled)) & (carry[1] < limit)

    def body(carry: tuple[Assignment, Array]) -> tuple[Assignment, Array]:
        return phase(instances.fixed.weights, carry[0], unrolled), carry[1] + 1

    return jax.lax.while_loop(unfinished, body, (state, jnp.int32(0)))[0]


def finish(instances: Instances, state: Assignment, unrolled: bool) -> tuple[Array, Array, Array]:
    """Owners int32[N, B], dual float32[R - 1, B] and gap int32[B]; see `resolve_quotas`."""
    fixed, quotas, available, valid = instances
    weights = fixed.weights
    num_users = weights.shape[1]
    bits = tag_bits(num_users)
    prices = _whole_prices(state.prices - tags(num_users), bits, unrolled)
    tagged = (prices << bits) + tags(num_users)
    owner = tagged_user(state.own, num_users)
    margin = state.own - lookup(tagged, owner, 0, unrolled)
    lost = (largest_margin(weights, tagged, unrolled) - margin) >> bits
    gap = jnp.sum(jnp.where(available, lost, 0), axis=0)
    proven = valid & ~unbalanced(state.excess, unrolled)
    owner = jnp.where(proven & (owner < num_users - 1), owner, -1)
    relative = (prices[:-1] - prices[-1]).astype(jnp.float32) / fixed.scale
    dual = jnp.where(quotas[:-1] > 0, relative + fixed.low, fixed.peak[:-1])
    return owner, dual, jnp.where(proven, gap, -1)


def _whole_prices(prices: Array, bits: int, unrolled: bool) -> Array:
    """Scaled prices in units of weights, rounded so that optimality survives.

    A hop's extra cost leaves `price_l >= price_a - m - 1` with a whole number of units m. Rounding
    down keeps `>= price_a - m` unless price_a is itself a whole number of units: so first add
    what makes none of the R < 2^bits prices one.
    """
    mask = (1 << bits) - 1
    shifts = jnp.arange(1 << bits, dtype=jnp.int32)[:, None]
    taken = over_users("or", lambda price: (-price & mask) == shifts, (prices,), unrolled)
    shift = jnp.min(jnp.where(taken, mask, shifts), axis=0)
    return (prices + shift) >> bits
