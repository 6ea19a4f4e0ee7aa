"""Shared small numerics: table look-up, decibels and positive integer division."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# Beyond these bounds every curve is saturated; the clip keeps log10(0) out of the interpolation.
_MIN_DB = -60.0
_MAX_DB = 90.0


def take(values, index: Array) -> Array:
    """`values[index]` along the first axis; an index outside the table reads the nearest end."""
    values = jnp.asarray(values)
    index = jnp.clip(index, 0, values.shape[0] - 1)
    return values.at[index].get(mode="promise_in_bounds")


def to_db(linear: ArrayLike) -> Array:
    """`10 log10(linear)` in float32, limited to [-60, 90] dB (0 reads -60 dB)."""
    db = 10.0 * jnp.log10(jnp.asarray(linear, jnp.float32))
    return jnp.clip(db, _MIN_DB, _MAX_DB)


def log1p(value: Array) -> Array:
    """log(1 + value) for value >= -1, to float32 accuracy.

    XLA's own loses up to 3e-8 absolutely, which the number of code blocks then multiplies.
    """
    series = jnp.full_like(value, 1.0 / 8.0)
    for order in range(7, 0, -1):
        series = 1.0 / order - value * series
    return jnp.where(jnp.abs(value) < 0.1, value * series, jnp.log(1.0 + value))


def one_minus_exp(value: Array) -> Array:
    """1 - exp(-value) for value >= 0, to float32 accuracy; XLA's expm1 is slow on a CPU."""
    value = jnp.minimum(value, 100.0)
    series = jnp.ones_like(value)
    for order in range(8, 1, -1):
        series = 1.0 - value / order * series
    return jnp.where(value < 0.5, value * series, 1.0 - jnp.exp(-value))


def to_linear(db: ArrayLike) -> Array:
    """`10^(db / 10)` in float32, by way of exp2, which is much cheaper than a power."""
    return jnp.exp2(jnp.asarray(db, jnp.float32) * (math.log2(10.0) / 10.0))


def unfused(values: Array) -> Array:
    """The same bool or finite float32 [..., K], computed once.

    A product with the identity matrix, which XLA does not fuse: else it would repeat all that
    computes the values, one scalar at a time, inside every reduction that reads them.
    """
    identity = jnp.eye(values.shape[-1], dtype=jnp.float32)
    same = jnp.matmul(values.astype(jnp.float32), identity, precision=jax.lax.Precision.HIGHEST)
    return same > 0.5 if values.dtype == bool else same


_WORD = 15


def highest_true(flags: Array, rank: np.ndarray | None = None) -> Array:
    """Largest rank among the true entries of bool [..., K], K <= 30; -1 where none is true.

    Args:
        flags: bool [..., K].
        rank: int [K], a permutation of 0..K-1; the index itself by default.

    Returns:
        int32 [...]. The set as a 30-bit number, assembled in two words that float32 holds exactly
        by a matrix product, for the reason given in `unfused`.
    """
    count = flags.shape[-1]
    rank = np.arange(count) if rank is None else rank
    words = np.zeros((count, 2), np.float32)
    words[np.arange(count), rank // _WORD] = 2.0 ** (rank % _WORD)
    parts = jnp.matmul(flags.astype(jnp.float32), words, precision=jax.lax.Precision.HIGHEST)
    parts = parts.astype(jnp.int32)
    return 31 - jax.lax.clz(parts[..., 0] | (parts[..., 1] << _WORD))


def floor_div(numerator: Array, denominator: Array) -> Array:
    """Exact `numerator // denominator` for int32, numerator in [0, 2^24), denominator >= 1.

    Integer division has no vector instruction, so divide in float32 and repair the last unit.
    """
    ratio = numerator.astype(jnp.float32) / denominator.astype(jnp.float32)
    quotient = ratio.astype(jnp.int32)
    rest = numerator - quotient * denominator
    return quotient + (rest >= denominator).astype(jnp.int32) - (rest < 0).astype(jnp.int32)


def ceil_div(numerator: Array, denominator: Array) -> Array:
    """Exact `ceil(numerator / denominator)`, same ranges as `floor_div`."""
    return floor_div(numerator + denominator - 1, denominator)


def ceil_div_constant(numerator: Array, denominator: int) -> Array:
    """Exact `ceil(numerator / denominator)` for non-negative int32 and a positive constant."""
    return jax.lax.div(numerator + (denominator - 1), jnp.int32(denominator))
