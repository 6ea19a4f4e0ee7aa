"""User-level power shares, as a learned power agent emits them, turned into powers per PRB."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl5g.mac.numerics import (
    check_axis,
    grant_matrix,
    non_negative,
    of_owner,
    pairwise_sum,
    positive_or_one,
)
from jaxrl5g.mac.water_filling import user_water_filling

SHARE_RULES = ("uniform", "channel_inverting", "water_filling")
"""How a user's power is spread over its PRBs."""


def share_power(
    user_shares: ArrayLike,
    owner: ArrayLike,
    gains: ArrayLike,
    rule: str = "uniform",
    *,
    budget: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Splits a cell's power over users by their shares, then over each user's PRBs by `rule`.

    Shares are normalised over the users that own a PRB. "uniform" gives all of a user's PRBs the
    same power, "channel_inverting" the same received SNR (p proportional to 1 / g), and
    "water_filling" maximises sum_n log(1 + p_n g_n) within the user's own power.

    Args:
      user_shares: float[..., U], at least 0, in any unit. NaN and negative shares count as 0, and
        if no owning user has a share they all have the same one.
      owner: int32[..., N], the user of each PRB; anything outside 0..U-1 is muted.
      gains: float[..., N], SNR per watt of each PRB at its owner, at least 0 ("uniform" does not
        read them). Channel inversion and water-filling give PRBs of gain 0 no power, which mutes
        them; a user whose gains are all 0 falls back to equal powers.
      rule: "uniform", "channel_inverting" or "water_filling".
      budget: float[] or float[...], watts.
      mask: bool[..., U], users present, all by default; a masked user's PRBs get no power.

    Returns:
      float32[..., N] watts, summing to the budget up to 1e-6 of it if anybody owns a PRB.

    Raises:
      ValueError: unknown rule, or shapes that do not fit.
    """
    if rule not in SHARE_RULES:
        raise ValueError(f"rule must be one of {', '.join(SHARE_RULES)}, got {rule!r}.")
    shares, gains = non_negative(user_shares), non_negative(gains)
    owner = jnp.asarray(owner, jnp.int32)
    check_axis("user_shares", shares, "[..., U]")
    check_axis("owner", owner, "[..., N]")
    if gains.shape[-1:] != owner.shape[-1:]:
        raise ValueError(f"gains of shape {gains.shape} do not fit owner of shape {owner.shape}.")
    num_users = shares.shape[-1]
    if mask is not None:
        mask = jnp.asarray(mask, bool)
        if mask.shape[-1:] != (num_users,):
            raise ValueError(f"mask of shape {mask.shape} does not fit {num_users} users.")
        owner = jnp.where(of_owner(mask.astype(jnp.float32), owner) > 0, owner, -1)

    mine = grant_matrix(owner, num_users)
    count = jnp.sum(mine, axis=-1, dtype=jnp.float32)
    shares = jnp.where(count > 0, shares, 0.0)
    most = jnp.max(shares, axis=-1, keepdims=True)
    shares = jnp.where(most > 0, shares / positive_or_one(most), 1.0)
    shares = jnp.where(count > 0, shares, 0.0)
    shares = shares / positive_or_one(jnp.sum(shares, axis=-1, keepdims=True))

    owned = (owner >= 0) & (owner < num_users)
    gains = jnp.where(owned, gains, 0.0)
    if rule == "uniform":
        raw = owned.astype(jnp.float32)
    else:
        strong = jnp.any(mine & (gains > 0)[..., None, :], axis=-1)
        hopeless = owned & (of_owner(strong.astype(jnp.float32), owner) == 0)
        if rule == "channel_inverting":
            weakest = jnp.min(
                jnp.where(mine & (gains > 0)[..., None, :], gains[..., None, :], jnp.inf), axis=-1
            )
            inverse = of_owner(weakest, owner) / positive_or_one(gains)
            raw = jnp.where(gains > 0, inverse, 0.0)
        else:
            unit = non_negative(budget)[..., None]
            raw = user_water_filling(owner, gains * unit, shares)
        raw = jnp.where(hopeless, 1.0, raw)
    total = jnp.sum(jnp.where(mine, raw[..., None, :], 0.0), axis=-1)
    power = of_owner(shares / positive_or_one(total), owner) * raw
    power = power / positive_or_one(pairwise_sum(power))[..., None]
    return power * non_negative(budget)[..., None]
