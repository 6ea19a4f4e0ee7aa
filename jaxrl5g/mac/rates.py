"""Rates that a base station predicts from what it was told."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g import phy
from jaxrl5g.mac.power import reference_power
from jaxrl5g.mac.types import CellConfig, CellParams, Observation


def per_prb(subbands: jax.Array, config: CellConfig) -> jax.Array:
    """Spreads values per subband over PRBs: [..., S] -> [..., N]; the last subband may be short."""
    if config.subband_size == 1:
        return subbands
    shape = (*subbands.shape, config.subband_size)
    spread = jnp.broadcast_to(subbands[..., None], shape).reshape(*subbands.shape[:-1], -1)
    return spread[..., : config.num_prbs]


def subband_members(config: CellConfig) -> np.ndarray:
    """float32[N, S]: 1 where a PRB belongs to a subband, a constant matrix for products."""
    subband = np.arange(config.num_prbs) // config.subband_size
    return (subband[:, None] == np.arange(subband[-1] + 1)).astype(np.float32)


def count_in_subbands(marked: jax.Array, config: CellConfig) -> jax.Array:
    """How many PRBs of each subband are marked: bool[..., N] -> float32[..., S]."""
    if config.subband_size == 1:
        return marked.astype(jnp.float32)
    members = subband_members(config)
    return jnp.matmul(marked.astype(jnp.float32), members, precision=jax.lax.Precision.HIGHEST)


def predicted_rates(observation: Observation, params: CellParams) -> jax.Array:
    """Bits that one PRB of each subband would carry in a slot for each user.

    The reported SINR less the OLLA offset selects an MCS on a flat channel; its spectral
    efficiency times the PRB's resource elements is the rate.

    Returns:
      float32[C, U, S], bits per PRB and slot, positive.
    """
    config = params.config
    # Sionna's loop predicts from the SINR alone; its offset acts on the MCS only.
    offset = 0.0 if config.fidelity == "sionna" else observation.olla_offset_db[..., None]
    sinr = phy.to_linear(observation.csi_db - offset)
    rate = phy.predicted_rate(sinr, table=config.mcs_table, fidelity=config.fidelity)
    return config.res_per_prb * rate


def owner_gains(owner: jax.Array, observation: Observation, params: CellParams) -> jax.Array:
    """Predicted SINR per watt of each PRB at its owner, float32[C, N]; 0 where unowned.

    Args:
      owner: int32[C, N]; anything outside 0..U-1 is nobody.
    """
    config = params.config
    holder = jnp.clip(owner, 0, config.num_users - 1)[..., None, :]
    reported_db = jnp.take_along_axis(per_prb(observation.csi_db, config), holder, axis=-2)
    owned = (owner >= 0) & (owner < config.num_users)
    return jnp.where(owned, phy.to_linear(reported_db[..., 0, :]), 0.0) / reference_power(params)
