"""Power rules that schedulers can be combined with: from an assignment to watts.

Reserved retransmissions get the reference power (budget / N a PRB), since they repeat a block
whose MCS is fixed; a rule shares out the rest of the budget over the PRBs with new data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl5g.mac.fair_power import fair_power
from jaxrl5g.mac.mcs_power import mcs_aware_power
from jaxrl5g.mac.numerics import grant_matrix, of_owner
from jaxrl5g.mac.power import budget_left, equal_power
from jaxrl5g.mac.rates import owner_gains
from jaxrl5g.mac.types import CellParams, Observation
from jaxrl5g.mac.water_filling import water_filling


class Assignment(NamedTuple):
    """Who holds each PRB, and what a bit is worth to whom.

    Attributes:
      owner: int32[C, N], -1 for none.
      new_data: bool[C, N], owned and not held for a retransmission.
      weights: float32[C, U], value of one bit to each user.
    """

    owner: jax.Array
    new_data: jax.Array
    weights: jax.Array

    @property
    def held(self) -> jax.Array:
        """bool[C, N], PRBs of retransmissions."""
        return (self.owner >= 0) & ~self.new_data


PowerRule = Callable[[Assignment, Observation, CellParams], jax.Array]


def _equal(assignment: Assignment, observation: Observation, params: CellParams) -> jax.Array:
    del observation
    return equal_power(assignment.owner, params.power_budget)


def _water_filling(
    assignment: Assignment, observation: Observation, params: CellParams
) -> jax.Array:
    owner = jnp.where(assignment.new_data, assignment.owner, -1)
    gains = owner_gains(owner, observation, params)
    weights = of_owner(assignment.weights, owner)
    reserved, left = budget_left(assignment.held, params)
    return jnp.where(assignment.new_data, water_filling(gains, left, weights), reserved)


def _fair(assignment: Assignment, observation: Observation, params: CellParams) -> jax.Array:
    """Sionna's rule between users, even over each user's PRBs."""
    num_users = params.config.num_users
    owner = jnp.where(assignment.new_data, assignment.owner, -1)
    gains = owner_gains(owner, observation, params)
    mine = grant_matrix(owner, num_users)
    count = jnp.sum(mine, axis=-1)
    mean_gain = jnp.sum(jnp.where(mine, gains[:, None, :], 0.0), axis=-1) / jnp.maximum(count, 1)
    reserved, left = budget_left(assignment.held, params)
    user = fair_power(mean_gain, count, left, fairness=1.0)
    power = of_owner(user / jnp.maximum(count, 1), owner)
    return jnp.where(assignment.new_data, power, reserved)


def knapsack_power(
    assignment: Assignment, observation: Observation, params: CellParams
) -> tuple[jax.Array, jax.Array]:
    """MCS-aware power for an assignment; see `mcs_aware_power`.

    Returns:
      power float32[C, N], and the weighted bits of new data expected of it, float32[C].

    Raises:
      ValueError: the fidelity is not "nr": only there does power decide the MCS.
    """
    if params.config.fidelity != "nr":
        raise ValueError(
            'knapsack power needs fidelity "nr", where power decides the MCS, '
            f"got {params.config.fidelity!r}."
        )
    owner, _, weights = assignment
    choice = mcs_aware_power(observation, owner, params, weights, reserved=assignment.held)
    return choice.power, choice.value


def _knapsack(assignment: Assignment, observation: Observation, params: CellParams) -> jax.Array:
    return knapsack_power(assignment, observation, params)[0]


POWER_RULES: dict[str, PowerRule] = {
    "equal": _equal,
    "water_filling": _water_filling,
    "fair": _fair,
    "knapsack": _knapsack,
}
"""Short names used by schedulers and on the command line."""
