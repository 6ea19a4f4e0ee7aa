"""One slot as the controller works it through: what is known, then PRBs, then power."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl5g.mac import Observation
from jaxrl5g.mac.muting import rates_at, serve
from jaxrl5g.mac.numerics import grant_matrix
from jaxrl5g.mac.rates import predicted_rates
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.schedulers import largest_metric, price


class Slot(NamedTuple):
    """What parallel proportional fair makes of a slot, from which both agents start.

    Attributes:
      mean: float32[C, U], the scheduler's average T of acknowledged bits per slot.
      prices: float32[C, U], the value of a bit: 1 / T, unless it was tilted (`weigh`).
      rates: float32[C, U, S], predicted bits per PRB of each subband.
      reservation: PRBs held for retransmissions, and who may be given new data.
      fair_owner: int32[C, N], argmax of r times the price over eligible users, -1 where
        there is none.
      counts: int32[C, U], free PRBs that this gives each user.
      levels: float32[C, N], powers in force in units of the reference power, where cells decide
        together (`coordinate`), else None; rates, owners and counts are then those under them.
    """

    mean: jax.Array
    prices: jax.Array
    rates: jax.Array
    reservation: Reservation
    fair_owner: jax.Array
    counts: jax.Array
    levels: jax.Array | None = None


def prepare(observation: Observation, mean: jax.Array, params: Any) -> Slot:
    """Proportional fair's view of a slot.

    Args:
      observation: of this slot.
      mean: float32[C, U], average of acknowledged bits, the last slot's included.
      params: the environment's parameters.
    """
    reservation = reserve_retransmissions(observation, params.config)
    rates = predicted_rates(observation, params)
    return _priced(price(mean, 1.0), mean, rates, reservation, params)


def weigh(slot: Slot, factor: jax.Array, params: Any) -> Slot:
    """The same slot where a bit of each user is worth `factor` / T, float32[C, U]."""
    cost = price(slot.mean, 1.0) / factor
    return _priced(cost, slot.mean, slot.rates, slot.reservation, params)


def coordinate(slot: Slot, levels: jax.Array | None, observation: Observation, params: Any) -> Slot:
    """The same slot where cells keep to the levels that they have agreed on.

    Args:
      slot: from `prepare`.
      levels: float32[C, N], powers in units of the reference power, 0 for muted; None for no
        agreement, which leaves the slot as it is.
      observation: of this slot, with centralised CSI.
      params: the environment's parameters.
    """
    if levels is None:
        return slot
    rates = rates_at(levels, observation, params)
    owner = serve(slot.prices[..., None] * rates, levels, slot.reservation, params)
    fair_owner, counts = _fair(owner, slot.reservation, params)
    return slot._replace(rates=rates, fair_owner=fair_owner, counts=counts, levels=levels)


def _priced(
    cost: jax.Array, mean: jax.Array, rates: jax.Array, reservation: Reservation, params: Any
) -> Slot:
    """The slot in which free PRBs go to eligible users of the largest r over the cost of a bit."""
    chosen = largest_metric(rates / cost[..., None], reservation.eligible, params.config)
    return Slot(mean, 1.0 / cost, rates, reservation, *_fair(chosen, reservation, params))


def _fair(chosen: jax.Array, reservation: Reservation, params: Any) -> tuple[jax.Array, jax.Array]:
    """Owners of free PRBs, -1 on the others, and how many each user has."""
    owner = jnp.where(reservation.owner < 0, chosen, -1)
    return owner, jnp.sum(grant_matrix(owner, params.config.num_users), axis=-1, dtype=jnp.int32)
