"""A reward from preferences, then soft policy iteration for it, to its fixed point.

What reinforcement learning with an entropy bonus on a learned reward aims at (Haarnoja, Zhou,
Abbeel and Levine, Soft actor-critic, 2018), without its errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax

from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given
from prefs.algorithms.planning import PlanningConfig, make_planner_train
from prefs.algorithms.result import Result
from prefs.algorithms.settings import POSITIVE
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem
from prefs.mdps.solvers import soft_optimal


class RewardSoftPolicyConfig(PlanningConfig):
    """Settings of reward and soft policy iteration on top of the frame's.

    Attributes:
      temperature: of the policy, positive, in units of the learned reward (nats of log odds).
    """

    temperature: Number = 0.1


def make_train(
    config: RewardSoftPolicyConfig,
    problem: Problem,
    labeller: Labeller | None,
    **given: Unpack[Given],
) -> Callable[[jax.Array], Result]:
    """Reward and soft policy iteration: train(key) -> Result, see `planning.make_planner_train`."""

    def plan(mdp):
        return soft_optimal(mdp, config.temperature).policy

    return make_planner_train(config, problem, labeller, plan, {"temperature": POSITIVE}, given)
