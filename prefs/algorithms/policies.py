"""Policies behind one interface: a table of logits, and networks for both kinds of actions.

A policy is a frozen, hashable description; its parameters are a pytree made by `init`. Learners ask
for log probabilities of data only through `segment_log_probs` and `total_log_prob`, whose work that
does not depend on the parameters is done once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl5g.rl.distributions import Categorical, DiagonalGaussian
from jaxrl5g.rl.networks import MLP
from prefs.algorithms.links import Number
from prefs.algorithms.table_sums import step_weights, table_segment_sums, table_totals
from prefs.feedback.segments import Segments
from prefs.mdps.environment import Problem

Params = Any


class Policy:
    """What every policy offers; subclasses are frozen dataclasses."""

    def init(self, key: jax.Array) -> Params:
        """Parameters to start from."""
        raise NotImplementedError

    def log_prob(self, params: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Log probability (density for continuous actions) in nats, [...]."""
        raise NotImplementedError

    def mode(self, params: Params, observations: jax.Array) -> jax.Array:
        """The most probable action at observations [...]; of equal ones the lowest."""
        raise NotImplementedError

    def table(self, params: Params) -> jax.Array:
        """Probabilities [S, A].

        Raises:
          ValueError: a policy that is not of finitely many states.
        """
        raise ValueError(f"{type(self).__name__} has no table: its states are not numbered.")

    def segment_log_probs(
        self, segments: Segments, discount: Number
    ) -> Callable[[Params], jax.Array]:
        """The function params -> [N], sum over a segment's steps of discount^t log pi."""
        weights = step_weights(segments, discount)
        return lambda params: jnp.sum(weights * self._of(params, segments), -1)

    def total_log_prob(
        self, segments: Segments, weights: jax.Array
    ) -> Callable[[Params], jax.Array]:
        """The function params -> [], sum of weights [N, k] times log pi, over all steps."""
        return lambda params: jnp.sum(weights * self._of(params, segments))

    def _of(self, params: Params, segments: Segments) -> jax.Array:
        return self.log_prob(params, segments.observations, segments.actions)


@dataclasses.dataclass(frozen=True)
class TabularSoftmax(Policy):
    """One logit a pair; parameters [S, A], 0 at first: the uniform policy.

    Attributes:
      num_states: S; observations are int32 in 0..S-1.
      num_actions: A.
      counts: how sums over segments are taken, see `table_sums`; None for by counts on
        an accelerator and by looking up on a CPU.
    """

    num_states: int
    num_actions: int
    counts: bool | None = None

    def init(self, key: jax.Array) -> Params:
        del key
        return jnp.zeros((self.num_states, self.num_actions), float)

    def log_prob(self, params: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(params)[observations, actions]

    def mode(self, params: Params, observations: jax.Array) -> jax.Array:
        return jnp.argmax(params, -1).astype(jnp.int32)[observations]

    def table(self, params: Params) -> jax.Array:
        return jax.nn.softmax(params)

    def segment_log_probs(
        self, segments: Segments, discount: Number
    ) -> Callable[[Params], jax.Array]:
        counts = on_accelerator() if self.counts is None else self.counts
        sums = table_segment_sums(self._shape, segments, discount, counts)
        return lambda params: sums(jax.nn.log_softmax(params))

    def total_log_prob(
        self, segments: Segments, weights: jax.Array
    ) -> Callable[[Params], jax.Array]:
        total = table_totals(self._shape, segments, weights)
        return lambda params: jnp.sum(total * jax.nn.log_softmax(params))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.num_states, self.num_actions


@dataclasses.dataclass(frozen=True)
class CategoricalMLP(Policy):
    """A network that gives logits of A actions.

    Attributes:
      num_actions: A.
      num_features: of an observation float[..., F]; or S where observations are states int32[...],
        which the network sees one-hot.
      hidden: widths of the hidden layers.
      numbered: whether observations are states.
    """

    num_actions: int
    num_features: int
    hidden: Sequence[int] = (64, 64)
    numbered: bool = False

    def init(self, key: jax.Array) -> Params:
        return self._net.init(key, jnp.zeros(self.num_features))

    def log_prob(self, params: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return self._at(params, observations).log_prob(actions)

    def mode(self, params: Params, observations: jax.Array) -> jax.Array:
        return self._at(params, observations).mode()

    def table(self, params: Params) -> jax.Array:
        if not self.numbered:
            return super().table(params)
        return jax.nn.softmax(self._at(params, jnp.arange(self.num_features)).logits)

    @property
    def _net(self) -> MLP:
        return MLP((*self.hidden, self.num_actions), final_scale=0.01)

    def _at(self, params: Params, observations: jax.Array) -> Categorical:
        seen = features(observations, self.num_features if self.numbered else None)
        return Categorical(jnp.asarray(self._net.apply(params, seen)))


@dataclasses.dataclass(frozen=True)
class GaussianMLP(Policy):
    """Independent normal actions around a network's mean, which tanh keeps within (-1, 1).

    Log densities are of the normal, also for data at the border of a bounded action space.

    Attributes:
      num_actions: d, actions float[..., d].
      num_features: F, observations float[..., F].
      hidden: widths of the hidden layers.
      sigma: fixed standard deviation, positive; None for one learned number per component. The
        square root of 1/2, at which log pi is minus the squared error up to a constant, is what the
        public code of CPL has.
    """

    num_actions: int
    num_features: int
    hidden: Sequence[int] = (64, 64)
    sigma: float | None = math.sqrt(0.5)

    def __post_init__(self) -> None:
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma must be positive or None, got {self.sigma}.")

    def init(self, key: jax.Array) -> Params:
        params: dict[str, Any] = {"mean": self._net.init(key, jnp.zeros(self.num_features))}
        if self.sigma is None:
            params["log_std"] = jnp.full(self.num_actions, math.log(math.sqrt(0.5)))
        return params

    def log_prob(self, params: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
        log_std = params["log_std"] if self.sigma is None else math.log(self.sigma)
        mean = self.mode(params, observations)
        return DiagonalGaussian(mean, jnp.asarray(log_std, mean.dtype)).log_prob(actions)

    def mode(self, params: Params, observations: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.asarray(self._net.apply(params["mean"], observations)))

    @property
    def _net(self) -> MLP:
        return MLP((*self.hidden, self.num_actions), final_scale=0.01)


def policy_for(problem: Problem, hidden: Sequence[int] = (64, 64)) -> Policy:
    """A table where states and actions are numbered, else a network with `hidden` layers.

    Raises:
      ValueError: observations or actions that are neither numbered nor vectors.
    """
    seen = problem.env.observation_space(problem.params)
    done = problem.env.action_space(problem.params)
    if isinstance(seen, spaces.Discrete) and isinstance(done, spaces.Discrete):
        return TabularSoftmax(seen.n, done.n)
    width = vector_width(seen)
    if width is not None and isinstance(done, spaces.Discrete):
        return CategoricalMLP(done.n, width, hidden)
    actions = vector_width(done)
    if width is None or actions is None:
        raise ValueError(f"no policy for observations {seen} and actions {done}: pass one.")
    return GaussianMLP(actions, width, hidden)


def vector_width(space: Any) -> int | None:
    """Length of the vectors of a space, None where it has others."""
    is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
    return space.shape[0] if is_vector else None


def features(values: jax.Array, categories: int | None) -> jax.Array:
    """Float[..., F] as they are, or one-hot float[..., categories] of int32[...]."""
    return values if categories is None else jax.nn.one_hot(values, categories)


def on_accelerator() -> bool:
    """Whether JAX computes on anything but a CPU by default."""
    return jax.default_backend() != "cpu"
