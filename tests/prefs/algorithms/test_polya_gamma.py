"""Polya-Gamma draws against their moments, and the Gibbs chain against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from prefs.algorithms.comparisons import append, empty
from prefs.algorithms.model_posterior import gibbs_sweep
from prefs.algorithms.polya_gamma import polya_gamma, polya_gamma_mean

N = 40_000
ZS = np.array([0.0, 0.005, 0.5, -2.0, 6.0], np.float32)


def test_moments():
    draws = jax.jit(lambda z: polya_gamma(jax.random.key(0), jnp.tile(z, (N, 1))))(jnp.asarray(ZS))
    draws = np.asarray(draws, float)
    z = np.abs(np.maximum(np.abs(ZS), 1e-2).astype(float))
    mean = np.where(ZS == 0, 1 / 4, np.tanh(z / 2) / (2 * z))
    variance = np.where(
        np.abs(ZS) < 0.1, 1 / 24, (np.sinh(z) - z) / (4 * z**3 * np.cosh(z / 2) ** 2)
    )
    assert (draws > 0).all()
    assert (np.abs(draws.mean(0) - mean) < 4 * np.sqrt(variance / N)).all()
    fourth = ((draws - draws.mean(0)) ** 4).mean(0)
    assert (np.abs(draws.var(0) - variance) < 4 * np.sqrt(fourth / N)).all()


def test_the_mean_is_continuous_and_even():
    z = np.linspace(-0.02, 0.02, 81, dtype=np.float32)
    expected = np.where(z == 0, 0.25, np.tanh(z / 2.0) / (2 * np.where(z == 0, 1, z)))
    np.testing.assert_allclose(jax.jit(polya_gamma_mean)(jnp.asarray(z)), expected, rtol=1e-5)


def test_the_chain_has_the_logistic_posterior():
    scale, precision = 4.0, 2.0
    x = np.array([1.0, 0.5, -1.0, 2.0, 1.0, 0.3])
    sign = np.array([1.0, 1, 1, 1, -1, -1])
    grid = np.linspace(-4, 4, 4001)
    log = np.sum(np.log(expit(scale * sign * np.outer(grid, x))), 1) - precision * grid**2 / 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ grid
    variance = weight @ (grid - mean) ** 2
    answered = append(
        empty(8, 1), jnp.asarray(x[:, None], jnp.float32), jnp.asarray(sign), jnp.ones(6, bool)
    )

    @jax.jit
    def chains(key):
        def sweep(theta, key):
            theta = gibbs_sweep(key, answered, scale, precision, theta)
            return theta, None

        keys = jax.random.split(key, (4000, 40))
        return jax.vmap(lambda ks: jax.lax.scan(sweep, jnp.zeros(1), ks)[0])(keys)

    draws = np.asarray(chains(jax.random.key(1)), float)[:, 0]
    assert abs(draws.mean() - mean) < 4 * np.sqrt(variance / len(draws))
    assert draws.var() == pytest.approx(variance, rel=0.12)
