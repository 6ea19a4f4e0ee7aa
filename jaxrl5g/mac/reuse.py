"""Frequency reuse between cells: planned beforehand, no word exchanged in operation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g.mac.rates import per_prb, predicted_rates
from jaxrl5g.mac.retransmission import reserve_retransmissions
from jaxrl5g.mac.schedulers import (
    Number,
    average,
    check_window,
    initial_average,
    largest_metric,
    price,
)
from jaxrl5g.mac.types import Allocation, CellConfig, Observation, Scheduler

_COLOURS = 3


def _colour_of(config: CellConfig) -> np.ndarray:
    """int[S]: the third of the band that each subband belongs to, dealt out in turn."""
    subbands = -(-config.num_prbs // config.subband_size)
    return np.arange(subbands) % _COLOURS


def _own_colour(config: CellConfig) -> np.ndarray:
    """bool[C, S]: subbands of each cell's own third."""
    return _colour_of(config) == (np.arange(config.num_cells) % _COLOURS)[:, None]


def _spread(owner: jax.Array, level: jax.Array, params) -> Allocation:
    """Powers in proportion to `level` float32[C, N] on owned PRBs, all of the budget together."""
    level = jnp.where(owner >= 0, level, 0.0)
    total = jnp.sum(level, axis=-1, keepdims=True)
    scale = params.power_budget / jnp.maximum(total, 1e-30)
    return Allocation(owner, jnp.where(total > 0, level * scale, 0.0))


def _without_foreign(observation: Observation, allowed: jax.Array, config: CellConfig):
    """Retransmissions reserved on allowed subbands; elsewhere the best subband reads worst."""
    floor = jnp.min(observation.csi_db) - 100.0
    return reserve_retransmissions(
        observation.replace(csi_db=jnp.where(allowed[:, None, :], observation.csi_db, floor)),
        config,
    )


def reuse_three(window: Number = 100) -> Scheduler:
    """Proportional fair on a third of the band per cell (reuse 3), all power on that third.

    Cell c uses the subbands s with s mod 3 = c mod 3. A retransmission larger than the third
    overflows into the rest.

    Raises:
      ValueError: window below 1.
    """
    check_window(window)

    def apply(key, observation, mean, params):
        del key
        config = params.config
        mean = average(mean, observation.acked_bits, window)
        own = jnp.asarray(_own_colour(config))
        reservation = _without_foreign(observation, own, config)
        metric = predicted_rates(observation, params) / price(mean, 1.0)[..., None]
        metric = jnp.where(own[:, None, :], metric, -1.0)
        chosen = largest_metric(metric, reservation.eligible, config)
        owner = jnp.where(reservation.owner >= 0, reservation.owner, chosen)
        return _spread(owner, jnp.ones(owner.shape), params), mean

    return Scheduler(initial_average, apply)


def fractional_reuse(
    window: Number = 100, inner_share: float = 0.5, boost_db: float = 6.0
) -> Scheduler:
    """Fractional frequency reuse: users near the site share an inner band, the others reuse 3.

    The first `inner_share` of the subbands is used by every cell, for the half of its users with
    the better mean report; the rest is split in thirds as in `reuse_three`, for the other half,
    with `boost_db` more power a PRB. A class without a user leaves its band dark.

    Args:
      window: of the average, at least 1 slot; inner_share: in (0, 1); boost_db: dB.

    Raises:
      ValueError: window below 1 or inner_share outside (0, 1).
    """
    check_window(window)
    if not 0 < inner_share < 1:
        raise ValueError(f"inner_share must be inside (0, 1), got {inner_share!r}.")

    def apply(key, observation, mean, params):
        del key
        config = params.config
        mean = average(mean, observation.acked_bits, window)
        subbands = observation.csi_db.shape[-1]
        inner = jnp.arange(subbands) < round(inner_share * subbands)
        allowed = inner | jnp.asarray(_own_colour(config))
        reservation = _without_foreign(observation, allowed, config)
        quality = jnp.mean(observation.csi_db, axis=-1)
        present = jnp.where(observation.mask, quality, jnp.nan)
        near = quality >= jnp.nanmedian(present, axis=-1, keepdims=True)
        fits = allowed[:, None, :] & (near[..., None] == inner)
        metric = predicted_rates(observation, params) / price(mean, 1.0)[..., None]
        chosen = largest_metric(jnp.where(fits, metric, -1.0), reservation.eligible, config)
        owner = jnp.where(reservation.owner >= 0, reservation.owner, chosen)
        level = per_prb(jnp.where(inner, 1.0, 10.0 ** (boost_db / 10.0)), config)
        return _spread(owner, jnp.broadcast_to(level, owner.shape), params), mean

    return Scheduler(initial_average, apply)
