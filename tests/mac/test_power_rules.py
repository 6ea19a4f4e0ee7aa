"""Power rules inside schedulers: budgets, retransmissions, and what the MCS makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g.mac import POWER_RULES, SCHEDULERS

USERS, PRBS, SLOTS = 5, 16, 40


def run(power, fidelity="nr", csi="perfect", slots=SLOTS):
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0", num_users=USERS, num_prbs=PRBS, fidelity=fidelity, csi=csi
    )
    scheduler = SCHEDULERS["pf"](power=power)

    @jax.jit
    def episode(key, params):
        def slot(carry, _):
            observation, state, memory = carry
            allocation, memory = scheduler.apply(key, observation, memory, params)
            waiting = observation.harq_prbs
            observation, state, _, _, info = env.step_env(key, state, allocation, params)
            return (observation, state, memory), (allocation, waiting, info)

        observation, state = env.reset(key, params)
        start = (observation, state, scheduler.init(params))
        return jax.lax.scan(slot, start, jnp.arange(slots))[1]

    return params, *jax.device_get(episode(jax.random.key(0), params))


@pytest.mark.parametrize("power", list(POWER_RULES))
def test_budget_retransmissions_and_unowned_prbs(power):
    params, allocation, waiting, info = run(power, csi="reported")
    budget = float(params.power_budget)
    owner, watts = allocation.owner[:, 0], allocation.power[:, 0].astype(np.float64)
    assert np.isfinite(watts).all() and (watts >= 0).all()
    assert (watts.sum(-1) <= budget * (1 + 1e-5)).all()
    assert (watts[owner < 0] == 0).all()
    again = 0
    for slot in range(SLOTS):
        for user in np.flatnonzero(waiting[slot, 0]):
            mine = owner[slot] == user
            if mine.sum() == waiting[slot, 0, user]:
                again += 1
                np.testing.assert_allclose(watts[slot, mine], budget / PRBS, rtol=1e-6)
                assert info["attempt"][slot, 0, user] > 1
    assert again > 5
    assert not info["over_budget"].any() and not info["bad_power"].any()


def test_knapsack_power_reaches_the_mcs_it_pays_for():
    # under perfect CSI the base station's prediction is the truth: what it sends as new data
    # fails no more often than the target allows, and nobody is left on the lowest MCS by rounding
    params, allocation, _, info = run("knapsack", slots=200)
    new = info["attempt"] == 1
    failed = (info["decoded"] == 0) & new
    assert new.sum() > 300
    assert failed.sum() / new.sum() < 2 * float(params.bler_target)
    _, _, _, equal = run("equal", slots=200)
    assert info["acked_bits"].sum() > equal["acked_bits"].sum()


@pytest.mark.parametrize("fidelity", ["sionna", "shannon"])
def test_knapsack_power_needs_mcs_that_follow_power(fidelity):
    with pytest.raises(ValueError, match='knapsack power needs fidelity "nr"'):
        run("knapsack", fidelity=fidelity, slots=1)


def test_unknown_rule():
    with pytest.raises(ValueError, match="power must be one of equal, water_filling"):
        SCHEDULERS["pf"](power="equall")
