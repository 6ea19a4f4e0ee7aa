"""Least power for an effective SINR: a float64 search, SLSQP, and EESM itself."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from jaxrl5g import phy
from jaxrl5g.mac.eesm_split import NEGLIGIBLE, eesm_split

PRBS, GRANTS = 12, 300
ONE = jax.jit(eesm_split)
MANY = jax.jit(lambda gains, required, mcs, owner: eesm_split(gains, required, mcs, owner=owner))
EFFECTIVE = jax.jit(phy.effective_sinr)


def solve(gains, required, mcs):
    """Any number of grants in float64, by one compilation."""
    grants = len(gains)
    required, mcs = (np.broadcast_to(x, grants) for x in (required, mcs))
    given = np.resize(np.asarray(gains, np.float32), (GRANTS, PRBS))
    required = np.resize(np.asarray(required, np.float32), GRANTS)
    return np.asarray(ONE(given, required, np.resize(mcs, GRANTS)), np.float64)[:grants]


def least_power(gains, required, beta):
    """Search in float64 for nu with sum_n min(1, nu / g_n) = n exp(-s / b)."""
    gains = np.asarray(gains, np.float64)

    def excess(log_nu):
        kept = np.minimum(1.0, np.exp(log_nu - np.log(gains)))
        return np.log(kept.mean()) + required / beta

    top = np.log(gains.max())
    low = np.log(gains.min()) - required / beta - 1.0
    level = brentq(excess, low - np.log(len(gains)), top, xtol=1e-15, rtol=1e-15)
    return np.maximum(beta / gains * (np.log(gains) - level), 0.0)


def random_grants(rng, grants, low=-1.3, high=1.78):
    """Gains spread by up to 30 dB around -20 to 40 dB; s / b from 0.05 to 60."""
    spread = rng.uniform(0, 1, (grants, 1)) * rng.uniform(-30, 0, (grants, PRBS))
    gains = 10 ** ((rng.uniform(-20, 40, (grants, 1)) + spread) / 10)
    mcs = rng.integers(0, phy.num_mcs(), grants).astype(np.int32)
    beta = phy.eesm_beta()[mcs].astype(np.float64)
    required = np.asarray(beta * 10 ** rng.uniform(low, high, grants), np.float32)
    return np.asarray(gains, np.float32), required, mcs, beta


def test_matches_a_search_in_double_precision():
    gains, required, mcs, beta = random_grants(np.random.default_rng(1), GRANTS)
    power = solve(gains, required, mcs)
    for row in range(GRANTS):
        expected = least_power(gains[row], float(required[row]), beta[row])
        np.testing.assert_allclose(power[row].sum(), expected.sum(), rtol=2e-5)
        np.testing.assert_allclose(power[row], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_no_cheaper_split_is_found_by_slsqp():
    gains, required, mcs, beta = random_grants(np.random.default_rng(2), 12, high=0.5)
    power = solve(gains, required, mcs)
    for row in range(12):
        scale = power[row].sum()
        snr, b = gains[row].astype(np.float64) * scale, beta[row]
        tau = np.exp(-float(required[row]) / b)
        found = minimize(
            lambda x: x.sum(),
            np.full(PRBS, 1.2 / PRBS),
            jac=lambda x: np.ones_like(x),
            bounds=[(0, None)] * PRBS,
            constraints={
                "type": "ineq",
                "fun": lambda x, g=snr, b=b, t=tau: t - np.exp(-x * g / b).mean(),
                "jac": lambda x, g=snr, b=b: g / b * np.exp(-x * g / b) / PRBS,
            },
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-12},
        )
        reached = np.exp(-found.x * snr / b).mean() <= tau * (1 + 1e-6)
        assert not (reached and found.fun < 1 - 1e-4)


def test_effective_sinr_is_what_was_required():
    gains, required, mcs, _ = random_grants(np.random.default_rng(3), GRANTS)
    power = solve(gains, required, mcs)
    assert (power > 0).all()
    effective = EFFECTIVE(gains * power, True, mcs)
    readable = (required > 1.1e-3) & (required < 0.99e3)
    assert readable.sum() > GRANTS / 2
    np.testing.assert_allclose(effective[readable], required[readable], rtol=5e-5)


def test_a_flat_grant_gets_flat_power():
    for required in (0.1, 5.0, 100.0):
        power = solve(np.full((1, PRBS), 4.0), required, 20)
        np.testing.assert_allclose(power, required / 4.0, rtol=1e-5)


def test_a_poor_prb_keeps_its_place_with_a_negligible_power():
    gains = np.full((1, PRBS), 1.0)
    gains[0, 3] = 1e-4
    power = solve(gains, 1.0, 5)[0]
    others = np.delete(power, 3)
    np.testing.assert_allclose(power[3], NEGLIGIBLE * others.sum() / PRBS, rtol=1e-5)
    beta = phy.eesm_beta()[5]
    # eleven PRBs carry the loss of twelve
    loss = PRBS / (PRBS - 1) * -np.expm1(-1.0 / beta)
    np.testing.assert_allclose(others, -beta * np.log1p(-loss), rtol=1e-5)


def test_prbs_without_gain_put_high_targets_out_of_reach():
    gains = np.ones((2, PRBS))
    gains[:, :3] = [[0.0, np.nan, -1.0], [1e-40, 0.0, 0.0]]
    beta = float(phy.eesm_beta()[10])
    # three of twelve PRBs leave exp(-s / b) at 1 / 4 or more
    limit = beta * np.log(PRBS / 3)
    assert np.isfinite(solve(gains, 0.99 * limit, 10)).all()
    assert (solve(gains, 1.01 * limit, 10) == np.inf).all()
    assert (solve(np.zeros((1, PRBS)), 1.0, 10) == np.inf).all()
    for nothing in (0.0, -1.0):
        np.testing.assert_array_equal(solve(gains, nothing, 10), 0)
    for impossible in (np.nan, np.inf):
        assert (solve(np.ones((1, PRBS)), impossible, 10) == np.inf).all()


def test_all_users_of_a_cell_at_once():
    rng = np.random.default_rng(4)
    users, cells = 3, 20
    gains = np.asarray(10 ** rng.uniform(-2, 2, (cells, PRBS)), np.float32)
    owner = rng.integers(-1, users + 1, (cells, PRBS)).astype(np.int32)
    mcs = rng.integers(0, 29, (cells, users)).astype(np.int32)
    required = np.asarray(phy.eesm_beta()[mcs] * rng.uniform(0.1, 3, (cells, users)), np.float32)
    power = np.asarray(MANY(gains, required, mcs, owner), np.float64)
    assert (power[(owner < 0) | (owner >= users)] == 0).all()
    for cell in range(cells):
        for user in range(users):
            mine = owner[cell] == user
            if mine.any():
                beta = float(phy.eesm_beta()[mcs[cell, user]])
                expected = least_power(gains[cell, mine], float(required[cell, user]), beta)
                np.testing.assert_allclose(power[cell, mine].sum(), expected.sum(), rtol=2e-5)


def test_beta_may_be_given_itself():
    gains, required, mcs, beta = random_grants(np.random.default_rng(5), 4)
    by_beta = ONE(gains, required, np.asarray(beta, np.float32))
    np.testing.assert_allclose(by_beta, solve(gains, required, mcs), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1.0, 4.0))
def test_higher_targets_and_weaker_channels_cost_more(seed, factor):
    gains, required, mcs, _ = random_grants(np.random.default_rng(seed), 8, high=1.0)
    cost = solve(gains, required, mcs).sum(-1)
    assert (solve(gains, required * factor, mcs).sum(-1) >= cost * (1 - 2e-5)).all()
    # half the gain costs twice the power: only products p g count
    np.testing.assert_allclose(solve(gains / 2, required, mcs).sum(-1), 2 * cost, rtol=2e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1.0, 1.0, 3), r"gains must have shape \[..., N\]"),
        ((np.ones((2, 5)), np.ones(3), 3), "do not fit together"),
    ],
)
def test_bad_shapes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        eesm_split(*arguments)
    with pytest.raises(ValueError, match="owner of shape"):
        eesm_split(np.ones(5), np.ones(2), np.ones(2, int), owner=np.zeros(4, int))
    with pytest.raises(ValueError, match="table must be 1"):
        eesm_split(np.ones(5), 1.0, 3, table=3)
