"""Rewards, computed from smoothed throughput after a slot."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl5g import phy
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


def slot_reward(
    before: jax.Array, after: jax.Array, mask: jax.Array, params: DownlinkParams
) -> jax.Array:
    """Reward of a slot, float32[], dimensionless.

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
