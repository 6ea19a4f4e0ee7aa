"""The soft maximum over actions, in a form that keeps small advantages of large values."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class SoftMaximum(NamedTuple):
    """Over the last axis of q.

    Attributes:
      v: [...], alpha logsumexp(q / alpha).
      advantage: [..., A], q - v, without the rounding of v.
      policy: [..., A], exp(advantage / alpha).
    """

    v: jax.Array
    advantage: jax.Array
    policy: jax.Array


def soft_maximum(q: jax.Array, alpha: jax.Array) -> SoftMaximum:
    """[..., A] q at temperature alpha > 0."""
    best = jnp.max(q, axis=-1, keepdims=True)
    # differences first: q / alpha of values in the hundreds would round away what tells them apart
    behind = q - best
    rest = alpha * jax.nn.logsumexp(behind / alpha, axis=-1, keepdims=True)
    advantage = behind - rest
    return SoftMaximum((best + rest)[..., 0], advantage, jnp.exp(advantage / alpha))
