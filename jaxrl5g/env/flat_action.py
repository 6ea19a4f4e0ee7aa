"""The downlink with flat observations and actions, for learners that know nothing of radio."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

from jaxrl5g.env.csi import CSI_CEILING_DB, CSI_FLOOR_DB
from jaxrl5g.env.downlink import DownlinkEnv
from jaxrl5g.env.projection import granted
from jaxrl5g.env.reward import peak_cell_rate
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams, DownlinkState
from jaxrl5g.mac import (
    Allocation,
    Observation,
    Scheduler,
    equal_power,
    per_prb,
    predicted_rates,
    reserve_retransmissions,
)
from jaxrl5g.mac.apportionment import apportion
from jaxrl5g.mac.quota_resolver import resolve_quotas
from jaxrl5g.mac.share_power import share_power
from jaxrl5g.phy import OFFSET_LIMIT_DB

_CSI_CENTRE_DB, _CSI_SCALE_DB = 10.0, 20.0
_LOG_LIMIT, _LOG_SCALE = 8.0, 4.0


class FlatActionWrapper(environment.Environment):
    """A `DownlinkEnv` whose observation and action are vectors; state and params stay its own.

    Observation: float32[C * U * F], row by row of [C, U, F], the features named by
    `feature_names`; all of an absent user's are 0. With K users present in a cell, N PRBs, T the
    EWMA of a user's acknowledged bits per slot, and B the bits per slot of a cell at its peak:
      csi_<s>: (SINR in dB - 10)/20 of subband s (see `Observation`), in [-2.5, 2.5];
      olla_offset: outer-loop offset over its limit of 20 dB, in [-1, 1];
      throughput, throughput_share: ln(T U / B)/4 and ln(T K / sum T)/4 over the cell's users,
        in [-2, 2];
      acked_bits: bits acknowledged at the end of the last slot, over B, in [0, 1.05];
      ack, nack: 1 where the last slot brought such a feedback;
      retransmission: PRBs that the oldest waiting retransmission takes, over N, in [0, 1];
      processes_free: share of HARQ processes free for new data, in [0, 1];
      present: 1, and 0 for padding.

    Action: float32[2 * C * U] in [-1, 1], row by row of [2, C, U]: the users' PRB logits, then
    their power logits. Both are multiplied by `logit_range`. Values outside are clipped, NaN
    counts as 0, and those of users that cannot be served do not matter. In each cell
      1. retransmissions reserve their PRBs, at equal power (`reserve_retransmissions`);
      2. the softmax of the PRB logits over the users that may be given new data is turned into
         whole numbers of the PRBs left (`apportion`);
      3. these PRBs are assigned so that the sum of predicted rates is largest
         (`resolve_quotas`);
      4. the budget left is split over the users in proportion to (PRBs of the user) * e^(power
         logit), evenly within a user (`share_power`); all 0 is equal power.

    `step` and `reset` follow gymnax >= 1.0 as `DownlinkEnv`'s do; `info["final_observation"]` is
    flat too, and `info["owner"]` and `info["radiated"]` say what became of the action. The action
    is rounded to whole PRBs, so no gradient flows through a transition. At most 126 users a cell,
    the most that `resolve_quotas` takes.

    Args:
      env: the environment to wrap; its `default_params` are this one's.
      logit_range: largest logit, positive: 4 lets shares differ by a factor of e^8.

    Raises:
      ValueError: `logit_range` is not positive and finite.
    """

    def __init__(self, env: DownlinkEnv, logit_range: float = 4.0):
        if not 0 < logit_range < np.inf:
            raise ValueError(f"logit_range must be positive and finite, got {logit_range!r}.")
        self._env = env
        self._logit_range = float(logit_range)

    @property
    def default_params(self) -> DownlinkParams:
        return self._env.default_params

    @property
    def name(self) -> str:
        return "FlatActionWrapper"

    def step(
        self,
        key: jax.Array,
        state: DownlinkState,
        action: jax.Array,
        params: DownlinkParams | None = None,
    ) -> tuple[jax.Array, DownlinkState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One slot, and a reset in the same step where the horizon is reached.

        Returns:
          observation, state, reward float32[], terminated bool[] (always False), truncated
          bool[], info (see `DownlinkEnv.step`).

        Raises:
          ValueError: the action's shape is not [2 * C * U].
        """
        params = self.default_params if params is None else params
        _check_action(action, params.config)
        return self._step(key, state, action, params)

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, key, state, action, params):
        allocation = self._allocate_in(state, action, params)
        observation, state, reward, terminated, truncated, info = self._env.step(
            key, state, allocation, params
        )
        final = flatten(info["final_observation"], params.config)
        info = {**info, "final_observation": final}
        return flatten(observation, params.config), state, reward, terminated, truncated, info

    def reset(
        self, key: jax.Array, params: DownlinkParams | None = None
    ) -> tuple[jax.Array, DownlinkState]:
        """A new drop; see `DownlinkEnv.reset`."""
        return super().reset(key, self.default_params if params is None else params)

    def reset_env(self, key: jax.Array, params: DownlinkParams) -> tuple[jax.Array, DownlinkState]:
        observation, state = self._env.reset_env(key, params)
        return flatten(observation, params.config), state

    def step_env(
        self, key: jax.Array, state: DownlinkState, action: jax.Array, params: DownlinkParams
    ) -> tuple[jax.Array, DownlinkState, jax.Array, jax.Array, dict[str, Any]]:
        """One slot without autoreset."""
        _check_action(action, params.config)
        allocation = self._allocate_in(state, action, params)
        observation, state, reward, terminated, info = self._env.step_env(
            key, state, allocation, params
        )
        return flatten(observation, params.config), state, reward, terminated, info

    def observe(
        self,
        key: jax.Array,
        state: DownlinkState,
        action: jax.Array | None,
        params: DownlinkParams,
    ) -> jax.Array:
        del action
        return flatten(self._env.observe(key, state, None, params), params.config)

    def is_truncated(self, state: DownlinkState, params: DownlinkParams) -> jax.Array:
        return self._env.is_truncated(state, params)

    def is_terminated(self, state: DownlinkState, params: DownlinkParams) -> jax.Array:
        return self._env.is_terminated(state, params)

    @property
    def num_actions(self) -> int:
        """Numbers in an action."""
        return _action_size(self.default_params.config)

    def action_space(self, params: DownlinkParams | None = None) -> spaces.Box:
        config = (self.default_params if params is None else params).config
        return spaces.Box(-1.0, 1.0, (_action_size(config),))

    def observation_space(self, params: DownlinkParams | None = None) -> spaces.Box:
        config = (self.default_params if params is None else params).config
        low, high = (
            np.tile(bound, config.num_cells * config.num_users) for bound in _limits(config)
        )
        return spaces.Box(low, high, low.shape)  # pyright: ignore[reportArgumentType]

    def allocate(
        self, action: jax.Array, observation: Observation, params: DownlinkParams
    ) -> Allocation:
        """What a flat action means in the slot of `observation`; see the class.

        Raises:
          ValueError: the action's shape is not [2 * C * U].
        """
        config = params.config
        _check_action(action, config)
        action = jnp.nan_to_num(jnp.asarray(action, jnp.float32), nan=0.0)
        logits = self._logit_range * jnp.clip(action, -1.0, 1.0)
        prb_share, power_tilt = jnp.exp(logits).reshape(2, config.num_cells, config.num_users)

        reserved, eligible = reserve_retransmissions(observation, config)
        free = reserved < 0
        num_free = jnp.sum(free, axis=-1)
        quotas = apportion(prb_share, num_free, eligible)
        rates = per_prb(predicted_rates(observation, params), config)
        owner = jax.vmap(lambda q, w, a: resolve_quotas(q, w, available=a)[0])(quotas, rates, free)
        power = share_power(
            granted(owner, config.num_users) * power_tilt,
            owner,
            jnp.ones(owner.shape),
            "uniform",
            budget=params.power_budget * num_free / config.num_prbs,
        )
        return Allocation(
            owner=jnp.where(free, owner, reserved),
            power=jnp.where(free, power, equal_power(reserved, params.power_budget)),
        )

    def scheduler(self, act: Callable[[jax.Array, jax.Array], jax.Array]) -> Scheduler:
        """A policy over vectors as a `Scheduler`, for `jaxrl5g.evaluation.evaluate`.

        Args:
          act: `act(key, observation) -> action`, both flat.
        """

        def apply(key, observation, carry, params):
            action = act(key, flatten(observation, params.config))
            return self.allocate(action, observation, params), carry

        return Scheduler(lambda params: (), apply)

    def _allocate_in(self, state, action, params) -> Allocation:
        # observing uses no randomness, so any key will do
        return self.allocate(action, self._env.observe(state.key, state, None, params), params)


