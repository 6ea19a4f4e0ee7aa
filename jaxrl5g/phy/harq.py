"""Hybrid ARQ: parallel stop-and-wait processes with soft combining.

A process holds one transport block from its first transmission until it is acknowledged or given
up after `max_transmissions`. Per block it stores one scalar of evidence and one uniform number:
attempt m fails if and only if uniform < P_m, P_m the error rate after combining m transmissions.
Combining follows the reference rules of the project for grants that vary in size: a
retransmission takes exactly its original number of PRBs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl5g.phy.effective_sinr import eesm_beta
from jaxrl5g.phy.error_model import incremental_redundancy_shift_db
from jaxrl5g.phy.grants import Grants, grant_error_rate
from jaxrl5g.phy.lookup import to_linear, unfused

COMBINING = ("chase", "incremental")


class HarqState(struct.PyTreeNode):
    """HARQ processes; every leaf is [..., P] with P processes.

    Attributes:
      attempts: int32, transmissions made of the block held; 0 for a free process.
      due: int32, slot at whose start the feedback of the last transmission is known.
      failed: bool, the last transmission was not decoded.
      mcs: int32, MCS index of the block.
      num_prbs: int32, PRBs of every transmission of the block.
      evidence: float32, chase: sum of linear effective SINRs; incremental: mean of exp(-s/beta).
      uniform: float32 in [0, 1), drawn once for the block.
    """

    attempts: jax.Array
    due: jax.Array
    failed: jax.Array
    mcs: jax.Array
    num_prbs: jax.Array
    evidence: jax.Array
    uniform: jax.Array


class Transmission(struct.PyTreeNode):
    """One transport block on the air per user; every leaf is [...].

    Attributes:
      process: bool[..., P], one-hot process in use, all False for none.
      attempt: int32, 1 for new data, 2.. for retransmissions, 0 for none.
      mcs: int32; num_prbs: int32; evidence: float32; uniform: float32, as in `HarqState`,
        before this transmission is combined.
    """

    process: jax.Array
    attempt: jax.Array
    mcs: jax.Array
    num_prbs: jax.Array
    evidence: jax.Array
    uniform: jax.Array


class Feedback(struct.PyTreeNode):
    """Feedback that arrives at the start of a slot; every leaf is [...].

    Attributes:
      outcome: int32, 1 ACK, 0 NACK, -1 none.
      attempt: int32, which transmission of the block it answers; 0 for none.
      mcs: int32; num_prbs: int32, of the block.
      dropped: bool, the block is given up: a residual error.
    """

    outcome: jax.Array
    attempt: jax.Array
    mcs: jax.Array
    num_prbs: jax.Array
    dropped: jax.Array


def init_harq(shape: tuple[int, ...], num_processes: int) -> HarqState:
    """All processes free; leaves are [*shape, num_processes]."""
    full = (*shape, num_processes)
    integer = jnp.zeros(full, jnp.int32)
    real = jnp.zeros(full, jnp.float32)
    return HarqState(
        attempts=integer,
        due=integer,
        failed=jnp.zeros(full, bool),
        mcs=integer,
        num_prbs=integer,
        evidence=real,
        uniform=real,
    )


def _pick(selected: jax.Array, values: jax.Array) -> jax.Array:
    """The value at the one selected process, 0 for none."""
    return jnp.sum(jnp.where(selected, values, 0), axis=-1)


def _oldest_waiting(state: HarqState, slot: jax.Array) -> jax.Array:
    """One-hot over processes: the waiting retransmission whose feedback came first."""
    waiting = (state.attempts > 0) & state.failed & (state.due <= slot)
    # a user gets one feedback a slot at most, so the due slots of waiting blocks differ
    due = jnp.where(waiting, state.due, jnp.iinfo(jnp.int32).max)
    return waiting & (due == jnp.min(due, axis=-1, keepdims=True))


def waiting_prbs(state: HarqState, slot: jax.Array) -> jax.Array:
    """int32[...]: PRBs that the oldest waiting retransmission takes, 0 where none waits."""
    return _pick(_oldest_waiting(state, slot), state.num_prbs)


def free_processes(state: HarqState) -> jax.Array:
    """int32[...]: processes that can take new data."""
    return jnp.sum(state.attempts == 0, axis=-1)


def start(
    state: HarqState, slot: jax.Array, granted_prbs: jax.Array, uniform: jax.Array
) -> Transmission:
    """Chooses what each user sends on its grant; its MCS is filled in by link adaptation.

    A grant of exactly the size of the oldest waiting block retransmits it; any other grant
    carries new data on a free process; with no process free nothing is sent.

    Args:
      state: processes, leaves [..., P].
      slot: int32[], the present slot.
      granted_prbs: int32[...], PRBs granted in this slot.
      uniform: float32[...], the number of a block first sent in this slot.

    Returns:
      The transmissions; `mcs` is 0 for new data.
    """
    granted = granted_prbs > 0
    oldest = _oldest_waiting(state, slot)
    again = granted & (_pick(oldest, state.num_prbs) == granted_prbs)
    free = state.attempts == 0
    earlier = np.triu(np.ones((free.shape[-1],) * 2, np.float32), k=1)
    first_free = free & (jnp.matmul(free.astype(jnp.float32), earlier) == 0)
    new = granted & ~again & jnp.any(free, axis=-1)
    process = unfused(jnp.where(again[..., None], oldest, first_free & new[..., None]))
    resent = oldest & again[..., None]
    return Transmission(
        process=process,
        attempt=jnp.where(new, 1, jnp.where(again, _pick(resent, state.attempts) + 1, 0)),
        mcs=_pick(resent, state.mcs),
        num_prbs=jnp.where(new | again, granted_prbs, 0),
        evidence=_pick(resent, state.evidence),
        uniform=jnp.where(new, uniform, _pick(resent, state.uniform)),
    )


def combine(
    evidence: jax.Array,
    attempt: jax.Array,
    sinr_eff: jax.Array,
    mcs: jax.Array,
    table: int = 1,
    combining: str = "chase",
) -> tuple[jax.Array, jax.Array]:
    """Adds one transmission to a block's evidence.

    Chase combining adds linear SINRs (maximum-ratio combining). Incremental redundancy averages
    exp(-s/beta) over the transmissions and divides the code rate by their number, read off the
    block's own curve shifted by the Shannon gap.

    Args:
      evidence: float32[...], from the earlier transmissions.
      attempt: int32[...], number of this transmission, from 1.
      sinr_eff: float32[...], linear effective SINR of this transmission.
      mcs: int32[...]; table: MCS table 1 or 2.
      combining: "chase" or "incremental".

    Returns:
      (new evidence, linear SINR at which the block's own BLER curve is to be read).
    """
    if combining == "chase":
        total = evidence + sinr_eff
        return total, total
    beta = jnp.asarray(eesm_beta(table))[mcs]
    count = jnp.maximum(attempt, 1)
    mean = evidence + (jnp.exp(-sinr_eff / beta) - evidence) / count
    # exp underflows beyond +37 dB at the largest beta, well above every curve
    averaged = -beta * jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))
    # the first transmission is exact even where exp would round
    averaged = jnp.where(attempt <= 1, sinr_eff, averaged)
    shift_db = incremental_redundancy_shift_db(mcs, count, table=table)
    return mean, averaged * to_linear(shift_db)


def decode(
    sent: Transmission,
    sinr_eff: jax.Array,
    grants: Grants,
    combining: str = "chase",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Decodes the combined transmissions of every user.

    Returns:
      (evidence float32[...], error probability float32[...], failed bool[...]); the last two are
      0 and False where nothing was sent.
    """
    evidence, combined = combine(
        sent.evidence, sent.attempt, sinr_eff, sent.mcs, table=grants.table, combining=combining
    )
    rate = grant_error_rate(grants, sent.num_prbs, sent.mcs, combined)
    rate = jnp.where(sent.attempt > 0, rate, 0.0)
    return evidence, rate, unfused(sent.uniform < rate)


def store(
    state: HarqState,
    sent: Transmission,
    evidence: jax.Array,
    failed: jax.Array,
    due: jax.Array,
) -> HarqState:
    """Writes the transmissions of a slot into their processes; `due` is when feedback comes."""

    def put(old, new):
        return jnp.where(sent.process, new[..., None], old)

    return HarqState(
        attempts=put(state.attempts, sent.attempt),
        due=jnp.where(sent.process, due, state.due),
        failed=put(state.failed, failed),
        mcs=put(state.mcs, sent.mcs),
        num_prbs=put(state.num_prbs, sent.num_prbs),
        evidence=put(state.evidence, evidence),
        uniform=put(state.uniform, sent.uniform),
    )


def receive_feedback(
    state: HarqState, slot: jax.Array, max_transmissions: int
) -> tuple[HarqState, Feedback]:
    """Feedback known at the start of `slot`; frees what is acknowledged or given up.

    Args:
      state: processes, leaves [..., P].
      slot: int32[], the slot that starts.
      max_transmissions: transmissions after which a block is given up.
    """
    answered = (state.attempts > 0) & (state.due == slot)
    failed = answered & state.failed
    given_up = failed & (state.attempts >= max_transmissions)
    freed = (answered & ~state.failed) | given_up
    feedback = Feedback(
        outcome=jnp.where(
            jnp.any(answered, axis=-1), jnp.where(jnp.any(failed, axis=-1), 0, 1), -1
        ),
        attempt=_pick(answered, state.attempts),
        mcs=_pick(answered, state.mcs),
        num_prbs=_pick(answered, state.num_prbs),
        dropped=jnp.any(given_up, axis=-1),
    )
    return state.replace(attempts=jnp.where(freed, 0, state.attempts)), feedback
