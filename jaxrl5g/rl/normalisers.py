"""Running mean and variance, by which value targets (or features) are normalised.

One small state serves exponential forgetting, as in MAPPO's ValueNorm (Yu et al., The surprising
effectiveness of PPO in cooperative multi-agent games, 2022, appendix A; van Hasselt et al.,
Learning values across many orders of magnitude, 2016), and plain counting. It holds the mean, the
variance and the weight seen so far, and a batch is merged into them by the formula of Chan, Golub
and LeVeque (1983): no difference of squares, so a spread small beside the mean keeps its digits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

VARIANCE_FLOOR = 1e-4
"""The least variance that anything is divided by."""


class RunningMoments(struct.PyTreeNode):
    """Moments of what has been seen, debiased.

    Attributes:
      mean: float32[*shape].
      variance: float32[*shape], of the population, at least 0; 1 before the first update.
      weight: float32[], total weight seen: 1 - beta^n after n exponential updates (the debiasing
        term of ValueNorm), the number of samples when counting; 0 before the first update.
    """

    mean: Array
    variance: Array
    weight: Array


def init_moments(shape: tuple[int, ...] = ()) -> RunningMoments:
    """Moments of nothing yet, by which `normalise` and `denormalise` are the identity."""
    return RunningMoments(
        mean=jnp.zeros(shape, jnp.float32),
        variance=jnp.ones(shape, jnp.float32),
        weight=jnp.zeros((), jnp.float32),
    )


def update_moments(
    moments: RunningMoments,
    batch: ArrayLike,
    beta: ArrayLike | None = 0.999,
    weights: ArrayLike | None = None,
    *,
    axis_name: str | None = None,
) -> RunningMoments:
    """Merge a batch into the moments.

    Args:
      moments: of shape [*shape].
      batch: float[..., *shape]; all leading axes are samples.
      beta: float[], in [0, 1): what a batch keeps of those before it, in the exponential mean
        over batches (MAPPO has 0.99999); may be traced. None (static) counts instead: every
        sample that was ever seen weighs the same. One run of moments keeps to one of the two.
      weights: float[...], at least 0, over the leading axes, all 1 by default; samples of weight
        0 are not read, and a batch without weight changes nothing.
      axis_name: mapped axis over which the batch is split, if it is.

    Returns:
      The new moments.

    Raises:
      ValueError: if the shapes do not fit.
    """
    batch = jnp.asarray(batch, jnp.float32)
    leading = batch.ndim - moments.mean.ndim
    if leading < 0 or batch.shape[leading:] != moments.mean.shape:
        raise ValueError(
            f"batch of shape {batch.shape} must end in the moments' shape {moments.mean.shape}."
        )
    sizes = batch.shape[:leading]
    if weights is None:
        weights = jnp.ones(sizes, jnp.float32)
    if jnp.shape(weights) != sizes:
        raise ValueError(
            f"weights of shape {jnp.shape(weights)} must be one per sample, {sizes} in this batch."
        )
    axes = tuple(range(leading))
    weights = jnp.asarray(weights, jnp.float32)

    def over_all(values: Array) -> Array:
        return values if axis_name is None else jax.lax.psum(values, axis_name)

    total = over_all(jnp.sum(weights))
    each = jnp.expand_dims(weights, tuple(range(leading, batch.ndim)))
    batch = jnp.where(each > 0, batch, 0.0)
    each = each / jnp.where(total > 0, total, 1.0)
    mean = over_all(jnp.sum(each * batch, axis=axes))
    variance = over_all(jnp.sum(each * jnp.square(batch - mean), axis=axes))

    if beta is None:
        old, new = moments.weight, total
    else:
        kept = jnp.asarray(beta, jnp.float32)
        old, new = kept * moments.weight, 1.0 - kept
    weight = old + new
    share = new / jnp.where(weight > 0, weight, 1.0)
    gap = mean - moments.mean
    merged = RunningMoments(
        mean=moments.mean + share * gap,
        variance=(1 - share) * (moments.variance + share * jnp.square(gap)) + share * variance,
        weight=weight,
    )
    return jax.tree.map(lambda now, was: jnp.where(total > 0, now, was), merged, moments)


def normalise(
    moments: RunningMoments, values: ArrayLike, floor: ArrayLike = VARIANCE_FLOOR
) -> Array:
    """(values - mean) / sqrt(max(variance, floor)), float32 of the shape of values [..., *shape].

    Before the first update the values come back as they are (for a floor of at most 1).
    """
    return (jnp.asarray(values, jnp.float32) - moments.mean) / _scale(moments, floor)


def denormalise(
    moments: RunningMoments, values: ArrayLike, floor: ArrayLike = VARIANCE_FLOOR
) -> Array:
    """The inverse of `normalise` with the same floor."""
    return jnp.asarray(values, jnp.float32) * _scale(moments, floor) + moments.mean


def _scale(moments: RunningMoments, floor: ArrayLike) -> Array:
    return jnp.sqrt(jnp.maximum(moments.variance, floor))
