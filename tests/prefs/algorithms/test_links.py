"""Links: symmetric, log-concave, and their derivatives those of log Phi."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prefs.algorithms.links import Logistic, Probit

MARGINS = jnp.linspace(-3, 3, 41)


@pytest.mark.parametrize("link", [Logistic(2.5), Probit(1.5)], ids=["logistic", "probit"])
def test_derivatives_and_symmetry(link):
    @jax.jit
    def values(m):
        first = jax.vmap(jax.grad(link.log_probability))(m)
        second = jax.vmap(jax.grad(lambda x: link.score(x)))(m)
        p = link.preference(m, jnp.zeros_like(m))
        return first, link.score(m), second, link.information(m), p, link.log_probability(m)

    first, score, second, information, p, log_p = (np.asarray(x) for x in values(MARGINS))
    np.testing.assert_allclose(score, first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(information, -second, rtol=2e-3, atol=1e-4)
    assert (information >= 0).all()
    np.testing.assert_allclose(p + p[::-1], 1, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-4)


def test_probit_is_the_normal_distribution_function():
    p = jax.jit(Probit(0.7).preference)(MARGINS, jnp.zeros(41))
    np.testing.assert_allclose(p, scipy.stats.norm.cdf(0.7 * np.asarray(MARGINS)), rtol=1e-4)
