"""The loop that all learners from compared episodes share: one scan over a whole run.

Every episode the learner proposes two policies, both are executed, and it may ask which of the two
trajectories is preferred. Learners differ in what they propose and how they learn, and are given as
`DuelLearner`. Source: Wu and Sun, Making RL with Preference-based Feedback Efficient via
Randomization (2023), the frame of algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.comparisons import Comparisons, append, empty
from prefs.algorithms.episodes import (
    Trajectory,
    along,
    largest_difference,
    rollout,
    segment_of,
)
from prefs.algorithms.links import Judge, Link, Logistic, Number
from prefs.algorithms.offline_data import warn_of_cycles
from prefs.algorithms.query_rule import QUERIES, query_bound, wants_query
from prefs.algorithms.result import Result
from prefs.feedback.labellers import Labeller
from prefs.mdps.episodic import backward_induction, evaluate_episodic
from prefs.mdps.tables import EpisodicMDP


class DuelConfig(struct.PyTreeNode):
    """Settings of the loop; learners add their own. The numbers may be traced and vmapped over.

    Attributes:
      episodes: T, a multiple of refit_every. Static.
      refit_every: the learner's estimate is renewed before every so many episodes. Static.
      max_queries: a hard budget, or None for T. When it is spent the learner goes on without
        asking, and the metric `exhausted` says so. It bounds memory, 4 max_queries (D + 1) bytes a
        run. Static.
      newton_steps: most steps of a refit. Static.
      query: "active", "always" or "random", see `query_rule.wants_query`. Static.
      eps: threshold of "active", at least 0.
      budget: how many queries "random" makes, at least 0; no more than max_queries.
      link: what the learner believes of the judge.
    """

    episodes: int = struct.field(pytree_node=False, default=1500)
    refit_every: int = struct.field(pytree_node=False, default=10)
    max_queries: int | None = struct.field(pytree_node=False, default=None)
    newton_steps: int = struct.field(pytree_node=False, default=8)
    query: str = struct.field(pytree_node=False, default="active")
    eps: Number = 0.1
    budget: Number = 0.0
    link: Link = Logistic(8.0)


class Duel(NamedTuple):
    """One episode.

    Attributes:
      trajectories: a stack of the two.
      x: [D], difference of their features, D = H d.
      sign: [], +1 if the first was preferred, else -1; means nothing where not queried.
      queried: bool[].
    """

    trajectories: Trajectory
    x: jax.Array
    sign: jax.Array
    queried: jax.Array


class Confidence(NamedTuple):
    """What the learner's query rule was, for its bound: see `query_rule.query_bound`.

    Attributes:
      sigma, ridge: [].
      log_det: [], of the precision at the end.
      growth: [], of log_det since the start.
    """

    sigma: jax.Array
    ridge: jax.Array
    log_det: jax.Array
    growth: jax.Array


class DuelLearner(NamedTuple):
    """A learner, for one problem; its state is a pytree.

    Attributes:
      initial: the state before the first episode.
      refit: (key, state, Comparisons) -> state, before every `refit_every` episodes.
      propose: (key, state, previous first policy int32[H, S]) -> both policies, int32[2, H, S].
      expected: (state, x [D]) -> [], by how much draws of the reward would disagree on x.
      observe: (state, Duel) -> state, after every episode.
      confidence: (state) -> Confidence, at the end.
      sound: bool[], whether its (traced) settings are in range.
    """

    initial: Any
    refit: Callable[[jax.Array, Any, Comparisons], Any]
    propose: Callable[[jax.Array, Any, jax.Array], jax.Array]
    expected: Callable[[Any, jax.Array], jax.Array]
    observe: Callable[[Any, Duel], Any]
    confidence: Callable[[Any], Confidence]
    sound: jax.Array


def check_config(
    config: DuelConfig, at_least_zero: Sequence[str] = (), positive: Sequence[str] = ()
) -> jax.Array:
    """Whether the settings are in range.

    Args:
      config: checked are the loop's own fields and
      at_least_zero, positive: those of the learner, by name.

    Returns:
      bool[], False where a traced number is out of range or NaN.

    Raises:
      ValueError: a static field, or a number given as such, out of range.
    """
    for name in ("episodes", "refit_every", "newton_steps"):
        _check_count(name, getattr(config, name))
    if config.max_queries is not None:
        _check_count("max_queries", config.max_queries)
    if config.episodes % config.refit_every:
        raise ValueError(
            f"episodes must be a multiple of refit_every = {config.refit_every}, "
            f"got {config.episodes}."
        )
    if config.query not in QUERIES:
        raise ValueError(f"query must be one of {', '.join(QUERIES)}, got {config.query!r}.")
    sound = jnp.asarray(True)
    for name in ("eps", "budget", *at_least_zero, *positive):
        value = getattr(config, name)
        strict = name in positive
        if isinstance(value, int | float) and not (value > 0 if strict else value >= 0):
            raise ValueError(
                f"{name} must be {'positive' if strict else 'at least 0'}, got {value}."
            )
        value = jnp.asarray(value)
        sound &= value > 0 if strict else value >= 0
    return sound


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def make_train(
    config: DuelConfig, mdp: EpisodicMDP, labeller: Judge, learner: DuelLearner
) -> Callable[[jax.Array], Result]:
    """The whole run as one pure function of a key; jit and vmap it.

    Regret is exact: both executed policies are evaluated in the true problem. A link sees the two
    trajectories' true returns, a labeller of `prefs.feedback` the trajectories, as segments; ties
    are answered by lot, and what it skips counts as not asked.

    Returns:
      train(key) -> Result with the learner's final state as `params`, the last first policy
      int32[H, S] as `policy`, and metrics:
        regret [T]: cumulative, sum over episodes of 2 V* - V^first - V^second. NaN where a traced
          setting is out of range.
        queried bool[T]; queries int32[]: their number; exhausted bool[]: max_queries was reached.
        log_det, log_det_growth []: of the reward's precision, at the end and since the start.
        query_bound []: most queries that this run could have made, infinite unless `query` is
          "active"; bound_held bool[].

    Warns:
      UserWarning: no Bradley-Terry model fits the labeller's preference.
    """
    of_segments = labeller if isinstance(labeller, Labeller) else None
    warn_of_cycles(of_segments)
    horizon, num_states, _, dimension = mdp.features.shape
    dtype = mdp.features.dtype
    capacity = min(config.max_queries or config.episodes, config.episodes)
    best = mdp.initial @ backward_induction(mdp)[1][0]
    budget = jnp.clip(config.budget, 0, capacity)

    @jax.vmap
    def run(draws, policy):
        """One of the two: its trajectory, features, score, and the policy's true value."""
        trajectory = rollout(draws, mdp, policy)
        phi = along(mdp.features, trajectory).reshape(-1)
        if of_segments is None:
            score = jnp.sum(along(mdp.reward, trajectory))
        else:
            score = of_segments.score(segment_of(trajectory, mdp))[0]
        return trajectory, phi, score, mdp.initial @ evaluate_episodic(mdp, policy)[0]

    def episode(carry, inputs):
        state, previous, made = carry
        key, index = inputs
        to_propose, to_happen = jax.random.split(key)
        # few calls of the generator: each costs most of a second to compile
        draws = jax.random.uniform(to_happen, (2 * horizon + 4,), dtype)
        policies = learner.propose(to_propose, state, previous)
        trajectories, phi, scores, values = run(draws[2:].reshape(2, -1), policies)
        x = phi[0] - phi[1]
        queried = (made < capacity) & wants_query(
            config.query,
            draws[0],
            learner.expected(state, x),
            config.eps,
            jnp.any(x != 0),
            budget - made,
            config.episodes - index,
        )
        both = scores[:1], scores[1:]  # with an axis, as a labeller takes them
        if of_segments is not None:
            queried &= of_segments.keeps(*both)[0]
        chance = labeller.preference(*both)[0]
        sign = jnp.where(draws[1] < chance, 1, -1).astype(dtype)
        state = learner.observe(state, Duel(trajectories, x, sign, queried))
        regret = 2 * best - jnp.sum(values)
        return (state, policies[0], made + queried), (x, sign, queried, regret)

    def block(carry, inputs):
        state, previous, comparisons = carry
        key, keys, indices = inputs
        state = learner.refit(key, state, comparisons)
        (state, previous, _), (x, sign, queried, regret) = jax.lax.scan(
            episode, (state, previous, comparisons.count), (keys, indices)
        )
        return (state, previous, append(comparisons, x, sign, queried)), (regret, queried)

    def train(key: jax.Array) -> Result:
        shape = (config.episodes // config.refit_every, config.refit_every)
        refits, episodes = jax.random.split(key)
        inputs = (
            jax.random.split(refits, shape[0]),
            jax.random.split(episodes, shape),
            jnp.arange(config.episodes).reshape(shape),
        )
        start = (
            learner.initial,
            jnp.zeros((horizon, num_states), jnp.int32),  # any policy will do
            empty(capacity, horizon * dimension, dtype),
        )
        (state, policy, comparisons), (regret, queried) = jax.lax.scan(block, start, inputs)
        confidence = learner.confidence(state)
        bound = jnp.asarray(jnp.inf)
        if config.query == "active":
            reach = largest_difference(mdp.features)
            sizes = (horizon * dimension, reach)
            bound = query_bound(config.eps, confidence.sigma, confidence.ridge, *sizes)
        metrics = {
            "regret": jnp.where(learner.sound, jnp.cumsum(regret.reshape(-1)), jnp.nan),
            "queried": queried.reshape(-1),
            "queries": comparisons.count,
            "exhausted": comparisons.count >= capacity,
            "log_det": confidence.log_det,
            "log_det_growth": confidence.growth,
            "query_bound": bound,
            "bound_held": comparisons.count <= bound * (1 + 1e-5),  # rounding of the root
        }
        return Result(state, policy, metrics)

    return train
