"""One slot on the air: from a feasible allocation to decoded and acknowledged bits.

One function per fidelity, all with the same arguments and the same `Outcome`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl5g import phy
from jaxrl5g.env.csi import split_by_source
from jaxrl5g.env.projection import Projection, granted
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams, DownlinkState
from jaxrl5g.env.uniforms import block_uniforms
from jaxrl5g.mac import per_prb
from jaxrl5g.phy import harq as harq_processes
from jaxrl5g.phy.harq import HarqState


class Outcome(struct.PyTreeNode):
    """What a slot did; leaves are [C, U] unless said otherwise.

    Attributes:
      radiated: float32[C, N], watts on the air.
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


_LEAST_SINR = 1e-30


def _of_owner(values: jax.Array, owner: jax.Array) -> jax.Array:
    """The owner's value on every PRB: [C, U, N] -> [C, N]; that of user 0 where muted."""
    index = jnp.maximum(owner, 0)[:, None, :]
    return jnp.take_along_axis(values, index, axis=1)[:, 0]


def _on_air(
    state: DownlinkState, projection: Projection, silent: jax.Array | None, params: DownlinkParams
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(owner, radiated, owners' SINR), [C, N]; PRBs of `silent` users stay dark."""
    owner, power = projection.owner, projection.power
    holder = jnp.maximum(owner, 0)
    if silent is not None:
        dark = jnp.take_along_axis(silent, holder, axis=-1)
        owner, power = jnp.where(dark, -1, owner), jnp.where(dark, 0.0, power)
    gains = params.channel.owner_gains(state.drop, state.time, holder)
    own, heard = split_by_source(gains, power)
    sinr = power * (own / (params.noise_power + heard))
    # a PRB on the air belongs to its block however weak it is heard
    return owner, power, jnp.where(power > 0, jnp.maximum(sinr, _LEAST_SINR), 0.0)


def _grants(config: DownlinkConfig) -> phy.Grants:
    return phy.grants(config.num_prbs, config.res_per_prb, config.mcs_table, config.fidelity)


def transmit_shannon(
    state: DownlinkState, projection: Projection, params: DownlinkParams
) -> Outcome:
    """min(log2(1 + SINR), cap) bits per resource element, never an error; differentiable."""
    config = params.config
    owner, power, sinr = _on_air(state, projection, None, params)
    cap = phy.max_spectral_efficiency(config.mcs_table)
    bits = config.res_per_prb * jnp.minimum(jnp.log2(1.0 + sinr), cap)
    served = owner[:, None, :] == jnp.arange(config.num_users)[:, None]
    user_bits = jnp.sum(jnp.where(served, bits[:, None, :], 0.0), axis=-1)
    count = jnp.sum(served, axis=-1)
    efficiency = user_bits / (config.res_per_prb * jnp.maximum(count, 1))
    feedback = jnp.where(count > 0, 1, -1)
    return Outcome(
        radiated=power,
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
    state: DownlinkState, projection: Projection, params: DownlinkParams
) -> Outcome:
    """Sionna SYS: MCS from the last effective SINR, one draw, a lost block stays lost."""
    grants = _grants(params.config)
    owner, power, sinr = _on_air(state, projection, None, params)
    count = granted(owner, params.config.num_users)
    believed = phy.to_linear(state.sinr_eff_db - state.olla_offset_db)
    mcs = phy.grant_mcs(grants, count, believed, params.bler_target)
    sinr_eff = phy.owner_effective_sinr(sinr, owner, mcs, table=grants.table)
    error_rate = phy.grant_error_rate(grants, count, mcs, sinr_eff)
    sent = count > 0
    decoded = block_uniforms(state) >= error_rate
    feedback = jnp.where(sent, decoded.astype(jnp.int32), -1)
    block_bits = grants.at(grants.block_bits, count, mcs)
    return Outcome(
        radiated=power,
        attempt=sent.astype(jnp.int32),
        num_prbs=count,
        mcs=jnp.where(sent, mcs, -1),
        block_bits=block_bits,
        sinr_eff=sinr_eff,
        error_rate=error_rate,
        decoded=feedback,
        acked_bits=jnp.where(feedback == 1, block_bits, 0.0),
        feedback=feedback,
        first_feedback=feedback,
        dropped=feedback == 0,
        harq=state.harq,
    )


def transmit_nr(state: DownlinkState, projection: Projection, params: DownlinkParams) -> Outcome:
    """Link adaptation on the power about to be used, HARQ with soft combining and K1 delay."""
    config, grants = params.config, _grants(params.config)
    table = config.mcs_table
    sent = harq_processes.start(
        state.harq,
        state.time,
        granted(projection.owner, config.num_users),
        block_uniforms(state),
    )
    owner, power, sinr = _on_air(state, projection, sent.attempt == 0, params)

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
        sent, sinr_eff, grants, combining=config.combining
    )
    due = state.time + config.feedback_delay
    harq = harq_processes.store(state.harq, sent, evidence, failed, due)
    harq, feedback = harq_processes.receive_feedback(harq, state.time + 1, config.max_transmissions)
    acked_bits = grants.at(grants.block_bits, feedback.num_prbs, feedback.mcs)
    on_air = sent.attempt > 0
    return Outcome(
        radiated=power,
        attempt=sent.attempt,
        num_prbs=sent.num_prbs,
        mcs=jnp.where(on_air, sent.mcs, -1),
        block_bits=grants.at(grants.block_bits, sent.num_prbs, sent.mcs),
        sinr_eff=sinr_eff,
        error_rate=error_rate,
        decoded=jnp.where(on_air, 1 - failed.astype(jnp.int32), -1),
        acked_bits=jnp.where(feedback.outcome == 1, acked_bits, 0.0),
        feedback=feedback.outcome,
        first_feedback=jnp.where(feedback.attempt == 1, feedback.outcome, -1),
        dropped=feedback.dropped,
        harq=harq,
    )


TRANSMIT = {"shannon": transmit_shannon, "sionna": transmit_sionna, "nr": transmit_nr}
