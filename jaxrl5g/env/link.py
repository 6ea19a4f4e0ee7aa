"""One slot on the air: from a feasible allocation to decoded and acknowledged bits.

One function per fidelity, all with the same arguments and the same `Outcome`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend.random import threefry_2x32

from jaxrl5g import phy
from jaxrl5g.env.csi import interference
from jaxrl5g.env.projection import Projection, granted
from jaxrl5g.env.types import DownlinkParams, DownlinkState
from jaxrl5g.mac import per_prb
from jaxrl5g.phy import harq as harq_processes
from jaxrl5g.phy.harq import HarqState


class Outcome(struct.PyTreeNode):
    """What a slot did; leaves are [C, U] unless said otherwise.

    Attributes:
      radiated: float32[C, N], watts on the air.
      disturbance: float32[C, U, N], watts of interference received.
      attempt: int32, transmission number of the block sent, 0 for none.
      num_prbs: int32, PRBs it took.
      mcs: int32, its MCS index, -1 for none ("shannon" uses none).
      block_bits: float32, transport block size in bits, 0 for none.
      sinr_eff: float32, linear effective SINR of this transmission, 0 for none.
      error_rate: float32, probability that it is not decoded, combining included.
      decoded: int32, 1 yes, 0 no, -1 nothing sent.
      acked_bits: float32, bits whose acknowledgement arrives at the end of the slot.
      feedback: int32, feedback arriving at the end of the slot: 1, 0 or -1.
      first_feedback: int32, the same for first transmissions only (what OLLA counts).
      dropped: bool, a block was given up: a residual error.
      harq: processes after the slot.
    """

    radiated: jax.Array
    disturbance: jax.Array
    attempt: jax.Array
    num_prbs: jax.Array
    mcs: jax.Array
    block_bits: jax.Array
    sinr_eff: jax.Array
    error_rate: jax.Array
    decoded: jax.Array
    acked_bits: jax.Array
    feedback: jax.Array
    first_feedback: jax.Array
    dropped: jax.Array
    harq: HarqState


def block_uniforms(state: DownlinkState) -> jax.Array:
    """float32[C, U] in [0, 1): the numbers of blocks first sent in this slot.

    A function of (drop key, slot, track) alone, so that schedulers can be compared on the same
    luck and users may change places.
    """
    tracks = state.drop.tracks
    # the counter-based generator at (track, slot): one block per user and nothing else
    counter = jnp.stack([tracks, jnp.broadcast_to(state.time, tracks.shape)])
    bits = threefry_2x32(jax.random.key_data(state.key), counter.astype(jnp.uint32))[0]
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def _of_owner(values: jax.Array, owner: jax.Array) -> jax.Array:
    """The owner's value on every PRB: [C, U, N] -> [C, N]; that of user 0 where muted."""
    index = jnp.maximum(owner, 0)[:, None, :]
    return jnp.take_along_axis(values, index, axis=1)[:, 0]


