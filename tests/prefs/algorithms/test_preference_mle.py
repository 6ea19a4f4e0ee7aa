"""Newton's fit against SciPy, and the buffer it reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit, log_ndtr

from prefs.algorithms.comparisons import append, empty
from prefs.algorithms.links import Logistic, Probit
from prefs.algorithms.preference_mle import fit_preferences

ROWS, DIMENSION, CAPACITY = 90, 5, 130  # two of the three blocks of rows are read


@functools.partial(jax.jit, static_argnames="steps")
def fit(comparisons, link, ridge, start, steps):
    return fit_preferences(comparisons, link, ridge, start, steps)


def _data(seed, decided):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, DIMENSION)).astype(np.float32)
    truth = rng.normal(size=DIMENSION)
    first = x @ truth > 0 if decided else rng.uniform(size=ROWS) < expit(x @ truth)
    sign = np.where(first, 1, -1).astype(np.float32)
    everything = empty(CAPACITY, DIMENSION)
    return x, sign, append(everything, jnp.asarray(x), jnp.asarray(sign), jnp.ones(ROWS, bool))


@pytest.mark.parametrize("decided", [False, True], ids=["noisy", "separable"])
@pytest.mark.parametrize("link", [Logistic(8.0), Probit(2.0)], ids=["logistic", "probit"])
@pytest.mark.parametrize("start", [0.0, 4.0], ids=["near", "far"])
def test_the_mode_is_scipys(link, decided, start):
    x, sign, comparisons = _data(3, decided)
    ridge = 1.0
    log_phi = log_ndtr if isinstance(link, Probit) else lambda m: -np.logaddexp(0, -m)

    def loss(theta):
        margin = float(link.scale) * sign * (x @ theta)
        return -np.sum(log_phi(margin)) + ridge / 2 * theta @ theta

    expected = scipy.optimize.minimize(loss, np.zeros(DIMENSION), method="BFGS", tol=1e-9).x
    got = fit(comparisons, link, ridge, jnp.full(DIMENSION, start), 100)
    np.testing.assert_allclose(got.theta, expected, atol=2e-3)
    margin = sign * (x @ np.asarray(got.theta))
    weight = np.asarray(jax.jit(link.information)(jnp.asarray(margin)))
    precision = ridge * np.eye(DIMENSION) + (x * weight[:, None]).T @ x
    np.testing.assert_allclose(got.precision, precision, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got.least, weight.min(), rtol=1e-4)


def test_a_step_is_at_most_one_half():
    comparisons = _data(3, True)[2]
    start = jnp.full(DIMENSION, 4.0)
    one = fit(comparisons, Logistic(8.0), 1.0, start, 1).theta
    assert np.linalg.norm(one - start) == pytest.approx(0.5, rel=1e-5)


def test_nothing_answered_leaves_the_prior():
    got = fit(empty(CAPACITY, DIMENSION), Logistic(8.0), 2.0, jnp.zeros(DIMENSION), 100)
    np.testing.assert_array_equal(got.theta, 0)
    np.testing.assert_array_equal(got.precision, 2 * np.eye(DIMENSION))
    assert np.isinf(got.least)


def test_only_what_is_kept_enters_the_buffer_and_no_more_than_fits():
    add = jax.jit(append)
    x = jnp.arange(10.0).reshape(5, 2)
    kept = jnp.array([True, False, True, True, False])
    once = add(empty(5, 2), x, jnp.arange(5.0), kept)
    np.testing.assert_array_equal(once.sign, [0, 2, 3, 0, 0])
    assert once.count == 3
    twice = add(once, x + 10, jnp.arange(5.0) + 10, kept)
    np.testing.assert_array_equal(twice.sign, [0, 2, 3, 10, 12])
    np.testing.assert_array_equal(twice.x[3:], x[jnp.array([0, 2])] + 10)
    assert twice.count == 5
