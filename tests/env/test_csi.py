"""CQI reports: which slot's measurement serves which decision, and what it measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import phy
from jaxrl5g.mac import Allocation

SLOTS = 24


def record(**options):
    """CSI before every slot, gains and radiated power in every slot, under random actions."""
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0",
        **{"num_users": 3, "num_prbs": 10, "num_cells": 3, "fidelity": "shannon", **options},
        # strong neighbours, so that interference decides the CQI
        isolation_db=np.float32(3.0),
    )
    config = params.config
    rng = np.random.default_rng(0)
    shape = (SLOTS, config.num_cells, config.num_prbs)
    owner = jnp.asarray(rng.integers(-1, config.num_users, shape), jnp.int32)
    # each cell is silent in some slots: whose interference was measured makes a difference
    busy = rng.random((*shape[:2], 1)) < 0.5
    power = float(params.power_budget) / config.num_prbs * rng.uniform(0.01, 1.0, shape) * busy

    @jax.jit
    def run(key, actions, params):
        _, state = env.reset_env(key, params)

        def slot(state, action):
            gains = params.channel.gains(state.drop, state.time)
            observation, after, _, _, info = env.step_env(key, state, action, params)
            return after, (state.csi_db, observation.csi_db, gains, info["radiated"])

        return jax.lax.scan(slot, state, actions)[1]

    actions = Allocation(owner, jnp.asarray(power, jnp.float32))
    csi, observed, gains, radiated = jax.device_get(run(jax.random.key(1), actions, params))
    np.testing.assert_array_equal(csi[1:], observed[:-1])
    return params, csi, gains.astype(np.float64), radiated.astype(np.float64)


def exact_sinr(params, gains, radiated):
    """SINR at the reference power, float64[C, U, N], with `radiated` on the air."""
    cells = range(len(radiated))
    own = np.stack([gains[c, :, c] for c in cells])
    heard = np.stack([sum(gains[c, :, k] * radiated[k] for k in cells if k != c) for c in cells])
    reference = float(params.power_budget) / params.config.num_prbs
    return reference * own / (float(params.noise_power) + heard)


def idle_power(params):
    shape = (params.config.num_cells, params.config.num_prbs)
    return np.full(shape, float(params.power_budget) / shape[1])


@pytest.mark.parametrize("period, delay", [(1, 1), (5, 4), (2, 7), (3, 3), (4, 9), (5, 1), (7, 30)])
def test_reports_are_periodic_and_late(period, delay):
    params, csi, gains, radiated = record(cqi_period=period, cqi_delay=delay)
    config = params.config
    limits = phy.cqi_thresholds_db(config.mcs_table, "shannon").astype(np.float64)
    levels = phy.cqi_sinr_db(np.arange(16), config.mcs_table, "shannon")
    groups = np.arange(config.num_prbs) // config.subband_prbs

    def report(slot, power):
        capacity = np.log2(1 + exact_sinr(params, gains[slot], power))
        flat = [2 ** capacity[..., groups == s].mean(-1) - 1 for s in range(groups[-1] + 1)]
        flat_db = 10 * np.log10(np.stack(flat, axis=-1))[..., None]
        sure = np.abs(flat_db - limits).min(-1) > 1e-3
        return np.asarray(levels)[np.sum(flat_db >= limits, axis=-1)], sure

    # a queue of (slot of arrival, report); at reset the neighbours are taken to be idle
    queue, used = [], (-1, *report(0, idle_power(params)))
    sources = []
    for slot in range(SLOTS):
        for entry in [entry for entry in queue if entry[0] == slot]:
            used = entry[1]
        source, expected, sure = used
        sources.append(source)
        np.testing.assert_array_equal(csi[slot][sure], expected[sure])
        assert sure.mean() > 0.9
        if slot % period == 0:
            queue.append((slot + delay, (slot, *report(slot, radiated[slot]))))
    assert np.isin(csi, levels).all()
    # the newest report that has arrived, and its age
    arrived = [slot // period * period for slot in range(max(0, SLOTS - delay))]
    assert sources[delay:] == arrived and set(sources[:delay]) <= {-1}
    if delay < SLOTS:
        assert np.abs(np.diff(csi[delay::period], axis=0)).max() > 0


def test_perfect_csi_is_the_exact_sinr():
    params, csi, gains, radiated = record(csi="perfect")
    assert csi.shape[-1] == params.config.num_prbs
    # the best a base station can know before a slot: this slot's gains, and the interference
    # that it last heard
    for slot in range(SLOTS):
        power = radiated[slot - 1] if slot else idle_power(params)
        exact = 10 * np.log10(exact_sinr(params, gains[slot], power))
        np.testing.assert_allclose(csi[slot], np.clip(exact, -40, 60), atol=1e-3)


@pytest.mark.parametrize("fidelity", ["nr", "sionna", "shannon"])
def test_a_report_is_one_of_sixteen_levels(fidelity):
    for table in (1, 2):
        env, params = jaxrl5g.make(
            "RayleighDownlink-v0", fidelity=fidelity, mcs_table=table, max_users=5, min_users=5
        )
        observation, _ = jax.jit(env.reset_env)(jax.random.key(0), params)
        curves = "shannon" if fidelity == "shannon" else "nr"
        levels = np.asarray(phy.cqi_sinr_db(np.arange(16), table, curves))
        csi = np.asarray(observation.csi_db)
        assert csi.shape == (1, 16, 13)  # 51 PRBs in subbands of 4, the last one of 3
        assert np.isin(csi[:, :5], levels).all() and len(np.unique(csi[:, :5])) > 5
        assert (csi[:, 5:] == -40).all()
        # the Sionna fidelity shares the repaired curves' levels
        assert len(np.unique(levels)) == 16
