"""What a scheduler sees and says: `Observation`, `Allocation`, and the `Scheduler` pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct


class Allocation(struct.PyTreeNode):
    """One slot's physical decision.

    Attributes:
      owner: int32[C, N], the user (0..U-1) that each PRB of each cell serves; -1 mutes the PRB.
      power: float32[C, N], transmit power per PRB in watts, at least 0. A PRB with power 0 is
        muted and carries no resource element.
    """

    owner: jax.Array
    power: jax.Array


class Observation(struct.PyTreeNode):
    """What the base stations know at the start of a slot; every leaf is finite.

    C cells, U (padded) users a cell, S subbands of `subband_prbs` PRBs (one PRB each under
    perfect or centralised CSI).

    Attributes:
      csi_db: float32[C, U, S], SINR in dB that each subband would have with the reference power
        (the cell's budget spread evenly over all PRBs), read from the last CQI report.
      olla_offset_db: float32[C, U], outer-loop offset in dB, subtracted from a SINR in use.
      throughput: float32[C, U], EWMA of acknowledged bits per slot.
      acked_bits: float32[C, U], bits acknowledged at the end of the last slot.
      feedback: int32[C, U], last slot's HARQ feedback: 1 ACK, 0 NACK, -1 none.
      harq_prbs: int32[C, U], PRBs that the oldest waiting retransmission takes; 0 for none.
      harq_free: int32[C, U], HARQ processes free for new data.
      mask: bool[C, U], False for padding.
      cross_snr: float32[C, U, C, N] under centralised CSI, else None: linear SNR, in this slot,
        of what user (c, u) hears from cell c' at the reference power.
    """

    csi_db: jax.Array
    olla_offset_db: jax.Array
    throughput: jax.Array
    acked_bits: jax.Array
    feedback: jax.Array
    harq_prbs: jax.Array
    harq_free: jax.Array
    mask: jax.Array
    cross_snr: jax.Array | None = None


class CellConfig(Protocol):
    """The static sizes and choices a scheduler reads from `params.config`."""

    @property
    def num_cells(self) -> int: ...
    @property
    def num_users(self) -> int: ...
    @property
    def num_prbs(self) -> int: ...
    @property
    def subband_size(self) -> int: ...
    @property
    def res_per_prb(self) -> int: ...
    @property
    def mcs_table(self) -> int: ...
    @property
    def fidelity(self) -> str: ...


class CellParams(Protocol):
    """The part of the environment's parameters that schedulers use."""

    @property
    def config(self) -> CellConfig: ...
    @property
    def power_budget(self) -> jax.Array: ...
    @property
    def initial_throughput(self) -> jax.Array: ...
    @property
    def bler_target(self) -> jax.Array: ...


class Scheduler(NamedTuple):
    """A pair of pure functions, learned or not.

    Attributes:
      init: `init(params) -> carry`, the scheduler's memory at the start of an episode.
      apply: `apply(key, observation, carry, params) -> (Allocation, carry)`, one slot's decision.
    """

    init: Callable[[Any], Any]
    apply: Callable[[jax.Array, Observation, Any, Any], tuple[Allocation, Any]]
