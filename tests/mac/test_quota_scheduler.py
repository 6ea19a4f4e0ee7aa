"""Equal quotas: everybody's share exact, the PRBs the best there are."""

import jax
import numpy as np
import scipy.optimize

import jaxrl5g
from jaxrl5g.mac import SCHEDULERS, per_prb, predicted_rates


def test_shares_are_equal_and_the_assignment_optimal():
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0", num_users=5, num_prbs=12, min_users=4, max_users=4, csi="perfect"
    )
    scheduler = SCHEDULERS["equal_quotas"]()

    @jax.jit
    def episode(key, params):
        def slot(carry, _):
            observation, state, dual = carry
            allocation, dual = scheduler.apply(key, observation, dual, params)
            rates = per_prb(predicted_rates(observation, params), params.config)
            waiting = observation.harq_prbs
            observation, state, *_ = env.step_env(key, state, allocation, params)
            return (observation, state, dual), (allocation, rates, waiting)

        observation, state = env.reset(key, params)
        start = (observation, state, scheduler.init(params))
        return jax.lax.scan(slot, start, length=30)[1]

    allocation, rates, waiting = jax.device_get(episode(jax.random.key(0), params))
    checked = 0
    for slot in range(30):
        owner = allocation.owner[slot, 0]
        assert (owner < 4).all()
        if waiting[slot].any():
            continue
        counts = np.bincount(owner, minlength=5)
        np.testing.assert_array_equal(counts, [3, 3, 3, 3, 0])
        found = rates[slot, 0][owner, np.arange(12)].sum()
        expanded = np.repeat(rates[slot, 0, :4].astype(np.float64), 3, axis=0)
        rows, columns = scipy.optimize.linear_sum_assignment(expanded, maximize=True)
        np.testing.assert_allclose(found, expanded[rows, columns].sum(), rtol=1e-5)
        checked += 1
    assert checked > 5
