"""The downlink of C cells as a gymnax environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from jaxrl5g import phy
from jaxrl5g.env.csi import deliver, measure
from jaxrl5g.env.link import TRANSMIT, Outcome
from jaxrl5g.env.projection import project
from jaxrl5g.env.rarely import rarely
from jaxrl5g.env.reward import expected_bits, slot_reward, weighted_rate
from jaxrl5g.env.spaces import AllocationSpace, action_space, observation_space
from jaxrl5g.env.types import DownlinkParams, DownlinkState
from jaxrl5g.mac import Allocation, Observation
from jaxrl5g.phy import harq as harq_processes


class DownlinkEnv(environment.Environment):
    """A 5G OFDMA downlink, one slot a step.

    `step(key, state, action, params)` takes an `Allocation` and follows gymnax >= 1.0: same-step
    autoreset with `info["final_observation"]`, truncation at the horizon and no termination.
    Randomness of an episode comes from the reset key alone; the step key only feeds autoreset.

    Args:
      params: default parameters. They hold the channel, so they are an argument of every call
        inside your own jit: closed over, XLA would fold the whole cache at compile time.
    """

    _supports_transition_gradients = True

    def __init__(self, params: DownlinkParams):
        self._default_params = params

    @property
    def default_params(self) -> DownlinkParams:
        return self._default_params

    @property
    def supports_transition_gradients(self) -> bool:
        """True in the "shannon" fidelity, whose rates are smooth in power."""
        return self._default_params.config.fidelity == "shannon"

    @property
    def name(self) -> str:
        return "DownlinkEnv"

    def step(
        self,
        key: jax.Array,
        state: DownlinkState,
        action: Allocation,
        params: DownlinkParams | None = None,
    ) -> tuple[Observation, DownlinkState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One slot, and a reset in the same step where the horizon is reached.

        Returns:
          observation, state, reward float32[], terminated bool[] (always False), truncated
          bool[], info (see `step_env`, with `final_observation`).

        Raises:
          ValueError: the action's shapes are not [C, N].
        """
        params = self.default_params if params is None else params
        _check_action(action, params)
        if self.transition_gradients_enabled:
            return super().step(key, state, action, params)
        return self._step(key, state, action, params)

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, key, state, action, params):
        """The base class's `step`, but for resets being computed only in slots that need one."""
        final, stepped, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(stepped, params)

        def reset(turn):
            words = jax.random.key_data(key) + turn.astype(jnp.uint32)
            fresh = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
            return self.reset_env(jax.random.split(fresh)[1], params)

        observation, state = rarely(truncated, reset, (final, stepped))
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": final,
        }
        return observation, state, reward, terminated, truncated, info

    def reset(
        self, key: jax.Array, params: DownlinkParams | None = None
    ) -> tuple[Observation, DownlinkState]:
        """A new drop: users, their tracks, and the first slot, from `key` unless pinned."""
        return super().reset(key, self.default_params if params is None else params)

    def reset_env(
        self, key: jax.Array, params: DownlinkParams
    ) -> tuple[Observation, DownlinkState]:
        config = params.config
        users = (config.num_cells, config.num_users)
        episode_key, drop_key, count_key = jax.random.split(key, 3)
        drop = params.channel.draw(
            drop_key, params.tracks, params.start_slot, params.max_steps_in_episode
        )
        count = jax.random.randint(
            count_key, (config.num_cells, 1), params.min_users, params.max_users + 1
        )
        mask = jnp.arange(config.num_users) < count
        zeros = jnp.zeros(users, jnp.float32)
        gains = params.channel.gains(drop, jnp.int32(0))
        # before anything was sent, neighbours are taken to send at the reference power
        idle = jnp.broadcast_to(
            params.power_budget / config.num_prbs, (config.num_cells, config.num_prbs)
        )
        csi_db = measure(gains, idle, mask, params)
        queue = config.reports_in_flight if config.csi == "reported" else 0
        processes = config.harq_processes if config.fidelity == "nr" else 0
        state = DownlinkState(
            time=jnp.int32(0),
            key=episode_key,
            drop=drop,
            mask=mask,
            csi_db=csi_db,
            reports_db=jnp.zeros((queue, *csi_db.shape), jnp.float32),
            olla_offset_db=zeros,
            sinr_eff_db=zeros,
            throughput=jnp.where(mask, params.initial_throughput, 0.0),
            acked_bits=zeros,
            feedback=jnp.full(users, -1, jnp.int32),
            harq=harq_processes.init_harq(users, processes),
        )
        return self.observe(key, state, None, params), state

    def step_env(
        self,
        key: jax.Array,
        state: DownlinkState,
        action: Allocation,
        params: DownlinkParams,
    ) -> tuple[Observation, DownlinkState, jax.Array, jax.Array, dict[str, Any]]:
        """One slot without autoreset.

        Returns:
          observation, state, reward float32[], terminated bool[] (False), and info: the fields of
          `Outcome` but `harq`, `owner` int32[C, N] after projection, and the
          counts of `Projection`.
        """
        config = params.config
        projection = project(action, state.mask, params.power_budget)
        outcome = TRANSMIT[config.fidelity](state, projection, params)

        throughput = (
            state.throughput + (outcome.acked_bits - state.throughput) / params.throughput_window
        )
        throughput = jnp.where(state.mask, throughput, 0.0)
        if config.reward == "weighted_rate":
            bits = expected_bits(outcome)
            reward = weighted_rate(bits, state.throughput, state.mask, params)
        else:
            reward = slot_reward(state.throughput, throughput, state.mask, params)
        offset_db = phy.outer_loop_update(
            state.olla_offset_db, outcome.first_feedback, params.olla_step_db, params.bler_target
        )
        csi_db, reports_db = self._next_csi(state, outcome.radiated, params)
        served = outcome.sinr_eff > 0
        state = state.replace(
            time=state.time + 1,
            csi_db=csi_db,
            reports_db=reports_db,
            olla_offset_db=offset_db,
            sinr_eff_db=jnp.where(
                served,
                10.0 * jnp.log10(jnp.where(served, outcome.sinr_eff, 1.0)),
                state.sinr_eff_db,
            ),
            throughput=throughput,
            acked_bits=outcome.acked_bits,
            feedback=outcome.feedback,
            harq=outcome.harq,
        )
        observation = self.observe(key, state, action, params)
        observation, state = self._apply_transition_gradient_policy(observation, state)
        return observation, state, reward, jnp.bool_(False), _info(outcome, projection)

    def _next_csi(
        self, state: DownlinkState, radiated: jax.Array, params: DownlinkParams
    ) -> tuple[jax.Array, jax.Array]:
        """CSI for the next slot's decision, and the reports still on their way."""

        def measured(slot):
            return measure(params.channel.gains(state.drop, slot), radiated, state.mask, params)

        if params.config.csi != "reported":
            return measured(state.time + 1), state.reports_db
        return deliver(state.csi_db, state.reports_db, measured, state.time, params.config)

    def observe(
        self,
        key: jax.Array,
        state: DownlinkState,
        action: Allocation | None,
        params: DownlinkParams,
    ) -> Observation:
        """What the base stations know at the start of a slot; uses no randomness."""
        del key, action
        if params.config.fidelity == "nr":
            waiting = harq_processes.waiting_prbs(state.harq, state.time)
            free = harq_processes.free_processes(state.harq)
        else:
            waiting = jnp.zeros(state.mask.shape, jnp.int32)
            free = jnp.ones(state.mask.shape, jnp.int32)
        cross_snr = None
        if params.config.csi == "centralised":
            reference = params.power_budget / params.config.num_prbs
            cross_snr = params.channel.gains(state.drop, state.time) * (
                reference / params.noise_power
            )
        return Observation(
            csi_db=state.csi_db,
            olla_offset_db=state.olla_offset_db,
            throughput=state.throughput,
            acked_bits=state.acked_bits,
            feedback=state.feedback,
            harq_prbs=waiting,
            harq_free=free,
            mask=state.mask,
            cross_snr=cross_snr,
        )

    def is_terminated(self, state: DownlinkState, params: DownlinkParams) -> jax.Array:
        """A downlink has no terminal state: always False."""
        return jnp.bool_(False)

    def action_space(self, params: DownlinkParams | None = None) -> AllocationSpace:
        params = self.default_params if params is None else params
        return action_space(params.config, params.power_budget)

    def observation_space(self, params: DownlinkParams | None = None) -> spaces.Dict:
        params = self.default_params if params is None else params
        return observation_space(params.config)


def _check_action(action: Allocation, params: DownlinkParams) -> None:
    expected = (params.config.num_cells, params.config.num_prbs)
    if not (hasattr(action, "owner") and hasattr(action, "power")):
        raise ValueError(f"action must be an Allocation, got {type(action).__name__}.")
    for field in ("owner", "power"):
        shape = jnp.shape(getattr(action, field))
        if shape != expected:
            raise ValueError(
                f"action.{field} must have shape [cells, PRBs] = {expected}, got {shape}; "
                "use jax.vmap for a batch of environments."
            )
    if not jnp.issubdtype(jnp.result_type(action.owner), jnp.integer):
        raise ValueError(f"action.owner must hold integers, got {jnp.result_type(action.owner)}.")


def _info(outcome: Outcome, projection) -> dict[str, Any]:
    fields = (
        "radiated attempt num_prbs mcs block_bits sinr_eff error_rate decoded acked_bits "
        "feedback first_feedback dropped"
    ).split()
    return {
        **{name: getattr(outcome, name) for name in fields},
        "owner": jnp.where(outcome.radiated > 0, projection.owner, -1),
        "bad_power": projection.bad_power,
        "bad_owner": projection.bad_owner,
        "over_budget": projection.over_budget,
    }
