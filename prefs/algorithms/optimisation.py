"""The loop that all offline learners share: Adam from given parameters, in one scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prefs.algorithms.links import Number

Params = Any
Loss = Callable[[Any, jax.Array], jax.Array]
"""Loss [] of parameters and a key, which draws the minibatch if there is one."""


def optimise(
    key: jax.Array,
    params: Params,
    loss: Loss,
    steps: int,
    points: int,
    learning_rate: Number,
    warmup_steps: Number = 0,
    after: Callable[[Params], Params] = lambda params: params,
) -> tuple[Params, jax.Array]:
    """Minimise by Adam, whose moments and schedule start anew.

    Args:
      key: draws the minibatches.
      params: where to start; leaves float.
      loss: (params, key) -> [].
      steps: updates, a multiple of `points`; 0 leaves the parameters as they are.
      points: how often the loss is looked at.
      learning_rate: [], at least 0.
      warmup_steps: [], updates over which the rate rises linearly to `learning_rate`.
      after: what is done to the parameters after every update.

    Returns:
      The parameters, and the loss [points] after each of `points` equal shares of the updates (on a
      minibatch of its own, if there is one); NaN where steps is 0.
    """
    if steps == 0:
        return params, jnp.full(points, jnp.nan)

    def rate(count):
        return learning_rate * jnp.minimum(1.0, (count + 1) / jnp.maximum(warmup_steps, 1))

    optimiser = optax.adam(rate)

    def update(carry, key):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, key), state, params)
        return (after(optax.apply_updates(params, updates)), state), None

    def share(carry, keys):
        carry, _ = jax.lax.scan(update, carry, keys[1:])
        return carry, loss(carry[0], keys[0])

    start = (params, optimiser.init(params))
    keys = jax.random.split(key, (points, 1 + steps // points))
    (params, _), losses = jax.lax.scan(share, start, keys)
    return params, losses
