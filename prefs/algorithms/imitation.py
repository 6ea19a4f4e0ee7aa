"""Cloning: minus the mean log probability of the actions of weighted segments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prefs.algorithms.optimisation import Loss
from prefs.algorithms.pair_scores import drawer
from prefs.algorithms.policies import Policy
from prefs.algorithms.table_sums import step_weights
from prefs.feedback.segments import Segments, take


def imitation_loss(
    policy: Policy, segments: Segments, weights: jax.Array | None, batch_size: int | None
) -> Loss:
    """- sum_n w_n sum_t log pi(a_t | s_t) / sum_n w_n T_n over segments of T_n steps.

    Args:
      policy: to be cloned into.
      segments: N.
      weights: [N], at least 0; None for all alike. 0 in all of them makes the loss 0.
      batch_size: None for all segments, else 2 batch_size are drawn, in proportion to w_n T_n, and
        the mean log probability of each is taken, whose expectation is the same.
    """
    steps = step_weights(segments)
    lengths = jnp.sum(steps, -1)
    weights = jnp.ones_like(lengths) if weights is None else weights.astype(lengths.dtype)
    mass = weights * lengths
    if batch_size is None:
        share = weights[:, None] * steps / _nonzero(jnp.sum(mass))
        total = policy.total_log_prob(segments, share)
        return lambda params, key: -total(params)

    number = 2 * batch_size
    drawn = drawer(mass, number)
    share = steps / (number * lengths[:, None]) * (jnp.sum(mass) > 0)

    def batch(params: Any, key: jax.Array) -> jax.Array:
        index = drawn(key)
        some = take(segments, index)
        return -jnp.sum(share[index] * policy.log_prob(params, some.observations, some.actions))

    return batch


def _nonzero(total: jax.Array) -> jax.Array:
    return jnp.where(total > 0, total, 1)
