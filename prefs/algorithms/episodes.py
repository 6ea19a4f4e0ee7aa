"""What happens in one episode of a finite-horizon problem, and what a linear learner sees of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prefs.feedback.segments import Segments
from prefs.mdps.environment import Problem, tables
from prefs.mdps.tables import EpisodicMDP


class Trajectory(NamedTuple):
    """One episode.

    Attributes:
      states: int32[H + 1], the last where it ended.
      actions: int32[H].
    """

    states: jax.Array
    actions: jax.Array


def rollout(draws: jax.Array, mdp: EpisodicMDP, policy: jax.Array) -> Trajectory:
    """An episode of policy int32[H, S], from uniform draws [H + 1] in [0, 1)."""

    def pick(draw, distribution):
        # the last state takes what rounding leaves
        return jnp.sum(draw >= jnp.cumsum(distribution)[:-1], dtype=jnp.int32)

    def step(state, inputs):
        draw, transition, actions = inputs
        action = actions[state]
        following = pick(draw, transition[state, action])
        return following, (following, action)

    first = pick(draws[0], mdp.initial)
    _, (states, actions) = jax.lax.scan(step, first, (draws[1:], mdp.transition, policy))
    return Trajectory(jnp.concatenate([first[None], states]), actions)


def along(table: jax.Array, trajectory: Trajectory) -> jax.Array:
    """Entries [H, ...] of a table [H, S, A, ...] at the pairs that were visited."""
    return table[jnp.arange(table.shape[0]), trajectory.states[:-1], trajectory.actions]


def segment_of(trajectory: Trajectory, mdp: EpisodicMDP) -> Segments:
    """The episode as `Segments` of one, with its true rewards, for a labeller."""
    rewards = along(mdp.reward, trajectory)
    parts = trajectory.states[:-1], trajectory.actions, rewards, jnp.ones(rewards.shape, bool)
    return Segments(*(part[None] for part in (*parts, trajectory.states[1:])))


def episodic_tables(problem: Problem | EpisodicMDP) -> EpisodicMDP:
    """The tables of a finite-horizon problem.

    Raises:
      ValueError: a problem without tables, or with those of a discounted one.
    """
    mdp = tables(problem) if isinstance(problem, Problem) else problem
    if not isinstance(mdp, EpisodicMDP):
        raise ValueError(
            "learners from compared episodes need a finite-horizon problem (an EpisodicMDP, or its "
            f"episodic_problem), got {type(mdp).__name__}."
        )
    return mdp


def largest_difference(features: jax.Array) -> jax.Array:
    """The largest ||x||^2 of a difference x of two episodes' features [H, S, A, d], [].

    Taken at each step over all pairs, whether or not an episode can reach them.
    """
    flat = features.reshape(features.shape[0], -1, features.shape[-1])
    gram = jnp.einsum("hid,hjd->hij", flat, flat, precision="highest")
    norm = jnp.einsum("hid,hid->hi", flat, flat, precision="highest")
    return jnp.sum(jnp.max(norm[:, :, None] + norm[:, None, :] - 2 * gram, axis=(1, 2)))
