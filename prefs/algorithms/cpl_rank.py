"""CPL from rankings of K segments: all pairs of a ranking, or Plackett and Luce's rule.

Hejna et al. (2023): their code sorts a minibatch by score and takes all its pairs; their
appendix has the Plackett-Luce form. Ours: the conservative bias in the latter, so that for K = 2
both are the loss of a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms import cpl
from prefs.algorithms.links import Number
from prefs.algorithms.offline_learner import Given, Setting, make_policy_train
from prefs.algorithms.optimisation import Loss
from prefs.algorithms.pair_scores import chooser, mean_over, segment_scores
from prefs.algorithms.result import Result
from prefs.algorithms.settings import check_choice, check_count
from prefs.feedback.labellers import Labeller
from prefs.feedback.labels import Rankings, sampled_rankings
from prefs.mdps.environment import Problem


class CPLRankConfig(cpl.CPLConfig):
    """Settings of CPL from rankings.

    Attributes:
      group_size: K, at least 2 and a divisor of `num_segments`: segment i is ranked with those
        N / K, 2 N / K, ... after it. N for one ranking of all. Static.
      rule: "pairwise" or "plackett-luce". Static.
      batch_size: rankings an update (and twice as many segments while cloning); None for all.
    """

    group_size: int = struct.field(pytree_node=False, default=4)
    rule: str = struct.field(pytree_node=False, default="pairwise")


def pairwise_loss(scores: jax.Array, conservative_bias: Number = 1.0) -> jax.Array:
    """[...], mean over i < j of softplus(lambda z_j - z_i), of scores z [..., K], best first."""
    upper = jnp.triu(jnp.ones((scores.shape[-1],) * 2, bool), 1)
    each = cpl.softplus(conservative_bias * scores[..., None, :] - scores[..., :, None])
    return jnp.sum(jnp.where(upper, each, 0), (-2, -1)) / jnp.sum(upper)


def plackett_luce_loss(scores: jax.Array, conservative_bias: Number = 1.0) -> jax.Array:
    """[...], - sum_i log(exp z_i / (exp z_i + sum_{j>i} exp lambda z_j)) of z [..., K], best first.

    With lambda = 1 it is minus the log probability of the order under Plackett and Luce's rule.
    """
    rest = jax.lax.cumlogsumexp(
        conservative_bias * scores[..., 1:], axis=scores.ndim - 1, reverse=True
    )
    return jnp.sum(cpl.softplus(rest - scores[..., :-1]), -1)


LOSSES = {"pairwise": pairwise_loss, "plackett-luce": plackett_luce_loss}
"""Losses of a ranking by name."""


def make_train(
    config: CPLRankConfig,
    problem: Problem,
    labeller: Labeller | None,
    *,
    rankings: Rankings | None = None,
    **given: Unpack[Given],
) -> Callable[[jax.Array], Result]:
    """CPL from rankings: train(key) -> Result, see `offline_learner.make_policy_train`.

    Args:
      config: settings.
      problem: what is learned on.
      labeller: who ranks; may be None where rankings are given.
      rankings: of the segments of `given["data"]`, instead of asking.
      given: see `Given`; the comparisons of data only serve the metrics.

    Raises:
      ValueError: as there, a group size that does not divide, or neither labeller nor rankings.
    """
    check_choice(config, "rule", tuple(LOSSES))
    if rankings is None:
        _check_groups(config, given)
        if labeller is None:
            raise ValueError("a labeller is needed to rank segments: pass one, or rankings.")

    def objective(setting: Setting) -> Loss:
        segments, policy = setting.data.segments, setting.policy
        number = segments.mask.shape[0]
        ranked = rankings
        if ranked is None:
            assert labeller is not None  # asked above
            groups = jnp.arange(number, dtype=jnp.int32).reshape(config.group_size, -1).T
            ranked = sampled_rankings(setting.key, labeller, segments, groups)
        scores = segment_scores(
            segments,
            policy.log_prob,
            policy.segment_log_probs,
            config.discount,
            config.batch_size is None,
        )
        choose = chooser(ranked, ranked.mask, config.batch_size)

        def loss(params, key):
            chosen = choose(key)
            z = config.alpha * scores(params, chosen.order)
            return mean_over(LOSSES[config.rule](z, config.conservative_bias), chosen.mask)

        return loss

    return make_policy_train(config, problem, labeller, objective, cpl.RANGES, given)


def _check_groups(config: CPLRankConfig, given: Given) -> None:
    check_count(config, "group_size", 2)
    data = given.get("data")
    number = config.num_segments if data is None else data.segments.mask.shape[0]
    if number % config.group_size:
        raise ValueError(f"group_size must divide {number} segments, got {config.group_size}.")
