"""The least power that lifts a grant's effective SINR (EESM) to what an MCS requires.

Minimise sum_n p_n subject to sum_n exp(-p_n g_n / b) <= n tau over the n PRBs of a grant, with
tau = exp(-s / b) for the required effective SINR s. The optimum has
exp(-p_n g_n / b) = min(1, nu / g_n) with sum_n min(1, nu / g_n) = n tau. The sum is piecewise
linear in nu with one breakpoint per PRB, nu = g_j, so its values at the breakpoints tell which PRBs
get power: those with D_j = sum_i max(0, 1 - g_j / g_i) < n (1 - tau). With k of them,
H = sum 1 / g over them, log nu = log(k / H) + log(1 - n (1 - tau) / k).

The other PRBs belong to the block too: they keep their place in n with a negligible power, because
a PRB of power 0 is muted and would change the transport block.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl5g.mac.numerics import (
    LARGEST,
    check_axis,
    grant_matrix,
    non_negative,
    of_owner,
    positive_or_one,
)
from jaxrl5g.phy.effective_sinr import eesm_beta
from jaxrl5g.phy.lookup import log1p, one_minus_exp, take

NEGLIGIBLE = 1e-7
"""Power of a PRB that the optimum leaves at 0, relative to the grant's mean."""

_SURE = 1.0 - 1e-6  # a loss above this share of the PRBs that have a gain cannot be reached


class Grant(NamedTuple):
    """What the split of every user's grant depends on besides MCS and target.

    Attributes:
      mine: bool[..., U, N], which PRBs belong to which user.
      relative: float32[..., N], gain over the largest gain of the grant, 0 where of no use.
      order: float32[..., N], D_j, the loss at which PRB j starts to get power.
      largest: float32[..., U], largest gain of the grant.
      count: float32[..., U], PRBs of the grant, those of gain 0 included.
    """

    mine: jax.Array
    relative: jax.Array
    order: jax.Array
    largest: jax.Array
    count: jax.Array


def read_grants(owner: jax.Array, gains: jax.Array, num_users: int) -> Grant:
    """Everything about the grants that is common to all MCS.

    Args:
      owner: int32[..., N], anything outside 0..U-1 belongs to nobody.
      gains: float32[..., N], SNR per watt of each PRB at its owner, at least 0.
      num_users: U, static.
    """
    mine = grant_matrix(owner, num_users)
    count = jnp.sum(mine, axis=-1, dtype=jnp.float32)
    largest = jnp.max(jnp.where(mine, gains[..., None, :], 0.0), axis=-1)
    relative = jnp.where(gains > 0, gains / positive_or_one(of_owner(largest, owner)), 0.0)
    # squares of 1 / relative stay within float32
    relative = jnp.where(relative > 1e-15, relative, 0.0)
    same = (owner[..., :, None] == owner[..., None, :]) & (relative > 0)[..., None, :]
    ratio = relative[..., :, None] / positive_or_one(relative)[..., None, :]
    loss = jnp.where(same, jnp.maximum(1.0 - ratio, 0.0), 0.0)
    return Grant(mine, relative, jnp.sum(loss, axis=-1), largest, count)


def thresholds(required: ArrayLike) -> jax.Array:
    """Required effective SINRs within [0, 1e30]; 1e30, also for NaN and inf, is out of reach."""
    required = jnp.asarray(required, jnp.float32)
    return jnp.where(jnp.isnan(required), LARGEST, non_negative(required))


