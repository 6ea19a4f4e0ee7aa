"""Power allocation over the PRBs that a scheduler has handed out."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl5g.mac.types import CellParams


def equal_power(owner: jax.Array, power_budget: jax.Array) -> jax.Array:
    """The cell's budget spread evenly over all its PRBs; muted PRBs leave their part unspent.

    Args:
      owner: int32[..., N], the user of each PRB, -1 for muted.
      power_budget: float32[] or float32[...] (one per cell), watts.

    Returns:
      float32[..., N] watts per PRB, power_budget / N where owned and 0 elsewhere.
    """
    per_prb = jnp.asarray(power_budget, jnp.float32)[..., None] / owner.shape[-1]
    return jnp.where(owner >= 0, per_prb, 0.0)


def reference_power(params: CellParams) -> jax.Array:
    """Watts per PRB at which CSI is reported: budget / N."""
    return jnp.asarray(params.power_budget, jnp.float32) / params.config.num_prbs


def budget_left(held: jax.Array, params: CellParams) -> tuple[jax.Array, jax.Array]:
    """What retransmissions take: the reference power on each PRB they hold.

    Args:
      held: bool[C, N].

    Returns:
      Their power, float32[C, N], and what of the budget is left, float32[C].
    """
    reserved = jnp.where(held, reference_power(params), 0.0)
    return reserved, jnp.maximum(params.power_budget - jnp.sum(reserved, axis=-1), 0.0)
