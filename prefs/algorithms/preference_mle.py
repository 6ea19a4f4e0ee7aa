"""Maximum likelihood of a linear reward from comparisons (Wu and Sun, 2023, algorithm 1, line 3).

The maximiser over a ball is replaced by that with a ridge, which is the ball's Lagrangian; the
ridge and the damped Newton iteration are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prefs.algorithms.comparisons import Comparisons, fold
from prefs.algorithms.gaussian_root import from_precision
from prefs.algorithms.links import Link, Number

MAX_STEP = 0.5  # norm of a Newton step: without a limit, decided links overshoot from afar


class PreferenceFit(NamedTuple):
    """A maximum and the curvature there.

    Attributes:
      theta: [D], maximises sum_i log Phi(sign_i <x_i, theta>) - ridge ||theta||^2 / 2.
      precision: [D, D], minus the Hessian at theta (Laplace's precision).
      least: [], the least information of a comparison; infinite without any.
    """

    theta: jax.Array
    precision: jax.Array
    least: jax.Array


def fit_preferences(
    comparisons: Comparisons, link: Link, ridge: Number, start: jax.Array, steps: int
) -> PreferenceFit:
    """Newton's method from `start` [D], each step's norm at most 0.5.

    It ends after `steps` steps, or earlier where the step has become smaller than the square root
    of the dtype's rounding, so that a good start (the last fit) costs two or three.

    Args:
      comparisons: of features [D].
      link: Phi.
      ridge: [], above 0.
      start: [D].
      steps: at least 1.
    """
    dtype, dimension = start.dtype, start.shape[0]
    eye = jnp.eye(dimension, dtype=dtype)
    tolerance = jnp.sqrt(jnp.finfo(dtype).eps)

    def moments(theta):
        def add(carry, _, x, sign, valid):
            gradient, precision, least = carry
            margin = sign * (x @ theta)
            weight = link.information(margin).astype(dtype)
            pull = jnp.where(valid, sign * link.score(margin), 0).astype(dtype)
            return (
                gradient + pull @ x,
                precision + (x * jnp.where(valid, weight, 0)[:, None]).T @ x,
                jnp.minimum(least, jnp.min(jnp.where(valid, weight, jnp.inf))),
            )

        none = (-ridge * theta, ridge * eye, jnp.asarray(jnp.inf, dtype))
        return fold(comparisons, none, add)

    def newton(theta):
        gradient, precision, least = moments(theta)
        root = from_precision(precision).root
        step = root @ (gradient @ root)
        size = jnp.linalg.norm(step)
        return step * jnp.minimum(1, MAX_STEP / jnp.maximum(size, MAX_STEP)), precision, least

    def unfinished(carry):
        count, _, step, *_ = carry
        # the first turn only looks around: it applies a step of zero
        return (count == 0) | ((count <= steps) & (jnp.sum(jnp.square(step)) > tolerance**2))

    def advance(carry):
        count, theta, step, *_ = carry
        theta = theta + step
        return count + 1, theta, *newton(theta)

    first = (jnp.zeros((), jnp.int32), start, jnp.zeros_like(start), eye, jnp.asarray(0, dtype))
    _, theta, _, precision, least = jax.lax.while_loop(unfinished, advance, first)
    return PreferenceFit(theta, precision, least)
