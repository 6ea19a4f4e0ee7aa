"""The most weighted bits that one slot can carry, bounded by Lagrangian duality.

For weights w and the power budget, W(w) = max over owners and powers of the sum over PRBs of
w_owner r(SINR), r the envelope of `jaxrl5g.phy.rate_envelope`. With a price mu per unit of power
the PRBs part, and every price gives an upper bound: mu + sum_n max_k w_k r*(mu / (w_k rho_kn)),
r* the conjugate of r and rho the SINR of the whole budget on one PRB. See docs/bounds.md.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl5g.phy.lookup import take
from jaxrl5g.phy.rate_envelope import RateEnvelope

_NODES = 2048
_DECADES = 7.0
_WEAKEST = 1e-9  # SINR of the whole budget below which a PRB is taken to have this much
_SAFETY = 1.0 + 1e-5  # against float32 rounding


class ConjugateTable(struct.PyTreeNode):
    """r* of F envelopes between Q prices: chords, which lie above a convex function.

    Attributes:
      rate: float32[F * Q], r* at price 0 by each chord: the rate at the maximiser.
      sinr: float32[F * Q], minus the slope: the maximiser.
      log_first: ln of the smallest price but 0; per_log: nodes per unit of ln(price).
      size: Q.
    """

    rate: jax.Array
    sinr: jax.Array
    log_first: jax.Array
    per_log: jax.Array
    size: int = struct.field(pytree_node=False)


def conjugate_table(envelopes: tuple[RateEnvelope, ...]) -> ConjugateTable:
    """Tables of some envelopes on common prices, from 0 to where no power is worth buying."""
    last = max(envelope.steepest for envelope in envelopes) * (1.0 + 1e-6)
    prices = last * np.geomspace(10.0**-_DECADES, 1.0, _NODES - 1)
    rates, sinrs = [], []
    for envelope in envelopes:
        value = envelope.conjugate(prices)
        value = np.concatenate([[envelope.top], value])
        nodes = np.concatenate([[0.0], prices])
        sinr = -np.diff(value) / np.diff(nodes)
        rate = value[:-1] + sinr * nodes[:-1]
        rates.append(np.append(rate, envelope.floor) * _SAFETY)
        sinrs.append(np.append(sinr, 0.0))
    return ConjugateTable(
        rate=jnp.asarray(np.concatenate(rates), jnp.float32),
        sinr=jnp.asarray(np.concatenate(sinrs), jnp.float32),
        log_first=jnp.float32(math.log(prices[0])),
        per_log=jnp.float32((_NODES - 2) / (_DECADES * math.log(10.0))),
        size=_NODES,
    )


def conjugate(table: ConjugateTable, price: jax.Array, choice: jax.Array):
    """(r* from above, rate and SINR of its maximiser) at prices > 0 of any shape.

    Args:
      price: float32[...], bits per unit of linear SINR. choice: int32[...], which envelope.
    """
    place = (jnp.log(price) - table.log_first) * table.per_log + 1.0
    node = jnp.clip(place, 0.0, table.size - 1.0).astype(jnp.int32) + table.size * choice
    rate, sinr = take(table.rate, node), take(table.sinr, node)
    return jnp.maximum(rate - sinr * price, 0.0), rate, sinr


class Maximiser(struct.PyTreeNode):
    """What maximises a slot's Lagrangian, and hints for the next iteration.

    Attributes:
      rates: float32[U], bits.
      power: float32[], budgets.
      charge: float32[F, U], what each user's PRBs would add to the bound under each envelope.
    """

    rates: jax.Array
    power: jax.Array
    charge: jax.Array


def lagrangian(
    table: ConjugateTable,
    power_price: jax.Array,
    snr: jax.Array,
    weights: jax.Array,
    choice: jax.Array,
    sharing: jax.Array,
) -> tuple[jax.Array, Maximiser]:
    """The dual function of one cell and slot.

    Args:
      power_price: float32[] > 0, weighted bits for the whole budget.
      snr: float32[U, N], linear SINR of the whole budget on one PRB.
      weights: float32[U], at least 0; 0 for absent users.
      choice: int32[U], envelope of each user.
      sharing: float32[] > 0, how far below the best user of a PRB, relatively, another still
        takes part of it in the maximiser; the bound does not depend on it.

    Returns:
      (upper bound of the weighted bits float32[], its maximiser).
    """
    snr = jnp.maximum(snr, _WEAKEST)
    present = weights[:, None] > 0
    weight = jnp.maximum(weights, 1e-30)[:, None]
    price = power_price / (weight * snr)
    value, rate, sinr = conjugate(table, price, choice[:, None])
    value = jnp.where(present, weight * value, 0.0)
    best = jnp.max(value, axis=0)
    behind = (best - value) / jnp.maximum(best, 1e-30)
    share = jnp.where(present, jnp.exp(-behind / sharing), 0.0)
    share = share / jnp.sum(share, axis=0)
    # by index: compared as floats, no user need equal a maximum that is computed a second time
    winner = jnp.argmax(jnp.where(present, value, -1.0), axis=0)
    first = jnp.where(jnp.arange(len(weights))[:, None] == winner, share, 0.0)
    winner_price = jnp.take_along_axis(price, winner[None], axis=0)[0]
    every = jnp.arange(table.rate.shape[0] // table.size, dtype=jnp.int32)[:, None]
    charge = jnp.matmul(conjugate(table, winner_price, every)[0], first.T)
    return (power_price + jnp.sum(best)) * _SAFETY, Maximiser(
        rates=jnp.sum(share * rate, axis=1), power=jnp.sum(share * sinr / snr), charge=charge
    )


def slot_bound(
    table: ConjugateTable,
    snr: jax.Array,
    weights: jax.Array,
    choice: jax.Array,
    low: jax.Array,
    high: jax.Array,
    sharing: jax.Array,
    steps: jax.Array,
) -> tuple[jax.Array, Maximiser, jax.Array]:
    """Bisects the price of power in [low, high], in its logarithm, for the smallest bound.

    Any price is valid, so the bound holds whatever the bracket and the number of steps.

    Args:
      snr, weights, choice, sharing: as in `lagrangian`.
      low, high: float32[], 0 < low < high.
      steps: int32[], bisections.

    Returns:
      (smallest bound met float32[], maximiser at the last price, last price float32[]).
    """

    def middle(low, high):
        return jnp.sqrt(low) * jnp.sqrt(high)

    def step(_, carry):
        low, high, smallest = carry
        price = middle(low, high)
        bound, at = lagrangian(table, price, snr, weights, choice, sharing)
        low, high = jnp.where(at.power > 1.0, price, low), jnp.where(at.power > 1.0, high, price)
        return low, high, jnp.minimum(smallest, bound)

    low, high, smallest = jax.lax.fori_loop(0, steps, step, (low, high, jnp.float32(jnp.inf)))
    price = middle(low, high)
    bound, at = lagrangian(table, price, snr, weights, choice, sharing)
    return jnp.minimum(smallest, bound), at, price
