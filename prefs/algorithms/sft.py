"""Supervised fine-tuning: cloning of all segments first, then of the preferred ones only.

A segment counts once for every comparison that it wins, and by the label where that is soft (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp

from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.offline_learner import Given, PolicyConfig, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.result import Result
from prefs.feedback.labellers import Labeller
from prefs.feedback.segments import PreferenceData
from prefs.mdps.environment import Problem


class SFTConfig(PolicyConfig):
    """Settings of SFT: the frame's."""


def wins(data: PreferenceData) -> jax.Array:
    """[N], the sum over a segment's comparisons of the probability that it is preferred."""
    pairs = data.pairs
    of_first = jnp.where(pairs.mask, pairs.label, 0)
    of_second = jnp.where(pairs.mask, 1 - pairs.label, 0)
    none = jnp.zeros(data.segments.mask.shape[0], of_first.dtype)
    return none.at[pairs.first].add(of_first).at[pairs.second].add(of_second)


def make_train(
    config: SFTConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """SFT: train(key) -> Result, see `offline_learner.make_policy_train`."""

    def objective(setting: Setting) -> Loss:
        won = wins(setting.data)
        return imitation_loss(setting.policy, setting.data.segments, won, config.batch_size)

    return make_policy_train(config, problem, labeller, objective, {}, given, bradley_terry=False)
