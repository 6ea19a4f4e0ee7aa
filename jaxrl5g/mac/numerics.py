"""Small numerics the power rules share: input cleaning, exact-enough sums, shape checks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

LARGEST = 1e30
"""Gains, powers and weights above this count as this: products and ratios stay in float32."""

_BLOCK = 8


def non_negative(values: ArrayLike) -> jax.Array:
    """float32 within [0, 1e30]; NaN and negative values count as 0."""
    values = jnp.asarray(values, jnp.float32)
    return jnp.where(values > 0, jnp.minimum(values, LARGEST), 0.0)


def positive_or_one(values: jax.Array) -> jax.Array:
    """A divisor: the value where it is positive, else 1."""
    return jnp.where(values > 0, values, 1.0)


def pairwise_sum(values: jax.Array) -> jax.Array:
    """Sum over the last axis in blocks of blocks of eight: [..., K] -> [...].

    The rounding grows with log K. One running sum of K equal terms would err by up to K / 2 ulp,
    more than the 1e-6 to which a budget is met.
    """
    while values.shape[-1] > _BLOCK:
        blocks = -(-values.shape[-1] // _BLOCK)
        missing = blocks * _BLOCK - values.shape[-1]
        values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
        values = jnp.sum(values.reshape(*values.shape[:-1], blocks, _BLOCK), axis=-1)
    return jnp.sum(values, axis=-1)


def bisect(
    above: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array, halvings: int
) -> tuple[jax.Array, jax.Array]:
    """Brackets, of each entry, the least number at which a decreasing condition no longer holds.

    Args:
      above: says of float32[...] where the number sought lies above, bool[...].
      low, high: float32[...], the first bracket.

    Returns:
      The bracket after `halvings` steps, float32[...] each.
    """

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        beyond = above(middle)
        return jnp.where(beyond, middle, low), jnp.where(beyond, high, middle)

    return jax.lax.fori_loop(0, halvings, halve, (low, high))


def grant_matrix(owner: ArrayLike, num_users: int) -> jax.Array:
    """bool[..., U, N]: which PRBs belong to which user; int32[..., N], others belong to nobody."""
    owner = jnp.asarray(owner, jnp.int32)
    return owner[..., None, :] == jnp.arange(num_users, dtype=jnp.int32)[:, None]


def of_owner(values: jax.Array, owner: jax.Array) -> jax.Array:
    """The owner's value on every PRB, [..., U] -> [..., N]; 0 where nobody owns the PRB."""
    num_users = values.shape[-1]
    batch = jnp.broadcast_shapes(values.shape[:-1], owner.shape[:-1])
    values = jnp.broadcast_to(values, (*batch, num_users))
    index = jnp.broadcast_to(owner, (*batch, owner.shape[-1]))
    taken = jnp.take_along_axis(
        values, jnp.clip(index, 0, num_users - 1), axis=-1, mode="promise_in_bounds"
    )
    return jnp.where((index >= 0) & (index < num_users), taken, 0.0)


def check_axis(name: str, array: jax.Array, axes: str) -> None:
    """Raise `ValueError` unless the array has an axis, named in `axes`, to work on."""
    if array.ndim < 1 or array.shape[-1] < 1:
        raise ValueError(f"{name} must have shape {axes}, got {array.shape}.")


def check_fits(name: str, array: jax.Array, like: str, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless the last axis of `array` broadcasts against that of `shape`."""
    try:
        joint = jnp.broadcast_shapes(array.shape, shape)
    except ValueError:
        joint = None
    if joint is None or joint[-1:] != shape[-1:]:
        raise ValueError(f"{name} of shape {array.shape} do not fit {like} of shape {shape}.")


def check_batch(name: str, batch: tuple[int, ...], like: str, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless the batch axes of `name` broadcast against those of `like`."""
    try:
        jnp.broadcast_shapes(batch, shape[:-1])
    except ValueError as error:
        raise ValueError(f"{name} of shape {batch} do not fit {like} of shape {shape}.") from error
