"""What is measured of an episode, per drop."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl5g.env.types import DownlinkConfig


class Tally(struct.PyTreeNode):
    """Sums over the counted slots of one episode.

    Attributes:
      bits: float32[C, U], acknowledged bits.
      blocks, first_failures, dropped, top_mcs: float32[], new transport blocks, those not decoded
        at their first transmission, blocks given up, and new blocks at the highest MCS.
      joules: float32[], energy radiated by all cells.
      prbs: float32[], PRBs on the air, all cells.
      mask: bool[C, U], users present.
    """

    bits: jax.Array
    blocks: jax.Array
    first_failures: jax.Array
    dropped: jax.Array
    top_mcs: jax.Array
    joules: jax.Array
    prbs: jax.Array
    mask: jax.Array


def empty_tally(mask: jax.Array) -> Tally:
    """A tally of no slots; `mask` bool[C, U]."""
    zero = jnp.float32(0)
    return Tally(jnp.zeros(mask.shape, jnp.float32), zero, zero, zero, zero, zero, zero, mask)


def add_slot(
    tally: Tally, info: dict, counts: jax.Array, top_mcs: int, slot_seconds: float
) -> Tally:
    """Adds one slot's `info` if `counts` (bool[]) says that the slot counts."""
    new = info["attempt"] == 1
    weight = jnp.where(counts, 1.0, 0.0)
    return tally.replace(
        bits=tally.bits + weight * info["acked_bits"],
        blocks=tally.blocks + weight * jnp.sum(new),
        first_failures=tally.first_failures + weight * jnp.sum(new & (info["decoded"] == 0)),
        dropped=tally.dropped + weight * jnp.sum(info["dropped"]),
        top_mcs=tally.top_mcs + weight * jnp.sum(new & (info["mcs"] == top_mcs)),
        joules=tally.joules + weight * jnp.sum(info["radiated"]) * slot_seconds,
        prbs=tally.prbs + weight * jnp.sum(info["num_prbs"]),
    )


class Metrics(NamedTuple):
    """Metrics of D drops, NumPy float64; NaN where nothing defines them.

    Attributes:
      user_throughput: [D, C, U], acknowledged bit/s, NaN for absent users.
      cell_throughput: [D], bit/s per cell, mean over cells.
      spectral_efficiency: [D], bit/s/Hz per cell over the PRBs' bandwidth.
      mean_throughput, geometric_mean, p5_throughput, min_throughput: [D], bit/s over users.
      jain: [D], Jain's index of user throughput over the whole episode.
      first_bler: [D], share of new blocks not decoded at once.
      residual_bler: [D], share of blocks given up.
      energy_efficiency: [D], acknowledged bits per joule radiated.
      prb_use: [D], share of PRBs on the air.
      top_mcs_share: [D], share of new blocks at the highest MCS.
    """

    user_throughput: np.ndarray
    cell_throughput: np.ndarray
    spectral_efficiency: np.ndarray
    mean_throughput: np.ndarray
    geometric_mean: np.ndarray
    p5_throughput: np.ndarray
    min_throughput: np.ndarray
    jain: np.ndarray
    first_bler: np.ndarray
    residual_bler: np.ndarray
    energy_efficiency: np.ndarray
    prb_use: np.ndarray
    top_mcs_share: np.ndarray


def summarise(
    tally: Tally, num_slots: int, config: DownlinkConfig, prb_bandwidth_hz: float
) -> Metrics:
    """Metrics from tallies of D drops (leaves [D, ...]) over `num_slots` counted slots each."""
    total = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tally)
    seconds = num_slots * config.slot_seconds
    present = np.asarray(tally.mask)
    users = np.where(present, total.bits / seconds, np.nan)
    flat = users.reshape(len(users), -1)
    cell = np.nansum(flat, axis=1) / config.num_cells
    # a user without a single bit has geometric mean 0, not log of 0
    with np.errstate(divide="ignore", invalid="ignore"):
        geometric = np.exp(np.nanmean(np.log(flat), axis=1))
        square = np.nansum(flat**2, axis=1)
        count = present.reshape(len(users), -1).sum(axis=1)
        jain = np.nansum(flat, axis=1) ** 2 / (count * square)

        def share(part, whole):
            return np.where(whole > 0, part / whole, np.nan)

        return Metrics(
            user_throughput=users,
            cell_throughput=cell,
            spectral_efficiency=cell / (config.num_prbs * prb_bandwidth_hz),
            mean_throughput=np.nanmean(flat, axis=1),
            geometric_mean=geometric,
            p5_throughput=np.nanpercentile(flat, 5, axis=1),
            min_throughput=np.nanmin(flat, axis=1),
            jain=jain,
            first_bler=share(total.first_failures, total.blocks),
            residual_bler=share(total.dropped, total.blocks),
            energy_efficiency=share(np.nansum(total.bits, axis=(1, 2)), total.joules),
            prb_use=total.prbs / (num_slots * config.num_cells * config.num_prbs),
            top_mcs_share=share(total.top_mcs, total.blocks),
        )
