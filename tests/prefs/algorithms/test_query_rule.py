"""The closed-form rule against Monte Carlo, and the bound against its equation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.algorithms.gaussian_root import from_precision, perturbation, width
from prefs.algorithms.query_rule import disagreement, query_bound, wants_query

bound = jax.jit(query_bound, static_argnums=3)


def test_the_closed_form_is_the_expectation():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, 7))
    precision = jnp.asarray(half @ half.T + np.eye(5), jnp.float32)
    x, sigma, n = jnp.asarray(rng.normal(size=5), jnp.float32), 0.3, 100_000

    @jax.jit
    def both(key):
        gaussian = from_precision(precision)
        noise = jax.random.normal(key, (2, n, 5))
        theta = sigma * jax.vmap(jax.vmap(perturbation, (None, 0)), (None, 0))(gaussian, noise)
        gap = jnp.abs((theta[0] - theta[1]) @ x)
        return disagreement(sigma, width(gaussian, x)), jnp.mean(gap), jnp.std(gap)

    exact, mean, std = both(jax.random.key(1))
    assert abs(exact - mean) < 4 * std / math.sqrt(n)


@pytest.mark.parametrize(("eps", "expected"), [(0.1, 227), (0.2, 61), (0.4, 20.5)])
def test_bounds_of_the_random_problem(eps, expected):
    # three steps of twelve one-hot features: D = 36, ||x||^2 <= 6
    assert bound(eps, 0.1, 1.0, 36, 6.0) == pytest.approx(expected, abs=0.6)


@settings(max_examples=60, deadline=None)
@given(
    eps=st.floats(0.01, 2), sigma=st.floats(0.05, 2), ridge=st.floats(0.1, 3), reach=st.floats(1, 9)
)
def test_bound_solves_its_equation(eps, sigma, ridge, reach):
    gain, size = math.log1p(math.pi * eps**2 / (4 * sigma**2)), 12

    def excess(n):
        return n * gain - size * math.log1p(n * reach / (ridge * size))

    if reach / ridge > gain * 1.01:  # else 0 is the only root
        low, high = 1e-9, 2 * size * reach / ridge / gain**2 * size
        expected = scipy.optimize.brentq(excess, low, high) if excess(low) < 0 else 0
        assert bound(eps, sigma, ridge, size, reach) == pytest.approx(expected, rel=1e-3, abs=0.02)
    elif reach / ridge < gain * 0.99:
        assert bound(eps, sigma, ridge, size, reach) == pytest.approx(0, abs=1e-3)


def test_bound_at_its_ends():
    assert np.isinf(bound(0.0, 0.1, 1.0, 36, 6.0))
    assert bound(0.1, 0.0, 1.0, 36, 6.0) == 0
    assert np.isinf(bound(0.1, np.inf, np.inf, 36, 6.0))


def test_modes():
    def ask(query, **kw):
        given = {"draw": 0.5, "expected": 0.2, "eps": 0.1, "differs": True}
        given |= {"left": 3, "remaining": 10} | kw
        return bool(wants_query(query, **{k: jnp.asarray(v) for k, v in given.items()}))

    assert ask("active") and not ask("active", eps=0.2) and not ask("active", eps=0.3)
    assert ask("always", expected=0.0) and not ask("always", differs=False)
    assert ask("random", draw=0.29) and not ask("random", draw=0.31)
    assert not ask("random", draw=0.0, left=0) and ask("random", draw=0.999, left=10)
