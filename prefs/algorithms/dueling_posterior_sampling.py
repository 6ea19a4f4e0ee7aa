"""Dueling posterior sampling: two independent draws compete, and every pair is asked about.

Novoseller, Wei, Sui, Yue and Burdick, Dueling Posterior Sampling for Preference-Based
Reinforcement Learning (2020), algorithm 1. Their credit assignment is a choice; taken here is the
posterior that PbTS has, so that the two differ in whom they compare and when they ask.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import struct

from prefs.algorithms.dueling_loop import make_train as make_duels
from prefs.algorithms.episodes import episodic_tables
from prefs.algorithms.links import Judge
from prefs.algorithms.model_posterior import Plan, PosteriorConfig, posterior_learner
from prefs.algorithms.result import Result
from prefs.mdps.environment import Problem
from prefs.mdps.tables import EpisodicMDP


class DPSConfig(PosteriorConfig):
    """Settings of dueling posterior sampling: the posterior's and the loop's, always asking."""

    query: str = struct.field(pytree_node=False, default="always")


def make_train(
    config: DPSConfig, problem: Problem | EpisodicMDP, labeller: Judge
) -> Callable[[jax.Array], Result]:
    """Dueling posterior sampling on a problem: train(key) -> Result, see `dueling_loop.make_train`.

    `params` is the final `ModelPosterior`.

    Raises:
      ValueError: a problem without finite-horizon tables, or a setting out of range. Traced, it
        makes the regret NaN.
    """
    mdp = episodic_tables(problem)

    def pair(key: jax.Array, plan: Plan, previous: jax.Array) -> jax.Array:
        return jax.vmap(plan)(jax.random.split(key))

    return make_duels(config, mdp, labeller, posterior_learner(config, mdp, pair))
