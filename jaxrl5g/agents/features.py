"""What the two agents see of every user: numbers of order one, whatever the sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl5g.agents.foresight import foresee
from jaxrl5g.agents.slots import Slot
from jaxrl5g.mac import Observation
from jaxrl5g.mac.muting import cross_snr
from jaxrl5g.mac.numerics import grant_matrix
from jaxrl5g.mac.rates import per_prb

PRB_FEATURES = (
    "csi_mean",
    "csi_best",
    "csi_spread",
    "olla_offset",
    "throughput_share",
    "metric",
    "metric_best",
    "count",
    "log_count",
    "acked_share",
    "ack",
    "nack",
    "retransmission",
    "processes_free",
    "eligible",
)
"""Features of a user before the PRB decision, in order."""

JOINT_FEATURES = ("joint_latent", "joint_gain")
"""Added to them for `residual`."""

WEIGHT_FEATURES = ("excess",)
"""Added to them for `weighted`."""

CELL_FEATURES = (
    "clear_snr",
    "exposure",
    "share_of_all",
    "cell_share",
    "harm",
    "band",
    "company",
)
"""Added to them for `coordinated`; the last four are the cell's."""

POWER_FEATURES = ("owned", "log_owned", "owned_csi", "value_share")
"""Added to all of these once PRBs are assigned."""

_CSI_CENTRE_DB, _CSI_SCALE_DB = 12.0, 10.0
_LOG_LIMIT = 6.0


def feature_names(parametrisation: str) -> dict[str, tuple[str, ...]]:
    """What the agents "first" (PRBs) and "second" (power) see of a user, in order."""
    added = {
        "residual": JOINT_FEATURES,
        "weighted": WEIGHT_FEATURES,
        "coordinated": CELL_FEATURES,
    }
    before = (*PRB_FEATURES, *added.get(parametrisation, ()))
    return {"first": before, "second": (*before, *POWER_FEATURES)}


def prb_features(slot: Slot, observation: Observation, params: Any) -> jax.Array:
    """Features of every user before the PRB decision.

    With T the scheduler's own average of a user's bits, r its predicted bits per PRB, K users
    present and N PRBs: SINR in dB as (x - 12)/10 (its mean, and how far the best subband and the
    standard deviation are above 0), OLLA offset in 5 dB, ln(T K / sum T), ln of the mean and the
    largest of r/T over the mean of the cell's winning r/T, the PRBs parallel proportional fair
    would give as K c / N and as ln(1/4 + c) - ln(1/4 + N / K), bits last acknowledged over their
    mean, feedback, PRBs of a waiting retransmission over N, free HARQ processes, and eligibility.

    Returns:
      float32[C, U, len(PRB_FEATURES)], 0 for absent users.
    """
    config = params.config
    mask = observation.mask
    present = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1).astype(jnp.float32)
    csi = observation.csi_db
    mean_db = jnp.mean(csi, axis=-1)
    spread_db = jnp.sqrt(jnp.mean((csi - mean_db[..., None]) ** 2, axis=-1))
    average = jnp.where(mask, slot.mean, 0.0)
    total = jnp.maximum(jnp.sum(average, axis=-1, keepdims=True), 1e-6)
    metric = slot.rates * slot.prices[..., None]
    mean_metric, best_metric = jnp.mean(metric, axis=-1), jnp.max(metric, axis=-1)
    winning = jnp.where(slot.reservation.eligible[..., None], metric, 0.0)
    level = jnp.maximum(jnp.mean(jnp.max(winning, axis=-2), axis=-1, keepdims=True), 1e-12)
    counts = slot.counts.astype(jnp.float32)
    fair = config.num_prbs / present
    acked = jnp.where(mask, observation.acked_bits, 0.0)
    mean_acked = jnp.maximum(jnp.sum(acked, axis=-1, keepdims=True) / present, 1.0)
    processes = max(config.harq_processes if config.fidelity == "nr" else 1, 1)
    columns = {
        "csi_mean": (mean_db - _CSI_CENTRE_DB) / _CSI_SCALE_DB,
        "csi_best": (jnp.max(csi, axis=-1) - mean_db) / _CSI_SCALE_DB,
        "csi_spread": spread_db / _CSI_SCALE_DB,
        "olla_offset": observation.olla_offset_db / 5.0,
        "throughput_share": _log(average * present / total),
        "metric": _log(mean_metric / level),
        "metric_best": _log(best_metric / level),
        "count": counts / fair,
        "log_count": _log((counts + 0.25) / (fair + 0.25)),
        "acked_share": jnp.minimum(acked / mean_acked, _LOG_LIMIT) / 2.0,
        "ack": observation.feedback == 1,
        "nack": observation.feedback == 0,
        "retransmission": observation.harq_prbs / config.num_prbs,
        "processes_free": observation.harq_free / processes,
        "eligible": slot.reservation.eligible,
    }
    return _stack(columns, PRB_FEATURES, mask)


def joint_features(slot: Slot, observation: Observation, params: Any) -> jax.Array:
    """What choosing PRBs and power together would change, for `residual` (`foresee`).

    The latent over 2, and ten times the logarithm of what it makes the cell's slot worth more, at
    most 3.

    Returns:
      float32[C, U, len(JOINT_FEATURES)], 0 for absent users.
    """
    latents, gain = foresee(slot, observation, params)
    columns = {
        "joint_latent": latents / 2.0,
        "joint_gain": jnp.broadcast_to(jnp.minimum(10.0 * gain, 3.0)[:, None], latents.shape),
    }
    return _stack(columns, JOINT_FEATURES, observation.mask)


