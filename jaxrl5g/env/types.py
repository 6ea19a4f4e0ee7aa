"""Static configuration, parameters and state of the downlink environment."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import struct

from jaxrl5g.channel import Channel
from jaxrl5g.phy.harq import COMBINING, HarqState

FIDELITIES = ("shannon", "sionna", "nr")
CSI_MODES = ("reported", "perfect", "centralised")
REWARDS = ("fairness", "alpha_fair", "weighted_rate")


@dataclasses.dataclass(frozen=True)
class DownlinkConfig:
    """What sets a shape or chooses a model; hashable and static under jit.

    Attributes:
      num_cells: C, at least 1.
      num_users: U, users per cell including padding, at least 1.
      num_prbs: N, 1 to 275.
      fidelity: "nr" (repaired tables, HARQ), "sionna" (what Sionna SYS does) or "shannon".
      csi: "reported" (quantised, periodic, late CQI), "perfect" (each cell knows its own users'
        SINR) or "centralised" (perfect, and every gain between all cells and users).
      mcs_table: 1 (64QAM) or 2 (256QAM) of TS 38.214 5.1.3.1.
      res_per_prb: data resource elements per PRB and slot, 1 to 156.
      slot_seconds: slot duration in s.
      subband_prbs: PRBs per reported CQI.
      cqi_period: slots between reports, at least 1.
      cqi_delay: slots from measuring a report to using it, at least 1.
      harq_processes: parallel processes per user, at least 1.
      max_transmissions: transmissions of a block before it is given up, at least 1.
      feedback_delay: K1, slots from a transmission to its feedback, at least 1.
      combining: "chase" or "incremental".
      reward: "fairness", "alpha_fair" or "weighted_rate" (`jaxrl5g.env.reward`).
    """

    num_cells: int = 1
    num_users: int = 16
    num_prbs: int = 51
    fidelity: str = "nr"
    csi: str = "reported"
    mcs_table: int = 1
    res_per_prb: int = 132
    slot_seconds: float = 0.5e-3
    subband_prbs: int = 4
    cqi_period: int = 5
    cqi_delay: int = 4
    harq_processes: int = 8
    max_transmissions: int = 4
    feedback_delay: int = 4
    combining: str = "chase"
    reward: str = "fairness"

    def __post_init__(self):
        limits = {
            "num_cells": (1, None),
            "num_users": (1, None),
            "num_prbs": (1, 275),
            "res_per_prb": (1, 156),
            "subband_prbs": (1, None),
            "cqi_period": (1, None),
            "cqi_delay": (1, None),
            "harq_processes": (1, None),
            "max_transmissions": (1, None),
            "feedback_delay": (1, None),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be an integer, got {value!r}.")
            if value < low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"{name} must be {bounds}, got {value}.")
        choices = {
            "fidelity": FIDELITIES,
            "csi": CSI_MODES,
            "mcs_table": (1, 2),
            "combining": COMBINING,
            "reward": REWARDS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(repr(item) for item in allowed)
                raise ValueError(f"{name} must be one of {listed}, got {getattr(self, name)!r}.")
        if not self.slot_seconds > 0:
            raise ValueError(f"slot_seconds must be positive, got {self.slot_seconds!r}.")

    @property
    def subband_size(self) -> int:
        """PRBs behind one CSI value of an observation: 1 unless it is reported."""
        return min(self.subband_prbs, self.num_prbs) if self.csi == "reported" else 1

    @property
    def num_subbands(self) -> int:
        """S, CSI values per user in an observation."""
        return -(-self.num_prbs // self.subband_size)

    @property
    def reports_in_flight(self) -> int:
        """CQI reports that can be on their way at once."""
        return -(-self.cqi_delay // self.cqi_period)


class DownlinkParams(struct.PyTreeNode):
    """Parameters; every field but `config` is a traced leaf, so vmap randomises the domain.

    Attributes:
      channel: the source of gains, a pytree (`jaxrl5g.channel.Channel`).
      power_budget: float32[], watts per cell over all PRBs.
      noise_power: float32[], watts per PRB, noise figure included.
      bler_target: float32[], of link adaptation and OLLA, in (0, 1).
      olla_step_db: float32[], OLLA step after a NACK, dB.
      throughput_window: float32[], slots of the EWMA in reward and observation, at least 1.
      initial_throughput: float32[], EWMA at the start of an episode, bits per slot.
      throughput_weight: float32[], weight of the normalised cell throughput in "fairness", of the
        utility in "weighted_rate".
      fairness_weight: float32[], weight of Jain's index in either.
      fairness_alpha: float32[], alpha of "alpha_fair" and "weighted_rate", at least 0.
      min_users: int32[], least number of users a cell draws at reset, 1..U.
      max_users: int32[], largest number of users a cell draws at reset, 1..U.
      tracks: int32[C, U], user tracks; -1 = drawn from the reset key.
      start_slot: int32[], first slot within the tracks; -1 = drawn from the reset key.
      max_steps_in_episode: int32[], horizon in slots; reaching it truncates.
      config: static sizes and choices.
    """

    channel: Channel
    power_budget: jax.Array
    noise_power: jax.Array
    bler_target: jax.Array
    olla_step_db: jax.Array
    throughput_window: jax.Array
    initial_throughput: jax.Array
    throughput_weight: jax.Array
    fairness_weight: jax.Array
    fairness_alpha: jax.Array
    min_users: jax.Array
    max_users: jax.Array
    tracks: jax.Array
    start_slot: jax.Array
    max_steps_in_episode: jax.Array
    config: DownlinkConfig = struct.field(pytree_node=False)


class DownlinkState(struct.PyTreeNode):
    """State at the start of a slot.

    Attributes:
      time: int32[], slots since reset.
      key: typed PRNG key of the drop; HARQ uniforms are functions of (key, slot, track).
      drop: the channel's drop, with `tracks` int32[C, U].
      mask: bool[C, U], users present.
      csi_db: float32[C, U, S], CSI in use, dB (see `Observation`).
      reports_db: float32[Q, C, U, S], CQI reports on their way (Q = 0 unless CSI is reported).
      olla_offset_db: float32[C, U].
      sinr_eff_db: float32[C, U], last effective SINR served, dB ("sionna" adapts to it).
      throughput: float32[C, U], EWMA of acknowledged bits per slot.
      acked_bits: float32[C, U], bits acknowledged at the end of the last slot.
      feedback: int32[C, U], last slot's feedback.
      harq: HARQ processes, leaves [C, U, P]; P = 0 outside "nr".
    """

    time: jax.Array
    key: jax.Array
    drop: Any
    mask: jax.Array
    csi_db: jax.Array
    reports_db: jax.Array
    olla_offset_db: jax.Array
    sinr_eff_db: jax.Array
    throughput: jax.Array
    acked_bits: jax.Array
    feedback: jax.Array
    harq: HarqState
