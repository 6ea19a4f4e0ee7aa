"""User shares to PRB powers: budgets, each rule's own law, and bad shares."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.mac import equal_power
from jaxrl5g.mac.share_power import SHARE_RULES, share_power
from jaxrl5g.mac.water_filling import water_filling

USERS, PRBS, CELLS = 4, 10, 64
SOLVE = {rule: jax.jit(partial(share_power, rule=rule)) for rule in SHARE_RULES}
FILL = jax.jit(water_filling)


def solve(rule, shares, owner, gains, budget, mask=None):
    """Any number of cells in float64, by one compilation for each rule."""
    mask = np.ones(USERS, bool) if mask is None else mask
    cells = len(owner)

    def many(values, dtype, *axes):
        values = np.broadcast_to(np.asarray(values, dtype), (cells, *axes))
        return np.resize(values, (CELLS, *axes))

    given = (
        many(shares, np.float32, USERS),
        many(owner, np.int32, PRBS),
        many(gains, np.float32, PRBS),
    )
    budget, mask = many(budget, np.float32), many(mask, bool, USERS)
    return np.asarray(SOLVE[rule](*given, budget=budget, mask=mask), np.float64)[:cells]


def random_cells(rng, cells):
    shares = rng.dirichlet(np.ones(USERS), cells)
    owner = rng.integers(-1, USERS, (cells, PRBS))
    gains = 10 ** (rng.uniform(-30, 30, (cells, PRBS)) / 10)
    budget = 10 ** (rng.uniform(-30, 30, cells) / 10)
    return [np.asarray(x, np.float32) for x in (shares, owner, gains, budget)]


@pytest.mark.parametrize("rule", SHARE_RULES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dead=st.floats(0, 1), absent=st.floats(0, 1))
def test_budget_is_met_and_split_by_shares(rule, seed, dead, absent):
    rng = np.random.default_rng(seed)
    shares, owner, gains, budget = random_cells(rng, 8)
    gains = np.where(rng.random(gains.shape) < dead, 0.0, gains)
    mask = rng.random((8, USERS)) >= absent
    power = solve(rule, shares, owner, gains, budget, mask)
    assert (power >= 0).all() and np.isfinite(power).all()
    for cell in range(8):
        held = {u for u in range(USERS) if mask[cell, u] and (owner[cell] == u).any()}
        idle = ~np.isin(owner[cell], list(held))
        assert (power[cell, idle] == 0).all()
        if not held:
            continue
        np.testing.assert_allclose(power[cell].sum(), budget[cell], rtol=1e-6)
        total = sum(float(shares[cell, u]) for u in held)
        for user in held:
            expected = budget[cell] * shares[cell, user] / total
            spent = power[cell, owner[cell] == user].sum()
            np.testing.assert_allclose(spent, expected, rtol=1e-5, atol=1e-7 * budget[cell])


def test_each_rule_keeps_its_law_within_a_user():
    shares, owner, gains, budget = random_cells(np.random.default_rng(1), CELLS)
    power = {rule: solve(rule, shares, owner, gains, budget) for rule in SHARE_RULES}
    for cell in range(CELLS):
        for user in range(USERS):
            mine = owner[cell] == user
            if not mine.any():
                continue
            flat = power["uniform"][cell, mine]
            np.testing.assert_allclose(flat, flat[0], rtol=1e-6)
            received = (power["channel_inverting"][cell] * gains[cell])[mine]
            np.testing.assert_allclose(received, received[0], rtol=1e-5)
            # the same sum, spread as water-filling spreads it
            filled = FILL(np.where(mine, gains[cell], 0.0), np.float32(flat.sum()))
            error = np.abs(power["water_filling"][cell] - filled)[mine]
            assert (error < 1e-5 * flat.sum() + 1e-6 / gains[cell, mine]).all()


def test_equal_shares_by_prb_count_are_equal_power():
    _, owner, gains, budget = random_cells(np.random.default_rng(2), 8)
    owner = np.maximum(owner, 0)
    count = (owner[:, None, :] == np.arange(USERS)[:, None]).sum(-1)
    power = solve("uniform", count, owner, gains, budget)
    np.testing.assert_allclose(power, equal_power(owner.astype(int), budget), rtol=1e-6)


@pytest.mark.parametrize("rule", SHARE_RULES)
def test_shares_that_say_nothing(rule):
    _, owner, gains, _ = random_cells(np.random.default_rng(3), 1)
    owner = np.asarray([[0, 0, 1, 1, 1, -1, -1, 9, -7, 2]])
    equal = solve(rule, np.ones(USERS), owner, gains, 6.0)
    np.testing.assert_allclose(equal[0, :2].sum(), 2.0, rtol=1e-6)
    for nothing in ([0] * USERS, [np.nan] * USERS, [-1] * USERS, [0, 0, 0, 5]):
        np.testing.assert_allclose(solve(rule, nothing, owner, gains, 6.0), equal, rtol=1e-6)
    one = solve(rule, [np.nan, -1, 2, 7], owner, gains, 6.0)
    np.testing.assert_allclose(one[0, -1], 6.0, rtol=1e-6)
    np.testing.assert_allclose(one[0, :-1], 0)
    for bad in (0.0, -1.0, np.nan):
        np.testing.assert_array_equal(solve(rule, np.ones(USERS), owner, gains, bad), 0)


def test_a_user_without_gain_falls_back_to_equal_powers():
    owner = np.asarray([[0] * 4 + [1] * 6])
    gains = np.asarray([[0.0] * 4 + [1.0] * 6])
    for rule in SHARE_RULES:
        power = solve(rule, [2, 3, 0, 0], owner, gains, 10.0)
        np.testing.assert_allclose(power[0], [1.0] * 10, rtol=1e-6)


@pytest.mark.parametrize("rule", SHARE_RULES)
def test_every_user_grows_with_the_budget(rule):
    shares, owner, gains, budget = random_cells(np.random.default_rng(4), 32)
    less = solve(rule, shares, owner, gains, budget)
    more = solve(rule, shares, owner, gains, 3 * budget)
    mine = owner[:, None, :] == np.arange(USERS)[:, None]
    gained = (mine * (more - less)[:, None, :]).sum(-1)
    np.testing.assert_allclose(gained, 2 * (mine * less[:, None, :]).sum(-1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones(2), np.zeros(3, int), np.ones(3), "nonsense"), "rule must be one of uniform"),
        ((1.0, np.zeros(3, int), np.ones(3)), "user_shares must have shape"),
        ((np.ones(2), 0, 1.0), "owner must have shape"),
        ((np.ones(2), np.zeros(3, int), np.ones(4)), "gains of shape"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        share_power(*arguments)
    with pytest.raises(ValueError, match="mask of shape"):
        share_power(np.ones(2), np.zeros(3, int), np.ones(3), mask=np.ones(3, bool))
