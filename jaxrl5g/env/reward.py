"""Rewards: of smoothed throughput after a slot, or of what the slot itself sent."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl5g import phy
from jaxrl5g.env.link import Outcome
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams


def peak_cell_rate(config: DownlinkConfig) -> float:
    """Bits per slot of a cell with every PRB at the highest spectral efficiency."""
    efficiency = float(phy.max_spectral_efficiency(config.mcs_table))
    return config.num_prbs * config.res_per_prb * efficiency


def jain_index(throughput: jax.Array, mask: jax.Array) -> jax.Array:
    """Jain's index (sum x)^2 / (K sum x^2) over the K present users, in [1/K, 1]; 1 if all are 0.

    Args:
      throughput: float32[...] at least 0; mask: bool[...] of the same shape.
    """
    x = jnp.where(mask, throughput, 0.0)
    x = x / jnp.maximum(jnp.max(x), jnp.finfo(jnp.float32).tiny)
    square = jnp.sum(x * x)
    count = jnp.sum(mask)
    return jnp.where(square > 0, jnp.sum(x) ** 2 / (count * jnp.maximum(square, 1e-30)), 1.0)


def _alpha_utility(x: jax.Array, alpha: jax.Array) -> jax.Array:
    """(x^(1-alpha) - 1) / (1 - alpha), log x at alpha = 1."""
    exponent = 1.0 - alpha
    safe = jnp.where(jnp.abs(exponent) < 1e-4, 1.0, exponent)
    log = jnp.log(jnp.maximum(x, 1e-9))
    return jnp.where(jnp.abs(exponent) < 1e-4, log, jnp.expm1(exponent * log) / safe)


def expected_bits(outcome: Outcome) -> jax.Array:
    """Bits that a slot's transmissions are worth when they are made, float32[C, U].

    Of first transmissions what is expected to be decoded, of later ones what is: they are made only
    where the block's one draw has failed before. Over an episode it is worth what is acknowledged,
    less the luck of first transmissions, and none of it is late.
    """
    first = (1.0 - outcome.error_rate) * outcome.block_bits
    later = jnp.where(outcome.decoded == 1, outcome.block_bits, 0.0)
    return jnp.where(outcome.attempt == 1, first, jnp.where(outcome.attempt > 1, later, 0.0))


def weighted_rate(
    bits: jax.Array, throughput: jax.Array, mask: jax.Array, params: DownlinkParams
) -> jax.Array:
    """Bits of a slot, each user's times what they are worth, over the cells' peak rate, float32[].

    With x a user's T over the mean and J Jain's index, a bit is worth throughput_weight x^-alpha +
    fairness_weight 2 J (1 - J x): the slope of the mean alpha-fair utility of T, and of Jain's
    index, along these bits, in units in which they stay of order one while T grows. It tells a slot
    what it was worth at once, where "alpha_fair" and "fairness" tell it when acknowledgements
    arrive, and take it back as T forgets.

    Args:
      bits: float32[C, U], as by `expected_bits`.
      throughput: float32[C, U], EWMA T before the slot; mask: bool[C, U].
    """
    config = params.config
    average = jnp.sum(jnp.where(mask, throughput, 0.0)) / jnp.sum(mask)
    relative = jnp.maximum(throughput, 1e-9) / jnp.maximum(average, 1e-9)
    relative = jnp.where(mask, relative, 1.0)
    jain = jain_index(throughput, mask)
    weights = params.throughput_weight * relative**-params.fairness_alpha
    weights += params.fairness_weight * 2.0 * jain * (1.0 - jain * relative)
    worth = jnp.sum(jnp.where(mask, weights * bits, 0.0))
    return worth / (config.num_cells * peak_cell_rate(config))


def slot_reward(
    before: jax.Array, after: jax.Array, mask: jax.Array, params: DownlinkParams
) -> jax.Array:
    """Reward of a slot by throughput, float32[], dimensionless.

    "fairness": throughput_weight * (mean over cells of sum_u T / peak cell rate)
    + fairness_weight * Jain(T over all users). "alpha_fair": increment over the slot of the mean
    alpha-fair utility of T in units of the equal share of the peak rate.

    Args:
      before, after: float32[C, U], EWMA throughput T in bits per slot; mask: bool[C, U].
    """
    config = params.config
    peak = peak_cell_rate(config)
    if config.reward == "alpha_fair":
        share = peak / config.num_users
        utility = _alpha_utility(after / share, params.fairness_alpha)
        earlier = _alpha_utility(before / share, params.fairness_alpha)
        return jnp.sum(jnp.where(mask, utility - earlier, 0.0)) / jnp.sum(mask)
    cell = jnp.sum(jnp.where(mask, after, 0.0), axis=-1) / peak
    fairness = jain_index(after, mask)
    return params.throughput_weight * jnp.mean(cell) + params.fairness_weight * fairness
