"""The joint optimum of a slot against exhaustive search, and its place among the rules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import phy
from jaxrl5g.mac import SCHEDULERS, Assignment, dual_assignment, knapsack_power
from jaxrl5g.mac.dual_optimum import _rate_hull

USERS, PRBS = 3, 5


def value_of(owner, gains, weights, budget):
    """Most weighted efficiency of an assignment: hull steps by value per watt, the last in part."""
    sinr, efficiency = (np.asarray(part, np.float64) for part in _rate_hull(1))
    steps = [
        (weights[u] * e, s / gains[u, n])
        for n, u in enumerate(owner)
        if u >= 0
        for s, e in zip(sinr, efficiency, strict=True)
    ]
    total, left = 0.0, budget
    for value, watts in sorted(steps, key=lambda step: -step[0] / step[1]):
        part = min(1.0, left / watts)
        total, left = total + part * value, left - part * watts
        if left <= 0:
            break
    return total


def test_rate_hull_is_concave_and_above_every_mcs():
    sinr, efficiency = _rate_hull(1)
    slopes = efficiency / sinr
    assert (np.diff(slopes) < 0).all()
    thresholds, gains = phy.rate_steps(1, "nr")
    hull = np.interp(thresholds, np.cumsum([0, *sinr]), np.cumsum([0, *efficiency]))
    assert (hull >= np.cumsum(gains) * (1 - 1e-6)).all()


SOLVE = jax.jit(dual_assignment, static_argnames="table")


@pytest.mark.parametrize("seed", range(12))
def test_against_every_assignment(seed):
    rng = np.random.default_rng(seed)
    gains = 10 ** rng.uniform(-0.5, 2.5, (USERS, PRBS))
    weights = 10 ** rng.uniform(-1, 0.5, USERS)
    budget = 10 ** rng.uniform(-1, 1.5)
    owner = SOLVE(
        jnp.asarray(gains, jnp.float32)[None],
        jnp.asarray(weights, jnp.float32)[None],
        jnp.ones((1, PRBS), bool),
        jnp.asarray([budget], jnp.float32),
        table=1,
    )
    found = value_of(np.asarray(owner[0]), gains, weights, budget)
    every = itertools.product(range(USERS), repeat=PRBS)
    best = max(value_of(choice, gains, weights, budget) for choice in every)
    # the duality gap of five PRBs is at most what one PRB can carry; it is far less as a rule
    one_prb = max(weights) * float(np.sum(_rate_hull(1)[1]))
    assert best - one_prb <= found <= best * (1 + 1e-6)
    assert found > 0.85 * best


def test_held_prbs_and_users_left_out_get_nothing():
    rng = np.random.default_rng(0)
    gains = jnp.asarray(10 ** rng.uniform(0, 2, (1, USERS, PRBS)), jnp.float32)
    weights = jnp.array([[1.0, 0.0, 2.0]])
    free = jnp.array([[True, False, True, True, False]])
    owner = np.asarray(SOLVE(gains, weights, free, jnp.array([3.0]), table=1))[0]
    assert (owner[~np.asarray(free[0])] == -1).all() and 1 not in owner
    nobody = SOLVE(gains, jnp.zeros((1, USERS)), free, jnp.array([3.0]), table=1)
    assert (np.asarray(nobody) == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_subband_is_as_many_prbs_of_one_gain(seed):
    rng = np.random.default_rng(seed)
    gains = np.asarray(10 ** rng.uniform(-0.5, 2.5, (1, USERS, PRBS)), np.float32)
    weights = jnp.asarray(10 ** rng.uniform(-1, 0.5, (1, USERS)), jnp.float32)
    free = rng.integers(0, 4, PRBS)
    budget = jnp.asarray([10 ** rng.uniform(-1, 1.5)], jnp.float32)
    together = SOLVE(jnp.asarray(gains), weights, jnp.asarray(free)[None], budget, table=1)
    alone = jnp.asarray(np.repeat(gains, free, axis=-1))
    apart = SOLVE(alone, weights, jnp.ones((1, free.sum()), bool), budget, table=1)
    np.testing.assert_array_equal(np.repeat(together, free, axis=-1), apart)
    assert (np.asarray(together)[0, free == 0] == -1).all()


def test_never_worth_less_than_pf_with_the_same_power():
    env, params = jaxrl5g.make("RayleighDownlink-v0", num_users=6, num_prbs=12, csi="perfect")
    dual, pf = SCHEDULERS["dual"](), SCHEDULERS["pf"](power="knapsack")

    @jax.jit
    def run(key, params):
        observation, state = env.reset(key, params)

        def slot(carry, index):
            observation, state, mean = carry
            allocations = []
            for scheduler in (dual, pf):
                allocation, after = scheduler.apply(key, observation, mean, params)
                allocations.append(allocation)
            weights = 1 / after
            values = []
            held = observation.harq_prbs > 0
            for allocation in allocations:
                owner = allocation.owner
                new = (owner >= 0) & ~jnp.take_along_axis(held, jnp.maximum(owner, 0), -1)
                assignment = Assignment(owner, new, weights)
                values.append(knapsack_power(assignment, observation, params)[1][0])
            spent = jnp.sum(allocations[0].power)
            observation, state, *_ = env.step_env(key, state, allocations[0], params)
            return (observation, state, after), (jnp.stack(values), spent)

        return jax.lax.scan(slot, (observation, state, pf.init(params)), jnp.arange(60))[1]

    values, spent = run(jax.random.key(2), params)
    values = np.asarray(values)
    assert (values[:, 0] >= values[:, 1] * (1 - 1e-4)).all()
    assert (values[:, 0] > values[:, 1] * 1.005).mean() > 0.2
    assert (np.asarray(spent) <= float(params.power_budget) * (1 + 1e-5)).all()
