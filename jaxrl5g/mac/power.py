"""Power allocation over the PRBs that a scheduler has handed out."""

from __future__ import annotations

import jax
import jax.numpy as jnp


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