def feature_names(config: DownlinkConfig) -> tuple[str, ...]:
    """Names of a user's F features in the order of the flat observation."""
    return (
        *(f"csi_{subband}" for subband in range(config.num_subbands)),
        *_SCALARS,
    )


_SCALARS = {
    "olla_offset": (-1.0, 1.0),
    "throughput": (-_LOG_LIMIT / _LOG_SCALE, _LOG_LIMIT / _LOG_SCALE),
    "throughput_share": (-_LOG_LIMIT / _LOG_SCALE, _LOG_LIMIT / _LOG_SCALE),
    "acked_bits": (0.0, 1.05),
    "ack": (0.0, 1.0),
    "nack": (0.0, 1.0),
    "retransmission": (0.0, 1.0),
    "processes_free": (0.0, 1.0),
    "present": (0.0, 1.0),
}


def _limits(config: DownlinkConfig) -> np.ndarray:
    """float32[2, F]: the least and the largest value of a user's features."""
    csi = [(bound - _CSI_CENTRE_DB) / _CSI_SCALE_DB for bound in (CSI_FLOOR_DB, CSI_CEILING_DB)]
    return np.array([csi] * config.num_subbands + list(_SCALARS.values()), np.float32).T


def flatten(observation: Observation, config: DownlinkConfig) -> jax.Array:
    """float32[C * U * F]: the features of `FlatActionWrapper`, [C, U, F] row by row."""
    mask = observation.mask
    throughput = jnp.where(mask, observation.throughput, 0.0)
    total = jnp.sum(throughput, axis=-1, keepdims=True)
    count = jnp.sum(mask, axis=-1, keepdims=True)
    peak = peak_cell_rate(config)
    processes = config.harq_processes if config.fidelity == "nr" else 1

    def log(ratio):
        return jnp.log(jnp.maximum(ratio, np.exp(-_LOG_LIMIT))) / _LOG_SCALE

    scalars = {
        "olla_offset": observation.olla_offset_db / OFFSET_LIMIT_DB,
        "throughput": log(throughput * (config.num_users / peak)),
        "throughput_share": log(throughput * count / jnp.where(total > 0, total, 1.0)),
        "acked_bits": observation.acked_bits / peak,
        "ack": observation.feedback == 1,
        "nack": observation.feedback == 0,
        "retransmission": observation.harq_prbs / config.num_prbs,
        "processes_free": observation.harq_free / processes,
        "present": mask,
    }
    csi = (observation.csi_db - _CSI_CENTRE_DB) / _CSI_SCALE_DB
    columns = [scalars[name].astype(jnp.float32)[..., None] for name in _SCALARS]
    low, high = _limits(config)
    features = jnp.clip(jnp.concatenate([csi, *columns], axis=-1), low, high)
    return jnp.where(mask[..., None], features, 0.0).reshape(-1)


def _action_size(config: DownlinkConfig) -> int:
    return 2 * config.num_cells * config.num_users


def _check_action(action: jax.Array, config: DownlinkConfig) -> None:
    expected = (_action_size(config),)
    if jnp.shape(action) != expected:
        raise ValueError(
            f"action must have shape [2 * cells * users] = {expected}, got {jnp.shape(action)}; "
            "use jax.vmap for a batch of environments."
        )
