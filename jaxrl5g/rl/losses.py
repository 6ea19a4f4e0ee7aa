"""Clipped policy and value losses, batch-normalised advantages, and the adaptive KL penalty.

Sources: Schulman et al., Proximal policy optimisation algorithms (2017), eqs. 7 and 8 and section
4; Yu et al., The surprising effectiveness of PPO in cooperative multi-agent games (MAPPO, 2022),
appendix A; Schulman, Approximating KL divergence (2020), for the estimator k3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_LOG_RATIO_LIMIT = 20.0  # exp(20) = 5e8: squares and sums of it stay far inside float32


class PolicyStats(NamedTuple):
    """How far an update has moved the policy.

    Attributes:
      kl: float32[], estimate of KL(old || new) in nats (k3), up to rounding at least 0.
      clip_fraction: float32[], share of the ratios that left [1 - clip, 1 + clip].
    """

    kl: Array
    clip_fraction: Array


def policy_loss(
    log_ratio: ArrayLike,
    advantages: ArrayLike,
    clip: ArrayLike,
    weights: ArrayLike | None = None,
) -> tuple[Array, PolicyStats]:
    """PPO's clipped surrogate, negated: -mean min(r A, clip(r, 1 - clip, 1 + clip) A).

    Schulman et al. 2017, eq. 7. The KL estimate is mean (r - 1) - log r over actions of the old
    policy; it is differentiable. For HAPPO multiply the advantages by the other agent's ratio.

    Args:
      log_ratio: float[...], log pi_new - log pi_old of the latent action taken; read as no
        further from 0 than 20 (and without gradient beyond), so that nothing overflows.
      advantages: float[...], taken as constants by the caller's gradient.
      clip: float[], above 0, typically 0.2; inf for no clipping. May be traced.
      weights: float[...], at least 0, all 1 by default; an entry of weight 0 is not read, and
        with none left everything is 0.

    Returns:
      The loss, float32[], and `PolicyStats`.

    Raises:
      ValueError: if shapes differ.
    """
    _check_shapes("log_ratio", log_ratio, advantages=advantages, weights=weights)
    log_ratio = jnp.clip(_read(log_ratio, weights), -_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    advantages = _read(advantages, weights)
    ratio = jnp.exp(log_ratio)
    surrogate = jnp.minimum(
        ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages
    )
    stats = PolicyStats(
        # expm1: r - 1 of a ratio near 1 would lose the digits that the difference needs
        kl=_mean(jnp.expm1(log_ratio) - log_ratio, weights),
        clip_fraction=_mean(jnp.abs(ratio - 1.0) > clip, weights),
    )
    return -_mean(surrogate, weights), stats


def value_loss(
    values: ArrayLike,
    old_values: ArrayLike,
    targets: ArrayLike,
    clip: ArrayLike | None,
    huber_delta: ArrayLike | None,
    weights: ArrayLike | None = None,
) -> Array:
    """The clipped value loss: mean max(h(V - R), h(V_clipped - R)), with the Huber loss h.

    V_clipped = V_old + clip(V - V_old, -clip, clip) (Yu et al. 2022, appendix A);
    h(e) = e^2 / 2 up to |e| = huber_delta and linear beyond.

    Args:
      values: float[...], of the critic being trained, in the (normalised) unit of the targets.
      old_values: float[...], of the critic when the data were gathered; not read if clip is None.
      targets: float[...], taken as constants by the caller's gradient.
      clip: float[], above 0; None or inf for no clipping.
      huber_delta: float[], above 0, typically 10; None or inf for half the squared error.
      weights: float[...], at least 0, all 1 by default; an entry of weight 0 is not read, and
        with none left the loss is 0.

    Returns:
      float32[], at least 0.

    Raises:
      ValueError: if shapes differ.
    """
    _check_shapes("values", values, old_values=old_values, targets=targets, weights=weights)
    values, targets = _read(values, weights), _read(targets, weights)
    loss = _huber(values - targets, huber_delta)
    if clip is not None:
        old_values = _read(old_values, weights)
        clipped = old_values + jnp.clip(values - old_values, -jnp.asarray(clip), clip)
        loss = jnp.maximum(loss, _huber(clipped - targets, huber_delta))
    return _mean(loss, weights)


def normalise_advantages(
    advantages: ArrayLike, weights: ArrayLike | None = None, *, axis_name: str | None = None
) -> Array:
    """Advantages with mean 0 and standard deviation 1 over the whole batch.

    Args:
      advantages: float[...].
      weights: float[...], at least 0, all 1 by default; an entry of weight 0 is not read.
      axis_name: mapped axis over which the batch is split, if it is.

    Returns:
      float32[...], 0 where the weight is 0; (nearly) 0 everywhere if all advantages are equal.

    Raises:
      ValueError: if shapes differ.
    """
    _check_shapes("advantages", advantages, weights=weights)
    centred = _read(advantages, weights)
    level = _mean(centred, weights, axis_name)
    # Twice, as a float32 mean is off by a digit. Of equal numbers some rounding is left even so,
    # however the program is compiled: small beside the level, without which it would be blown up.
    centred = _read(centred - level, weights)
    centred = _read(centred - _mean(centred, weights, axis_name), weights)
    variance = _mean(jnp.square(centred), weights, axis_name)
    return centred / (jnp.sqrt(variance + jnp.square(5e-6 * level)) + 1e-8)


def adapt_kl_coefficient(
    coefficient: ArrayLike,
    kl: ArrayLike,
    target: ArrayLike,
    factor: ArrayLike = 1.5,
    lower: ArrayLike = 1e-4,
    upper: ArrayLike = 1e4,
) -> Array:
    """The next coefficient of a KL penalty (Schulman et al. 2017, section 4).

    Doubled where kl > factor * target, halved where kl < target / factor, else kept.

    Args:
      coefficient: float[...], above 0.
      kl: float[...], in nats; NaN keeps the coefficient.
      target: float[...], in nats, above 0.
      factor: float[], at least 1.
      lower: float[], bound of the result.
      upper: float[], bound of the result.

    Returns:
      float32[...], in [lower, upper].
    """
    kl, target = jnp.asarray(kl, jnp.float32), jnp.asarray(target, jnp.float32)
    step = jnp.where(kl > factor * target, 2.0, jnp.where(kl < target / factor, 0.5, 1.0))
    return jnp.clip(coefficient * step, lower, upper)


def _check_shapes(like: str, array: ArrayLike, **others: ArrayLike | None) -> None:
    shape = jnp.shape(array)
    for name, other in others.items():
        if other is not None and jnp.shape(other) != shape:
            raise ValueError(f"{name} of shape {jnp.shape(other)} do not fit {like} of {shape}.")


def _huber(errors: Array, delta: ArrayLike | None) -> Array:
    """Huber loss; unlike optax's, exact for a delta so large (inf) that it never binds."""
    bounded = errors if delta is None else jnp.clip(errors, -jnp.asarray(delta), delta)
    return bounded * (errors - 0.5 * bounded)


def _read(values: ArrayLike, weights: ArrayLike | None) -> Array:
    """Float32, with 0 (and no gradient) where the weight is 0, whatever stood there."""
    values = jnp.asarray(values, jnp.float32)
    return values if weights is None else jnp.where(jnp.asarray(weights) > 0, values, 0.0)


def _mean(values: Array, weights: ArrayLike | None, axis_name: str | None = None) -> Array:
    """Weighted mean; 0 for no weight at all."""
    values = values.astype(jnp.float32)
    weights = jnp.ones_like(values) if weights is None else jnp.asarray(weights, jnp.float32)
    sums = jnp.sum(weights * values), jnp.sum(weights)
    weighted, total = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    return weighted / jnp.where(total > 0, total, 1.0)
