"""Water-filling: optimality conditions in float64, an independent oracle, and the edge cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from jaxrl5g.mac.water_filling import water_filling

CHANNELS, CELLS = 12, 400
SOLVE = jax.jit(water_filling)


def solve(gains, budget, weights=None, cap=None):
    """Any number of cells in float64, by one compilation for each choice of arguments."""
    gains = np.asarray(gains, np.float32)
    shape = gains.shape

    def many(values, axes):
        values = np.broadcast_to(np.asarray(values, np.float32), axes)
        return np.resize(values, (CELLS, *axes[len(shape) - 1 :]))

    given = [many(gains, shape), many(budget, shape[:-1])]
    given += [None if x is None else many(x, shape) for x in (weights, cap)]
    power = np.asarray(SOLVE(*given), np.float64)
    return power[0] if len(shape) == 1 else power[: shape[0]]


def random_problem(rng, batch, channels, spread_db=60.0):
    gains = 10 ** (rng.uniform(-spread_db / 2, spread_db / 2, (batch, channels)) / 10)
    budget = 10 ** (rng.uniform(-30, 30, batch) / 10)
    weights = 10 ** (rng.uniform(-10, 10, (batch, channels)) / 10)
    cap = budget[:, None] * 10 ** (rng.uniform(-25, 5, (batch, channels)) / 10)
    return tuple(np.asarray(x, np.float32) for x in (gains, budget, weights, cap))


def worst_residual(power, gains, weights, cap):
    """Largest relative amount by which a watt would earn more elsewhere than where it is."""
    marginal = weights / (1.0 / gains + power)
    least_kept = np.where(power > 0, marginal, np.inf).min(-1)
    # float32 cannot resolve the last unit below a cap
    most_missed = np.where(power < cap * (1 - 1e-6), marginal, 0.0).max(-1)
    return (most_missed / least_kept - 1.0).max()


@functools.cache
def case(kind):
    rng = np.random.default_rng(7)
    gains, budget, weights, cap = random_problem(rng, CELLS, CHANNELS)
    # a quarter of the cells with channels that hardly differ, which cancels in 1 / mu - 1 / g
    gains[::4] = gains[::4, :1] * (1 + 1e-5 * rng.standard_normal((CELLS // 4, CHANNELS)))
    weights = weights if kind in ("weights", "both") else None
    cap = cap if kind in ("caps", "both") else None
    power = solve(gains, budget, weights, cap)
    wide = [np.asarray(x, np.float64) for x in (gains, budget)]
    wide.append(np.ones_like(gains) if weights is None else weights.astype(np.float64))
    wide.append(np.full_like(wide[0], np.inf) if cap is None else cap.astype(np.float64))
    return power, *wide


@pytest.mark.parametrize("kind", ["plain", "weights", "caps", "both"])
def test_optimal_over_60_db_of_budgets_and_gains(kind):
    power, gains, budget, weights, cap = case(kind)
    spendable = np.minimum(budget, cap.sum(-1))
    assert np.abs(power.sum(-1) / spendable - 1).max() < 1e-6
    assert (power >= 0).all() and (power <= cap).all()
    assert worst_residual(power, gains, weights, cap) < 1e-5


@pytest.mark.parametrize("kind", ["plain", "both"])
def test_agrees_with_a_search_for_the_level(kind):
    power, gains, budget, weights, cap = case(kind)
    for b in range(0, CELLS, 16):

        def pour(log_level, b=b):
            return np.clip(weights[b] * np.exp(log_level) - 1 / gains[b], 0, cap[b])

        spendable = min(budget[b], cap[b].sum() * (1 - 1e-12))
        level = brentq(lambda x, b=b, s=spendable: pour(x, b).sum() - s, -60, 60, xtol=1e-14)
        # a relative error of one rounding of the level, 1 / g + p
        scale = 1 / gains[b] + pour(level)
        assert (np.abs(power[b] - pour(level)) < 2e-6 * scale + 1e-6 * budget[b]).all()


def test_caps_above_the_budget_do_not_bind_and_infeasible_caps_are_reached():
    gains, budget, weights, cap = random_problem(np.random.default_rng(3), 200, CHANNELS)
    free = solve(gains, budget, weights, np.full_like(cap, np.inf))
    error = np.abs(free - solve(gains, budget, weights)) / budget[:, None]
    assert error.max() < 1e-6
    small = cap * (0.5 * budget / cap.sum(-1))[:, None]
    np.testing.assert_allclose(solve(gains, budget, weights, small), small, rtol=1e-6)


def test_cap_may_be_one_number_and_gains_shared():
    power = SOLVE(np.ones(4, np.float32), np.asarray([1.0, 8.0], np.float32), None, 1.5)
    np.testing.assert_allclose(power, [[0.25] * 4, [1.5] * 4], rtol=1e-6)


def padded(values):
    """One cell of fewer channels: the others have no gain (or what else has no effect)."""
    return np.r_[values, np.zeros(CHANNELS - len(values))]


def test_weights_scale_the_level():
    # both channels far above noise: power in proportion to weight
    power = solve(padded([1e6, 1e6]), 3.0, padded([1.0, 2.0]))
    np.testing.assert_allclose(power[:2], [1.0, 2.0], rtol=1e-5)


def test_two_channels_by_hand():
    # 1/g = 1 and 3: the second enters once the first has 2 W
    for budget, expected in ((1.0, (1, 0)), (2.0, (2, 0)), (4.0, (3, 1)), (10.0, (6, 4))):
        power = solve(padded([1.0, 1 / 3]), budget)
        np.testing.assert_allclose(power, padded(expected), rtol=1e-6, atol=1e-6)


def test_useless_channels_and_nothing_to_spend():
    nan, inf = np.nan, np.inf
    cells = [[0, 1, nan, -1, 2], [0] * 5, [nan] * 5, [1] * 5, [inf] * 5]
    gains = np.asarray([padded(cell) for cell in cells])
    power = solve(gains, [2, 2, 2, 0, 2])
    assert np.isfinite(power).all()
    np.testing.assert_allclose(power[0], padded([0, 0.75, 0, 0, 1.25]), rtol=1e-6)
    np.testing.assert_array_equal(power[1:4], 0)
    np.testing.assert_allclose(power[4], padded([0.4] * 5), rtol=1e-6)
    for bad in (nan, -1.0):
        np.testing.assert_array_equal(solve(gains[3], bad), 0)
    power = solve(gains[3], 2.0, padded([0, nan, -1, 1, 2]))
    np.testing.assert_allclose(power, padded([0, 0, 0, 1 / 3, 5 / 3]), rtol=1e-6)
    power = solve(gains[3], 2.0, None, padded([-1, nan, 0, 0.5, inf]))
    np.testing.assert_allclose(power, padded([0, 0, 0, 0.5, 1.5]), rtol=1e-6)


positive = st.floats(-30, 30).map(lambda db: 10 ** (db / 10))


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(st.one_of(st.just(0.0), positive), min_size=CHANNELS, max_size=CHANNELS),
    caps=st.lists(positive, min_size=CHANNELS, max_size=CHANNELS),
    budget=positive,
    factor=st.floats(1.0, 10.0),
)
def test_every_channel_grows_with_the_budget(gains, caps, budget, factor):
    gains, caps = np.asarray(gains, np.float32), np.asarray(caps, np.float32)
    both = np.asarray([budget, budget * factor], np.float32)
    less, more = solve(np.stack([gains] * 2), both, None, np.stack([caps] * 2))
    # the same power counts for less of a larger budget: rounding is relative to what is spent
    assert (more >= less * (1 - 1e-5) - 1e-6 * both[1]).all()
    assert more.sum() <= both[1] * (1 + 1e-6)
    assert (more[gains == 0] == 0).all()


def test_permuting_channels_permutes_powers():
    gains, budget, weights, cap = random_problem(np.random.default_rng(5), 50, CHANNELS)
    order = np.random.default_rng(6).permutation(CHANNELS)
    power = solve(gains, budget, weights, cap)
    permuted = solve(gains[:, order], budget, weights[:, order], cap[:, order])
    level = 1 / gains[:, order] + power[:, order]
    assert (np.abs(permuted - power[:, order]) < 2e-6 * (level + budget[:, None])).all()


def test_works_under_vmap_like_a_batch():
    gains, budget, _, _ = random_problem(np.random.default_rng(8), 20, CHANNELS)
    mapped = jax.jit(jax.vmap(water_filling))(gains, budget)
    assert (np.abs(mapped - solve(gains, budget)) <= 1e-6 * budget[:, None]).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1.0, 1.0), r"gains must have shape \[..., N\], got \(\)"),
        ((jnp.ones((2, 0)), 1.0), r"gains must have shape \[..., N\], got \(2, 0\)"),
        ((jnp.ones(5), 1.0, jnp.ones(3)), "weights of shape"),
        ((jnp.ones(5), 1.0, None, jnp.ones(3)), "caps of shape"),
        ((jnp.ones((2, 5)), jnp.ones(3)), "budget of shape"),
    ],
)
def test_bad_shapes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        water_filling(*arguments)
