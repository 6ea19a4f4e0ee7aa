"""A reward from preferences, then the exact optimal policy for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax

from prefs.algorithms.offline_learner import Given
from prefs.algorithms.planning import PlanningConfig, make_planner_train
from prefs.algorithms.result import Result
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem
from prefs.mdps.solvers import hard_optimal


class RewardPlanningConfig(PlanningConfig):
    """Settings of reward and planning: the frame's."""


def make_train(
    config: RewardPlanningConfig,
    problem: Problem,
    labeller: Labeller | None,
    **given: Unpack[Given],
) -> Callable[[jax.Array], Result]:
    """Reward and planning: train(key) -> Result, see `planning.make_planner_train`."""
    return make_planner_train(
        config, problem, labeller, lambda mdp: hard_optimal(mdp).policy, {}, given
    )
