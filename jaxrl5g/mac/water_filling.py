"""Weighted water-filling in closed form, over one set of channels or over each user's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl5g.mac.numerics import (
    LARGEST,
    check_axis,
    check_batch,
    check_fits,
    non_negative,
    of_owner,
    pairwise_sum,
    positive_or_one,
)


def water_filling(
    gains: ArrayLike,
    budget: ArrayLike,
    weights: ArrayLike | None = None,
    cap: ArrayLike | None = None,
) -> jax.Array:
    """Maximises sum_n w_n log(1 + p_n g_n) over sum_n p_n <= budget, 0 <= p_n <= cap_n.

    The optimum is p_n = min(max(w_n / mu - 1 / g_n, 0), cap_n) with one multiplier mu for all
    (weighted water-filling, Cover and Thomas, "Elements of Information Theory", 9.4). The power
    spent grows piecewise linearly with the level 1 / mu, so the level is found exactly: evaluate
    the spending at every breakpoint (a channel enters, a channel reaches its cap), take the last
    that the budget affords, and go on along its slope.

    Args:
      gains: float[..., N], SNR per watt, at least 0. A channel of gain 0 gets no power.
      budget: float[] or float[...], watts.
      weights: float[..., N], at least 0, 1 by default; a channel of weight 0 gets no power.
      cap: float[] or float[..., N], largest power per channel in watts, none by default.

    Returns:
      float32[..., N] watts. They sum to the budget up to 1e-6 of it, or to all the caps of the
      channels of positive gain and weight where these are less. NaN and negative gains, budgets,
      weights and caps count as 0; values above 1e30 count as 1e30.

    Raises:
      ValueError: shapes that do not fit.
    """
    gains = non_negative(gains)
    check_axis("gains", gains, "[..., N]")
    budget = non_negative(budget)
    check_batch("budget", budget.shape, "gains", gains.shape)
    weights = jnp.ones((), jnp.float32) if weights is None else non_negative(weights)
    check_fits("weights", weights, "gains", gains.shape)
    # what is allowed to a channel is at most everything, so "no cap" needs no case of its own
    ceiling = jnp.asarray(LARGEST, jnp.float32) if cap is None else non_negative(cap)
    check_fits("caps", ceiling, "gains", gains.shape)

    budget = budget[..., None]
    unit = positive_or_one(budget)
    batch = jnp.broadcast_shapes(gains.shape, budget.shape, weights.shape, ceiling.shape)
    allowed = jnp.broadcast_to(jnp.minimum(ceiling / unit, 1.0), batch)
    usable = (gains > 0) & (weights > 0) & (allowed > 0)
    weights, allowed = jnp.where(usable, weights, 0.0), jnp.where(usable, allowed, 0.0)
    weights = weights / positive_or_one(jnp.max(weights, axis=-1, keepdims=True))
    entry = _entry_levels(jnp.where(usable, gains, 0.0), weights, unit)

    full = jnp.minimum(entry + allowed / positive_or_one(weights), LARGEST)
    levels = entry if cap is None else jnp.concatenate([entry, full], axis=-1)

    def poured(level, entry, full, weights, allowed):
        # a cap too small to move a level in float32 is reached where its channel enters
        power = jnp.clip(weights * (level - entry), 0.0, allowed)
        return jnp.where(level >= full, allowed, power)

    channels = (x[..., None, :] for x in (entry, full, weights, allowed))
    affordable = jnp.sum(poured(levels[..., :, None], *channels), axis=-1) <= 1.0
    base = jnp.max(jnp.where(affordable, levels, 0.0), axis=-1, keepdims=True)
    following = jnp.min(jnp.where(levels > base, levels, LARGEST), axis=-1, keepdims=True)
    power = poured(base, entry, full, weights, allowed)
    rising = jnp.where((entry <= base) & (base < full), weights, 0.0)
    slope = jnp.sum(rising, axis=-1, keepdims=True)
    rest = 1.0 - pairwise_sum(power)[..., None]
    room = following - base
    rise = jnp.where(slope > 0, jnp.minimum(rest / positive_or_one(slope), room), room)
    power = jnp.clip(power + rising * rise, 0.0, allowed)
    # Entry levels can be so far above the powers that float32 cannot place a level between two of
    # them: what is left over then goes to the channels that enter next. It also takes up rounding.
    entering = (rise == room) & (entry == following)
    for _ in range(2):
        free = (power < allowed) & ((power > 0) | entering)
        part = jnp.where(free, weights, 0.0)
        rest = (1.0 - pairwise_sum(power)) / positive_or_one(pairwise_sum(part))
        power = jnp.clip(power + part * rest[..., None], 0.0, allowed)
    return jnp.minimum(power * budget, ceiling)


def _entry_levels(gains: jax.Array, weights: jax.Array, unit: jax.Array) -> jax.Array:
    """Level above the lowest at which each channel starts to get power, in [0, 1e30].

    1 / (w g) - 1 / max(w g) in units of the budget. Taken as a difference of gains, which is
    exact for gains that are close, instead of reciprocals, where the difference would drown.
    """
    largest = jnp.max(gains, axis=-1, keepdims=True)
    value = weights * (gains / positive_or_one(largest))
    best = jnp.max(value, axis=-1, keepdims=True)
    scale = jnp.clip(best * largest * unit, 1.0 / LARGEST, LARGEST)
    above = jnp.minimum((best - value) / positive_or_one(value), LARGEST) / scale
    return jnp.where(value > 0, jnp.minimum(above, LARGEST), LARGEST)


def user_water_filling(owner: jax.Array, gains: jax.Array, budgets: jax.Array) -> jax.Array:
    """Water-filling of every user's own budget over the user's own PRBs.

    Args:
      owner: int32[..., N], the user of each PRB; anything outside 0..U-1 owns nothing.
      gains: float32[..., N], SNR per watt at the owner, at least 0.
      budgets: float32[..., U], watts, at least 0.

    Returns:
      float32[..., N] watts; a user without a PRB of positive gain spends nothing.
    """
    same = (owner[..., :, None] == owner[..., None, :]) & (gains > 0)[..., None, :]
    unit = of_owner(budgets, owner)
    largest = jnp.max(jnp.where(same, gains[..., None, :], 0.0), axis=-1)
    scale = jnp.clip(largest * unit, 1.0 / LARGEST, LARGEST)
    entry = jnp.minimum((largest - gains) / positive_or_one(gains), LARGEST) / scale
    entry = jnp.where(gains > 0, jnp.minimum(entry, LARGEST), LARGEST)
    depth = jnp.maximum(entry[..., :, None] - entry[..., None, :], 0.0)
    spent = jnp.sum(jnp.where(same, depth, 0.0), axis=-1)
    active = same & ((spent <= 1.0) & (gains > 0))[..., None, :]
    count = positive_or_one(jnp.sum(active, axis=-1, dtype=jnp.float32))
    level = (1.0 + jnp.sum(jnp.where(active, entry[..., None, :], 0.0), axis=-1)) / count
    power = jnp.where(gains > 0, jnp.maximum(level - entry, 0.0), 0.0)
    total = jnp.sum(jnp.where(same, power[..., None, :], 0.0), axis=-1)
    return unit * power / positive_or_one(total)
