"""Preference data as fixed-shape pytrees: segments, pairs of them, and where both come from."""

from __future__ import annotations

import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from prefs.mdps.environment import Problem
from prefs.mdps.solvers import occupancy
from prefs.mdps.tables import EpisodicMDP, TabularMDP


class Segments(struct.PyTreeNode):
    """N pieces of behaviour of at most k steps.

    Attributes:
      observations: [N, k, ...], what was seen before each action; int32 states in a table.
      actions: [N, k, ...]; int32 where they are discrete.
      rewards: float[N, k], the hidden truth, for labellers and tests; 0 where it is not known.
      mask: bool[N, k], True for a segment's steps and False for the padding after them.
      next_observations: as observations, what was seen after each action.
    """

    observations: Array
    actions: Array
    rewards: Array
    mask: Array
    next_observations: Array


class Pairs(struct.PyTreeNode):
    """M comparisons of two segments each.

    Attributes:
      first: int32[M], index into the segments.
      second: int32[M], likewise.
      label: float[M], probability in [0, 1] that the first is preferred: 0 or 1 for an answer,
        1/2 for a tie.
      mask: bool[M], False for a comparison that does not count.
    """

    first: Array
    second: Array
    label: Array
    mask: Array


class PreferenceData(struct.PyTreeNode):
    """Segments and comparisons of them.

    Attributes:
      segments: `Segments` of N segments.
      pairs: `Pairs` of M comparisons.
    """

    segments: Segments
    pairs: Pairs


def take(segments: Segments, index: ArrayLike) -> Segments:
    """Segments by index: int32[...] gives leaves [..., k, ...]."""
    index = jnp.asarray(index)
    return jax.tree.map(lambda leaf: leaf[index], segments)


def unlabelled(first: ArrayLike, second: ArrayLike) -> Pairs:
    """Comparisons int32[M] that all count and have no answer yet: every label is 1/2."""
    first, second = jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32)
    return Pairs(first, second, jnp.full(first.shape, 0.5), jnp.ones(first.shape, bool))


