"""What the PRB agent of `residual` is told of choosing PRBs and power together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl5g.agents.decisions import assign, fair_assignment, residual_latents
from jaxrl5g.agents.slots import Slot
from jaxrl5g.mac import Observation
from jaxrl5g.mac.dual_optimum import dual_owner
from jaxrl5g.mac.numerics import grant_matrix
from jaxrl5g.mac.power_rules import Assignment, knapsack_power


def foresee(slot: Slot, observation: Observation, params: Any) -> tuple[jax.Array, jax.Array]:
    """Latents that turn proportional fair's counts into those of a joint optimum, and their worth.

    Proportional fair counts on equal power, which the knapsack then takes from some users. Tried
    are the PRBs of users in the Lagrangian optimum of PRBs and power (`dual_assignment`), and those
    of the users alone that proportional fair gives some too. Both are assigned and given knapsack
    power, as the agents' decisions are; the more valuable one counts, and where a cell's slot is
    worth no more by either than by proportional fair under the same power, its users are told 0.

    Args:
      slot: from `find`; observation: of this slot; params: the environment's parameters.

    Returns:
      the latents float32[C, U], and float32[C], ln of the slot's worth over proportional fair's.
    """
    free = slot.reservation.owner < 0
    owner = dual_owner(observation, slot.prices, slot.reservation, params)
    joint = jnp.sum(grant_matrix(owner, params.config.num_users), axis=-1)
    wanted = jnp.stack([joint, jnp.where(slot.counts > 0, joint, 0)])
    latents = residual_latents(slot.counts, wanted)

    def worth(owner: jax.Array) -> jax.Array:
        assignment = Assignment(owner, free & (owner >= 0), slot.prices)
        return jnp.maximum(knapsack_power(assignment, observation, params)[1], 1e-12)

    tilted = jax.vmap(lambda latent: assign(slot, latent, params, "residual"))(latents)
    worths = jax.vmap(worth)(jnp.concatenate([fair_assignment(slot)[None], tilted]))
    best = jnp.argmax(worths, axis=0)  # the first of equals: proportional fair
    choices = jnp.concatenate([jnp.zeros_like(latents[:1]), latents])
    chosen = jnp.take_along_axis(choices, best[None, :, None], axis=0)[0]
    return chosen, jnp.log(jnp.max(worths, axis=0) / worths[0])
