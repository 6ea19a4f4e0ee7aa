"""Any gymnax environment as a problem whose reward the learner does not see."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment

from prefs.mdps.environment import Problem


class AdaptedState(struct.PyTreeNode):
    """The environment's `state`, and the true `reward` [] of the step that led here.

    After an autoreset `reward` is still that of the step taken, not of the reset.
    """

    state: Any
    reward: jax.Array


@dataclasses.dataclass(frozen=True)
class AdaptedEnv:
    """A gymnax environment behind the problems' protocol.

    Attributes:
      inner: the environment; equal to another adapter's if it is the same object.
      hidden_reward: the learner gets reward 0, and of `info` only `final_observation`. A judge
        reads the truth with `true_reward`. An observation that contains the reward (bandits,
        meta-learning mazes) is not purged of it.
    """

    inner: environment.Environment
    hidden_reward: bool = True

    @property
    def name(self) -> str:
        """The environment's own name."""
        return self.inner.name

    def reset(self, key: jax.Array, params: Any) -> tuple[Any, AdaptedState]:
        """A new episode; the reward so far is 0."""
        observation, state = self.inner.reset(key, params)
        return observation, AdaptedState(state, jnp.zeros((), float))

    def step(
        self, key: jax.Array, state: AdaptedState, action: jax.Array, params: Any
    ) -> tuple[Any, AdaptedState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step of the environment, autoreset included."""
        observation, inner, reward, terminated, truncated, info = self.inner.step(
            key, state.state, action, params
        )
        state = AdaptedState(inner, jnp.asarray(reward, float))
        if self.hidden_reward:
            info = {"final_observation": info["final_observation"]}
            return observation, state, jnp.zeros((), float), terminated, truncated, info
        return observation, state, state.reward, terminated, truncated, info

    def true_reward(self, state: AdaptedState) -> jax.Array:
        """[] reward of the last step, for whoever judges."""
        return state.reward

    def action_space(self, params: Any) -> Any:
        """That of the environment."""
        return self.inner.action_space(params)

    def observation_space(self, params: Any) -> Any:
        """That of the environment."""
        return self.inner.observation_space(params)


def from_gymnax(
    env: environment.Environment, params: Any = None, hidden_reward: bool = True
) -> Problem:
    """A gymnax >= 1.0 environment as a preference problem.

    Args:
      env: the environment.
      params: its parameters, by default `env.default_params`.
      hidden_reward: whether the learner must do without the reward.

    Raises:
      ValueError: not a gymnax environment.
    """
    if not isinstance(env, environment.Environment):
        raise ValueError(f"expected a gymnax environment, got {type(env).__name__}.")
    return Problem(AdaptedEnv(env, hidden_reward), env.default_params if params is None else params)
