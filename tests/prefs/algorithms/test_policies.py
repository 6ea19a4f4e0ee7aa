"""Policies: densities that are ones, modes that are largest, tables, and minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prefs.algorithms import CategoricalMLP, GaussianMLP, TabularSoftmax, policy_for
from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.pair_scores import chooser, drawer
from prefs.feedback import Segments
from prefs.mdps import fixed_grid, point_maze, tabular_problem

KEY = jax.random.key(0)
STATES = jnp.arange(5)


def _numbered():
    """Both policies of numbered states and actions, with parameters that are not symmetric."""
    table = TabularSoftmax(5, 3)
    net = CategoricalMLP(3, 5, (8,), numbered=True)
    noise = jax.random.normal(KEY, (5, 3))
    bumped = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.arange(leaf.shape[-1]), net.init(KEY))
    return (table, noise), (net, bumped)


def test_tables_are_the_probabilities():
    for policy, params in _numbered():
        table = np.asarray(policy.table(params))
        np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-5)
        every = policy.log_prob(params, jnp.repeat(STATES, 3), jnp.tile(jnp.arange(3), 5))
        np.testing.assert_allclose(np.exp(every).reshape(5, 3), table, rtol=1e-4)
        np.testing.assert_array_equal(policy.mode(params, STATES), table.argmax(-1))


def test_the_gaussian_is_scipys():
    observations = jax.random.normal(KEY, (4, 3))
    actions = jax.random.normal(jax.random.key(1), (4, 2))
    for sigma in (0.3, None):
        policy = GaussianMLP(2, 3, (8,), sigma)
        params = policy.init(KEY)
        mean = np.asarray(policy.mode(params, observations))
        std = 0.5**0.5 if sigma is None else sigma
        expected = scipy.stats.norm.logpdf(np.asarray(actions), mean, std).sum(-1)
        np.testing.assert_allclose(
            policy.log_prob(params, observations, actions), expected, rtol=1e-4
        )
        assert (np.abs(mean) < 1).all()
        assert ("log_std" in params) == (sigma is None)


def test_the_policy_that_fits_a_problem():
    assert policy_for(tabular_problem(fixed_grid())) == TabularSoftmax(25, 4)
    assert policy_for(point_maze(), (32,)) == GaussianMLP(2, 2, (32,))
    with pytest.raises(ValueError, match="has no table"):
        GaussianMLP(2, 2).table({})
    with pytest.raises(ValueError, match="sigma must be positive"):
        GaussianMLP(2, 2, sigma=0.0)


def _segments():
    rng = np.random.default_rng(0)
    mask = np.arange(4) < rng.integers(1, 5, 6)[:, None]
    states, actions = rng.integers(0, 5, (6, 4)), rng.integers(0, 3, (6, 4))
    leaves = (states, actions, np.zeros((6, 4), np.float32), mask, states)
    return Segments(*(jnp.asarray(leaf) for leaf in leaves))


def test_cloning_loss_against_numpy():
    segments = _segments()
    weights = jnp.asarray([1.0, 0, 2, 0.5, 0, 1])
    each = np.asarray(segments.mask) * np.asarray(weights)[:, None]
    for policy, params in _numbered():
        logs = np.log(policy.table(params))[segments.observations, segments.actions]
        found = imitation_loss(policy, segments, weights, None)(params, KEY)
        np.testing.assert_allclose(found, -(each * logs).sum() / each.sum(), rtol=1e-4)


def test_minibatches_are_right_on_average():
    segments = _segments()
    weights = jnp.asarray([1.0, 0, 2, 0.5, 0, 1])
    policy, params = _numbered()[0]
    whole = imitation_loss(policy, segments, weights, None)(params, KEY)
    some = jax.jit(jax.vmap(imitation_loss(policy, segments, weights, 3), (None, 0)))
    drawn = np.asarray(some(params, jax.random.split(KEY, 4000)))
    assert abs(drawn.mean() - whole) < 5 * drawn.std() / 4000**0.5
    assert drawn.std() > 0.01


def test_nothing_without_weight_is_drawn():
    weights = jnp.asarray([0.0, 1, 0, 3, 0])
    index = np.asarray(drawer(weights, 4000)(KEY))
    share = np.bincount(index, minlength=5) / 4000
    np.testing.assert_array_equal(share[[0, 2, 4]], 0)
    assert abs(share[3] - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5
    items = jnp.arange(5) * 10
    np.testing.assert_array_equal(chooser(items, weights > 0, None)(KEY), items)
    assert set(np.asarray(chooser(items, weights > 0, 50)(KEY))) == {10, 30}
