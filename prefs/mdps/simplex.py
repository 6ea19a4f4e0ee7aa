"""Random distributions."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dirichlet_half(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Dirichlet(1/2) over the last axis: Gamma(1/2) variables are half squared normals."""
    return _normalised(jnp.square(jax.random.normal(key, shape, float)))


def dirichlet_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Dirichlet(1) over the last axis, uniform on the simplex: Gamma(1) is exponential."""
    return _normalised(jax.random.exponential(key, shape, float))


def _normalised(weights: jax.Array) -> jax.Array:
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
