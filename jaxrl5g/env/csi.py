"""SINR on the air and what of it reaches the base stations."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g import phy
from jaxrl5g.env.rarely import rarely
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams
from jaxrl5g.mac.rates import subband_members

CSI_FLOOR_DB = -40.0
CSI_CEILING_DB = 60.0


def split_by_source(gains: jax.Array, radiated: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gain from the serving cell, and watts received from all other cells.

    Args:
      gains: float32[C, ..., C, N], from every cell (second last axis) to users of each cell.
      radiated: float32[C, N] watts.

    Returns:
      Two float32[C, ..., N].
    """
    num_cells = gains.shape[0]
    if num_cells == 1:
        own = gains[..., 0, :]
        return own, jnp.zeros_like(own)
    between = (1,) * (gains.ndim - 3)
    serving = np.eye(num_cells, dtype=bool).reshape(num_cells, *between, num_cells, 1)
    own = jnp.sum(jnp.where(serving, gains, 0.0), axis=-2)
    return own, jnp.sum(jnp.where(serving, 0.0, gains * radiated), axis=-2)


def _subband_mean(sinr: jax.Array, config: DownlinkConfig) -> jax.Array:
    """The flat SINR of equal capacity over each subband, linear, [..., N] -> [..., S]."""
    if config.subband_size == 1:
        return sinr
    members = subband_members(config)
    # a product with a constant matrix: strided sums would keep XLA from vectorising on a CPU
    mean = jnp.matmul(
        jnp.log2(1.0 + sinr), members / members.sum(axis=0), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.exp2(mean) - 1.0


def measure(
    gains: jax.Array, radiated: jax.Array, mask: jax.Array, params: DownlinkParams
) -> jax.Array:
    """CSI in dB as a base station will read it, float32[C, U, S].

    The SINR at the reference power (budget / N on each PRB) against the interference that is on
    the air now. Under reported CSI it goes through the 4-bit CQI of TS 38.214 5.2.2.1 and is
    read as the SINR midway between the index's threshold and the next.

    Args:
      gains: float32[C, U, C, N]; radiated: float32[C, N] watts on the air in all cells.
      mask: bool[C, U]; absent users read as the floor.
    """
    config = params.config
    reference = params.power_budget / config.num_prbs
    own, heard = split_by_source(gains, radiated)
    sinr = _subband_mean(reference * own / (params.noise_power + heard), config)
    if config.csi != "reported":
        reading = 10.0 * jnp.log10(jnp.maximum(sinr, 1e-30))
    else:
        # a CQI names a row of the specification's table, so Sionna's curves never enter
        fidelity = "shannon" if config.fidelity == "shannon" else "nr"
        index = phy.quantise_cqi(sinr, table=config.mcs_table, fidelity=fidelity)
        reading = phy.cqi_sinr_db(index, table=config.mcs_table, fidelity=fidelity)
    reading = jnp.clip(reading, CSI_FLOOR_DB, CSI_CEILING_DB)
    return jnp.where(mask[..., None], reading, CSI_FLOOR_DB)


def deliver(
    csi_db: jax.Array,
    reports_db: jax.Array,
    measured_db: Callable[[jax.Array], jax.Array],
    slot: jax.Array,
    config: DownlinkConfig,
) -> tuple[jax.Array, jax.Array]:
    """Moves CQI reports along at the end of a slot.

    A report measured in slot t, t a multiple of the period, serves decisions from t + delay on.

    Args:
      csi_db: float32[C, U, S] in use; reports_db: float32[Q, C, U, S] on their way.
      measured_db: gives a slot's measurement, float32[C, U, S]; called only when one is due.
      slot: int32[], this slot.

    Returns:
      (csi_db for slot + 1, reports_db).
    """
    period, delay, places = config.cqi_period, config.cqi_delay, config.reports_in_flight
    place = jnp.arange(places) == (slot // period) % places
    reports_db = rarely(
        slot % period == 0,
        lambda turn: jnp.where(place[:, None, None, None], measured_db(slot + turn), reports_db),
        reports_db,
    )
    sent = slot + 1 - delay
    arrives = (sent >= 0) & (sent % period == 0)
    arriving = reports_db[(sent // period) % places]
    return jnp.where(arrives, arriving, csi_db), reports_db
