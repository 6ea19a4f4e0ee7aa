"""CPL's loss: its exact minimiser, the conservative bias, gradients, symmetries and masks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.algorithms import cpl, cpl_kl, cpl_rank
from prefs.algorithms.offline_learner import Setting
from prefs.algorithms.policies import TabularSoftmax
from prefs.algorithms.table_sums import step_weights, table_segment_sums
from prefs.feedback import Pairs, PreferenceData, Segments, plackett_luce
from prefs.feedback.labellers import regret
from prefs.feedback.labels import soft_labels
from prefs.feedback.segments import sample_segments, sparse_pairs
from prefs.mdps import fixed_grid, soft_optimal

ALPHA = 0.1


def _setting(policy, data, reference=None):
    return Setting(jax.random.key(0), data, policy, reference)


def test_the_minimiser_is_the_maximum_entropy_optimum():
    with jax.enable_x64(True):
        mdp = jax.tree.map(lambda x: x.astype(jnp.float64), fixed_grid())
        optimum = soft_optimal(mdp, ALPHA)
        uniform = jnp.full_like(mdp.reward, 0.25)
        segments = jax.jit(sample_segments, static_argnums=(3, 4))(
            jax.random.key(1), mdp, uniform, 8000, 4
        )
        pairs = soft_labels(regret(optimum.advantage, 0.9), segments, sparse_pairs(8000))
        config = cpl.CPLConfig(alpha=ALPHA, conservative_bias=1.0, discount=0.9)
        policy = TabularSoftmax(25, 4)
        loss = cpl.cpl_loss(config, _setting(policy, PreferenceData(segments, pairs)))
        both = jax.jit(jax.value_and_grad(lambda x: loss(x.reshape(25, 4), jax.random.key(0))))

        def host(x):
            value, slope = both(x)
            return float(value), np.asarray(slope)

        # two rounds: the first one's estimate of the curvature ends in rounding
        x = np.zeros(100)
        for _ in range(2):
            fit = scipy.optimize.minimize(
                host, x, jac=True, method="L-BFGS-B",
                options={"maxiter": 5000, "maxfun": 10000, "ftol": 0, "gtol": 1e-13, "maxcor": 50},
            )  # fmt: skip
            x = fit.x
        label = np.asarray(pairs.label)
        floor = np.mean(scipy.special.entr(label) + scipy.special.entr(1 - label))
        assert abs(fit.fun - floor) < 1e-12
        found = np.asarray(policy.table(jnp.asarray(x).reshape(25, 4)))
        kl = np.sum(scipy.special.rel_entr(np.asarray(optimum.policy), found), -1)
        assert kl.max() < 1e-8


pairwise_loss, plackett_luce_loss, log_order = (
    jax.jit(f) for f in (cpl_rank.pairwise_loss, cpl_rank.plackett_luce_loss, plackett_luce)
)
numbers = st.floats(-20, 20, width=32)


@settings(max_examples=30, deadline=None)
@given(numbers, st.floats(-5, 5), st.floats(0.5, 10), st.floats(0.01, 0.95))
def test_of_equal_contrast_the_likelier_winner_costs_less(winner, contrast, more, bias):
    # Hejna et al. (2023), proposition on the conservative bias
    low = np.array([winner, winner - contrast])
    high = low + more
    plain = [float(cpl.pair_loss(*map(jnp.float32, z), jnp.float32(1))) for z in (low, high)]
    np.testing.assert_allclose(*plain, rtol=1e-4, atol=1e-5)
    costs = [np.logaddexp(0, bias * z[1] - z[0]) for z in (low, high)]
    biased = [float(cpl.pair_loss(*map(jnp.float32, z), jnp.float32(1), bias)) for z in (low, high)]
    np.testing.assert_allclose(biased, costs, rtol=1e-4, atol=1e-5)
    assert costs[1] < costs[0]


@settings(max_examples=30, deadline=None)
@given(numbers, numbers, st.floats(0, 1), st.floats(0.1, 1))
def test_a_pair_turned_round_costs_the_same(first, second, label, bias):
    one = cpl.pair_loss(*map(jnp.float32, (first, second, label)), bias)
    other = cpl.pair_loss(*map(jnp.float32, (second, first, 1 - label)), bias)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    tie = cpl.pair_loss(*map(jnp.float32, (first, second, 0.5)), bias)
    mean = (np.logaddexp(0, bias * second - first) + np.logaddexp(0, bias * first - second)) / 2
    np.testing.assert_allclose(tie, mean, rtol=1e-5, atol=1e-5)


def _some_data(dtype=jnp.float32, pairs=6, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    lengths = rng.integers(1, 5, 8)
    mask = np.arange(4) < lengths[:, None]
    states, after = rng.integers(0, 5, (2, 8, 4))
    segments = Segments(
        jnp.asarray(states), jnp.asarray(rng.integers(0, 3, (8, 4))),
        jnp.zeros((8, 4), dtype), jnp.asarray(mask), jnp.asarray(after),
    )  # fmt: skip
    first = rng.integers(0, 8, pairs)
    second = (first + rng.integers(1, 8, pairs)) % 8
    label = jnp.asarray(rng.uniform(size=pairs), dtype)
    kept = jnp.ones(pairs, bool)
    return PreferenceData(segments, Pairs(jnp.asarray(first), jnp.asarray(second), label, kept))


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        data = _some_data(jnp.float64)
        rng = np.random.default_rng(3)
        reference = jnp.asarray(rng.normal(size=(5, 3)))
        order = jnp.asarray([[0, 3, 5], [7, 1, 2]])

        def losses(params):
            def of(config, from_reference=False, counts=False):
                setting = _setting(TabularSoftmax(5, 3, counts), data, reference)
                return cpl.cpl_loss(config, setting, from_reference)(params, jax.random.key(0))

            config = cpl.CPLConfig(alpha=0.7, conservative_bias=0.4, discount=0.8)
            looked_up = table_segment_sums((5, 3), data.segments, 0.8, False)
            scores = looked_up(jax.nn.log_softmax(params))[order]
            return jnp.stack(
                [
                    of(config),
                    of(config, counts=True),
                    of(config.replace(discount=1.0)),
                    of(config, from_reference=True),
                    jnp.sum(cpl_rank.pairwise_loss(scores, 0.6)),
                    jnp.sum(cpl_rank.plackett_luce_loss(scores, 0.6)),
                ]
            )

        # every pair has a logit; float64 central differences err by about 1e-10
        params = jnp.asarray(rng.normal(size=(5, 3)))
        slopes = jax.jit(jax.jacrev(losses))(params).reshape(6, 15)
        steps = 1e-5 * jnp.eye(15).reshape(15, 5, 3)
        ahead, behind = (jax.jit(jax.vmap(losses))(params + sign * steps) for sign in (1, -1))
        np.testing.assert_allclose(slopes, (ahead - behind).T / 2e-5, atol=1e-9)
        np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-14)
        assert (jnp.abs(slopes).max(-1) > 1e-3).all()


def test_sums_over_segments_against_numpy():
    data = _some_data()
    segments = data.segments
    table = np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32)
    for discount in (1.0, 0.5, jnp.float32(1.0)):
        weights = np.where(segments.mask, float(discount) ** np.arange(4), 0)
        np.testing.assert_allclose(step_weights(segments, discount), weights)
        expected = (weights * table[segments.observations, segments.actions]).sum(-1)
        for counts in (False, True):
            sums = jax.jit(table_segment_sums((5, 3), segments, discount, counts))
            np.testing.assert_allclose(sums(jnp.asarray(table)), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_discount():
    segments = _some_data().segments
    table = jnp.asarray(np.random.default_rng(6).normal(size=(5, 3)), jnp.float32)

    def total(discount, counts):
        return jnp.sum(jnp.square(table_segment_sums((5, 3), segments, discount, counts)(table)))

    found, expected = (
        jax.jit(jax.grad(total), static_argnums=1)(0.7, counts) for counts in (False, True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@partial(jax.jit, static_argnums=(2, 5))
def _value_and_slope(config, data, policy, params, reference=None, from_reference=False):
    loss = cpl.cpl_loss(config, _setting(policy, data, reference), from_reference)
    return jax.value_and_grad(loss)(params, jax.random.key(0))


def test_masked_comparisons_do_not_exist():
    data, policy = _some_data(pairs=6), TabularSoftmax(5, 3)
    params = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    config = cpl.CPLConfig()
    kept = jax.tree.map(lambda leaf: leaf[:4], data.pairs)
    alone = _value_and_slope(config, data.replace(pairs=kept), policy, params)
    mask, changed = jnp.arange(6) < 4, []
    for label in (0.0, 1.0, 0.3):
        others = data.pairs.replace(mask=mask, label=jnp.where(mask, data.pairs.label, label))
        changed.append(_value_and_slope(config, data.replace(pairs=others), policy, params))
    for found in changed:
        jax.tree.map(np.testing.assert_array_equal, found, changed[0])
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), found, alone)


def test_kl_to_the_uniform_policy_changes_nothing_without_bias():
    data, policy = _some_data(), TabularSoftmax(5, 3)
    # of segments of one length: the reference's log probability is the same for all
    data = data.replace(segments=data.segments.replace(mask=jnp.ones((8, 4), bool)))
    params = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)
    config = cpl_kl.CPLKLConfig(conservative_bias=1.0)
    plain = _value_and_slope(config, data, policy, params)
    uniform = jnp.zeros((5, 3))
    measured = _value_and_slope(config, data, policy, params, uniform, from_reference=True)
    for a, b in zip(plain, measured, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    biased = config.replace(conservative_bias=0.5)
    apart = [_value_and_slope(biased, data, policy, params, uniform, on)[0] for on in (False, True)]
    assert abs(apart[0] - apart[1]) > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=4), st.floats(0.1, 1))
def test_rankings(values, bias):
    z = jnp.asarray(values, jnp.float32)
    exact = np.asarray(z, np.float64)
    i, j = np.triu_indices(len(values), 1)
    pairs = np.logaddexp(0, bias * exact[j] - exact[i])
    np.testing.assert_allclose(pairwise_loss(z, bias), pairs.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plackett_luce_loss(z), -log_order(z), rtol=1e-4, atol=1e-4)
    rest = [scipy.special.logsumexp(bias * exact[k:]) - exact[k - 1] for k in range(1, len(z))]
    expected = np.logaddexp(0, rest).sum()
    np.testing.assert_allclose(plackett_luce_loss(z, bias), expected, rtol=1e-4, atol=1e-4)
    two = float(cpl.pair_loss(z[0], z[1], jnp.float32(1), bias))
    for rule in (pairwise_loss, plackett_luce_loss):
        np.testing.assert_allclose(rule(z[:2], bias), two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x", [-100.0, -1.0, 0.0, 3.0, 100.0])
def test_softplus_and_its_slope(x):
    value, slope = jax.value_and_grad(cpl.softplus)(x)
    np.testing.assert_allclose(value, np.logaddexp(0, x), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(slope, scipy.special.expit(x), rtol=1e-6, atol=1e-30)
