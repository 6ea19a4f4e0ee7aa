"""Alpha-fair power per user with a guaranteed share, solved in relative units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl5g.mac.numerics import (
    check_axis,
    check_batch,
    check_fits,
    non_negative,
    pairwise_sum,
    positive_or_one,
)
from jaxrl5g.mac.water_filling import water_filling
from jaxrl5g.phy.lookup import log1p

_LEAST_FAIRNESS = 1e-6  # below, the rule is water-filling to float32 precision
_MOST_FAIRNESS = 1e3  # above, it is max-min within 1 % of rate
_NEWTON_STEPS = 12  # 7 settle the worst of 20 000 random cells over 60 dB of budgets
_NOBODY = 1e30


def fair_power(
    gains: ArrayLike,
    num_prbs: ArrayLike,
    budget: ArrayLike,
    fairness: ArrayLike = 0.0,
    guaranteed_share: ArrayLike = 0.5,
) -> jax.Array:
    """Divides a cell's power over users: alpha-fair in rate, nobody below a guaranteed share.

    With n_u PRBs, SNR per watt g_u and total power x_u per user, the rate is
    R_u = n_u log(1 + x_u g_u / n_u), and the rule maximises sum_u R_u^(1-f) / (1-f) (sum_u log R_u
    for f = 1) over sum_u x_u = budget, x_u >= guaranteed_share * budget / (users with PRBs). It is
    the problem that Sionna SYS 2.2 states for `downlink_fair_power_control`.

    A user above its guarantee has R_u^f (1 + x_u g_u / n_u) proportional to g_u. Written in
    y_u = log(1 + x_u g_u / n_u) / f that is y_u + log y_u = nu + const_u: y_u is Wright's omega
    function, and one unknown nu is left, found by bracketed Newton steps on the logarithm of the
    power spent. Powers are relative to the budget throughout, so nothing depends on its scale.

    Args:
      gains: float[..., U], SNR per watt of each user, at least 0: 1 / (path loss * (I + N)).
      num_prbs: integers or float[..., U], resources of each user; 0 for users not scheduled.
      budget: float[] or float[...], watts.
      fairness: f, float[] or float[...], at least 0: 0 water-filling, 1 proportional fair, large
        max-min. Traced values below 1e-6 and NaN count as 0, values above 1000 as 1000.
      guaranteed_share: float[] or float[...] in [0, 1]; 1 gives every user the same power. Traced
        values are clipped, NaN counts as 0.

    Returns:
      float32[..., U] watts per user (Sionna's `tx_power`), summing to the budget up to 1e-6 of it
      if any scheduled user has a gain. A scheduled user of gain 0 gets its guaranteed share alone.

    Raises:
      ValueError: shapes that do not fit, or a Python number out of range.
    """
    _check_number("fairness", fairness, None)
    _check_number("guaranteed_share", guaranteed_share, 1.0)
    gains, count = non_negative(gains), non_negative(num_prbs)
    check_axis("gains", gains, "[..., U]")
    check_fits("num_prbs", count, "gains", gains.shape)
    budget = non_negative(budget)
    check_batch("budget", budget.shape, "gains", gains.shape)
    budget, fairness = budget[..., None], non_negative(fairness)[..., None]
    share = jnp.minimum(non_negative(guaranteed_share), 1.0)[..., None]

    scheduled = count > 0
    users = positive_or_one(jnp.sum(scheduled, axis=-1, keepdims=True, dtype=jnp.float32))
    floor = jnp.where(scheduled, share / users, 0.0)
    # SNR on each of its PRBs if a user had the whole budget
    snr = non_negative(jnp.where(scheduled, gains * budget / positive_or_one(count), 0.0))

    flat = _level_powers(snr, count, floor, share)
    fair = _fair_powers(
        snr, count, floor, users, jnp.clip(fairness, _LEAST_FAIRNESS, _MOST_FAIRNESS)
    )
    return budget * jnp.where(fairness < _LEAST_FAIRNESS, flat, fair)


def _check_number(name: str, value: ArrayLike, most: float | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not value >= 0 or (most is not None and value > most):
        bounds = "at least 0" if most is None else f"from 0 to {most:g}"
        raise ValueError(f"{name} must be {bounds}, got {value!r}.")


def _level_powers(
    snr: jax.Array, count: jax.Array, floor: jax.Array, share: jax.Array
) -> jax.Array:
    """Relative powers for f = 0: water-filling of what the guarantees leave, on top of them."""
    above = water_filling(snr / (1.0 + floor * snr), (1.0 - share)[..., 0], weights=count)
    return floor + above


def _omega(value: jax.Array) -> jax.Array:
    """Wright's omega function on the real line: the y > 0 with y + log y = value.

    Two steps of fourth order (Fritsch, Shafer and Crowley, CACM 16, 1973) from a guess that is
    good to a few per cent.
    """
    low = jnp.exp(jnp.minimum(value, 0.0))
    shifted = jnp.clip(value, -2.0, 4.0) - 1.0
    middle = 1.0 + shifted * (0.5 + shifted * (1.0 / 16.0 - shifted / 192.0))
    high = jnp.maximum(value, 2.0)
    high = high - jnp.log(high) * (1.0 - 1.0 / high)
    guess = jnp.where(value < -2.0, low * (1.0 - low), jnp.where(value < 4.0, middle, high))
    for _ in range(2):
        rest = value - guess - jnp.log(guess)
        more = 1.0 + guess
        curved = 2.0 * more * (more + rest * (2.0 / 3.0))
        guess = guess * (1.0 + rest / more * (curved - rest) / (curved - 2.0 * rest))
    return guess


def _fair_powers(
    snr: jax.Array, count: jax.Array, floor: jax.Array, users: jax.Array, fairness: jax.Array
) -> jax.Array:
    """Relative powers for f > 0; `users` is the number of users with PRBs, [..., 1]."""
    served = snr > 0
    safe = positive_or_one(snr)
    # the user's constant; what all users share moves into nu
    gain = jnp.where(served, jnp.log(safe * positive_or_one(count)), -_NOBODY)
    gain = gain - jnp.max(gain, axis=-1, keepdims=True)
    constant = gain / fairness - jnp.log(positive_or_one(count)) - jnp.log(fairness)

    def level_of(power):
        scaled = log1p(safe * power) / fairness
        return scaled + jnp.log(scaled) - constant

    def powers_at(level):
        scaled = _omega(jnp.where(served, level + constant, 0.0))
        rate = fairness * scaled
        free = jnp.where(served, jnp.expm1(rate) / safe, 0.0)
        slope = (free + 1.0 / safe) * rate / (1.0 + scaled)
        above = served & (free > floor)
        return jnp.where(above, free, floor), jnp.where(above, slope, 0.0)

    equal = level_of(1.0 / users)
    lowest = jnp.min(jnp.where(served, equal, _NOBODY), axis=-1, keepdims=True)
    alone = jnp.min(jnp.where(served, level_of(1.0), _NOBODY), axis=-1, keepdims=True)
    highest = jnp.max(jnp.where(served, equal, -_NOBODY), axis=-1, keepdims=True)
    highest = jnp.maximum(jnp.minimum(highest, alone), lowest)

    def improve(_, bracket):
        low, high, level = bracket
        power, slope = powers_at(level)
        total = jnp.sum(power, axis=-1, keepdims=True)
        low, high = jnp.where(total <= 1.0, level, low), jnp.where(total >= 1.0, level, high)
        rise = jnp.sum(slope, axis=-1, keepdims=True)
        step = level - jnp.log(total) * total / positive_or_one(rise)
        inside = (rise > 0) & (step >= low) & (step <= high)
        return low, high, jnp.where(inside, step, 0.5 * (low + high))

    start = (lowest, highest, 0.5 * (lowest + highest))
    level = jax.lax.fori_loop(0, _NEWTON_STEPS, improve, start)[2]
    power, slope = powers_at(level)
    # the last step is taken in the powers: float32 cannot place the level any finer
    for _ in range(2):
        rest = (1.0 - pairwise_sum(power)) / positive_or_one(pairwise_sum(slope))
        power = jnp.maximum(power + slope * rest[..., None], floor)
    return jnp.where(served, power, floor)
