"""Real functions of observations, or of observations and actions: a table or a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl5g.rl.networks import MLP
from prefs.algorithms.links import Number
from prefs.algorithms.policies import on_accelerator, vector_width
from prefs.algorithms.table_sums import step_weights, table_segment_sums
from prefs.feedback.segments import Segments
from prefs.mdps.environment import Problem

Params = Any


@dataclasses.dataclass(frozen=True)
class StepTable:
    """One number a pair, 0 at first; parameters [S, A], or [S] of observations alone.

    Attributes:
      shape: (S, A) or (S,).
    """

    shape: tuple[int, ...]

    def init(self, key: jax.Array) -> Params:
        """Parameters to start from."""
        del key
        return jnp.zeros(self.shape, float)

    def __call__(
        self, params: Params, observations: jax.Array, actions: jax.Array | None = None
    ) -> jax.Array:
        """Values [...] at states int32[...] and, for [S, A], actions int32[...]."""
        return params[observations] if actions is None else params[observations, actions]

    def segment_sums(self, segments: Segments, discount: Number) -> Callable[[Params], jax.Array]:
        """The function params -> [N], sum over a segment's steps of discount^t value(s, a)."""
        num_states, num_actions = self.shape
        return table_segment_sums((num_states, num_actions), segments, discount, on_accelerator())


@dataclasses.dataclass(frozen=True)
class StepMLP:
    """A network of the observation and, if `actions` is not 0, the action.

    Attributes:
      num_features: F, observations float[..., F]; S for observations that are states.
      actions: width of the action; A for actions that are numbered.
      hidden: widths of the hidden layers.
      numbered: whether observations are states int32[...], seen one-hot.
      discrete: whether actions are numbered, int32[...], seen one-hot.
    """

    num_features: int
    actions: int = 0
    hidden: Sequence[int] = (64, 64)
    numbered: bool = False
    discrete: bool = False

    def init(self, key: jax.Array) -> Params:
        """Parameters to start from."""
        return self._net.init(key, jnp.zeros(self.num_features + self.actions))

    def __call__(
        self, params: Params, observations: jax.Array, actions: jax.Array | None = None
    ) -> jax.Array:
        """Values [...] at observations and, if the network takes them, actions."""
        seen = jax.nn.one_hot(observations, self.num_features) if self.numbered else observations
        if actions is not None:
            done = jax.nn.one_hot(actions, self.actions) if self.discrete else actions
            seen = jnp.concatenate([seen, done], -1)
        return jnp.asarray(self._net.apply(params, seen))[..., 0]

    def segment_sums(self, segments: Segments, discount: Number) -> Callable[[Params], jax.Array]:
        """The function params -> [N], sum over a segment's steps of discount^t value(s, a)."""
        weights = step_weights(segments, discount)
        return lambda params: jnp.sum(
            weights * self(params, segments.observations, segments.actions), -1
        )

    @property
    def _net(self) -> MLP:
        return MLP((*self.hidden, 1), "silu")


StepFunction = StepTable | StepMLP


def of_pairs(problem: Problem, hidden: Sequence[int] = (64, 64)) -> StepFunction:
    """A function of observations and actions: a table where both are numbered, else a network.

    Raises:
      ValueError: observations or actions that are neither numbered nor vectors.
    """
    seen = problem.env.observation_space(problem.params)
    done = problem.env.action_space(problem.params)
    discrete = isinstance(done, spaces.Discrete)
    if isinstance(seen, spaces.Discrete) and discrete:
        return StepTable((seen.n, done.n))
    width, size = vector_width(seen), done.n if discrete else vector_width(done)
    if width is None or size is None:
        raise ValueError(f"no reward model for observations {seen} and actions {done}.")
    return StepMLP(width, size, hidden, discrete=discrete)


def of_observations(problem: Problem, hidden: Sequence[int] = (64, 64)) -> StepFunction:
    """A function of observations alone, chosen likewise."""
    both = of_pairs(problem, hidden)
    if isinstance(both, StepTable):
        return StepTable(both.shape[:1])
    return dataclasses.replace(both, actions=0)
