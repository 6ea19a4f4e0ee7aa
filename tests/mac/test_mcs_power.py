"""MCS-aware power: its bound and gap by brute force, its powers by EESM, its use in the loop."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

import jaxrl5g
from jaxrl5g import mac, phy
from jaxrl5g.mac.mcs_power import mcs_aware_power, mcs_knapsack_power

USERS, PRBS, CELLS, RES = 3, 8, 24, 132
MCS = phy.num_mcs()
BETA = phy.eesm_beta().astype(np.float64)
FEW = (0, 5, 11, 17, 22, 28)  # candidates left in brute-force instances
THRESHOLDS = jax.jit(phy.required_sinr)
REQUIRED = np.asarray(THRESHOLDS(RES * np.arange(PRBS + 1)))
BITS = phy.grants(PRBS, RES).block_bits
SOLVE = jax.jit(mcs_knapsack_power)
EFFECTIVE = jax.jit(partial(phy.candidate_effective_sinr, num_users=USERS))


def solve(cells, spend_all=True, active=None):
    owner, gains, weights, budget, required, rates = cells
    active = np.ones(owner.shape, bool) if active is None else active
    result = SOLVE(
        owner, gains, weights, budget, required, rates, active=active, spend_all=np.bool_(spend_all)
    )
    return jax.tree.map(np.asarray, result)


def random_cells(seed, candidates=range(MCS)):
    rng = np.random.default_rng(seed)
    owner = rng.integers(-1, USERS, (CELLS, PRBS)).astype(np.int32)
    gains = 10 ** ((rng.uniform(-5, 25, (CELLS, 1)) + rng.uniform(-12, 0, (CELLS, PRBS))) / 10)
    weights = 10 ** rng.uniform(-1, 1, (CELLS, USERS))
    budget = 10 ** rng.uniform(0, 1.5, CELLS)
    count = (owner[:, None, :] == np.arange(USERS)[:, None]).sum(-1)
    rates = np.where(np.isin(np.arange(MCS), list(candidates)), BITS[count], 0.0)
    offset = 10 ** (rng.uniform(-3, 3, (CELLS, USERS, 1)) / 10)
    others = (np.asarray(x, np.float32) for x in (gains, weights, budget, REQUIRED[count] * offset))
    gains, weights, budget, required = others
    return owner, gains, weights, budget, required, np.asarray(rates, np.float32)


def least_cost(gains, required, beta):
    """Float64 search for the least power, as in `test_eesm_split`."""
    gains = np.asarray(gains, np.float64)

    def excess(log_nu):
        return np.log(np.minimum(1.0, np.exp(log_nu - np.log(gains))).mean()) + required / beta

    low = np.log(gains.min()) - required / beta - 1.0 - np.log(len(gains))
    level = brentq(excess, low, np.log(gains.max()), xtol=1e-14)
    return np.maximum(beta / gains * (np.log(gains) - level), 0.0).sum()


def best_choice(owner, gains, weights, budget, required, rates, slack=0.0):
    """Largest value over every combination of MCS within the budget, by enumeration."""
    options = []
    for user in range(USERS):
        mine = owner == user
        options.append([(0.0, 0.0)])
        if mine.any():
            options[user] += [
                (least_cost(gains[mine], float(required[user, m]), BETA[m]), w)
                for m in FEW
                if (w := float(weights[user]) * float(rates[user, m])) > 0
            ]
    return max(
        sum(value for _, value in choice)
        for choice in itertools.product(*options)
        if sum(cost for cost, _ in choice) <= budget * (1 + slack)
    )


@pytest.mark.parametrize("seed", range(3))
def test_within_its_gap_of_brute_force_and_bound_above_it(seed):
    cells = random_cells(seed, FEW)
    result = solve(cells)
    exact = 0
    for cell in range(CELLS):
        one = [x[cell] for x in cells]
        optimum = best_choice(*one)
        # float32 costs: a choice that spends the budget to 1e-5 may count as fitting or not
        assert result.value[cell] <= best_choice(*one, slack=2e-5) * (1 + 1e-5)
        assert result.bound[cell] >= optimum * (1 - 1e-5)
        assert result.value[cell] >= optimum * (1 - result.gap[cell] - 1e-5)
        exact += result.value[cell] >= optimum * (1 - 1e-5)
    assert (result.gap >= 0).all() and (result.gap <= 1).all()
    print(f"{exact} of {CELLS} optimal, mean gap {result.gap.mean():.4f}")
    assert exact >= 0.7 * CELLS


def effective(cells, power):
    """Effective SINR of every user at every MCS, by `phy`."""
    owner, gains = cells[:2]
    return np.asarray(EFFECTIVE(gains * power, owner))


@pytest.mark.parametrize("spend_all", [False, True])
def test_every_chosen_mcs_is_reached_within_the_budget(spend_all):
    cells = random_cells(5)
    owner, gains, weights, budget, required, rates = cells
    result = solve(cells, spend_all)
    assert result.mcs.dtype == np.int32 and result.power.dtype == np.float32
    spent = result.power.astype(np.float64).sum(-1)
    served = (result.mcs >= 0).any(-1)
    assert served.sum() > CELLS / 2
    assert (spent <= budget * (1 + 1e-6)).all()
    if spend_all:
        np.testing.assert_allclose(spent[served], budget[served], rtol=1e-6)
    chosen = np.maximum(result.mcs, 0)[..., None]
    reached = np.take_along_axis(effective(cells, result.power), chosen, -1)[..., 0]
    wanted = np.take_along_axis(required, chosen, -1)[..., 0]
    assert (reached >= wanted * (1 - 1e-4))[result.mcs >= 0].all()
    # a PRB has power exactly where its owner has an MCS: none is muted inside a block
    on = np.take_along_axis(result.mcs, np.maximum(owner, 0), -1) >= 0
    np.testing.assert_array_equal(result.power > 0, on & (owner >= 0))
    value = weights * np.take_along_axis(rates, chosen, -1)[..., 0] * (result.mcs >= 0)
    np.testing.assert_allclose(result.value, value.sum(-1), rtol=1e-5)
    some = result.bound > 0
    lost = 1 - result.value[some] / result.bound[some]
    np.testing.assert_allclose(result.gap[some], lost, atol=1e-6)


def test_no_power_rule_beats_the_bound():
    cells = random_cells(6)
    owner, _, weights, budget, required, rates = cells
    bound = solve(cells).bound
    rng = np.random.default_rng(6)
    equal = np.asarray(mac.equal_power(owner, budget))
    others = [rng.dirichlet(np.full(PRBS, a), CELLS) * budget[:, None] for a in (0.3, 1.0, 5.0)]
    for power in (equal, *others):
        reached = effective(cells, np.asarray(power, np.float32)) >= required
        # a PRB with next to no power is still in the block here, as in the knapsack
        best = np.where(reached, rates, 0.0).max(-1)
        assert ((weights * best).sum(-1) <= bound * (1 + 1e-3)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1.0, 5.0))
def test_bound_grows_with_the_budget_and_value_up_to_the_gap(seed, factor):
    cells = list(random_cells(seed))
    less = solve(cells, spend_all=False)
    cells[3] = cells[3] * np.float32(factor)
    more = solve(cells, spend_all=False)
    assert (more.bound >= less.bound * (1 - 1e-5)).all()
    assert (more.value >= less.value * (1 - more.gap - 1e-5)).all()


def test_users_are_interchangeable():
    owner, gains, weights, budget, required, rates = random_cells(7)
    order = np.asarray([2, 0, 1])
    renamed = np.where(owner >= 0, np.argsort(order)[owner], -1).astype(np.int32)
    one = solve((owner, gains, weights, budget, required, rates))
    two = solve((renamed, gains, weights[:, order], budget, required[:, order], rates[:, order]))
    np.testing.assert_allclose(one.value, two.value, rtol=1e-4)
    np.testing.assert_allclose(one.bound, two.bound, rtol=1e-5)


def test_inactive_prbs_are_left_out():
    cells = random_cells(8)
    active = np.random.default_rng(8).random((CELLS, PRBS)) < 0.6
    result = solve(cells, active=active)
    assert (result.power[~active] == 0).all()
    without = (np.where(active, cells[0], -1).astype(np.int32), *cells[1:])
    for ours, theirs in zip(result, solve(without), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rich_cell_gives_everybody_the_best_mcs():
    cells = list(random_cells(9))
    cells[3] = np.full(CELLS, 1e9, np.float32)
    result = solve(cells)
    owns = (cells[0][:, None, :] == np.arange(USERS)[:, None]).any(-1)
    best = np.take_along_axis(cells[5], np.maximum(result.mcs, 0)[..., None], -1)[..., 0]
    np.testing.assert_array_equal(best[owns], cells[5].max(-1)[owns])
    assert (result.mcs[~owns] == -1).all()
    np.testing.assert_allclose(result.gap, 0, atol=1e-6)


def test_nothing_to_gain_or_to_spend():
    owner, gains, weights, budget, required, rates = random_cells(10)
    nan, zero = np.full_like(weights, np.nan), np.zeros_like
    for cells in (
        (np.full_like(owner, -1), gains, weights, budget, required, rates),
        (owner, zero(gains), weights, budget, required, rates),
        (owner, np.full_like(gains, np.nan), weights, budget, required, rates),
        (owner, gains, nan, budget, required, rates),
        (owner, gains, weights, zero(budget), required, rates),
        (owner, gains, weights, -budget, required, rates),
        (owner, gains, weights, budget, required, zero(rates)),
        (owner, gains, weights, budget, np.full_like(required, np.nan), rates),
        (owner, gains, weights, budget, np.full_like(required, np.inf), rates),
    ):
        result = solve(cells)
        np.testing.assert_array_equal(result.power, 0)
        np.testing.assert_array_equal(result.mcs, -1)
        for field in (result.value, result.bound, result.gap):
            np.testing.assert_array_equal(field, 0)


def test_a_user_of_no_weight_gets_nothing():
    owner, gains, weights, budget, required, rates = random_cells(11)
    weights = weights * np.asarray([1, 0, 1], np.float32)
    result = solve((owner, gains, weights, budget, required, rates))
    assert (result.power[owner == 1] == 0).all() and (result.mcs[:, 1] == -1).all()


@jax.jit
def link_adaptation(observation, owner, needed, reference, power):
    """The environment's choice of MCS (env/link.py), for the users of cell 0."""
    csi = jnp.repeat(observation.csi_db[0], -(-len(owner) // observation.csi_db.shape[-1]), -1)
    reported = csi[jnp.maximum(owner, 0), jnp.arange(len(owner))]
    sinr = phy.to_linear(reported) * (power / reference)
    found = phy.candidate_effective_sinr(sinr, owner, len(needed))
    return phy.highest_mcs(found * phy.to_linear(-observation.olla_offset_db[0])[:, None], needed)


def test_link_adaptation_uses_what_was_paid_for():
    """The environment's own rule picks at least the MCS that `mcs_aware_power` chose."""
    _, params = jaxrl5g.make("TinyDownlink-v0")
    config = params.config
    users, prbs = config.num_users, config.num_prbs
    ask = jax.jit(mcs_aware_power)
    sizes = config.res_per_prb * jnp.arange(prbs + 1)
    needed = np.asarray(THRESHOLDS(sizes, params.bler_target))
    gained = chosen_blocks = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shape = (1, users)
        observation = mac.Observation(
            csi_db=jnp.asarray(rng.uniform(-5, 25, (*shape, config.num_subbands)), jnp.float32),
            olla_offset_db=jnp.asarray(rng.uniform(-4, 4, shape), jnp.float32),
            throughput=jnp.asarray(rng.uniform(100, 5e3, shape), jnp.float32),
            acked_bits=jnp.zeros(shape),
            feedback=jnp.zeros(shape, jnp.int32),
            harq_prbs=jnp.zeros(shape, jnp.int32),
            harq_free=jnp.ones(shape, jnp.int32),
            mask=jnp.asarray(rng.random(shape) < 0.9),
        )
        owner = jnp.asarray(rng.integers(-1, users, (1, prbs)), jnp.int32)
        reserved = jnp.asarray(rng.random((1, prbs)) < 0.15) & (owner == 0)
        result = ask(observation, owner, params, reserved=reserved)
        power = np.asarray(result.power)
        reference = float(params.power_budget) / prbs
        assert power.sum() <= float(params.power_budget) * (1 + 1e-6)
        np.testing.assert_allclose(power[np.asarray(reserved)], reference, rtol=1e-6)
        masked = ~np.asarray(observation.mask)[0, np.maximum(owner[0], 0)] & ~reserved[0]
        assert (power[0, masked] == 0).all()

        fresh = jnp.where(reserved, -1, owner)
        count = (np.asarray(fresh)[0] == np.arange(users)[:, None]).sum(-1)
        fresh = fresh[0]
        bits = phy.grants(prbs, config.res_per_prb, config.mcs_table).block_bits
        adapted = partial(link_adaptation, observation, fresh, needed[count], reference)
        paid = np.asarray(result.mcs)[0]
        assert (adapted(power[0]) >= paid)[paid >= 0].all()
        chosen_blocks += (paid >= 0).sum()
        # PF-weighted bits: equal power is one of the choices the knapsack bounds
        equal = np.full(prbs, reference) * (np.asarray(fresh) >= 0)
        weight = np.where(observation.mask[0], 1 / np.asarray(observation.throughput[0]), 0.0)
        reached = adapted(equal)
        worth = (weight * bits[count, reached])[count > 0].sum()
        gained += float(result.value[0]) - worth
    assert chosen_blocks > 20 and gained > 0
    hopeless = observation.replace(
        csi_db=jnp.full_like(observation.csi_db, -40.0), mask=jnp.ones(shape, bool)
    )
    fallback = ask(hopeless, owner, params, reserved=reserved)
    assert (np.asarray(fallback.mcs) == -1).all()
    np.testing.assert_allclose(fallback.power, mac.equal_power(owner, params.power_budget))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"owner": 0}, "owner must have shape"),
        ({"weights": 1.0}, "weights must have shape"),
        ({"required": np.ones((2, 28))}, r"required must have shape \[..., 2, 29\]"),
        ({"rates": np.ones((3, 29))}, r"rates must have shape \[..., 2, 29\]"),
        ({"gains": np.ones(4)}, "gains of shape"),
        ({"table": 3}, "table must be 1"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "owner": np.zeros(5, int),
        "gains": np.ones(5),
        "weights": np.ones(2),
        "power_budget": 1.0,
        "required": np.ones((2, 29)),
        "rates": np.ones((2, 29)),
    }
    with pytest.raises(ValueError, match=message):
        mcs_knapsack_power(**(arguments | change))