def split_levels(grant: Grant, required: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cost, height) of every user at every candidate MCS, float32[..., U, M].

    `cost` is the least power, inf where none suffices and for a user without PRBs. `height` is
    A = -log(nu / largest gain): PRB j gets b / g_j * max(0, A + log(relative gain j)).

    Args:
      required: float32[..., U, M], linear effective SINR.
      beta: float32[M] or broadcastable to `required`, EESM parameter b.
    """
    scaled = required / beta
    loss = one_minus_exp(scaled)
    count = grant.count[..., None]
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    mine = grant.mine.astype(jnp.float32)
    # which PRBs get power at which MCS, [..., N, M]
    allowed = product(jnp.swapaxes(mine, -1, -2), count * loss)
    active = (grant.order[..., None] < allowed) & (grant.relative > 0)[..., None]
    inverse = 1.0 / positive_or_one(grant.relative)
    columns = jnp.stack([jnp.ones_like(inverse), inverse, -inverse * jnp.log(inverse)], axis=-2)
    rows = mine[..., None, :, :] * columns[..., :, None, :]
    sums = product(rows, active.astype(jnp.float32)[..., None, :, :])
    used, resistance, entropy = sums[..., 0, :, :], sums[..., 1, :, :], sums[..., 2, :, :]
    share = count / positive_or_one(used) * loss
    whole = used == count
    # with all PRBs in use 1 - share is tau itself, which must not be taken from 1 again
    fall = jnp.where(whole, scaled, -log1p(-jnp.minimum(share, _SURE)))
    height = fall + jnp.log(positive_or_one(resistance) / positive_or_one(used))
    largest = positive_or_one(grant.largest)[..., None]
    cost = beta / largest * jnp.maximum(entropy + resistance * height, 0.0)
    reachable = (used > 0) & (whole | (share < _SURE)) & (required < LARGEST)
    height = jnp.where(reachable, height, 0.0)
    idle = (required <= 0) & (count > 0)
    return jnp.where(idle, 0.0, jnp.where(reachable, cost, jnp.inf)), height


def split_power(grant: Grant, owner: jax.Array, height: jax.Array, beta: jax.Array) -> jax.Array:
    """Power of every PRB, [..., N], at its owner's height and b [..., U]; PRBs the optimum leaves
    at 0 get `NEGLIGIBLE` times their grant's mean instead, if the grant has any power.
    """
    gain = positive_or_one(grant.relative * of_owner(grant.largest, owner))
    lift = of_owner(height, owner) + jnp.log(positive_or_one(grant.relative))
    power = of_owner(beta, owner) / gain * jnp.maximum(lift, 0.0)
    power = jnp.where(grant.relative > 0, power, 0.0)
    total = jnp.sum(jnp.where(grant.mine, power[..., None, :], 0.0), axis=-1)
    mean = total / positive_or_one(grant.count)
    return jnp.maximum(power, of_owner(NEGLIGIBLE * mean, owner))


def eesm_split(
    gains: ArrayLike,
    required: ArrayLike,
    mcs: ArrayLike,
    *,
    owner: ArrayLike | None = None,
    table: int = 1,
) -> jax.Array:
    """Least total power that makes the effective SINR of a grant equal to `required`.

    Args:
      gains: float[..., N], SNR per watt of each PRB (at its owner), at least 0; NaN and negative
        values count as 0.
      required: linear effective SINR, at least 0: float[...], or float[..., U] with `owner`.
        Negative values count as 0, NaN and inf are out of reach.
      mcs: shaped like `required`. Integers are MCS indices of `table`; floating-point values are
        the EESM parameter b itself, positive.
      owner: int32[..., N], the user of each PRB, which splits all users of a cell at once. By
        default all N PRBs are one grant.
      table: MCS table, 1 or 2.

    Returns:
      float32[..., N] watts; their sum over a grant is its cost. PRBs that the optimum leaves at 0
      get 1e-7 of the grant's mean power, so that they stay in the transport block. A target that
      no power reaches, because PRBs of gain 0 hold the average down, costs inf on every PRB. 0 for
      PRBs nobody owns, and for a target of 0.

    Raises:
      ValueError: unknown table, or shapes that do not fit.
    """
    mcs = jnp.asarray(mcs)
    if jnp.issubdtype(mcs.dtype, jnp.integer):
        beta = take(eesm_beta(table), mcs)
    else:
        beta = positive_or_one(non_negative(mcs))
    gains, required = non_negative(gains), thresholds(required)
    check_axis("gains", gains, "[..., N]")
    if owner is None:
        owner = jnp.zeros(gains.shape[-1:], jnp.int32)
        required, beta = required[..., None], beta[..., None]
    owner = jnp.asarray(owner, jnp.int32)
    if owner.shape[-1:] != gains.shape[-1:]:
        raise ValueError(f"owner of shape {owner.shape} does not fit gains of {gains.shape}.")
    try:
        required, beta = jnp.broadcast_arrays(required, beta)
        batch = jnp.broadcast_shapes(required.shape[:-1], gains.shape[:-1], owner.shape[:-1])
    except ValueError as error:
        raise ValueError(
            f"required of shape {required.shape}, mcs of {mcs.shape} and gains of {gains.shape} "
            "do not fit together."
        ) from error
    gains = jnp.broadcast_to(gains, (*batch, gains.shape[-1]))
    owner = jnp.broadcast_to(owner, gains.shape)
    required = jnp.broadcast_to(required, (*batch, required.shape[-1]))
    grant = read_grants(owner, gains, required.shape[-1])
    cost, height = split_levels(grant, required[..., None], beta[..., None])
    power = split_power(grant, owner, height[..., 0], beta)
    hopeless = of_owner((cost[..., 0] == jnp.inf).astype(jnp.float32), owner) > 0
    return jnp.where(hopeless, jnp.inf, power)
