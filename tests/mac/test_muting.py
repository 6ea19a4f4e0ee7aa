"""Muting that lasts, against brute force in float64 and over slots."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g.mac import held_on_off, muting_levels
from jaxrl5g.mac.muting import rates_at

CELLS, USERS, PRBS = 3, 4, 12
ENV, PARAMS = jaxrl5g.make(
    "RayleighDownlink-v0",
    num_cells=CELLS,
    num_users=USERS,
    num_prbs=PRBS,
    fidelity="shannon",
    csi="centralised",
    isolation_db=np.float32(4.0),
)
RESET = jax.jit(ENV.reset)
LEVELS = jax.jit(muting_levels)
RATES = jax.jit(rates_at)
TOP = 5.5547  # efficiency of the highest MCS


def rate(cross, levels):
    """Bits per PRB of every user in float64, [C, U, N]: min(log2(1 + SINR), top)."""
    received = np.asarray(cross, np.float64) * levels
    own = np.stack([received[c, :, c] for c in range(CELLS)])
    heard = np.stack([np.delete(received[c], c, axis=1).sum(1) for c in range(CELLS)])
    efficiency = np.minimum(np.log2(1 + own / (1 + heard)), TOP)
    return PARAMS.config.res_per_prb * efficiency


@pytest.mark.parametrize("seed", range(4))
def test_rates_are_those_of_the_sinr_at_these_levels(seed):
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 3, (CELLS, PRBS)) * (rng.random((CELLS, PRBS)) < 0.7)
    observation = RESET(jax.random.key(seed), PARAMS)[0]
    found = np.asarray(RATES(jnp.asarray(levels, jnp.float32), observation, PARAMS))
    np.testing.assert_allclose(found, rate(observation.cross_snr, levels), rtol=1e-4, atol=1e-4)
    assert not found[np.broadcast_to(levels[:, None] == 0, found.shape)].any()


@pytest.mark.parametrize("seed", range(4))
def test_the_pattern_is_the_best_of_all_and_budgets_are_spent(seed):
    rng = np.random.default_rng(seed)
    observation = RESET(jax.random.key(seed), PARAMS)[0]
    mask = rng.random((CELLS, USERS)) < 0.7
    weights = rng.uniform(0.1, 2, (CELLS, USERS))
    observation = observation.replace(mask=jnp.asarray(mask))
    levels = np.asarray(LEVELS(jnp.asarray(weights, jnp.float32), observation, PARAMS))

    def worth(on):
        found = weights[..., None] * rate(observation.cross_snr, on) * mask[..., None]
        return found.max(1).sum(0)

    patterns = [np.array(p, float) for p in itertools.product((0, 1), repeat=CELLS)]
    best = np.max([worth(p[:, None] * np.ones(PRBS)) for p in patterns], axis=0)
    np.testing.assert_allclose(worth((levels > 0).astype(float)), best, rtol=1e-4)
    kept = (levels > 0).sum(-1)
    for cell in range(CELLS):
        np.testing.assert_allclose(levels[cell][levels[cell] > 0], PRBS / max(kept[cell], 1))
    assert 1 < np.unique((levels > 0).sum(0)).size


def test_a_pattern_holds_for_its_period_and_users_change_within_it():
    scheduler = held_on_off(50, 4)
    observation, state = RESET(jax.random.key(7), PARAMS)

    @jax.jit
    def run(observation, state, params):
        def slot(carry, _):
            observation, state, memory = carry
            allocation, memory = scheduler.apply(jax.random.key(0), observation, memory, params)
            key = jax.random.key(0)
            observation, state, *_ = ENV.step_env(key, state, allocation, params)
            return (observation, state, memory), (allocation, memory)

        start = (observation, state, scheduler.init(params))
        return jax.lax.scan(slot, start, None, length=17)[1]

    allocation, (_, levels, slots) = jax.device_get(run(observation, state, PARAMS))
    np.testing.assert_array_equal(slots, np.arange(1, 18))
    moved = np.diff(levels, axis=0).any(axis=(1, 2))
    np.testing.assert_array_equal(moved, np.arange(1, 17) % 4 == 0)
    # without errors there are no retransmissions: power is the levels, on their PRBs alone
    reference = float(PARAMS.power_budget) / PRBS
    np.testing.assert_allclose(allocation.power, levels * reference, rtol=1e-5)
    assert ((allocation.owner >= 0) == (levels > 0)).all()
    assert np.diff(allocation.owner, axis=0)[~moved].any(axis=(1, 2)).mean() > 0.8


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((0.5, 10), "window must be at least 1 slot"), ((100, 0), "period must be at least 1 slot")],
)
def test_bad_numbers_are_refused(numbers, said):
    with pytest.raises(ValueError, match=said):
        held_on_off(*numbers)


def test_too_many_cells_are_refused():
    cells = 7
    _, params = jaxrl5g.make("RayleighDownlink-v0", num_cells=cells, num_prbs=2, num_users=1)
    with pytest.raises(ValueError, match="at most 6, got 7"):
        muting_levels(jnp.ones((cells, 1)), RESET(jax.random.key(0), PARAMS)[0], params)


def test_it_needs_centralised_csi():
    observation = RESET(jax.random.key(0), PARAMS)[0].replace(cross_snr=None)
    with pytest.raises(ValueError, match='needs an environment with csi="centralised"'):
        muting_levels(jnp.ones((CELLS, USERS)), observation, PARAMS)
