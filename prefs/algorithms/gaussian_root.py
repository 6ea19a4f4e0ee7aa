"""Gaussians N(m, V^-1) whose precision V grows by one outer product at a time.

Kept is a root R with R R^T = V^-1, the Cholesky factor to begin with. Potter's square-root update
(Bierman, Factorization Methods for Discrete Sequential Estimation, 1977, II.3) is the
Sherman-Morrison formula applied to R: with y = R^T x and s = ||y||^2,

  R' = R - R y y^T / (1 + s + sqrt(1 + s))   has   R' R'^T = V^-1 - V^-1 x x^T V^-1 / (1 + s).

V^-1 stays positive definite whatever is rounded, a draw needs no new factorisation, and log det V
grows by log(1 + s).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from prefs.algorithms.links import Number


class GaussianRoot(struct.PyTreeNode):
    """A root of an inverse precision.

    Attributes:
      root: [d, d], R with R R^T = V^-1; not triangular after an update.
      log_det: [], log det V.
    """

    root: jax.Array
    log_det: jax.Array


def isotropic(dimension: int, ridge: Number, dtype: DTypeLike = float) -> GaussianRoot:
    """V = ridge I, ridge [] above 0 (else NaN or infinite)."""
    ridge = jnp.asarray(ridge, dtype)
    return GaussianRoot(
        jnp.eye(dimension, dtype=dtype) / jnp.sqrt(ridge), dimension * jnp.log(ridge)
    )


def from_precision(precision: jax.Array) -> GaussianRoot:
    """Root L^-T of a symmetric positive definite V [d, d] = L L^T; NaN for any other.

    Column by column, in plain XLA: on a CPU, batched LAPACK calls of JAX 0.10 wait for threads of
    the very pool that they block, and programs of several devices stand still for ever.
    """
    dimension, dtype = precision.shape[-1], precision.dtype
    eye = jnp.eye(dimension, dtype=dtype)
    rows = jnp.arange(dimension)

    def column(j, carry):
        lower, inverse, log_det = carry
        known = lower[j]  # of row j, left of the diagonal
        rest = precision[:, j] - jnp.matmul(lower, known, precision="highest")
        pivot = jnp.sqrt(rest[j])
        row = (eye[j] - jnp.matmul(known, inverse, precision="highest")) / pivot
        lower = lower.at[:, j].set(jnp.where(rows >= j, rest / pivot, 0))
        return lower, inverse.at[j].set(row), log_det + 2 * jnp.log(pivot)

    first = jnp.zeros_like(precision), jnp.zeros_like(precision), jnp.zeros((), dtype)
    _, inverse, log_det = jax.lax.fori_loop(0, dimension, column, first)
    return GaussianRoot(inverse.T, log_det)


def absorb(gaussian: GaussianRoot, x: jax.Array, weight: Number = 1.0) -> GaussianRoot:
    """V + weight x x^T for x [d] and weight [] at least 0; weight 0 changes nothing."""
    y = (x @ gaussian.root) * jnp.sqrt(weight)
    s = jnp.sum(jnp.square(y))
    gain = (gaussian.root @ y) / (1 + s + jnp.sqrt(1 + s))
    return GaussianRoot(gaussian.root - gain[:, None] * y[None, :], gaussian.log_det + jnp.log1p(s))


def width(gaussian: GaussianRoot, x: jax.Array) -> jax.Array:
    """Norm sqrt(x^T V^-1 x) of x [..., d], the standard deviation along it: [...]."""
    return jnp.sqrt(jnp.sum(jnp.square(x @ gaussian.root), axis=-1))


def perturbation(gaussian: GaussianRoot, noise: jax.Array) -> jax.Array:
    """A draw of N(0, V^-1), [d], from standard normal noise [d]."""
    return gaussian.root @ noise
