"""A reward of single steps from preferences, by Bradley and Terry's model.

Christiano, Leike, Brown, Martic, Legg and Amodei, Deep reinforcement learning from human
preferences (2017): P(first) = sigmoid(sum of the first's rewards - sum of the second's). Ours: the
ridge, without which decided answers have no largest likelihood.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from prefs.algorithms.cpl import pair_loss
from prefs.algorithms.links import Number
from prefs.algorithms.offline_data import DATA_RANGES, DataConfig
from prefs.algorithms.optimisation import optimise
from prefs.algorithms.pair_scores import accuracy, mean_over, pair_scores
from prefs.algorithms.settings import NOT_NEGATIVE, Range
from prefs.algorithms.step_functions import StepFunction
from prefs.feedback.segments import PreferenceData


class RewardConfig(DataConfig):
    """Settings of the reward model on top of the data's.

    Attributes:
      reward_steps: updates. Static.
      reward_learning_rate: of Adam, at least 0.
      reward_ridge: lambda of lambda / 2 ||params||^2 beside the summed loss, at least 0; of a
        table's entries it is the precision of a normal prior.
      reward_discount: of the steps of a segment, at least 0.
    """

    reward_steps: int = struct.field(pytree_node=False, default=1500)
    reward_learning_rate: Number = 0.05
    reward_ridge: Number = 0.1
    reward_discount: Number = 1.0


REWARD_RANGES: dict[str, Range] = {
    **DATA_RANGES,
    "reward_learning_rate": NOT_NEGATIVE,
    "reward_ridge": NOT_NEGATIVE,
    "reward_discount": NOT_NEGATIVE,
}
"""Ranges of the numbers of `RewardConfig`."""


class RewardFit(NamedTuple):
    """A fitted reward.

    Attributes:
      params: of the step function.
      metrics: reward_loss [points] and accuracy [], the share of the answers that it agrees with.
    """

    params: Any
    metrics: dict[str, jax.Array]


def fit_reward(
    key: jax.Array, config: RewardConfig, data: PreferenceData, model: StepFunction
) -> RewardFit:
    """Fit by Adam from the model's initial parameters."""
    of_init, of_steps = jax.random.split(key)
    total = jnp.sum(data.pairs.mask)
    parts = model, model.segment_sums, config.reward_discount
    scores = pair_scores(data, *parts, config.batch_size)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        found = scores(params, key)
        fit = mean_over(pair_loss(found.first, found.second, found.label), found.mask)
        size = optax.tree.norm(params, squared=True)
        return fit + config.reward_ridge / 2 * size / jnp.maximum(total, 1)

    params, losses = optimise(
        of_steps,
        model.init(of_init),
        loss,
        config.reward_steps,
        config.points,
        config.reward_learning_rate,
    )
    agreement = accuracy(pair_scores(data, *parts, None)(params, key))
    return RewardFit(params, {"reward_loss": losses, "accuracy": agreement})
