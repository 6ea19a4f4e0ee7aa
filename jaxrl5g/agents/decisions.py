"""From what the agents say of every user to PRBs and watts, in four parametrisations.

`paper` (arXiv 2605.02149): the PRB agent's latent is turned into shares of the band by a softmax,
the power agent's into shares of the budget. `residual`: both tilt the strongest classical rule,
PRBs of parallel proportional fair with MCS-aware knapsack power, and do nothing at 0. `weighted`
starts there too, and tilts what users' bits count for in that rule instead of its PRBs.
`coordinated`, for cells that interfere, tilts `jaxrl5g.mac.held_on_off` in the same way.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxrl5g.agents.slots import Slot, coordinate, prepare, weigh
from jaxrl5g.mac import Allocation, Observation
from jaxrl5g.mac.apportionment import apportion
from jaxrl5g.mac.muting import muting_levels, serve, spend
from jaxrl5g.mac.numerics import grant_matrix, of_owner
from jaxrl5g.mac.power import budget_left
from jaxrl5g.mac.power_rules import POWER_RULES, Assignment
from jaxrl5g.mac.quota_resolver import resolve_quotas
from jaxrl5g.mac.rates import per_prb
from jaxrl5g.mac.share_power import share_power

Parametrisation = Literal["residual", "weighted", "paper", "coordinated"]
PARAMETRISATIONS: tuple[str, ...] = get_args(Parametrisation)

_LARGEST_TILT = 3.0


def tilt(latent: jax.Array) -> jax.Array:
    """A latent action as a logit: itself near 0, never beyond +-3; NaN counts as 0."""
    latent = jnp.nan_to_num(jnp.asarray(latent, jnp.float32), nan=0.0)
    return _LARGEST_TILT * jnp.tanh(latent / _LARGEST_TILT)


def residual_shares(counts: jax.Array, tilts: jax.Array) -> jax.Array:
    """Shares that `residual` asks for, c e^z + e^2z / (4 K): c at z = 0 once they are whole.

    The second term is for users to whom proportional fair gives nothing: a K-th of a quarter of a
    PRB at z = 0, some PRBs at the largest tilt.

    Args:
      counts: [..., K], PRBs that proportional fair gives, c; tilts: float32[..., K], z.
    """
    factor = jnp.exp(tilts)
    return (counts + 0.25 / counts.shape[-1] * factor) * factor


def residual_latents(counts: jax.Array, wanted: jax.Array) -> jax.Array:
    """Latents whose shares are `wanted` PRBs, as far as tilts within +-2.9 go: float32[..., K].

    The inverse of `residual_shares` and `tilt`; 0 where `wanted` is `counts`.
    """
    spare = 0.25 / counts.shape[-1]
    share = wanted + spare
    factor = 2.0 * share / (counts + jnp.sqrt(counts**2 + 4.0 * spare * share))
    reach = _LARGEST_TILT - 0.1
    tilts = jnp.clip(jnp.log(jnp.maximum(factor, 1e-6)), -reach, reach)
    latents = _LARGEST_TILT * jnp.arctanh(tilts / _LARGEST_TILT)
    return jnp.where(wanted == counts, 0.0, latents)


def find(observation: Observation, mean: jax.Array, params: Any, parametrisation: str) -> Slot:
    """A slot as the PRB agent finds it; under `coordinated` with the levels of agents at rest.

    Args:
      observation: of this slot, with centralised CSI for `coordinated`.
      mean: float32[C, U], average of acknowledged bits, the last slot's included.
      params: the environment's parameters.
      parametrisation: one of `PARAMETRISATIONS`.
    """
    slot = prepare(observation, mean, params)
    if parametrisation != "coordinated":
        return slot
    return coordinate(slot, muting_levels(slot.prices, observation, params), observation, params)


def agree(slot: Slot, latent: jax.Array, observation: Observation, params: Any) -> jax.Array | None:
    """What the PRB agent's latent action makes cells agree on: levels, None but for `coordinated`.

    With z the tilt of a user, each PRB is used by those cells that make the sum of e^z r / T over
    the users they would serve largest, T the controller's average (`muting_levels`).

    Args:
      slot: from `find`.
      latent: float32[C, U].
      observation: of this slot.
      params: the environment's parameters.

    Returns:
      float32[C, N], powers in units of the reference power, to be kept by `coordinate`.
    """
    if slot.levels is None:
        return None
    return muting_levels(slot.prices * jnp.exp(tilt(latent)), observation, params)


def value(slot: Slot, latent: jax.Array, params: Any, parametrisation: str) -> Slot:
    """The slot as the PRB agent's latent action values it; only under `weighted` does it change.

    With z the tilt of a user, its bits are then worth e^z / T, in who gets a PRB as in power.

    Args:
      slot: from `find`.
      latent: float32[C, U].
      params: the environment's parameters.
      parametrisation: one of `PARAMETRISATIONS`.
    """
    return weigh(slot, jnp.exp(tilt(latent)), params) if parametrisation == "weighted" else slot


def assign(slot: Slot, latent: jax.Array, params: Any, parametrisation: str) -> jax.Array:
    """PRBs for the PRB agent's latent action: tilts, whole quotas, an exact assignment.

    With z the tilt of a user, `paper` asks for shares proportional to e^z over eligible users and
    `residual` for `residual_shares` of proportional fair's own counts: at z = 0 the quotas are
    those counts, and the assignment is proportional fair's. Under `weighted` it is proportional
    fair's with bits worth e^z / T. `coordinated` gives
    a PRB to the user of largest e^z r / T under the levels in force.

    Args:
      slot: from `value`, under the levels in force.
      latent: float32[C, U].
      params: the environment's parameters.
      parametrisation: one of `PARAMETRISATIONS`.

    Returns:
      int32[C, N], the user of each PRB, retransmissions included, -1 for none.
    """
    config = params.config
    if slot.levels is not None:
        metric = (slot.prices * jnp.exp(tilt(latent)))[..., None] * slot.rates
        return serve(metric, slot.levels, slot.reservation, params)
    if parametrisation == "weighted":
        return fair_assignment(slot)
    free = slot.reservation.owner < 0
    eligible = slot.reservation.eligible
    tilts = tilt(latent)
    residual = parametrisation == "residual"
    shares = residual_shares(slot.counts, tilts) if residual else jnp.exp(tilts)
    quotas = apportion(shares, jnp.sum(free, axis=-1), eligible)
    weights = per_prb(slot.rates * slot.prices[..., None], config)
    owner = jax.vmap(lambda q, w, a: resolve_quotas(q, w, available=a)[0])(quotas, weights, free)
    return jnp.where(free, owner, slot.reservation.owner)


def fair_assignment(slot: Slot) -> jax.Array:
    """Proportional fair's own PRBs, int32[C, N], retransmissions included: an agent at rest."""
    return jnp.where(slot.reservation.owner < 0, slot.fair_owner, slot.reservation.owner)


