"""PbTS: posterior sampling from preferences, each draw's policy against the last one's.

Wu and Sun, Making RL with Preference-based Feedback Efficient via Randomization (2023), algorithm
2; the tabular posterior is ours, see `model_posterior`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prefs.algorithms.dueling_loop import make_train as make_duels
from prefs.algorithms.episodes import episodic_tables
from prefs.algorithms.links import Judge
from prefs.algorithms.model_posterior import Plan, PosteriorConfig, posterior_learner
from prefs.algorithms.result import Result
from prefs.mdps.environment import Problem
from prefs.mdps.tables import EpisodicMDP


class PbTSConfig(PosteriorConfig):
    """Settings of PbTS: the posterior's and the loop's."""


def make_train(
    config: PbTSConfig, problem: Problem | EpisodicMDP, labeller: Judge
) -> Callable[[jax.Array], Result]:
    """PbTS on a problem: train(key) -> Result, see `dueling_loop.make_train`.

    `params` is the final `ModelPosterior`.

    Raises:
      ValueError: a problem without finite-horizon tables, or a setting out of range. Traced, it
        makes the regret NaN.
    """
    mdp = episodic_tables(problem)

    def pair(key: jax.Array, plan: Plan, previous: jax.Array) -> jax.Array:
        return jnp.stack([plan(key), previous])

    return make_duels(config, mdp, labeller, posterior_learner(config, mdp, pair))
