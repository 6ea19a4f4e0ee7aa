"""One protocol for every problem, and the environments of tables.

A `Problem` is an environment of gymnax >= 1.0's six-value contract together with its parameters. An
environment is hashable and equal to another of its kind, so problems of one kind stack:
`jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jax.core import Tracer
from jax.typing import ArrayLike

from prefs.mdps.tables import EpisodicMDP, TabularMDP, check_concrete


class Problem(struct.PyTreeNode):
    """What a learner learns on.

    Attributes:
      env: static; `env.reset(key, params) -> (observation, state)` and `env.step(key, state,
        action, params) -> (observation, state, reward, terminated, truncated, info)` with autoreset
        in the same step and `info["final_observation"]`.
      params: its parameters, a pytree.
    """

    env: Any = struct.field(pytree_node=False)
    params: Any


class TabularParams(struct.PyTreeNode):
    """A discounted problem and the number of steps int32[] after which an episode is cut off."""

    mdp: TabularMDP
    max_steps_in_episode: jax.Array


class EpisodicParams(struct.PyTreeNode):
    """A finite-horizon problem."""

    mdp: EpisodicMDP


class TabularState(struct.PyTreeNode):
    """Where an episode is: `state` int32[] in 0..S-1 after `time` int32[] steps."""

    state: jax.Array
    time: jax.Array


@dataclasses.dataclass(frozen=True)
class TabularEnv(environment.Environment):
    """A `TabularMDP` to roll out. Observations are states, int32[] in 0..S-1.

    The horizon only cuts an episode off: it truncates and nothing terminates, so a value learnt
    from an episode must be bootstrapped from `info["final_observation"]`. Actions beyond 0..A-1
    count as the nearest of these.
    """

    def reset_env(self, key: jax.Array, params: TabularParams) -> tuple[jax.Array, TabularState]:
        state = _draw(key, params.mdp.initial)
        return state, TabularState(state, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: TabularState, action: jax.Array, params: TabularParams
    ) -> tuple[jax.Array, TabularState, jax.Array, jax.Array, dict[Any, Any]]:
        mdp = params.mdp
        action = jnp.clip(action, 0, mdp.num_actions - 1)
        following = _draw(key, mdp.transition[state.state, action])
        reward = mdp.reward[state.state, action]
        return following, TabularState(following, state.time + 1), reward, jnp.bool_(False), {}

    def is_terminated(self, state: TabularState, params: TabularParams) -> jax.Array:
        return jnp.bool_(False)

    def action_space(self, params: TabularParams) -> spaces.Discrete:
        return spaces.Discrete(params.mdp.num_actions)

    def observation_space(self, params: TabularParams) -> spaces.Discrete:
        return spaces.Discrete(params.mdp.num_states)


@dataclasses.dataclass(frozen=True)
class EpisodicEnv(environment.Environment):
    """An `EpisodicMDP` to roll out. Observations are h * S + s, int32[] in 0..(H + 1) * S - 1.

    What is best depends on the step h, so it is part of the observation. Step H ends the problem
    itself: it terminates and nothing truncates, as nothing is to be had afterwards. Actions beyond
    0..A-1 count as the nearest of these.
    """

    def reset_env(self, key: jax.Array, params: EpisodicParams) -> tuple[jax.Array, TabularState]:
        state = _draw(key, params.mdp.initial)
        return state, TabularState(state, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: TabularState, action: jax.Array, params: EpisodicParams
    ) -> tuple[jax.Array, TabularState, jax.Array, jax.Array, dict[Any, Any]]:
        mdp = params.mdp
        here = (state.time, state.state, jnp.clip(action, 0, mdp.num_actions - 1))
        state = TabularState(_draw(key, mdp.transition[here]), state.time + 1)
        observation = state.time * mdp.num_states + state.state
        return observation, state, mdp.reward[here], self.is_terminated(state, params), {}

    def is_terminated(self, state: TabularState, params: EpisodicParams) -> jax.Array:
        return state.time >= params.mdp.horizon

    def is_truncated(self, state: TabularState, params: EpisodicParams) -> jax.Array:
        return jnp.bool_(False)

    def action_space(self, params: EpisodicParams) -> spaces.Discrete:
        return spaces.Discrete(params.mdp.num_actions)

    def observation_space(self, params: EpisodicParams) -> spaces.Discrete:
        return spaces.Discrete((params.mdp.horizon + 1) * params.mdp.num_states)


def tabular_problem(mdp: TabularMDP, max_steps_in_episode: ArrayLike = 100) -> Problem:
    """A discounted problem to roll out, in episodes of `max_steps_in_episode` steps.

    Raises:
      ValueError: unsound tables (`check_tables`; not checked under a transformation), or no steps.
    """
    _check(mdp, TabularMDP)
    steps = jnp.asarray(max_steps_in_episode, jnp.int32)
    if not isinstance(steps, Tracer) and steps < 1:
        raise ValueError(f"max_steps_in_episode must be at least 1, got {max_steps_in_episode}.")
    return Problem(TabularEnv(), TabularParams(mdp, steps))


def episodic_problem(mdp: EpisodicMDP) -> Problem:
    """A finite-horizon problem to roll out.

    Raises:
      ValueError: unsound tables (`check_tables`; not checked under a transformation).
    """
    _check(mdp, EpisodicMDP)
    return Problem(EpisodicEnv(), EpisodicParams(mdp))


def tables(problem: Problem) -> TabularMDP | EpisodicMDP:
    """The tables of a finite problem, for exact work.

    Raises:
      ValueError: a problem without tables.
    """
    if not isinstance(problem.params, TabularParams | EpisodicParams):
        raise ValueError(f"{problem.env.name} has no tables: its states are not finitely many.")
    return problem.params.mdp


def _check(mdp: Any, kind: type) -> None:
    if not isinstance(mdp, kind):
        raise ValueError(f"expected a {kind.__name__}, got {type(mdp).__name__}.")
    check_concrete(mdp)


def _draw(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    return jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)
