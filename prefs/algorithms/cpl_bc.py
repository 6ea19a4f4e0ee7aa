"""CPL with a cloning term over all segments (Hejna et al., 2023, CPL-BC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax

from prefs.algorithms import cpl
from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.result import Result
from prefs.algorithms.settings import NOT_NEGATIVE
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem


class CPLBCConfig(cpl.CPLConfig):
    """Settings of CPL-BC; the defaults are the public code's.

    Attributes:
      bc_coefficient: weight of the cloning loss, at least 0.
    """

    conservative_bias: Number = 1.0
    bc_coefficient: Number = 1.0


def make_train(
    config: CPLBCConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """CPL-BC: train(key) -> Result, see `offline_learner.make_policy_train`."""

    def objective(setting: Setting) -> Loss:
        contrast = cpl.cpl_loss(config, setting)
        cloning = imitation_loss(setting.policy, setting.data.segments, None, config.batch_size)

        def loss(params, key):
            of_pairs, of_segments = jax.random.split(key)
            return contrast(params, of_pairs) + config.bc_coefficient * cloning(params, of_segments)

        return loss

    ranges = {**cpl.RANGES, "bc_coefficient": NOT_NEGATIVE}
    return make_policy_train(config, problem, labeller, objective, ranges, given)