def sparse_pairs(num_segments: int) -> Pairs:
    """Each segment once: i against i + n/2, n/2 comparisons in all.

    Raises:
      ValueError: num_segments is odd or below 2.
    """
    number = _at_least("num_segments", num_segments, 2)
    if number % 2:
        raise ValueError(f"sparse pairs need an even number of segments, got {number}.")
    first = jnp.arange(number // 2, dtype=jnp.int32)
    return unlabelled(first, first + number // 2)


def dense_pairs(num_segments: int) -> Pairs:
    """Every segment against every other once: all i < j, n(n-1)/2 comparisons.

    Raises:
      ValueError: num_segments is below 2.
    """
    first, second = jnp.triu_indices(_at_least("num_segments", num_segments, 2), 1)
    return unlabelled(first, second)


def random_pairs(key: Array, num_segments: int, num_pairs: int) -> Pairs:
    """Fresh pairs: two different segments each, uniform and with repetition.

    Raises:
      ValueError: fewer than 2 segments, or no pair.
    """
    number = _at_least("num_segments", num_segments, 2)
    shape = (_at_least("num_pairs", num_pairs, 1),)
    of_first, of_shift = jax.random.split(key)
    first = jax.random.randint(of_first, shape, 0, number, jnp.int32)
    shift = jax.random.randint(of_shift, shape, 1, number, jnp.int32)
    return unlabelled(first, (first + shift) % number)


def sample_segments(
    key: Array,
    mdp: TabularMDP,
    policy: ArrayLike,
    num: int,
    length: int,
    start: str | Array = "occupancy",
) -> Segments:
    """Segments of a policy's behaviour in a table, independent of each other.

    Args:
      key: random key.
      mdp: S states, A actions.
      policy: float[S, A], rows that sum to 1.
      num: N, segments; at least 1.
      length: k, steps of each; at least 1.
      start: where segments begin: "occupancy" (the policy's discounted share of time in each
        state: a random moment of its life), "initial" (the table's), or float[S] weights.

    Returns:
      `Segments` with int32[N, k] states and actions, and no padding.

    Raises:
      ValueError: a size below 1, an unknown start, or a policy or weights of another shape.
    """
    num, length = _at_least("num", num, 1), _at_least("length", length, 1)
    policy = jnp.asarray(policy)
    if policy.shape != mdp.reward.shape:
        raise ValueError(f"policy must be [S, A] = {mdp.reward.shape}, got {policy.shape}.")
    weights = _start_weights(mdp, policy, start)
    choices, moves = jnp.cumsum(policy, -1), jnp.cumsum(mdp.transition, -1)
    return _walk(key, weights, lambda _: (choices, moves, mdp.reward), num, length)


def sample_episodes(key: Array, mdp: EpisodicMDP, policy: ArrayLike, num: int) -> Segments:
    """Whole episodes of a policy float[H, S, A] in a finite-horizon table: `Segments` with k = H.

    Observations are states 0..S-1; the step is the position in the segment.

    Raises:
      ValueError: num below 1 or a policy of another shape.
    """
    num, policy = _at_least("num", num, 1), jnp.asarray(policy)
    if policy.shape != mdp.reward.shape:
        raise ValueError(f"policy must be [H, S, A] = {mdp.reward.shape}, got {policy.shape}.")
    choices, moves = jnp.cumsum(policy, -1), jnp.cumsum(mdp.transition, -1)
    return _walk(
        key, mdp.initial, lambda t: (choices[t], moves[t], mdp.reward[t]), num, policy.shape[0]
    )


def rollout_segments(
    key: Array, problem: Problem, act: Callable[[Array, Array], Array], num: int, length: int
) -> Segments:
    """Segments from the start of episodes of any problem that can be stepped.

    An episode that ends within the segment ends it there: what follows is masked.

    Args:
      key: random key.
      problem: `env` and `params`.
      act: (key, observation) -> action, the behaviour.
      num: N, segments; at least 1.
      length: k, most steps of each; at least 1.

    Returns:
      `Segments` with the environment's observations, actions and rewards [N, k, ...].

    Raises:
      ValueError: a size below 1.
    """
    num, length = _at_least("num", num, 1), _at_least("length", length, 1)
    env, params = problem.env, problem.params

    def one(key):
        of_start, of_steps = jax.random.split(key)
        observation, state = env.reset(of_start, params)

        def step(carry, key):
            observation, state, alive = carry
            of_action, of_step = jax.random.split(key)
            action = act(of_action, observation)
            seen, state, reward, terminated, truncated, info = env.step(
                of_step, state, action, params
            )
            after = info["final_observation"]  # `seen` may be the next episode's first
            out = observation, action, reward, alive, after
            return (seen, state, alive & ~(terminated | truncated)), out

        start = (observation, state, jnp.bool_(True))
        return Segments(*jax.lax.scan(step, start, jax.random.split(of_steps, length))[1])

    return jax.vmap(one)(jax.random.split(key, num))


def _start_weights(mdp: TabularMDP, policy: Array, start: str | Array) -> Array:
    if isinstance(start, str):
        if start == "initial":
            return mdp.initial
        if start == "occupancy":
            return jnp.sum(occupancy(mdp, policy), -1)
        raise ValueError(f'start must be "occupancy", "initial" or float[S], got {start!r}.')
    start = jnp.asarray(start)
    if start.shape != mdp.initial.shape:
        raise ValueError(f"start must be [S] = {mdp.initial.shape}, got {start.shape}.")
    return start


def _walk(
    key: Array,
    weights: Array,
    tables: Callable[[Array], tuple[Array, Array, Array]],
    num: int,
    length: int,
) -> Segments:
    """Roll out; `tables(t)` gives cumulative choices [S, A] and moves [S, A, S], and rewards."""
    of_start, of_steps = jax.random.split(key)
    state = _draw(of_start, jnp.broadcast_to(jnp.cumsum(weights), (num, weights.size)))

    def step(state, inputs):
        t, key = inputs
        choices, moves, reward = tables(t)
        of_action, of_move = jax.random.split(key)
        action = _draw(of_action, choices[state])
        after = _draw(of_move, moves[state, action])
        return after, (state, action, reward[state, action], after)

    inputs = (jnp.arange(length), jax.random.split(of_steps, length))
    _, steps = jax.lax.scan(step, state, inputs)
    states, actions, rewards, after = (jnp.swapaxes(leaf, 0, 1) for leaf in steps)
    return Segments(states, actions, rewards, jnp.ones((num, length), bool), after)


def _draw(key: Array, cumulative: Array) -> Array:
    """One index int32[N] a row of cumulative weights [N, n]; never one of zero weight."""
    uniform = jax.random.uniform(key, cumulative.shape[:1], cumulative.dtype)
    threshold = uniform * cumulative[:, -1]  # the last entry is 1 only up to rounding
    return jnp.sum(cumulative <= threshold[:, None], axis=-1, dtype=jnp.int32)


def _at_least(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    return number
