"""The controller's task as a JaxMARL-style environment, for multi-agent learners from elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl5g.agents.controller import ControllerConfig
from jaxrl5g.agents.features import feature_names
from jaxrl5g.agents.task import check_horizon, downlink_task
from jaxrl5g.env import DownlinkEnv, DownlinkParams
from jaxrl5g.env.rarely import rarely
from jaxrl5g.rl.two_turn import Seen, Turn

AGENTS: tuple[str, ...] = ("prb", "power")
"""Agents in the order of their turns."""

ACTION_LIMIT = 3.0
"""Largest latent of the action space; larger ones are taken too (see `decisions.tilt`)."""


class TurnState(NamedTuple):
    """A step of the task under way.

    Attributes:
      task: the task's state.
      plan: what the PRB agent starts from, or what it has decided.
      table: float32[C, U, 1 + F], presence and features of every user, those of
        `feature_names`; the power agent's own are 0 until PRBs are assigned.
      power_turn: bool[], the PRB agent has decided.
    """

    task: Any
    plan: Any
    table: jax.Array
    power_turn: jax.Array


class DownlinkTurns:
    """The downlink for JaxMARL's learners: agents "prb" and "power" take turns, two a decision.

    A duck-typed JaxMARL `MultiAgentEnv`: `reset(key)`, `step(key, state, actions)`, `get_obs`,
    `get_avail_actions`, spaces by agent, and no dependence on JaxMARL. The decisions, features
    and rewards are those of `downlink_task`.

    Observation of an agent: float32[C * U * (1 + F) + 2]. Row by row of [C, U], 1 for a present
    user and its features (`feature_names`; those added by the assignment are 0 in the PRB agent's
    turn), all 0 for an absent one; then 1 for the power agent, and 1 in the agent's own turn. Both
    have the same length, so that learners may stack them. `obs["world_state"]`, float32[2, W],
    is a row per agent for centralised critics: the same numbers of users, then 1 in the power
    agent's turn.

    Action of an agent: float32[C * U] latents, in [-3, 3], for a user each. Out of range they are
    bounded smoothly and NaN counts as 0 (`decisions.tilt`). Only the agent in turn acts: the
    other's action is not read, and its available actions are all False, as are absent users'.

    The PRB agent's turn is worth 0 and takes no time; after the power agent's, both get the reward
    of the slots that the decision held for. `dones` tell the end of an episode, and the next one
    has then begun. A downlink never terminates: every end is a truncation, and
    `infos["truncated"]` says so to learners that bootstrap. Entries of `infos` are [2], one per
    agent, 0 after the PRB agent's turn.

    Args:
      env: its parameters are used where none are given.
      config: parametrisation, decision period and window.
      reward_scale: factor on the environment's reward.

    Raises:
      ValueError: the horizon of the environment is not a multiple of the decision period.
    """

    def __init__(
        self,
        env: DownlinkEnv,
        config: ControllerConfig | None = None,
        reward_scale: float = 1.0,
    ):
        config = ControllerConfig() if config is None else config
        check_horizon(env.default_params, config.decision_period)
        self._env = env
        self._task = downlink_task(env, config, reward_scale)
        sizes = env.default_params.config
        users = sizes.num_cells * sizes.num_users
        self._features = len(feature_names(config.parametrisation)["second"])
        self._world = users * (1 + self._features) + 1
        self.agents = list(AGENTS)
        self.num_agents = len(AGENTS)
        seen = spaces.Box(-jnp.inf, jnp.inf, (self._world + 1,))
        latents = spaces.Box(-ACTION_LIMIT, ACTION_LIMIT, (users,))
        self.observation_spaces = dict.fromkeys(AGENTS, seen)
        self.action_spaces = dict.fromkeys(AGENTS, latents)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return type(self).__name__

    @property
    def agent_classes(self) -> dict[str, list[str]]:
        """Every agent is a class of its own."""
        return {agent: [agent] for agent in AGENTS}

    def observation_space(self, agent: str) -> spaces.Box:
        """Space of an agent's observation; unbounded."""
        return self.observation_spaces[_known(agent)]

    def action_space(self, agent: str) -> spaces.Box:
        """Space of an agent's action."""
        return self.action_spaces[_known(agent)]

    def world_state_size(self) -> int:
        """Numbers in a row of `obs["world_state"]`."""
        return self._world

    @partial(jax.jit, static_argnames=("self",))
    def reset(
        self, key: jax.Array, params: DownlinkParams | None = None
    ) -> tuple[dict[str, jax.Array], TurnState]:
        """A new drop, at the PRB agent's turn.

        Args:
          key: typed.
          params: of the environment, its own by default. Those are constants of the program that
            calls; ray-traced ones are better passed as an argument of it.
        """
        params = self._env.default_params if params is None else params
        state = self._open(self._task.reset(key, params), params)
        return self.get_obs(state), state

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: TurnState,
        actions: dict[str, jax.Array],
        params: DownlinkParams | None = None,
    ) -> tuple[
        dict[str, jax.Array],
        TurnState,
        dict[str, jax.Array],
        dict[str, jax.Array],
        dict[str, jax.Array],
    ]:
        """One agent's turn; a reset in the same step where the episode ends.

        Args:
          key: typed; only a reset draws from it.
          state: from `reset` or `step`.
          actions: of both agents; one is read.
          params: as in `reset`.

        Returns:
          observations, state, rewards float32[], dones bool[] (with "__all__"), infos.

        Raises:
          ValueError: an agent's action is missing or of another shape.
        """
        params = self._env.default_params if params is None else params
        first, second = (self._latent(actions, agent) for agent in AGENTS)

        # whichever turn it is, a batch pays for that alone: without the barrier XLA would move what
        # does not depend on the branch's `turn`, such as the channel, out of it
        def assign(turn: jax.Array) -> TurnState:
            now, latent, _ = jax.lax.optimization_barrier((state, first, turn))
            seen, plan = self._task.second(now.plan, latent, jnp.bool_(False), params)
            return TurnState(now.task, plan, _table(seen, self._features), jnp.bool_(True))

        def play(turn: jax.Array) -> tuple[TurnState, Turn]:
            now, latent, _ = jax.lax.optimization_barrier((state, second, turn))
            task, outcome = self._task.step(
                key, now.task, now.plan, latent, jnp.bool_(False), params
            )
            return self._open(task, params), outcome

        nothing = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(play, jnp.int32(0))[1]
        )
        assigned = rarely(~state.power_turn, assign, state)
        following, outcome = rarely(state.power_turn, play, (assigned, nothing))
        over = outcome.terminated | outcome.truncated
        infos = {**outcome.info, "truncated": outcome.truncated}
        return (
            self.get_obs(following),
            following,
            dict.fromkeys(AGENTS, outcome.reward),
            dict.fromkeys((*AGENTS, "__all__"), over),
            {name: jnp.broadcast_to(value, (self.num_agents,)) for name, value in infos.items()},
        )

    def get_obs(self, state: TurnState) -> dict[str, jax.Array]:
        """Observations of both agents, and the world state."""
        table, turn = state.table.reshape(-1), state.power_turn.astype(jnp.float32)
        marks = {"prb": (0.0, 1.0 - turn), "power": (1.0, turn)}
        observations = {agent: jnp.append(table, jnp.stack(marks[agent])) for agent in AGENTS}
        return {**observations, "world_state": self.get_world_state(state)}

    def get_world_state(self, state: TurnState) -> jax.Array:
        """What a centralised critic sees, float32[2, W], the same for both agents."""
        turn = state.power_turn.astype(jnp.float32)
        row = jnp.append(state.table.reshape(-1), turn)
        return jnp.broadcast_to(row, (self.num_agents, self._world))

    def get_avail_actions(self, state: TurnState) -> dict[str, jax.Array]:
        """Users that an agent has a say about, bool[C * U]: present ones, in its own turn."""
        present = state.table[..., 0].reshape(-1) > 0
        return {"prb": present & ~state.power_turn, "power": present & state.power_turn}

    def _open(self, task: Any, params: DownlinkParams) -> TurnState:
        """The PRB agent's turn in a state of the task."""
        seen, plan = self._task.first(task, params)
        return TurnState(task, plan, _table(seen, self._features), jnp.bool_(False))

    def _latent(self, actions: dict[str, jax.Array], agent: str) -> jax.Array:
        """An agent's action as the task takes it, float32[C, U]."""
        sizes = self._env.default_params.config
        expected = self.action_spaces[agent].shape
        given = jnp.shape(actions[agent]) if agent in actions else None
        if given != expected:
            raise ValueError(
                f"actions must hold {agent!r} with shape [cells * users] = {expected}, got "
                f"{'none' if given is None else given}; use jax.vmap for a batch of environments."
            )
        latent = jnp.asarray(actions[agent], jnp.float32)
        return latent.reshape(sizes.num_cells, sizes.num_users)


def _known(agent: str) -> str:
    if agent not in AGENTS:
        raise ValueError(f"agent must be one of {', '.join(AGENTS)}, got {agent!r}.")
    return agent


def _table(seen: Seen, width: int) -> jax.Array:
    """Presence and features, float32[C, U, 1 + F]; 0 for features that are not seen yet."""
    missing = width - seen.features.shape[-1]
    features = jnp.pad(seen.features, ((0, 0), (0, 0), (0, missing)))
    return jnp.concatenate([seen.mask[..., None].astype(jnp.float32), features], axis=-1)
