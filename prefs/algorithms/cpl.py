"""Contrastive preference learning.

Hejna, Rafailov, Sikchi, Finn, Niekum, Knox and Sadigh, Contrastive Preference Learning: Learning
from Human Feedback without RL (2023). Preferences are taken to follow the regret of segments. At
the maximum-entropy optimum the advantage is alpha log pi, so with z = sum_t discount^t alpha
log pi(a_t | s_t) a policy is fitted as a classifier of preferences: softplus(-(z+ - lambda z-)).
The discount is that of the paper's formula, which its public code leaves out; soft labels weigh
both orders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax

from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given, PolicyConfig, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.pair_scores import mean_over, pair_scores
from prefs.algorithms.result import Result
from prefs.algorithms.settings import NOT_NEGATIVE, POSITIVE, POSITIVE_SHARE, Range
from prefs.feedback.labellers import Labeller
from prefs.mdps.environment import Problem


class CPLConfig(PolicyConfig):
    """Settings of CPL on top of the frame's.

    Attributes:
      alpha: temperature, positive.
      conservative_bias: lambda in (0, 1]; 1 is plain CPL, whose minimiser is the maximum-entropy
        optimum. Smaller values prefer policies that find what was preferred likely; their greedy
        actions are what to use.
      discount: of the steps of a segment, at least 0; 1 is what the public code does.
    """

    alpha: Number = 0.1
    conservative_bias: Number = 0.5
    discount: Number = 1.0


RANGES: dict[str, Range] = {
    "alpha": POSITIVE,
    "conservative_bias": POSITIVE_SHARE,
    "discount": NOT_NEGATIVE,
}
"""Ranges of the numbers of `CPLConfig`."""


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """Log(1 + exp x), [...]; twice as quick as `jax.nn.softplus` to differentiate, and as exact."""
    return jax.nn.softplus(x)


@softplus.defjvp
def _softplus_slope(at, direction):
    return softplus(at[0]), jax.nn.sigmoid(at[0]) * direction[0]


def pair_loss(
    first: jax.Array, second: jax.Array, label: jax.Array, conservative_bias: Number = 1.0
) -> jax.Array:
    """The loss p softplus(-(z1 - lambda z2)) + (1 - p) softplus(-(z2 - lambda z1)), in nats.

    Args:
      first, second: [...], z1 and z2.
      label: [...], p = P(first preferred) in [0, 1].
      conservative_bias: [], lambda.
    """
    lost_first = softplus(conservative_bias * second - first)
    lost_second = softplus(conservative_bias * first - second)
    return label * lost_first + (1 - label) * lost_second


def cpl_loss(config: CPLConfig, setting: Setting, from_reference: bool = False) -> Loss:
    """The mean `pair_loss` over the comparisons that count.

    Args:
      config: settings.
      setting: data and policy.
      from_reference: whether z is made of log pi - log pi_ref, with pi_ref the policy after
        cloning, instead of log pi.
    """
    policy = setting.policy
    scores = pair_scores(
        setting.data,
        policy.log_prob,
        policy.segment_log_probs,
        config.discount,
        config.batch_size,
    )

    def loss(params, key):
        found = scores(params, key)
        z1, z2 = found.first, found.second
        if from_reference:
            base = scores(setting.reference, key)  # the key draws the same minibatch
            z1, z2 = z1 - base.first, z2 - base.second
        each = pair_loss(
            config.alpha * z1, config.alpha * z2, found.label, config.conservative_bias
        )
        return mean_over(each, found.mask)

    return loss


def make_train(
    config: CPLConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """CPL: train(key) -> Result, see `offline_learner.make_policy_train`."""

    def objective(setting: Setting) -> Loss:
        return cpl_loss(config, setting)

    return make_policy_train(config, problem, labeller, objective, RANGES, given)
