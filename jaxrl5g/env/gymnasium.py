"""Gymnasium views of the downlink: one environment, or a batch of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxrl5g.env.downlink import DownlinkEnv
from jaxrl5g.env.spaces import IntegerBox
from jaxrl5g.env.types import DownlinkParams
from jaxrl5g.mac import Allocation


def _gym_box(box) -> gymnasium.Space:
    if box.dtype == np.bool_:
        return gymnasium.spaces.MultiBinary(box.shape)
    dtype = np.int32 if isinstance(box, IntegerBox) else np.float32
    low = np.broadcast_to(np.asarray(box.low, dtype), box.shape)
    high = np.broadcast_to(np.asarray(box.high, dtype), box.shape)
    return gymnasium.spaces.Box(low, high, dtype=dtype)


def _gym_dict(space) -> gymnasium.spaces.Dict:
    return gymnasium.spaces.Dict({name: _gym_box(box) for name, box in space.spaces.items()})


def _to_numpy(observation) -> dict[str, np.ndarray]:
    given = vars(observation).items()
    leaves = {name: np.asarray(value) for name, value in given if value is not None}
    # MultiBinary holds int8
    leaves["mask"] = leaves["mask"].astype(np.int8)
    return leaves


def _to_allocation(action: dict[str, Any], batch: tuple[int, ...], params: DownlinkParams):
    if not isinstance(action, dict) or set(action) != {"owner", "power"}:
        raise ValueError("action must be a dict with the keys 'owner' and 'power'.")
    expected = (*batch, params.config.num_cells, params.config.num_prbs)
    owner, power = np.asarray(action["owner"]), np.asarray(action["power"], np.float32)
    for name, value in (("owner", owner), ("power", power)):
        if value.shape != expected:
            raise ValueError(f"action[{name!r}] must have shape {expected}, got {value.shape}.")
    if not np.issubdtype(owner.dtype, np.integer):
        raise ValueError(f"action['owner'] must hold integers, got {owner.dtype}.")
    if np.isnan(power).any():
        raise ValueError("action['power'] must not hold NaN; use 0 W to mute a PRB.")
    return Allocation(owner=jnp.asarray(owner, jnp.int32), power=jnp.asarray(power))


class GymnasiumDownlink(gymnasium.Env):
    """One downlink as a `gymnasium.Env`; no autoreset, observations and actions are dicts.

    Args:
      env, params: as returned by `jaxrl5g.make`.
      seed: of the first reset where `reset` gets none.
    """

    metadata = {"render_modes": []}

    def __init__(self, env: DownlinkEnv, params: DownlinkParams, seed: int = 0):
        self._params = params
        self._key = jax.random.key(seed)
        self._state = None
        self._reset = jax.jit(env.reset_env)
        self._step = jax.jit(env.step_env)
        self.observation_space = _gym_dict(env.observation_space(params))
        self.action_space = _gym_dict(env.action_space(params))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self._key = jax.random.key(seed)
        self._key, key = jax.random.split(self._key)
        observation, self._state = self._reset(key, self._params)
        return _to_numpy(observation), {}

    def step(self, action):
        """One slot; see `DownlinkEnv.step_env`.

        Raises:
          ValueError: a malformed action, or NaN power.
          RuntimeError: step before reset.
        """
        if self._state is None:
            raise RuntimeError("call reset() before step().")
        allocation = _to_allocation(action, (), self._params)
        observation, self._state, reward, terminated, info = self._step(
            self._key, self._state, allocation, self._params
        )
        truncated = bool(self._state.time >= self._params.max_steps_in_episode)
        info = {name: np.asarray(value) for name, value in info.items()}
        return _to_numpy(observation), float(reward), bool(terminated), truncated, info


class GymnasiumVectorDownlink(VectorEnv):
    """A batch of downlinks stepped in one compiled call; same-step autoreset.

    `infos["final_obs"]` holds the observations before autoreset and `infos["_final_obs"]` which
    of them ended.

    Args:
      env, params: as returned by `jaxrl5g.make`.
      num_envs: batch size, at least 1.
      seed: of the first reset where `reset` gets none.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, env: DownlinkEnv, params: DownlinkParams, num_envs: int, seed: int = 0):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.num_envs = num_envs
        self._params = params
        self._key = jax.random.key(seed)
        self._state = None
        self._reset = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))
        self._step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))
        self.single_observation_space = _gym_dict(env.observation_space(params))
        self.single_action_space = _gym_dict(env.action_space(params))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self._key = jax.random.key(seed)
        self._key, key = jax.random.split(self._key)
        observation, self._state = self._reset(jax.random.split(key, self.num_envs), self._params)
        return _to_numpy(observation), {}

    def step(self, actions):
        """One slot of every environment.

        Raises:
          ValueError: malformed actions, or NaN power.
          RuntimeError: step before reset.
        """
        if self._state is None:
            raise RuntimeError("call reset() before step().")
        allocation = _to_allocation(actions, (self.num_envs,), self._params)
        self._key, key = jax.random.split(self._key)
        observation, self._state, reward, terminated, truncated, info = self._step(
            jax.random.split(key, self.num_envs), self._state, allocation, self._params
        )
        final = _to_numpy(info.pop("final_observation"))
        infos: dict[str, Any] = {name: np.asarray(value) for name, value in info.items()}
        ended = np.asarray(truncated)
        infos["final_obs"], infos["_final_obs"] = final, ended
        return _to_numpy(observation), np.asarray(reward), np.asarray(terminated), ended, infos
