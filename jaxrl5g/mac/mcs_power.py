"""MCS-aware power: one MCS per user makes power a multiple-choice knapsack.

Lifting user u to MCS m costs the least power c_um that meets the MCS's threshold through EESM
(`eesm_split`) and is worth w_u times its transport block. Choosing at most one MCS per user within
the budget is a multiple-choice knapsack (Sinha and Zoltners, Operations Research 27, 1979). Its
linear relaxation is solved exactly by the upper hull of every user's (cost, value) points: steps
along the hulls are taken in order of value per watt until the budget is spent, and the part of
the step that no longer fits gives the bound. The integral solution keeps the whole steps and fills
the rest with the best upgrades that still fit, alone or paid for by another user's downgrade.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl5g import phy
from jaxrl5g.mac.eesm_split import read_grants, split_levels, split_power, thresholds
from jaxrl5g.mac.numerics import (
    check_axis,
    grant_matrix,
    non_negative,
    of_owner,
    pairwise_sum,
    positive_or_one,
)
from jaxrl5g.mac.power import budget_left, reference_power
from jaxrl5g.mac.rates import owner_gains
from jaxrl5g.mac.types import CellParams, Observation
from jaxrl5g.phy.lookup import unfused

_ROUNDS, _UP, _DOWN = 3, 8, 4  # exchanges after the greedy solution, and their reach in MCS
_ROUNDING = 1e-5  # costs are good to this
_SAFETY = 2e-4
"""Relative margin on thresholds, 0.001 dB: link adaptation must not miss them by rounding."""
_LARGEST_EFFECTIVE = 1e3


class McsPower(NamedTuple):
    """A choice of MCS and the power for it.

    Attributes:
      power: float32[..., N], watts per PRB; 0 for users without an MCS.
      mcs: int32[..., U], MCS that the power is meant for, -1 for none.
      value: float32[...], sum of weight times rate over the chosen.
      bound: float32[...], optimum of the linear relaxation over the MCS that a user could have
        alone within the budget: no choice has a larger value.
      gap: float32[...], (bound - value) / bound, at least 0; 0 where nothing can be had.
    """

    power: jax.Array
    mcs: jax.Array
    value: jax.Array
    bound: jax.Array
    gap: jax.Array


def mcs_knapsack_power(
    owner: ArrayLike,
    gains: ArrayLike,
    weights: ArrayLike,
    power_budget: ArrayLike,
    required: ArrayLike,
    rates: ArrayLike,
    *,
    active: ArrayLike | None = None,
    spend_all: bool = True,
    table: int = 1,
) -> McsPower:
    """One MCS per user and the least power for it, maximising the weighted sum of rates.

    Args:
      owner: int32[..., N], the user of each PRB; anything outside 0..U-1 is muted.
      gains: float[..., N], SNR per watt of each PRB at its owner as predicted, at least 0.
      weights: float[..., U], value of a bit of each user, at least 0.
      power_budget: float[] or float[...], watts for the active PRBs.
      required: float[..., U, M], linear effective SINR that each MCS needs with the user's grant,
        the OLLA offset included; all M MCS of `table` in order.
      rates: float[..., U, M], bits that each MCS carries with the user's grant.
      active: bool[..., N], PRBs to decide on, all by default. The others (retransmissions) are
        left out of every grant and get power 0: the caller adds theirs, from a budget of its own.
      spend_all: scale all powers up by one factor to spend the whole budget, so that every chosen
        MCS keeps a margin; else only what the MCS need is spent.
      table: MCS table, 1 or 2.

    Returns:
      `McsPower`. NaN and negative gains, weights, budgets and rates count as 0; a NaN or infinite
      threshold is out of reach. The bound grows with the budget, and so does the value, up to the
      gap.

    Raises:
      ValueError: unknown table, or shapes that do not fit.
    """
    owner = jnp.asarray(owner, jnp.int32)
    gains, weights = non_negative(gains), non_negative(weights)
    required, rates = thresholds(required), non_negative(rates)
    beta = phy.eesm_beta(table)
    check_axis("owner", owner, "[..., N]")
    check_axis("weights", weights, "[..., U]")
    num_users = weights.shape[-1]
    for name, array in (("required", required), ("rates", rates)):
        if array.shape[-2:] != (num_users, len(beta)):
            raise ValueError(
                f"{name} must have shape [..., {num_users}, {len(beta)}] ({num_users} weights, MCS "
                f"table {table}), got {array.shape}."
            )
    if gains.shape[-1] != owner.shape[-1]:
        raise ValueError(f"gains of shape {gains.shape} do not fit owner of shape {owner.shape}.")
    if active is not None:
        owner = jnp.where(jnp.asarray(active, bool), owner, -1)

    budget = non_negative(power_budget)
    # the budget is 1 from here on
    grant = read_grants(owner, non_negative(gains * budget[..., None]), num_users)
    cost, height = split_levels(grant, required, jnp.asarray(beta))
    cost, worth = jnp.broadcast_arrays(cost, non_negative(weights[..., None] * rates))
    unit = positive_or_one(jnp.max(worth, axis=(-2, -1)))
    mcs, value, bound = _knapsack(cost, worth / unit[..., None, None])

    chosen = jnp.maximum(mcs, 0)
    height = jnp.take_along_axis(height, chosen[..., None], axis=-1)[..., 0]
    power = split_power(grant, owner, height, jnp.asarray(beta)[chosen])
    power = jnp.where(of_owner((mcs >= 0).astype(jnp.float32), owner) > 0, power, 0.0)
    total = pairwise_sum(power)
    scale = jnp.where((total > 1.0) | spend_all, 1.0 / positive_or_one(total), 1.0)
    return McsPower(
        power=power * (scale * budget)[..., None],
        mcs=mcs,
        value=value * unit,
        bound=bound * unit,
        gap=(bound - value) / positive_or_one(bound),
    )


def _efficiency(cost: jax.Array, value: jax.Array) -> jax.Array:
    """Value per watt of the flattest line that reaches each point from a cheaper one or from 0.

    Along the upper hull of a user's points this is the slope of the step that ends there. For any
    price mu, the dearest point whose efficiency exceeds mu maximises value - mu * cost: no point of
    lesser cost does better, and none of greater cost as well. So points below the hull need no
    test. Not above 0 where a point is of no use; finite float32[..., U, M].
    """
    # what alone exceeds the budget is in no choice; leaving it out tightens the bound
    usable = (value > 0) & (cost <= 1.0 + _ROUNDING)
    cost = jnp.where(usable, jnp.maximum(cost, 1e-30), jnp.inf)
    value = jnp.where(usable, value, 0.0)
    # [from, to]; two points of infinite cost differ by NaN, which is not above 0 either
    extra = cost[..., None, :] - cost[..., :, None]
    more = value[..., None, :] - value[..., :, None]
    # of points of one cost only the most valuable is of use
    level = jnp.where((extra == 0) & (more < 0), -1.0, jnp.inf)
    line = jnp.where(extra > 0, more / jnp.where(extra > 0, extra, 1.0), level)
    slope = jnp.minimum(jnp.min(line, axis=-2), value / cost)
    return unfused(jnp.where(usable, slope, -1.0))


def _critical_price(efficiency: jax.Array, cost: jax.Array) -> jax.Array:
    """Least price mu >= 0 at which the users' choices cost at most 1: [..., U, M] -> [...].

    Bisection on the bit patterns of non-negative floats, whose order is that of the numbers: exact
    after 31 halvings, and on a CPU much cheaper than sorting all efficiencies.
    """

    def halve(_, bracket):
        low, high = bracket
        middle = low + (high - low) // 2
        fits = jnp.sum(_dearest(efficiency, cost, middle.view(jnp.float32)), axis=-1) <= 1.0
        return jnp.where(fits, low, middle + 1), jnp.where(fits, middle, high)

    most = jnp.maximum(jnp.max(efficiency, axis=(-2, -1)), 0.0).view(jnp.int32)
    return jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(most), most))[1].view(jnp.float32)


def _dearest(efficiency: jax.Array, cost: jax.Array, price: jax.Array) -> jax.Array:
    """Cost of each user's choice at a price [...]: float32[..., U]."""
    return jnp.max(jnp.where(efficiency > price[..., None, None], cost, 0.0), axis=-1)


