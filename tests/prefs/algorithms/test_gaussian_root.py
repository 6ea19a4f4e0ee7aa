"""The kept root against explicit inverses, determinants and covariances."""

import jax
import jax.numpy as jnp
import numpy as np

from prefs.algorithms.gaussian_root import (
    absorb,
    from_precision,
    isotropic,
    perturbation,
    width,
)

DIMENSION, RIDGE = 6, 0.7


@jax.jit
def absorb_all(xs, weights):
    start = isotropic(DIMENSION, RIDGE)
    return jax.lax.scan(lambda g, row: (absorb(g, *row), None), start, (xs, weights))[0]


def test_a_thousand_masked_updates_are_the_inverse():
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(1000, DIMENSION))
    weights = rng.integers(0, 2, 1000) * rng.uniform(0.1, 2, 1000)
    gaussian = absorb_all(jnp.asarray(xs, jnp.float32), jnp.asarray(weights, jnp.float32))
    precision = RIDGE * np.eye(DIMENSION) + (xs * weights[:, None]).T @ xs
    root = np.asarray(gaussian.root, float)
    np.testing.assert_allclose(root @ root.T @ precision, np.eye(DIMENSION), atol=2e-4)
    np.testing.assert_allclose(gaussian.log_det, np.linalg.slogdet(precision)[1], rtol=1e-5)
    norms = np.sqrt(np.einsum("nd,de,ne->n", xs[:50], np.linalg.inv(precision), xs[:50]))
    np.testing.assert_allclose(width(gaussian, jnp.asarray(xs[:50], jnp.float32)), norms, rtol=1e-4)


def test_one_update_is_sherman_morrison():
    x = np.array([1.0, -2, 0.5, 0, 3, 1])
    gaussian = absorb_all(jnp.asarray(x[None], jnp.float32), jnp.ones(1))
    inverse = np.eye(DIMENSION) / RIDGE
    gain = inverse @ x
    expected = inverse - np.outer(gain, gain) / (1 + x @ gain)
    np.testing.assert_allclose(gaussian.root @ gaussian.root.T, expected, atol=1e-6)


def test_weight_zero_changes_nothing():
    start = isotropic(DIMENSION, RIDGE)
    after = absorb_all(jnp.ones((3, DIMENSION)), jnp.zeros(3))
    np.testing.assert_array_equal(after.root, start.root)
    np.testing.assert_array_equal(after.log_det, start.log_det)


def test_draws_have_the_inverse_precision_as_covariance():
    rng = np.random.default_rng(1)
    xs = rng.normal(size=(8, DIMENSION))
    precision = RIDGE * np.eye(DIMENSION) + xs.T @ xs
    by_updates = absorb_all(jnp.asarray(xs, jnp.float32), jnp.ones(8))
    for gaussian in (by_updates, jax.jit(from_precision)(jnp.asarray(precision, jnp.float32))):
        np.testing.assert_allclose(gaussian.log_det, np.linalg.slogdet(precision)[1], rtol=1e-4)
        noise = jax.random.normal(jax.random.key(2), (40_000, DIMENSION))
        draws = np.asarray(jax.jit(jax.vmap(perturbation, (None, 0)))(gaussian, noise))
        expected = np.linalg.inv(precision)
        # a sample covariance's standard error: sqrt((S_ii S_jj + S_ij^2) / n)
        spread = np.sqrt((np.outer(*2 * [np.diag(expected)]) + expected**2) / len(draws))
        assert (np.abs(np.cov(draws.T) - expected) < 5 * spread).all()


def test_a_matrix_that_is_no_precision_gives_nan():
    assert np.isnan(jax.jit(from_precision)(-jnp.eye(DIMENSION)).root).any()
