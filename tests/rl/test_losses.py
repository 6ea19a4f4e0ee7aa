"""Losses against float64 formulas; where they clip, what they leave unread, and their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import adapt_kl_coefficient, normalise_advantages, policy_loss, value_loss

SIZE = 16
POLICY = jax.jit(policy_loss)
VALUE = jax.jit(value_loss)
VALUE_GRADIENT = jax.jit(jax.grad(value_loss))
POLICY_GRADIENT = jax.jit(jax.grad(lambda *given: policy_loss(*given)[0]))
NORMALISE = jax.jit(normalise_advantages)
seeds = st.integers(0, 2**32 - 1)


def batch(seed, count):
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(count, SIZE)).astype(np.float32)
    weights = (rng.random(SIZE) * (rng.random(SIZE) < 0.7)).astype(np.float32)
    weights[0] = 0.5
    return *arrays, weights


@settings(max_examples=40, deadline=None)
@given(seed=seeds, clip=st.floats(0.01, 1), spread=st.floats(0.01, 2))
def test_policy_loss_is_the_clipped_surrogate(seed, clip, spread):
    log_ratio, advantages, weights = batch(seed, 2)
    log_ratio = np.float32(spread) * log_ratio
    loss, stats = POLICY(log_ratio, advantages, clip, weights)
    exact = log_ratio.astype(float)
    ratio = np.exp(exact)
    surrogate = np.minimum(ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages)
    np.testing.assert_allclose(loss, -np.average(surrogate, weights=weights), atol=1e-5, rtol=1e-5)
    k3 = np.average(ratio - 1 - exact, weights=weights)
    np.testing.assert_allclose(stats.kl, k3, rtol=1e-4, atol=1e-7)
    outside = np.average(np.abs(ratio - 1) > clip, weights=weights)
    near = np.any(np.abs(np.abs(ratio - 1) - clip) < 1e-5)  # either answer is right there
    assert near or np.isclose(stats.clip_fraction, outside, atol=1e-6)


def test_first_minibatch_has_ratio_one():
    """Then the loss is minus the mean advantage and its gradient the policy gradient."""
    _, advantages, weights = batch(0, 2)
    zeros = jnp.zeros(SIZE)
    loss, stats = POLICY(zeros, advantages, 0.2, weights)
    np.testing.assert_allclose(loss, -np.average(advantages, weights=weights), rtol=1e-5)
    assert stats.kl == 0 and stats.clip_fraction == 0
    gradient = POLICY_GRADIENT(zeros, advantages, 0.2, weights)
    np.testing.assert_allclose(gradient, -advantages * weights / weights.sum(), rtol=1e-5)


def test_gradient_stops_where_clipping_would_be_exploited_and_only_there():
    log_ratio = jnp.log(jnp.array([1.5, 1.5, 0.5, 0.5]))
    advantages = jnp.array([1.0, -1.0, 1.0, -1.0])
    gradient = POLICY_GRADIENT(log_ratio, advantages, 0.2, jnp.ones(4))
    np.testing.assert_allclose(gradient, [0, 1.5 / 4, -0.5 / 4, 0], rtol=1e-6)
    free = POLICY_GRADIENT(log_ratio, advantages, jnp.inf, jnp.ones(4))
    np.testing.assert_allclose(free, -jnp.exp(log_ratio) * advantages / 4, rtol=1e-6)


def test_kl_of_k3_is_unbiased_and_keeps_its_digits():
    """For two unit Gaussians a distance m apart KL is m^2 / 2, far below one float32 digit of 1."""
    mean = 2e-3
    draws = np.random.default_rng(0).normal(size=200_000)
    log_ratio = (mean * draws - mean**2 / 2).astype(np.float32)
    _, stats = POLICY(log_ratio, np.zeros_like(log_ratio), 0.2)
    np.testing.assert_allclose(stats.kl, mean**2 / 2, rtol=0.02)


@pytest.mark.parametrize("log_ratio", [-1e30, -100.0, 100.0, 1e30, np.inf, -np.inf])
def test_no_ratio_overflows(log_ratio):
    given = jnp.full(4, log_ratio), jnp.array([-1.0, 0.0, 0.0, 1.0]), 0.2, jnp.ones(4)
    loss, stats = POLICY(*given)
    assert np.isfinite(loss) and np.isfinite(stats.kl) and stats.clip_fraction == 1
    assert np.all(POLICY_GRADIENT(*given) == 0)


def huber(error, delta):
    size = np.abs(error)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, clip=st.floats(0.01, 3), delta=st.floats(0.1, 10))
def test_value_loss_is_the_larger_of_clipped_and_unclipped_huber(seed, clip, delta):
    values, old, targets, weights = batch(seed, 3)
    exact, kept = values.astype(float), old.astype(float)
    clipped = kept + np.clip(exact - kept, -clip, clip)
    expected = np.maximum(huber(exact - targets, delta), huber(clipped - targets, delta))
    got = VALUE(values, old, targets, clip, delta, weights)
    np.testing.assert_allclose(got, np.average(expected, weights=weights), rtol=1e-5, atol=1e-6)


def test_no_clip_and_no_huber_is_half_the_squared_error():
    values, old, targets, weights = batch(1, 3)
    expected = np.average((values - targets) ** 2 / 2, weights=weights)
    gradient = (values - targets) * weights / weights.sum()
    infinite = jnp.float32(jnp.inf)
    for clip, delta in [(None, None), (infinite, infinite)]:
        given = (values, old, targets, clip, delta, weights)
        np.testing.assert_allclose(VALUE(*given), expected, rtol=1e-5)
        np.testing.assert_allclose(VALUE_GRADIENT(*given), gradient, rtol=1e-4, atol=1e-7)


def test_huber_bounds_the_gradient():
    errors = np.array([-100.0, -1.0, 1.0, 100.0], np.float32)
    got = VALUE_GRADIENT(errors, errors, np.zeros(4, np.float32), None, 10.0)
    np.testing.assert_allclose(got, np.array([-10, -1, 1, 10]) / 4)


def test_entries_without_weight_are_not_read():
    log_ratio, advantages, targets, weights = batch(2, 3)
    absent = weights == 0
    assert absent.any()
    bad = [np.where(absent, np.nan, x) for x in (log_ratio, advantages, targets)]
    clean = POLICY(log_ratio, advantages, 0.2, weights)
    assert jax.tree.leaves(POLICY(bad[0], bad[1], 0.2, weights)) == jax.tree.leaves(clean)
    gradient = POLICY_GRADIENT(bad[0], bad[1], 0.2, weights)
    assert np.isfinite(gradient).all() and np.all(gradient[absent] == 0)
    huber_of = (0.2, 10.0, weights)
    assert VALUE(log_ratio, advantages, targets, *huber_of) == VALUE(*bad, *huber_of)
    gradient = VALUE_GRADIENT(*bad, *huber_of)
    assert np.isfinite(gradient).all() and np.all(gradient[absent] == 0)
    assert np.array_equal(NORMALISE(advantages, weights), NORMALISE(bad[1], weights))


def test_without_any_weight_everything_is_zero():
    nothing, bad = np.zeros(SIZE, np.float32), np.full(SIZE, np.nan, np.float32)
    loss, stats = POLICY(bad, bad, 0.2, nothing)
    assert loss == 0 and stats.kl == 0 and stats.clip_fraction == 0
    assert VALUE(bad, bad, bad, 0.2, 10.0, nothing) == 0
    assert np.all(NORMALISE(bad, nothing) == 0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, offset=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_normalised_advantages_have_mean_zero_and_spread_one(seed, offset, scale):
    advantages, weights = batch(seed, 1)
    present = weights > 0
    assume(present.sum() > 1)
    advantages = (offset * scale + scale * advantages).astype(np.float32)
    got = np.asarray(NORMALISE(advantages, weights), float)
    centred = advantages - np.average(advantages.astype(float), weights=weights)
    spread = np.sqrt(np.average(centred**2, weights=weights))
    np.testing.assert_allclose(got[present], (centred / spread)[present], atol=2e-3)
    assert np.all(got[~present] == 0)
    np.testing.assert_allclose(np.average(got, weights=weights), 0, atol=1e-5)
    # a level a thousand times the spread lowers it by what guards against rounding
    np.testing.assert_allclose(np.average(got**2, weights=weights), 1, atol=1e-3)


def test_a_split_batch_is_normalised_as_one():
    advantages, weights = batch(3, 1)
    parts = advantages.reshape(4, -1), weights.reshape(4, -1)
    assert len(set(parts[1].sum(-1))) == 4  # parts of unequal weight
    split = jax.vmap(partial(normalise_advantages, axis_name="devices"), axis_name="devices")
    np.testing.assert_allclose(
        jax.jit(split)(*parts).ravel(), NORMALISE(advantages, weights), atol=1e-5
    )


@pytest.mark.parametrize("value", [0.0, 1e-20, 0.1, 100.1, -3e7])
def test_equal_advantages_are_no_advantage(value):
    got = NORMALISE(np.full(1000, value, np.float32))
    assert np.max(np.abs(got)) < 1e-2


@settings(max_examples=50, deadline=None)
@given(coefficient=st.floats(1e-3, 1e3), kl=st.floats(1e-6, 1), target=st.floats(1e-3, 0.1))
def test_kl_coefficient_follows_the_target(coefficient, kl, target):
    got = float(adapt_kl_coefficient(coefficient, kl, target))
    step = 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
    if min(abs(kl / target - 1.5), abs(kl / target - 1 / 1.5)) > 1e-5:
        np.testing.assert_allclose(got, coefficient * step, rtol=1e-6)


def test_kl_coefficient_is_bounded_and_survives_nan():
    np.testing.assert_allclose(adapt_kl_coefficient(8e3, 1.0, 0.01), 1e4)
    np.testing.assert_allclose(adapt_kl_coefficient(1.1e-4, 0.0, 0.01), 1e-4)
    np.testing.assert_allclose(adapt_kl_coefficient(0.3, np.nan, 0.01), 0.3, rtol=1e-6)
    wide = adapt_kl_coefficient(1.0, 0.012, 0.01, factor=1.1, lower=0.0, upper=1.5)
    np.testing.assert_allclose(wide, 1.5)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"advantages of shape \(3,\) do not fit log_ratio"):
        policy_loss(np.zeros(4), np.zeros(3), 0.2)
    with pytest.raises(ValueError, match="targets of shape"):
        value_loss(np.zeros(4), np.zeros(4), np.zeros((4, 1)), 0.2, 10.0)
    with pytest.raises(ValueError, match="weights of shape"):
        normalise_advantages(np.zeros(4), np.ones(5))
