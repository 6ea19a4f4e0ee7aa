"""Turns any action into a feasible allocation, and says what had to be changed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl5g.mac import Allocation

MIN_POWER_WATTS = 1e-30
"""Less than this on a PRB is nothing: float32 is about to lose it to underflow."""

MAX_POWER_WATTS = 1e30
"""More than this on a PRB counts as this: sums and ratios stay within float32."""


class Projection(struct.PyTreeNode):
    """A feasible allocation and what it took to get there.

    Attributes:
      owner: int32[C, N], -1 where muted.
      power: float32[C, N], watts, 0 where muted, at most the budget in sum over a cell.
      bad_power: int32[C], PRBs whose power was NaN, infinite or negative.
      bad_owner: int32[C], PRBs with power for an owner outside -1..U-1 or a masked user.
      over_budget: bool[C], the cell's powers were scaled down to its budget.
    """

    owner: jax.Array
    power: jax.Array
    bad_power: jax.Array
    bad_owner: jax.Array
    over_budget: jax.Array


def granted(owner: jax.Array, num_users: int) -> jax.Array:
    """int32[C, U], PRBs of each user in int32[C, N]."""
    users = jnp.arange(num_users)
    return jnp.sum(owner[..., None, :] == users[:, None], axis=-1)


def project(action: Allocation, mask: jax.Array, power_budget: jax.Array) -> Projection:
    """The nearest meaning of an action that the radio can carry out.

    NaN, infinite and negative powers become 0, PRBs without a valid owner get power 0, and each
    cell's powers are scaled by min(1, budget / sum). PRBs with power 0 are muted (owner -1).

    Args:
      action: owner int32[C, N], power float32[C, N] watts.
      mask: bool[C, U], users present.
      power_budget: float32[], watts per cell.
    """
    num_users = mask.shape[-1]
    owner = jnp.asarray(action.owner, jnp.int32)
    power = jnp.asarray(action.power, jnp.float32)
    sound = jnp.isfinite(power) & (power >= 0)
    power = jnp.where(sound & (power >= MIN_POWER_WATTS), power, 0.0)
    user = jnp.clip(owner, 0, num_users - 1)
    valid = (owner >= 0) & (owner < num_users) & jnp.take_along_axis(mask, user, axis=-1)
    bad_owner = (owner != -1) & (power > 0) & ~valid
    power = jnp.where(valid, power, 0.0)
    power = jnp.minimum(power, MAX_POWER_WATTS)
    total = jnp.sum(power, axis=-1, keepdims=True)
    # a sum over many PRBs carries rounding of its own: equal power must not count as over budget
    over = total > power_budget * (1 + 1e-5)
    power = jnp.where(over, power * (power_budget / jnp.where(over, total, 1.0)), power)
    power = jnp.where(power >= MIN_POWER_WATTS, power, 0.0)
    return Projection(
        owner=jnp.where(power > 0, owner, -1),
        power=power,
        bad_power=jnp.sum(~sound, axis=-1),
        bad_owner=jnp.sum(bad_owner, axis=-1),
        over_budget=over[..., 0],
    )