def _knapsack(cost: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(mcs int32[..., U], value, bound) within a budget of 1, from [..., U, M]."""
    efficiency = _efficiency(cost, value)
    price = _critical_price(efficiency, cost)
    taken = efficiency > price[..., None, None]
    spent = _dearest(efficiency, cost, price)
    highest = jnp.argmax(jnp.where(taken, cost, -1.0), axis=-1)
    earned = jnp.take_along_axis(value, highest[..., None], axis=-1)[..., 0]
    earned = jnp.sum(jnp.where(jnp.any(taken, axis=-1), earned, 0.0), axis=-1)
    bound = earned + price * jnp.maximum(1.0 - jnp.sum(spent, axis=-1), 0.0)
    # with "none" as choice 0
    choice = jnp.where(jnp.any(taken, axis=-1), highest + 1, 0).astype(jnp.int32)
    cost = jnp.pad(cost, [(0, 0)] * (cost.ndim - 1) + [(1, 0)])
    value = jnp.pad(value, [(0, 0)] * (value.ndim - 1) + [(1, 0)])
    choice = jax.lax.fori_loop(0, _ROUNDS, lambda _, c: _exchange(c, cost, value), choice)
    total = jnp.sum(jnp.take_along_axis(value, choice[..., None], axis=-1), axis=(-2, -1))
    return choice - 1, total, jnp.maximum(bound, total)


def _exchange(choice: jax.Array, cost: jax.Array, value: jax.Array) -> jax.Array:
    """The best single upgrade that fits, alone or paid for by one other user's downgrade.

    Args:
      choice: int32[..., U] into the last axis of `cost` and `value` [..., U, K], whose first entry
        is 0 for "none".
    """
    last = cost.shape[-1] - 1
    users = jnp.arange(cost.shape[-2], dtype=jnp.int32)

    def alternatives(shifts):
        """Choices within `shifts` of the present one, what more they cost and bring."""
        other = jnp.clip(choice[..., None] + shifts, 0, last)
        now_cost = jnp.take_along_axis(cost, choice[..., None], axis=-1)
        now_value = jnp.take_along_axis(value, choice[..., None], axis=-1)
        more_cost = jnp.take_along_axis(cost, other, axis=-1) - now_cost
        more_value = jnp.take_along_axis(value, other, axis=-1) - now_value
        user = jnp.broadcast_to(users[:, None], other.shape)
        return (x.reshape(*choice.shape[:-1], -1) for x in (other, more_cost, more_value, user))

    up, up_cost, up_value, up_user = alternatives(jnp.arange(1, _UP + 1))
    down, down_cost, down_value, down_user = alternatives(jnp.array([-last, *range(-_DOWN, 0)]))
    spent = jnp.take_along_axis(cost, choice[..., None], axis=-1)
    rest = 1.0 - jnp.sum(spent, axis=(-2, -1))[..., None]
    at = partial(jax.lax.dynamic_index_in_dim, axis=-1)

    def pair(i, best):
        best_value, partner = best
        fits = (up_cost + at(down_cost, i) <= rest) & (up_user != at(down_user, i))
        sum_value = up_value + at(down_value, i)
        better = fits & (sum_value > best_value)
        return jnp.where(better, sum_value, best_value), jnp.where(better, i, partner)

    alone = jnp.where(up_cost <= rest, jnp.maximum(up_value, 0.0), 0.0)
    nobody = jnp.full(up.shape, -1, jnp.int32)
    best_value, partner = jax.lax.fori_loop(
        0, down.shape[-1], pair, (alone, nobody), unroll=_DOWN + 1
    )
    best = jnp.argmax(best_value, axis=-1)[..., None]

    def pick(values, index):
        return jnp.take_along_axis(values, index, axis=-1)

    found = pick(best_value, best) > 0
    partner = pick(partner, best)
    payer = jnp.maximum(partner, 0)
    pays = found & (partner >= 0) & (users == pick(down_user, payer))
    rises = found & (users == pick(up_user, best))
    choice = jnp.where(pays, pick(down, payer), choice)
    return jnp.where(rises, pick(up, best), choice)


def mcs_aware_power(
    observation: Observation,
    owner: ArrayLike,
    params: CellParams,
    weights: ArrayLike | None = None,
    *,
    reserved: ArrayLike | None = None,
) -> McsPower:
    """`mcs_knapsack_power` from what the base stations know, for the "nr" link adaptation.

    The environment will choose the highest MCS whose threshold the predicted effective SINR
    reaches, with the power it is given, less the OLLA offset; this asks what power is worth.

    Args:
      observation: axes as in `Observation`.
      owner: int32[C, N], the user of each PRB, retransmissions included.
      params: the environment's parameters.
      weights: float[C, U], value of a bit, by default 1 / throughput (proportional fair).
      reserved: bool[C, N], PRBs held for retransmissions (`reserve_retransmissions(...).owner >=
        0`), none by default. Their MCS is settled already, so they keep the equal share of power.

    Returns:
      `McsPower` with power over all PRBs, the reserved ones included; the other fields speak of
      the new blocks alone. A cell that can afford no MCS at all gets equal power.
    """
    config = params.config
    owner = jnp.asarray(owner, jnp.int32)
    if weights is None:
        weights = 1.0 / jnp.maximum(observation.throughput, 1e-6)
    weights = jnp.where(observation.mask, jnp.asarray(weights, jnp.float32), 0.0)
    held = jnp.zeros(owner.shape, bool) if reserved is None else jnp.asarray(reserved, bool)

    fresh = jnp.where(held, -1, owner)
    gains = owner_gains(fresh, observation, params)
    count = jnp.sum(grant_matrix(fresh, config.num_users), axis=-1)
    sizes = config.res_per_prb * jnp.arange(config.num_prbs + 1)
    needed = phy.required_sinr(sizes, params.bler_target, table=config.mcs_table)[count]
    needed = needed * (1.0 + _SAFETY) * phy.to_linear(observation.olla_offset_db)[..., None]
    # an effective SINR is never read as more than 30 dB
    needed = jnp.where(needed < _LARGEST_EFFECTIVE, needed, jnp.inf)
    bits = phy.grants(config.num_prbs, config.res_per_prb, config.mcs_table, "nr").block_bits
    fixed, left = budget_left(held & (owner >= 0), params)
    result = mcs_knapsack_power(
        fresh,
        gains,
        weights,
        left,
        needed,
        jnp.asarray(bits)[count],
        table=config.mcs_table,
    )
    # muted, a user that nothing can lift to an MCS would hold its PRBs slot after slot in vain;
    # on air it sends at the lowest MCS, and retransmissions are combined
    idle = jnp.all(result.mcs < 0, axis=-1, keepdims=True) & (of_owner(weights, fresh) > 0)
    return result._replace(power=jnp.where(idle, reference_power(params), result.power) + fixed)