def allot(
    slot: Slot,
    owner: jax.Array,
    latent: jax.Array,
    observation: Observation,
    params: Any,
    parametrisation: str,
) -> Allocation:
    """Power for the power agent's latent action.

    With z the tilt of a user, `paper` gives the budget that retransmissions leave to users in
    proportion to (PRBs of new data) e^z, evenly over a user's PRBs: equal power at z = 0.
    `residual` solves the MCS-aware knapsack with bits worth e^z / T: at z = 0 the classical rule;
    `weighted` does, T divided by the factor of the PRB agent's tilt.
    `coordinated` sends at e^z times the levels in force, scaled down to the budget: a cell whose
    users all have z < 0 spends less than it may.

    Args:
      slot: from `value`, under the levels in force.
      owner: int32[C, N], from `assign`.
      latent: float32[C, U].
      observation: of this slot.
      params: the environment's parameters.
      parametrisation: one of `PARAMETRISATIONS`.
    """
    new_data = (slot.reservation.owner < 0) & (owner >= 0)
    factor = jnp.exp(tilt(latent))
    if slot.levels is not None:
        held = (owner >= 0) & ~new_data
        return spend(owner, slot.levels * of_owner(factor, owner), held, params)
    if parametrisation in ("residual", "weighted"):
        assignment = Assignment(owner, new_data, slot.prices * factor)
        return Allocation(owner, POWER_RULES["knapsack"](assignment, observation, params))
    fresh = jnp.where(new_data, owner, -1)
    counts = jnp.sum(grant_matrix(fresh, params.config.num_users), axis=-1)
    reserved, left = budget_left((owner >= 0) & ~new_data, params)
    power = share_power(counts * factor, fresh, jnp.ones(owner.shape), "uniform", budget=left)
    return Allocation(owner, jnp.where(new_data, power, reserved))
