"""Rivals for several cells against brute force, closed forms and their own optimality."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g.mac import SCHEDULERS, on_off, water_filling, wmmse, wmmse_power

CELLS, USERS, PRBS = 3, 4, 12


def observed(fidelity="shannon", csi="centralised", seed=0, slots=0):
    """An observation of a three-cell Rayleigh downlink, and its parameters."""
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0",
        num_cells=CELLS,
        num_users=USERS,
        num_prbs=PRBS,
        fidelity=fidelity,
        csi=csi,
        isolation_db=np.float32(4.0),
    )
    return jax.jit(env.reset)(jax.random.key(seed), params)[0], params


def decide(scheduler, observation, params):
    carry = scheduler.init(params)
    return jax.jit(scheduler.apply)(jax.random.key(0), observation, carry, params)[0]


def sum_rate(owner, level, cross, weights):
    """Weighted log2(1 + SINR) of every PRB, float64 [N]."""
    total = np.zeros(owner.shape[1])
    for c, n in np.ndindex(*owner.shape):
        if owner[c, n] >= 0:
            heard = cross[c, owner[c, n], :, n] * level[:, n]
            sinr = heard[c] / (1 + heard.sum() - heard[c])
            total[n] += weights[c, owner[c, n]] * np.log2(1 + sinr)
    return total


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_off_is_the_best_of_all_patterns(seed):
    observation, params = observed(seed=seed)
    throughput = np.random.default_rng(seed).uniform(100, 4000, (CELLS, USERS))
    scheduler = on_off()
    carry = jnp.asarray(throughput, jnp.float32)
    observation = observation.replace(acked_bits=carry)  # the average stays where it is
    allocation = jax.jit(scheduler.apply)(jax.random.key(0), observation, carry, params)[0]
    owner, power = np.asarray(allocation.owner), np.asarray(allocation.power, np.float64)
    reference = float(params.power_budget) / PRBS
    level = power / reference
    assert np.isin(np.round(level, 5), (0.0, 1.0)).all()
    cross = np.asarray(observation.cross_snr, np.float64)
    ours = sum_rate(owner, level, cross, 1 / throughput)
    best = np.zeros(PRBS)
    for pattern in itertools.product((0, 1), repeat=CELLS):
        on = np.array(pattern, float)[:, None] * np.ones(PRBS)
        value = np.zeros(PRBS)
        for c in range(CELLS):
            heard = cross[c] * on[None]  # [U, C, N]
            sinr = heard[:, c] / (1 + heard.sum(1) - heard[:, c])
            value += (np.log2(1 + sinr) / throughput[c][:, None]).max(0)
        best = np.maximum(best, value)
    np.testing.assert_allclose(ours, best, rtol=1e-4)


def random_heard(seed, isolation=0.3):
    rng = np.random.default_rng(seed)
    heard = rng.exponential(1.0, (CELLS, CELLS, PRBS)) * 10 ** rng.uniform(0, 2, (CELLS, 1, 1))
    off = ~np.eye(CELLS, dtype=bool)
    heard[off] *= isolation
    return jnp.asarray(heard, jnp.float32), jnp.asarray(rng.uniform(0.1, 1, (CELLS, PRBS)))


def objective(power, heard, weights):
    power, heard, weights = (np.asarray(x, np.float64) for x in (power, heard, weights))
    received = heard * power[None]
    own = np.stack([received[c, c] for c in range(CELLS)])
    return np.sum(weights * np.log(1 + own / (1 + received.sum(1) - own)))


SOLVE = jax.jit(wmmse_power, static_argnames="iterations")


@pytest.mark.parametrize("seed", [0, 1])
def test_wmmse_never_gets_worse_and_keeps_its_budget(seed):
    heard, weights = random_heard(seed)
    budget = jnp.array([12.0, 6.0, 1.0])
    values = []
    for iterations in (1, 2, 4, 8, 16, 32, 64):
        power = np.asarray(SOLVE(heard, weights, budget, iterations=iterations), np.float64)
        assert (power >= 0).all() and (power.sum(-1) <= np.asarray(budget) * (1 + 1e-5)).all()
        values.append(objective(power, heard, weights))
    assert (np.diff(values) > -1e-4 * np.abs(values[0])).all() and values[-1] > values[0]
    # a stationary point: no small feasible exchange between two PRBs of a cell helps
    rng = np.random.default_rng(seed)
    for _ in range(200):
        c, (a, b) = rng.integers(CELLS), rng.choice(PRBS, 2, replace=False)
        moved = power.copy()
        step = min(1e-3, power[c, a])
        moved[c, a], moved[c, b] = moved[c, a] - step, moved[c, b] + step
        assert objective(moved, heard, weights) < values[-1] + 1e-4


def test_wmmse_without_interference_is_water_filling():
    heard, weights = random_heard(3, isolation=0.0)
    budget = jnp.full(CELLS, 4.0)
    power = SOLVE(heard, weights, budget, iterations=400)
    own = jnp.stack([heard[c, c] for c in range(CELLS)])
    exact = water_filling(own, budget, weights)
    assert objective(power, heard, weights) > 0.999 * objective(exact, heard, weights)


def test_wmmse_serves_and_spends():
    observation, params = observed(seed=4)
    allocation = decide(wmmse(iterations=10), observation, params)
    owner, power = np.asarray(allocation.owner), np.asarray(allocation.power)
    assert (power[owner < 0] == 0).all() and (owner >= 0).any(axis=1).all()
    assert (power.sum(-1) <= float(params.power_budget) * (1 + 1e-5)).all()
    # better than everybody at the reference power, user choice included
    cross = np.asarray(observation.cross_snr, np.float64)
    weights = np.ones((CELLS, USERS))
    reference = float(params.power_budget) / PRBS
    full = decide(SCHEDULERS["max_rate"](), observation, params)
    ours = sum_rate(owner, power / reference, cross, weights).sum()
    theirs = sum_rate(np.asarray(full.owner), np.ones((CELLS, PRBS)), cross, weights).sum()
    assert ours > theirs


@pytest.mark.parametrize("name", ["on_off", "wmmse"])
def test_they_need_centralised_csi(name):
    observation, params = observed(csi="perfect")
    with pytest.raises(ValueError, match='needs an environment with csi="centralised"'):
        decide(SCHEDULERS[name](), observation, params)


@pytest.mark.parametrize("csi", ["reported", "perfect"])
def test_reuse_keeps_to_its_third(csi):
    observation, params = observed(csi=csi, fidelity="nr")
    allocation = decide(SCHEDULERS["reuse3"](), observation, params)
    subband = np.arange(PRBS) // params.config.subband_size
    for cell in range(CELLS):
        own = subband % 3 == cell
        owner, power = np.asarray(allocation.owner[cell]), np.asarray(allocation.power[cell])
        assert ((owner >= 0) == own).all()
        np.testing.assert_allclose(power[own], float(params.power_budget) / own.sum(), rtol=1e-5)


def test_fractional_reuse_boosts_the_outer_band_and_separates_users():
    observation, params = observed(csi="perfect", fidelity="nr", seed=5)
    allocation = decide(SCHEDULERS["fractional_reuse"](100, 0.5, 6.0), observation, params)
    owner, power = np.asarray(allocation.owner), np.asarray(allocation.power)
    inner = np.arange(PRBS) < PRBS // 2
    quality = np.asarray(observation.csi_db).mean(-1)
    for cell in range(CELLS):
        own = inner | (np.arange(PRBS) % 3 == cell)
        assert ((owner[cell] >= 0) == own).all()
        near = quality[cell] >= np.median(quality[cell])
        assert near[owner[cell][inner]].all() and not near[owner[cell][own & ~inner]].any()
        ratio = power[cell][own & ~inner].min() / power[cell][inner].max()
        np.testing.assert_allclose(ratio, 10**0.6, rtol=1e-4)
        np.testing.assert_allclose(power[cell].sum(), float(params.power_budget), rtol=1e-5)
