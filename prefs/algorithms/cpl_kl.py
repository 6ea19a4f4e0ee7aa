"""CPL that starts from, and is measured from, the cloned policy (Hejna et al., 2023, CPL-KL)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax

from prefs.algorithms import cpl
from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.result import Result
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem


class CPLKLConfig(cpl.CPLConfig):
    """Settings of CPL-KL; the defaults are the public code's, the tenth of the rate included."""

    alpha: Number = 0.2
    conservative_bias: Number = 0.75
    learning_rate: Number = 0.005


def make_train(
    config: CPLKLConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """CPL-KL: train(key) -> Result, see `offline_learner.make_policy_train`."""

    def objective(setting: Setting) -> Loss:
        return cpl.cpl_loss(config, setting, from_reference=True)

    return make_policy_train(config, problem, labeller, objective, cpl.RANGES, given)
