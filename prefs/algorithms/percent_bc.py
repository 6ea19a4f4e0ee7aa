"""Cloning of the best segments by a score that no learner from preferences gets: an oracle.

The public code of CPL repeats its last episode instead (a stale index); here it is the best share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp

from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given, PolicyConfig, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.result import Result
from prefs.algorithms.settings import POSITIVE_SHARE
from prefs.feedback.labellers import Labeller, PartialReturn, PreferenceMatrix
from prefs.feedback.segments import Segments
from prefs.feedback.teachers import Teacher
from prefs.mdps.environment import Problem

Score = Callable[[Segments], jax.Array]
"""Segments -> [N], larger is better."""


class PercentBCConfig(PolicyConfig):
    """Settings of top-percent BC.

    Attributes:
      share: of the segments that are cloned, in (0, 1]; at least one is.
    """

    share: Number = 0.1


def best(scores: jax.Array, share: Number) -> jax.Array:
    """bool[N], the best `share` of scores [N], rounded up; of equal ones the first."""
    number = scores.shape[0]
    rank = jnp.zeros(number, jnp.int32)
    rank = rank.at[jnp.argsort(-scores, stable=True)].set(jnp.arange(number, dtype=jnp.int32))
    return rank < jnp.ceil(share * number)


def make_train(
    config: PercentBCConfig,
    problem: Problem,
    labeller: Labeller | None,
    *,
    score: Score | None = None,
    **given: Unpack[Given],
) -> Callable[[jax.Array], Result]:
    """Top-percent BC: train(key) -> Result, see `offline_learner.make_policy_train`.

    Args:
      config: settings.
      problem: what is learned on.
      labeller: who answers.
      score: what "best" means; the labeller's own utility by default (a teacher's before its
        imperfections), the reward of the segments where there is no labeller.
      given: see `Given`.

    Raises:
      ValueError: as there, or a labeller without utilities and no score.
    """
    by = utility(labeller) if score is None else score

    def objective(setting: Setting) -> Loss:
        segments = setting.data.segments
        chosen = best(by(segments), config.share)
        return imitation_loss(setting.policy, segments, chosen, config.batch_size)

    ranges = {"share": POSITIVE_SHARE}
    return make_policy_train(
        config, problem, labeller, objective, ranges, given, bradley_terry=False
    )


def utility(labeller: Labeller | None) -> Score:
    """What a labeller itself makes of segments; their reward if None.

    Raises:
      ValueError: it only has preferences.
    """
    inner = labeller.labeller if isinstance(labeller, Teacher) else labeller
    if isinstance(inner, PreferenceMatrix):
        raise ValueError("a preference matrix has no utilities to sort segments by: pass a score.")
    return (inner or PartialReturn()).score