def _on_air(
    projection: Projection, silent: jax.Array | None, own: jax.Array, gains: jax.Array, noise
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(owner, radiated, disturbance, owners' SINR [C, N]); PRBs of `silent` users stay dark."""
    owner, power = projection.owner, projection.power
    if silent is not None:
        dark = jnp.take_along_axis(silent, jnp.maximum(owner, 0), axis=-1)
        owner, power = jnp.where(dark, -1, owner), jnp.where(dark, 0.0, power)
    disturbance = interference(gains, power)
    sinr = power * _of_owner(own, owner) / (noise + _of_owner(disturbance, owner))
    return owner, power, disturbance, sinr


def _block_bits(mcs: jax.Array, num_re: jax.Array, table: int, fidelity: str) -> jax.Array:
    order, rate = phy.mcs_parameters(mcs, table=table)
    return phy.transport_block_size(num_re, order, rate, fidelity=fidelity).astype(jnp.float32)


def transmit_shannon(
    state: DownlinkState,
    projection: Projection,
    own: jax.Array,
    gains: jax.Array,
    params: DownlinkParams,
) -> Outcome:
    """min(log2(1 + SINR), cap) bits per resource element, never an error; differentiable."""
    config = params.config
    owner, power, disturbance, sinr = _on_air(projection, None, own, gains, params.noise_power)
    cap = phy.max_spectral_efficiency(config.mcs_table)
    bits = config.res_per_prb * jnp.minimum(jnp.log2(1.0 + sinr), cap)
    served = owner[:, None, :] == jnp.arange(config.num_users)[:, None]
    user_bits = jnp.sum(jnp.where(served, bits[:, None, :], 0.0), axis=-1)
    count = jnp.sum(served, axis=-1)
    efficiency = user_bits / (config.res_per_prb * jnp.maximum(count, 1))
    feedback = jnp.where(count > 0, 1, -1)
    return Outcome(
        radiated=power,
        disturbance=disturbance,
        attempt=jnp.where(count > 0, 1, 0),
        num_prbs=count,
        mcs=jnp.full_like(count, -1),
        block_bits=user_bits,
        sinr_eff=jnp.exp2(efficiency) - 1.0,
        error_rate=jnp.zeros_like(user_bits),
        decoded=feedback,
        acked_bits=user_bits,
        feedback=feedback,
        # there are no errors for an outer loop to steer: its offset stays 0
        first_feedback=jnp.full_like(count, -1),
        dropped=jnp.zeros(count.shape, bool),
        harq=state.harq,
    )


def transmit_sionna(
    state: DownlinkState,
    projection: Projection,
    own: jax.Array,
    gains: jax.Array,
    params: DownlinkParams,
) -> Outcome:
    """Sionna SYS: MCS from the last effective SINR, one draw, a lost block stays lost."""
    config = params.config
    table = config.mcs_table
    owner, power, disturbance, sinr = _on_air(projection, None, own, gains, params.noise_power)
    count = granted(owner, config.num_users)
    num_re = count * config.res_per_prb
    believed = phy.to_linear(state.sinr_eff_db - state.olla_offset_db)
    mcs = phy.select_mcs(believed, num_re, params.bler_target, table=table, fidelity="sionna")
    sinr_eff = phy.owner_effective_sinr(sinr, owner, mcs, table=table)
    error_rate = phy.transport_block_error_rate(
        mcs, num_re, sinr_eff, table=table, fidelity="sionna"
    )
    sent = count > 0
    decoded = block_uniforms(state) >= error_rate
    feedback = jnp.where(sent, decoded.astype(jnp.int32), -1)
    block_bits = jnp.where(sent, _block_bits(mcs, num_re, table, "sionna"), 0.0)
    return Outcome(
        radiated=power,
        disturbance=disturbance,
        attempt=sent.astype(jnp.int32),
        num_prbs=count,
        mcs=jnp.where(sent, mcs, -1),
        block_bits=block_bits,
        sinr_eff=sinr_eff,
        error_rate=jnp.where(sent, error_rate, 0.0),
        decoded=feedback,
        acked_bits=jnp.where(feedback == 1, block_bits, 0.0),
        feedback=feedback,
        first_feedback=feedback,
        dropped=feedback == 0,
        harq=state.harq,
    )


def transmit_nr(
    state: DownlinkState,
    projection: Projection,
    own: jax.Array,
    gains: jax.Array,
    params: DownlinkParams,
) -> Outcome:
    """Link adaptation on the power about to be used, HARQ with soft combining and K1 delay."""
    config = params.config
    table = config.mcs_table
    sent = harq_processes.start(
        state.harq,
        state.time,
        granted(projection.owner, config.num_users),
        block_uniforms(state),
    )
    owner, power, disturbance, sinr = _on_air(
        projection, sent.attempt == 0, own, gains, params.noise_power
    )
    num_re = sent.num_prbs * config.res_per_prb

    reference = params.power_budget / config.num_prbs
    believed_db = _of_owner(per_prb(state.csi_db, config), owner)
    predicted = phy.to_linear(believed_db) * (power / reference)
    candidates = phy.candidate_effective_sinr(predicted, owner, config.num_users, table=table)
    candidates = candidates * phy.to_linear(-state.olla_offset_db[..., None])
    # one row per grant size, shared by all users (and by a batch with common parameters)
    sizes = config.res_per_prb * jnp.arange(config.num_prbs + 1)
    required = phy.required_sinr(sizes, params.bler_target, table=table)
    chosen = phy.highest_mcs(candidates, required[sent.num_prbs])
    sent = sent.replace(mcs=jnp.where(sent.attempt == 1, chosen, sent.mcs))

    sinr_eff = phy.owner_effective_sinr(sinr, owner, sent.mcs, table=table)
    evidence, error_rate, failed = harq_processes.decode(
        sent, sinr_eff, num_re, table=table, combining=config.combining
    )
    due = state.time + config.feedback_delay
    harq = harq_processes.store(state.harq, sent, evidence, failed, due)
    harq, feedback = harq_processes.receive_feedback(harq, state.time + 1, config.max_transmissions)
    acked_re = feedback.num_prbs * config.res_per_prb
    acked_bits = jnp.where(
        feedback.outcome == 1, _block_bits(feedback.mcs, acked_re, table, "nr"), 0.0
    )
    on_air = sent.attempt > 0
    return Outcome(
        radiated=power,
        disturbance=disturbance,
        attempt=sent.attempt,
        num_prbs=sent.num_prbs,
        mcs=jnp.where(on_air, sent.mcs, -1),
        block_bits=jnp.where(on_air, _block_bits(sent.mcs, num_re, table, "nr"), 0.0),
        sinr_eff=sinr_eff,
        error_rate=error_rate,
        decoded=jnp.where(on_air, 1 - failed.astype(jnp.int32), -1),
        acked_bits=acked_bits,
        feedback=feedback.outcome,
        first_feedback=jnp.where(feedback.attempt == 1, feedback.outcome, -1),
        dropped=feedback.dropped,
        harq=harq,
    )


TRANSMIT = {"shannon": transmit_shannon, "sionna": transmit_sionna, "nr": transmit_nr}
