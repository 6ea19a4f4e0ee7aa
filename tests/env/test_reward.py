"""Rewards: closed forms, bounds and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.env import jain_index, peak_cell_rate
from jaxrl5g.env.link import TRANSMIT
from jaxrl5g.env.projection import project
from jaxrl5g.env.reward import expected_bits, slot_reward, weighted_rate

USERS = 4
_, FAIR = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon")
_, ALPHA = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon", reward="alpha_fair")
PEAK = peak_cell_rate(FAIR.config)
JAIN = jax.jit(jain_index)
REWARD = jax.jit(slot_reward)
EVERYBODY = jnp.ones((1, USERS), bool)


def alpha_reward(before, after, alpha, mask=EVERYBODY):
    params = ALPHA.replace(fairness_alpha=jnp.float32(alpha))
    return float(REWARD(jnp.asarray([before]), jnp.asarray([after]), mask, params))


@settings(max_examples=200, deadline=None)
@given(
    x=hnp.arrays(np.float32, USERS, elements=st.floats(0, np.float32(1e20), width=32)),
    mask=hnp.arrays(bool, USERS),
)
def test_jain_index_is_within_its_bounds(x, mask):
    value = float(JAIN(x, mask))
    count = max(int(mask.sum()), 1)
    assert 1 / count - 1e-5 <= value <= 1 + 1e-5
    # what masked users have plays no part
    assert value == float(JAIN(np.where(mask, x, 7.0).astype(np.float32), mask))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e4, 1e15])
def test_jain_index_closed_forms(scale):
    everybody = jnp.ones(USERS, bool)
    for served in range(1, USERS + 1):
        x = scale * (jnp.arange(USERS) < served)
        np.testing.assert_allclose(JAIN(x, everybody), served / USERS, rtol=1e-5)
    x = scale * jnp.asarray([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(JAIN(x, everybody), 100 / (4 * 30), rtol=1e-5)
    np.testing.assert_allclose(JAIN(x, jnp.arange(USERS) < 2), 9 / (2 * 5), rtol=1e-5)
    assert float(JAIN(jnp.zeros(USERS), everybody)) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    after=hnp.arrays(np.float32, (1, USERS), elements=st.floats(0, 1e4, width=32)),
    weights=st.tuples(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32)),
)
def test_weights_act_linearly(after, weights):
    def reward(throughput, fairness):
        params = FAIR.replace(
            throughput_weight=jnp.float32(throughput), fairness_weight=jnp.float32(fairness)
        )
        return float(REWARD(after, after, EVERYBODY, params))

    cell, jain = reward(1, 0), reward(0, 1)
    np.testing.assert_allclose(cell, after.astype(np.float64).sum() / PEAK, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(jain, float(JAIN(after, EVERYBODY)), rtol=1e-6)
    expected = weights[0] * cell + weights[1] * jain
    np.testing.assert_allclose(reward(*weights), expected, rtol=1e-5, atol=1e-5)


def test_a_full_and_even_cell_earns_both_weights():
    even = jnp.full((1, USERS), PEAK / USERS, jnp.float32)
    reward = REWARD(even, even, EVERYBODY, FAIR)
    np.testing.assert_allclose(reward, FAIR.throughput_weight + FAIR.fairness_weight, rtol=1e-6)


def test_several_cells_average_their_throughput_and_pool_their_fairness():
    _, params = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon", num_cells=2)
    after = jnp.zeros((2, USERS)).at[0].set(PEAK / USERS)
    reward = slot_reward(after, after, jnp.ones((2, USERS), bool), params)
    np.testing.assert_allclose(reward, 0.5 * 1.0 + 0.5 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_alpha_fair_is_the_increment_of_its_utility(alpha):
    before = np.array([100.0, 900.0, 2000.0, 10.0])
    after = np.array([150.0, 800.0, 2100.0, 60.0])
    share = PEAK / USERS

    def utility(x):
        x = x / share
        return np.log(x) if alpha == 1 else (x ** (1 - alpha) - 1) / (1 - alpha)

    expected = np.mean(utility(after) - utility(before))
    np.testing.assert_allclose(alpha_reward(before, after, alpha), expected, rtol=1e-4)
    # increments telescope
    middle = np.array([120.0, 850.0, 1900.0, 30.0])
    parts = alpha_reward(before, middle, alpha) + alpha_reward(middle, after, alpha)
    np.testing.assert_allclose(parts, expected, rtol=1e-3)


def test_alpha_fair_is_continuous_at_one_and_linear_at_zero():
    before, after = np.array([100.0, 900.0, 2000.0, 10.0]), np.array([150.0, 800.0, 1e3, 60.0])
    at_one = alpha_reward(before, after, 1.0)
    for alpha in (0.99, 0.999, 0.99995, 1.00005, 1.001, 1.01):
        near = alpha_reward(before, after, alpha)
        assert abs(near - at_one) < 10 * abs(alpha - 1) + 1e-5
    linear = np.sum(after - before) / PEAK
    np.testing.assert_allclose(alpha_reward(before, after, 0.0), linear, rtol=1e-5)
    # a large alpha looks at the worst user alone, here a user that gains
    assert alpha_reward(before, after, 6.0) > 0 > alpha_reward(after, before, 6.0)


@settings(max_examples=60, deadline=None)
@given(
    before=hnp.arrays(np.float32, USERS, elements=st.sampled_from([0.0, 1e-20, 1.0, 8e3])),
    after=hnp.arrays(np.float32, USERS, elements=st.sampled_from([0.0, 1e-20, 1.0, 8e3])),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]),
)
def test_rewards_are_finite_without_throughput(before, after, alpha):
    assert np.isfinite(alpha_reward(before, after, alpha))
    assert np.isfinite(float(REWARD(before[None], after[None], EVERYBODY, FAIR)))


def test_gradients_are_finite_where_users_starve():
    after = jnp.asarray([[0.0, 10.0, 500.0, 0.0]])
    slope = jax.jit(jax.grad(lambda x: slot_reward(after, x, EVERYBODY, FAIR)))(after)
    assert np.isfinite(np.asarray(slope)).all()
    slope = jax.jit(jax.grad(lambda x: slot_reward(after, x, EVERYBODY, ALPHA)))(after)
    assert np.isfinite(np.asarray(slope)).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_weighted_rate_is_the_slope_of_the_alpha_fair_utility(alpha):
    """Per user, up to a factor that all users share, and one for users of equal throughput."""
    params = ALPHA.replace(fairness_alpha=jnp.float32(alpha), fairness_weight=jnp.float32(0.0))
    before = jnp.array([[100.0, 900.0, 2000.0, 10.0]])
    bits = jnp.array([[300.0, 50.0, 0.0, 20.0]])
    mask = jnp.array([[True, True, False, True]])
    utility = jax.grad(lambda after: slot_reward(before, after, mask, params))(before)
    mine = jax.grad(lambda bits: weighted_rate(bits, before, mask, params))(bits)
    assert float(mine[0, 2]) == float(utility[0, 2]) == 0.0
    here = np.asarray(mask)
    ratio = np.asarray(mine)[here] / np.asarray(utility)[here]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    # linear in the bits
    value = weighted_rate(bits, before, mask, params)
    np.testing.assert_allclose(value, jnp.sum(mine * bits), rtol=1e-5)
    even = weighted_rate(bits, jnp.full_like(before, 7.0), mask, params)
    np.testing.assert_allclose(even, float(bits[mask].sum()) / PEAK, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    before=hnp.arrays(np.float32, (1, USERS), elements=st.floats(1, 1e4, width=32)),
    bits=hnp.arrays(np.float32, (1, USERS), elements=st.floats(0, 1e4, width=32)),
)
def test_weighted_rate_adds_the_slope_of_jains_index(before, bits):
    """Along bits that are small beside T, whose sum is the unit."""
    params = ALPHA.replace(throughput_weight=jnp.float32(0.0), fairness_weight=jnp.float32(1.0))
    value = float(weighted_rate(bits, before, EVERYBODY, params)) * PEAK
    x, step = before.astype(float)[0], bits.astype(float)[0]
    total, square = x.sum(), (x**2).sum()
    jain = total**2 / (USERS * square)
    slope = 2 * jain * (step.sum() / total - (x @ step) / square)
    np.testing.assert_allclose(value, total * slope, rtol=1e-3, atol=1e-3 * (1 + bits.sum()))


def test_weighted_rate_is_finite_without_throughput():
    for throughput in (0.0, 1e-20):
        starved = jnp.array([[throughput, 1.0, 1e4, throughput]])
        value = weighted_rate(jnp.full((1, USERS), 10.0), starved, EVERYBODY, ALPHA)
        assert np.isfinite(float(value))


def test_expected_bits_are_what_is_decoded_but_for_luck():
    """Over many blocks with many errors, their sums agree; retransmissions are among them."""
    env, params = jaxrl5g.make("TinyDownlink-v0", bler_target=0.4, olla_step_db=1.0)

    @jax.jit
    @jax.vmap
    def episode(key):
        observation, state = env.reset_env(key, params)
        scheduler = mac.proportional_fair(100.0)

        def slot(carry, _):
            observation, state, memory = carry
            allocation, memory = scheduler.apply(key, observation, memory, params)
            outcome = TRANSMIT["nr"](state, project(allocation, state.mask, 1e9), params)
            decoded = jnp.where(outcome.decoded == 1, outcome.block_bits, 0.0)
            observation, state, *_ = env.step_env(key, state, allocation, params)
            said = jnp.sum(expected_bits(outcome)), jnp.sum(decoded), jnp.sum(outcome.attempt > 1)
            return (observation, state, memory), said

        start = (observation, state, scheduler.init(params))
        return jax.tree.map(jnp.sum, jax.lax.scan(slot, start, None, length=100)[1])

    expected, decoded, again = map(np.asarray, episode(jax.random.split(jax.random.key(0), 64)))
    assert again.sum() > 500
    difference = (expected - decoded) / decoded.mean()
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(difference.size) < 0.02
