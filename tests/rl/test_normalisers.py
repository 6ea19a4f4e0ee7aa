"""Running moments against float64 sums, the invariance of what they merge, and their inverse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import denormalise, init_moments, normalise, update_moments

UPDATE = jax.jit(update_moments)
COUNT = jax.jit(partial(update_moments, beta=None))
seeds = st.integers(0, 2**32 - 1)
BATCHES, SAMPLES = 6, 10


def data(seed, offset=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    values = offset + scale * (rng.normal(size=(BATCHES, 1)) + rng.normal(size=(BATCHES, SAMPLES)))
    weights = rng.random((BATCHES, SAMPLES)) * (rng.random((BATCHES, SAMPLES)) < 0.7)
    weights[:, 0] = 0.5
    return values.astype(np.float32), weights.astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, beta=st.floats(0, 0.999), offset=st.floats(-1e3, 1e3))
def test_exponential_moments_are_those_of_debiased_valuenorm(seed, beta, offset):
    """E[x] and E[x^2] as decayed sums, each divided by the sum of their weights."""
    values, weights = data(seed, offset)
    moments, mean, square, debias = init_moments(), 0.0, 0.0, 0.0
    for batch, each in zip(values, weights, strict=True):
        moments = UPDATE(moments, batch, beta, each)
        exact = batch.astype(float)
        mean = beta * mean + (1 - beta) * np.average(exact, weights=each)
        square = beta * square + (1 - beta) * np.average(exact**2, weights=each)
        debias = beta * debias + (1 - beta)
    np.testing.assert_allclose(moments.weight, debias, rtol=1e-3)
    np.testing.assert_allclose(moments.mean, mean / debias, rtol=1e-4, atol=1e-3)
    variance = square / debias - (mean / debias) ** 2
    np.testing.assert_allclose(moments.variance, variance, rtol=5e-3)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, offset=st.floats(-1e3, 1e3), scale=st.floats(0.1, 100))
def test_counting_moments_are_those_of_all_samples_at_once(seed, offset, scale):
    values, weights = data(seed, offset, scale)
    moments = init_moments()
    for batch, each in zip(values, weights, strict=True):
        moments = COUNT(moments, batch, weights=each)
    exact = values.astype(float)
    mean = np.average(exact, weights=weights)
    variance = np.average((exact - mean) ** 2, weights=weights)
    np.testing.assert_allclose(moments.weight, weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-4 * scale)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-3)


def test_small_spread_beside_a_large_mean_keeps_its_digits():
    """E[x^2] - E[x]^2 in float32 would be noise of either sign here."""
    values = (1e4 + np.random.default_rng(0).normal(size=(50, 200))).astype(np.float32)
    moments = init_moments()
    for batch in values:
        moments = UPDATE(moments, batch, 0.9)
    np.testing.assert_allclose(moments.variance, 1, rtol=0.1)


def test_identity_before_the_first_update():
    values = jnp.array([-3.0, 0.0, 1e6])
    assert np.array_equal(normalise(init_moments(), values), values)
    assert np.array_equal(denormalise(init_moments(), values), values)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, offset=st.floats(-100, 100), scale=st.floats(0.1, 100))
def test_normalised_samples_are_standard_and_come_back(seed, offset, scale):
    values, _ = data(seed, offset, scale)
    moments = COUNT(init_moments(), values.reshape(-1))
    standard = np.asarray(normalise(moments, values), float)
    np.testing.assert_allclose(standard.mean(), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(), 1, rtol=1e-3)
    np.testing.assert_allclose(denormalise(moments, standard), values, rtol=1e-4, atol=1e-3 * scale)


def test_equal_samples_are_divided_by_the_floor():
    moments = UPDATE(init_moments(), jnp.full(8, 3.0), 0.9)
    assert moments.variance == 0
    np.testing.assert_allclose(normalise(moments, 3.5, floor=0.04), 2.5)
    np.testing.assert_allclose(denormalise(moments, 2.5, floor=0.04), 3.5)
    assert np.isfinite(normalise(moments, 3.0))


def test_each_feature_has_its_own_moments():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 4, 3)) * [1, 10, 100] + [5, 0, -5]
    moments = UPDATE(init_moments((3,)), values)
    np.testing.assert_allclose(moments.mean, values.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, values.var((0, 1)), rtol=1e-4)


def test_samples_without_weight_are_not_read():
    moments = UPDATE(init_moments(), jnp.array([1.0, 2.0]), 0.9, jnp.ones(2))
    some = UPDATE(moments, jnp.array([3.0, jnp.nan]), 0.9, jnp.array([1.0, 0.0]))
    alone = UPDATE(moments, jnp.array([3.0, 3.0]), 0.9, jnp.ones(2))
    np.testing.assert_allclose(jax.tree.leaves(some), jax.tree.leaves(alone), rtol=1e-6)
    none = UPDATE(moments, jnp.full(2, jnp.nan), 0.9, jnp.zeros(2))
    assert jax.tree.leaves(none) == jax.tree.leaves(moments)


def test_a_split_batch_is_merged_as_one():
    values, weights = data(2)
    split = jax.vmap(
        partial(update_moments, axis_name="devices"), (None, 0, None, 0), axis_name="devices"
    )
    many = jax.jit(split)(init_moments(), values, 0.9, weights)
    whole = UPDATE(init_moments(), values.ravel(), 0.9, weights.ravel())
    for got, expected in zip(jax.tree.leaves(many), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(got, np.full(BATCHES, expected), rtol=1e-5)


def test_decay_may_be_vmapped():
    betas = jnp.array([0.5, 0.9])
    batch = jnp.array([1.0, 3.0])
    start = UPDATE(init_moments(), jnp.array([0.0, 0.0]), 0.9)
    many = jax.jit(jax.vmap(update_moments, (None, None, 0)))(start, batch, betas)
    for index, beta in enumerate(betas):
        one = UPDATE(start, batch, beta)
        for got, expected in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(got[index], expected, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"batch of shape \(4, 2\) must end in .* \(3,\)"):
        update_moments(init_moments((3,)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="batch of shape"):
        update_moments(init_moments((3,)), 1.0)
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) must be one per sample"):
        update_moments(init_moments((3,)), np.zeros((4, 3)), weights=np.ones(3))
