"""Alpha-fair power: optimality in float64, budgets from 0 to 60 dBm, limits, live Sionna."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.mac.fair_power import fair_power
from jaxrl5g.mac.water_filling import water_filling

USERS, CELLS = 8, 400
SOLVE = jax.jit(fair_power)
FILL = jax.jit(water_filling)


def solve(gains, count, budget, fairness, share):
    """Any number of cells in float64, by one compilation for all of this file."""
    cells = len(gains)
    shapes = ((cells, USERS), (cells, USERS), (cells,), (cells,), (cells,))
    given = (
        np.resize(np.broadcast_to(np.asarray(x, np.float32), shape), (CELLS, *shape[1:]))
        for x, shape in zip((gains, count, budget, fairness, share), shapes, strict=True)
    )
    return np.asarray(SOLVE(*given), np.float64)[:cells]


def random_cells(rng, batch):
    """SNR per watt over 60 dB, PRB counts with idle users, 0 to 60 dBm."""
    gains = 10 ** (rng.uniform(-10, 50, (batch, USERS)) / 10)
    count = rng.integers(0, 9, (batch, USERS))
    count[:, 0] = np.maximum(count[:, 0], 1)
    budget = 10 ** (rng.uniform(0, 60, batch) / 10 - 3)
    return np.asarray(gains, np.float32), count, np.asarray(budget, np.float32)


def worst_residual(power, gains, count, budget, fairness, share):
    """Largest spread of log marginal utilities that a better division would use, over 1 + f."""
    scheduled = count > 0
    floor = share * budget / np.maximum(scheduled.sum(-1), 1)
    size = np.maximum(count, 1)
    # float32 ends at 1e-38: a user of less than 1e-30 of the budget counts as having that
    nothing = 1e-30 * budget[:, None]
    log_rate = np.log1p(np.maximum(power, nothing) * gains / size)
    marginal = np.log(gains) - log_rate - fairness[:, None] * np.log(size * log_rate)
    above = scheduled & (power > np.maximum(floor[:, None] * (1 + 1e-5), nothing))
    least_kept = np.where(above, marginal, np.inf).min(-1)
    most_missed = np.where(scheduled, marginal, -np.inf).max(-1)
    spread = np.where(above.any(-1), most_missed - least_kept, 0.0)
    return (spread / (1 + fairness)).max()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_optimal_from_0_to_60_dbm(share):
    rng = np.random.default_rng(int(10 * share))
    gains, count, budget = random_cells(rng, CELLS)
    fairness = rng.choice([0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 5.0, 50.0], CELLS).astype(np.float32)
    power = solve(gains, count, budget, fairness, share)
    assert np.abs(power.sum(-1) / budget - 1).max() < 1e-6
    assert (power[count == 0] == 0).all()
    floor = share * budget / (count > 0).sum(-1)
    assert (power >= floor[:, None] * (1 - 1e-6))[count > 0].all()
    wide = (power, gains.astype(np.float64), count, budget.astype(np.float64))
    assert worst_residual(*wide, fairness.astype(np.float64), share) < 1e-5


def test_no_fairness_is_water_filling_over_all_prbs():
    gains, count, budget = random_cells(np.random.default_rng(1), 20)
    power = solve(gains, count, budget, 0.0, 0.0)
    # n_u PRBs of gain g_u, filled one by one, must get what the users get
    for b in range(20):
        prbs = np.repeat(gains[b], count[b])
        filled = np.asarray(FILL(np.pad(prbs, (0, 9 * USERS - len(prbs))), budget[b]))
        users = np.bincount(np.repeat(np.arange(USERS), count[b]), filled[: len(prbs)], USERS)
        np.testing.assert_allclose(power[b], users, rtol=1e-4, atol=1e-6 * budget[b])


def test_vanishing_fairness_approaches_none_and_great_fairness_equal_rates():
    gains, count, budget = random_cells(np.random.default_rng(2), 200)
    none = solve(gains, count, budget, 0.0, 0.0)
    little = solve(gains, count, budget, 1e-5, 0.0)
    assert (np.abs(little - none) < 1e-3 * budget[:, None]).all()
    great = solve(gains, count, budget, 1000.0, 0.0)
    rate = count * np.log1p(great * gains / np.maximum(count, 1))
    best, worst = rate.max(-1), np.where(count > 0, rate, np.inf).min(-1)
    # R^f (1 + SNR) / g is the same for all: R differs by at most exp(spread of the rest / f)
    assert (best / worst < 1.05).all()


def test_full_guarantee_is_equal_power():
    gains, count, budget = random_cells(np.random.default_rng(3), 50)
    for fairness in (0.0, 1.0):
        power = solve(gains, count, budget, fairness, 1.0)
        equal = np.where(count > 0, (budget / (count > 0).sum(-1))[:, None], 0.0)
        np.testing.assert_allclose(power, equal, rtol=1e-6)


def test_proportional_fairness_far_below_noise_is_equal_power():
    # R = n log(1 + x g / n) is x g there, and sum log x is largest where all are equal
    power = solve([np.logspace(-9, -6, USERS)], np.arange(1, USERS + 1), 2.0, 1.0, 0.0)
    np.testing.assert_allclose(power, 2.0 / USERS, rtol=1e-4)


def test_useless_users_and_values():
    gains = np.asarray([[0, 1, np.nan, -1, 2, 2, 2, 2], [0] * 8, [1] * 8, [1e30] * 8], np.float32)
    count = np.asarray([[1] * 8, [1] * 8, [0] * 8, [1] * 8])
    for fairness in (0.0, 1.0, np.nan, np.inf):
        power = solve(gains, count, 8.0, fairness, 0.5)
        assert np.isfinite(power).all()
        np.testing.assert_allclose(power[0, [0, 2, 3]], 0.5, rtol=1e-6)
        np.testing.assert_allclose(power[0].sum(), 8.0, rtol=1e-6)
        np.testing.assert_allclose(power[1], 0.5, rtol=1e-6)
        np.testing.assert_array_equal(power[2], 0)
        np.testing.assert_allclose(power[3], 1.0, rtol=1e-5)
        for budget in (0.0, -1.0, np.nan):
            np.testing.assert_array_equal(solve(gains, count, budget, fairness, 0.5), 0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    fairness=st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    share=st.floats(0, 1),
    factor=st.floats(1.0, 10.0),
)
def test_every_user_gains_from_a_larger_budget(seed, fairness, share, factor):
    gains, count, budget = random_cells(np.random.default_rng(seed), 1)
    two = [np.repeat(x, 2, axis=0) for x in (gains, count, budget)]
    two[2] = np.asarray([budget[0], factor * budget[0]], np.float32)
    less, more = solve(*two, fairness, share)
    assert (more >= less * (1 - 1e-5) - 1e-6 * two[2][1]).all()
    assert more.sum() <= two[2][1] * (1 + 1e-6)


def test_traced_values_out_of_range_are_clipped():
    cells = random_cells(np.random.default_rng(4), 3)
    for bad, clipped in ((-1.0, 0.0), (2.0, 1.0), (np.nan, 0.0)):
        np.testing.assert_array_equal(solve(*cells, 1.0, bad), solve(*cells, 1.0, clipped))
    for bad, clipped in ((-1.0, 0.0), (np.nan, 0.0), (1e6, 1e3)):
        np.testing.assert_array_equal(solve(*cells, bad, 0.5), solve(*cells, clipped, 0.5))


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"gains": 1.0}, r"gains must have shape \[..., U\]"),
        ({"num_prbs": jnp.ones(3)}, "num_prbs of shape"),
        ({"budget": jnp.ones(3)}, "budget of shape"),
        ({"fairness": -1.0}, "fairness must be at least 0, got -1.0"),
        ({"fairness": float("nan")}, "fairness must be at least 0, got nan"),
        ({"guaranteed_share": 1.5}, "guaranteed_share must be from 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_named(keywords, message):
    arguments = {"gains": jnp.ones((2, 4)), "num_prbs": jnp.ones(4), "budget": 1.0}
    with pytest.raises(ValueError, match=message):
        fair_power(**(arguments | keywords))


@pytest.mark.sionna
@pytest.mark.parametrize("fairness", [0.0, 1.0])
def test_parity_with_sionna(fairness):
    """Its tolerances are absolute: tight ones, double precision and 56 dBm let it converge."""
    torch = pytest.importorskip("torch")
    from sionna.sys import downlink_fair_power_control

    rng = np.random.default_rng(int(fairness))
    pathloss = 10 ** (rng.uniform(70, 110, (4, USERS)) / 10)
    noise, count, dbm = 5e-10, rng.integers(1, 6, (4, USERS)), 56.0
    for share in (0.0, 0.5):
        theirs, utility = downlink_fair_power_control(
            torch.tensor(pathloss),
            interference_plus_noise=noise,
            num_allocated_re=torch.tensor(count),
            bs_max_power_dbm=dbm,
            guaranteed_power_ratio=share,
            fairness=fairness,
            precision="double",
            eps_x=1e-9,
            eps_y=1e-9,
        )
        budget = 10 ** (dbm / 10 - 3)
        gains = np.asarray(1 / (pathloss * noise), np.float32)
        ours = solve(gains, count, budget, fairness, share)
        error = np.abs(ours - theirs.numpy()).max() / budget
        print(f"fairness {fairness}, share {share}: largest difference {error:.1e} of the budget")
        assert error < 1e-5
        rate = count * np.log1p(ours * gains.astype(np.float64) / count)
        np.testing.assert_allclose(rate, utility.numpy(), rtol=1e-4)
