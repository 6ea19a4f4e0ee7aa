"""Behaviour cloning of all segments, winners and losers alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax
from flax import struct

from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.offline_learner import Given, PolicyConfig, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.result import Result
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem


class BCConfig(PolicyConfig):
    """Settings of BC: the frame's, without the cloning that other learners begin with."""

    bc_steps: int = struct.field(pytree_node=False, default=0)


def make_train(
    config: BCConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """BC: train(key) -> Result, see `offline_learner.make_policy_train`."""

    def objective(setting: Setting) -> Loss:
        return imitation_loss(setting.policy, setting.data.segments, None, config.batch_size)

    return make_policy_train(config, problem, labeller, objective, {}, given, bradley_terry=False)