def weight_features(slot: Slot, observation: Observation, params: Any) -> jax.Array:
    """How far T is above the mean of the cell's users, over twice that mean, in [0, 3].

    What makes Jain's index small are users with several times the mean; what they should count for
    falls from there, while those below keep the weights of proportional fair.

    Returns:
      float32[C, U, len(WEIGHT_FEATURES)], 0 for absent users.
    """
    del params
    mask = observation.mask
    total = jnp.sum(jnp.where(mask, slot.mean, 0.0), axis=-1, keepdims=True)
    mean = total / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    columns = {"excess": jnp.clip(slot.mean / jnp.maximum(mean, 1e-6) - 1.0, 0.0, _LOG_LIMIT) / 2.0}
    return _stack(columns, WEIGHT_FEATURES, mask)


def cell_features(slot: Slot, observation: Observation, params: Any) -> jax.Array:
    """Features of every user that tell cells apart, for `coordinated`.

    Means over PRBs, in dB as (x - 12)/10: the SNR without interference, and over 10 dB what others
    at the reference power would add to the noise (`exposure`); ln of T over the mean of all users,
    and of the cell's mean T over it; what the cell would add to the noise of other cells' users
    (`harm`, their mean); the part of the band that its levels keep, and how many others keep the
    same PRBs (`company`, a mean). Other cells enter in sums alone, so their order is of no matter.

    Args:
      slot: under levels (`jaxrl5g.agents.slots.coordinate`).
      observation: with centralised CSI.
      params: the environment's parameters.

    Returns:
      float32[C, U, len(CELL_FEATURES)], 0 for absent users.
    """
    assert slot.levels is not None
    cells, mask = params.config.num_cells, observation.mask
    heard = cross_snr(observation)
    own = jnp.stack([heard[c, :, c] for c in range(cells)])
    others = jnp.where(jnp.eye(cells, dtype=bool)[:, None, :, None], 0.0, heard)
    clear_db = jnp.mean(jnp.clip(_decibel(own), -40.0, 60.0), axis=-1)
    exposure_db = jnp.mean(_decibel(1.0 + jnp.sum(others, axis=2)), axis=-1)
    harm_db = jnp.where(mask[..., None], jnp.mean(_decibel(1.0 + others), axis=-1), 0.0)
    foreign = jnp.sum(mask) - jnp.sum(mask, axis=-1)
    mean = jnp.where(mask, slot.mean, 0.0)
    overall = jnp.maximum(jnp.sum(mean) / jnp.maximum(jnp.sum(mask), 1), 1e-6)
    of_cell = jnp.sum(mean, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)
    on = slot.levels > 0
    kept = jnp.sum(on, axis=-1)
    shared = jnp.sum(on * (jnp.sum(on, axis=0) - 1), axis=-1)

    def of_users(values: jax.Array) -> jax.Array:
        return jnp.broadcast_to(values[:, None], mask.shape)

    columns = {
        "clear_snr": (clear_db - _CSI_CENTRE_DB) / _CSI_SCALE_DB,
        "exposure": exposure_db / _CSI_SCALE_DB,
        "share_of_all": _log(slot.mean / overall),
        "cell_share": of_users(_log(of_cell / overall)),
        "harm": of_users(jnp.sum(harm_db, axis=(0, 1)) / jnp.maximum(foreign, 1) / _CSI_SCALE_DB),
        "band": of_users(kept / params.config.num_prbs),
        "company": of_users(shared / jnp.maximum(kept, 1)),
    }
    return _stack(columns, CELL_FEATURES, mask)


def power_features(
    before: jax.Array, slot: Slot, owner: jax.Array, observation: Observation, params: Any
) -> jax.Array:
    """Features of every user once PRBs are assigned.

    Adds to `before` the PRBs of new data owned (as K n / N and as a logarithm, like the counts),
    their mean SINR, 0 without any, and each user's part of the sum of r/T over them.

    Returns:
      float32[C, U, F + len(POWER_FEATURES)], 0 for absent users.
    """
    config = params.config
    mask = observation.mask
    present = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1).astype(jnp.float32)
    fair = config.num_prbs / present
    mine = grant_matrix(jnp.where(slot.reservation.owner < 0, owner, -1), config.num_users)
    owned = jnp.sum(mine, axis=-1).astype(jnp.float32)
    csi = per_prb(observation.csi_db, config)
    mean_db = jnp.sum(jnp.where(mine, csi, 0.0), axis=-1) / jnp.maximum(owned, 1.0)
    rates = per_prb(slot.rates, config)
    value = jnp.sum(jnp.where(mine, rates, 0.0), axis=-1) * slot.prices
    total = jnp.maximum(jnp.sum(jnp.where(mask, value, 0.0), axis=-1, keepdims=True), 1e-12)
    columns = {
        "owned": owned / fair,
        "log_owned": _log((owned + 0.25) / (fair + 0.25)),
        "owned_csi": jnp.where(owned > 0, (mean_db - _CSI_CENTRE_DB) / _CSI_SCALE_DB, 0.0),
        "value_share": value * present / total / 4.0,
    }
    added = _stack(columns, POWER_FEATURES, mask)
    return jnp.concatenate([before, added], axis=-1)


def _decibel(ratio: jax.Array) -> jax.Array:
    return 10.0 * jnp.log10(jnp.maximum(ratio, 1e-6))


def _log(ratio: jax.Array) -> jax.Array:
    """Natural logarithm within +-6, over 2."""
    return jnp.clip(jnp.log(jnp.maximum(ratio, 1e-6)), -_LOG_LIMIT, _LOG_LIMIT) / 2.0


def _stack(columns: dict[str, jax.Array], names: tuple[str, ...], mask: jax.Array) -> jax.Array:
    stacked = jnp.stack([columns[name].astype(jnp.float32) for name in names], axis=-1)
    return jnp.where(mask[..., None], stacked, 0.0)
