"""The environment against closed forms: multi-user diversity, OLLA, HARQ, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import binom, hyperu

import jaxrl5g
from jaxrl5g import mac, phy
from jaxrl5g.channel.link_budget import gain_db_for_snr
from jaxrl5g.mac import Allocation


def episode(env, scheduler, num_slots, keep, key, params):
    """Stacked `info[name]` for the names in `keep` and the offsets, and the last observation."""
    observation, state = env.reset_env(key, params)

    def slot(carry, _):
        observation, state, memory = carry
        action, memory = scheduler.apply(key, observation, memory, params)
        observation, state, _, _, info = env.step_env(key, state, action, params)
        kept = {name: info[name] for name in keep} | {"offset": observation.olla_offset_db}
        return (observation, state, memory), kept

    start = (observation, state, scheduler.init(params))
    (observation, *_), slots = jax.lax.scan(slot, start, None, length=num_slots)
    return observation, slots


EPISODE = jax.jit(episode, static_argnums=(0, 1, 2, 3))


def run(env, params, scheduler, num_slots, keep):
    return jax.device_get(EPISODE(env, scheduler, num_slots, keep, jax.random.key(1), params))


USERS = 5
RAYLEIGH, RAYLEIGH_PARAMS = jaxrl5g.make(
    "RayleighDownlink-v0", fidelity="shannon", csi="perfect", mcs_table=2, num_users=USERS
)
# a long window: the metric of PF is then that of its limit, argmax of the fading
SCHEDULERS = {"rr": mac.round_robin(), "pf": mac.proportional_fair(window=1000)}


def equal_means(snr_db):
    gain = np.float32(gain_db_for_snr(snr_db))
    channel = RAYLEIGH_PARAMS.channel.replace(mean_gain_db_low=gain, mean_gain_db_high=gain)
    return RAYLEIGH_PARAMS.replace(channel=channel)


def mean_log2(snr, users):
    """E[log2(1 + snr X)] for X the largest of `users` unit exponentials: sums of e^x E1(x)."""
    k = np.arange(1, users + 1)
    return np.sum((-1.0) ** (k + 1) * binom(users, k) * hyperu(1, 1, k / snr)) / np.log(2)


@pytest.mark.parametrize("snr_db", [-20.0, 5.0])
def test_multi_user_diversity(snr_db):
    slots, settle = 1500, 200
    snr = 10 ** (snr_db / 10)
    params = equal_means(snr_db)
    symbols = params.config.res_per_prb * params.config.num_prbs
    measured, spread = {}, {}
    for name, scheduler in SCHEDULERS.items():
        _, info = run(RAYLEIGH, params, scheduler, slots, ("acked_bits", "num_prbs"))
        bits = info["acked_bits"][settle:, 0].astype(np.float64) / symbols
        total = bits.sum(-1)
        measured[name], spread[name] = total.mean(), stats.sem(total)
        # every user alike: in air time and in throughput
        share = info["num_prbs"][settle:, 0].mean(0) / params.config.num_prbs
        np.testing.assert_allclose(share, 1 / USERS, atol=0.01)
        error = stats.sem(bits, axis=0)
        assert (np.abs(bits.mean(0) - total.mean() / USERS) < 4 * error).all()
    expected = {"rr": mean_log2(snr, 1), "pf": mean_log2(snr, USERS)}
    for name in measured:
        assert abs(measured[name] - expected[name]) < 4 * spread[name], name
        assert spread[name] < 0.005 * expected[name]
    if snr_db < -10:
        harmonic = np.sum(1 / np.arange(1, USERS + 1))
        gain = measured["pf"] / measured["rr"]
        error = gain * np.hypot(*(spread[name] / measured[name] for name in measured))
        # log2(1 + x) is below x log2(e) by x/2: what is left of the curvature at this SNR
        curvature = snr * harmonic**2
        assert abs(gain - harmonic) < 4 * error + curvature
        np.testing.assert_allclose(expected["pf"] / expected["rr"], harmonic, rtol=0.03)


@pytest.mark.parametrize("fidelity", ["nr", "sionna"])
def test_outer_loop_meets_its_target(fidelity):
    target, step = 0.1, 0.5
    gain = np.float32(gain_db_for_snr(10.0))
    env, params = jaxrl5g.make(
        "TinyDownlink-v0",
        fidelity=fidelity,
        bler_target=target,
        olla_step_db=step,
        mean_gain_db_low=gain,
        mean_gain_db_high=gain + np.float32(3.0),
    )
    final, info = run(env, params, mac.round_robin(), 1500, ("first_feedback",))
    assert np.abs(info["offset"]).max() < phy.OFFSET_LIMIT_DB  # nothing clipped
    nacks = np.sum(info["first_feedback"] == 0, axis=0)
    acks = np.sum(info["first_feedback"] == 1, axis=0)
    down = step * target / (1 - target)
    np.testing.assert_allclose(final.olla_offset_db, step * nacks - down * acks, atol=2e-3)
    blocks = nacks + acks
    assert (blocks > 1000).all()
    # the identity above, solved for the error rate
    bound = np.abs(final.olla_offset_db) * (1 - target) / (step * blocks)
    assert (np.abs(nacks / blocks - target) <= bound + 1e-5).all()
    assert (bound < 0.02).all()


def test_chase_combining_fails_as_the_gamma_distribution_says():
    """One user on one flat PRB that fades anew in every slot: s sums to a gamma variable."""
    mean_db, drops, slots, settle = 8.0, 64, 320, 60
    gain = np.float32(gain_db_for_snr(mean_db))
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0",
        num_users=1,
        num_prbs=1,
        mean_gain_db_low=gain,
        mean_gain_db_high=gain,
        # the first report stays in use and the offset at zero: each drop keeps its MCS
        cqi_period=10_000,
        olla_step_db=1e-6,
    )
    scheduler = mac.round_robin()

    keys = jax.random.split(jax.random.key(2), drops)
    fields = ("attempt", "mcs", "decoded")
    _, info = jax.device_get(
        jax.jit(jax.vmap(lambda key: episode(env, scheduler, slots, fields, key, params)))(keys)
    )
    info = {name: value[:, settle:].ravel() for name, value in info.items()}

    # P(fail after m) = E[P_mcs(s)] with s gamma distributed of shape m
    quantiles = (np.arange(4000) + 0.5) / 4000
    every = np.arange(phy.num_mcs(1))
    fails = np.ones((5, len(every)))
    for m in range(1, 5):
        sinr = 10 ** (mean_db / 10) * stats.gamma.ppf(quantiles, m)
        rate = phy.transport_block_error_rate(every[:, None], 132, sinr)
        fails[m] = np.asarray(rate, np.float64).mean(-1)
    counted = 0
    for m in range(1, 5):
        sent = info["attempt"] == m
        # the failures are nested, so that attempt m follows m - 1 of them
        chance = (fails[m] / np.maximum(fails[m - 1], 1e-12))[info["mcs"][sent]]
        observed = np.sum(info["decoded"][sent] == 0)
        deviation = np.sqrt(np.sum(chance * (1 - chance)))
        assert abs(observed - chance.sum()) < 4 * deviation, m
        counted += sent.sum() > 300 and deviation > 3
    assert counted >= 3


def test_reward_gradient_matches_finite_differences():
    env, params = jaxrl5g.make(
        "RayleighDownlink-v0",
        fidelity="shannon",
        num_cells=3,
        num_users=4,
        num_prbs=12,
        isolation_db=np.float32(5.0),
        # the reward of the slot alone, so that differences stand out of float32 rounding
        throughput_window=1.0,
    )
    env = env.with_transition_gradients()
    _, state = jax.jit(env.reset_env)(jax.random.key(0), params)
    rng = np.random.default_rng(0)
    shape = (params.config.num_cells, params.config.num_prbs)
    owner = jnp.asarray(rng.integers(0, params.config.num_users, shape), jnp.int32)
    power = params.power_budget / shape[1] * rng.uniform(0.2, 0.8, shape).astype(np.float32)

    def outcome(power):
        result = env.step_env(jax.random.key(1), state, Allocation(owner, power), params)
        return result[2], result[4]["acked_bits"].sum(-1)

    reward = jax.jit(lambda power: outcome(power)[0])
    jacobian = jax.jit(jax.jacrev(outcome))
    gradient, bits = (np.asarray(slope, np.float64) for slope in jacobian(power))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    for _ in range(6):
        step = 0.02 * np.asarray(power) * rng.choice([-1.0, 1.0], shape).astype(np.float32)
        difference = float(reward(power + step)) - float(reward(power - step))
        slope = 2 * np.sum(gradient * step)
        scale = 2 * np.sum(np.abs(gradient * step))
        assert abs(difference - slope) < 0.01 * scale
    # more power on one's own PRB helps its owner; interference is felt in the other cells
    own = np.eye(shape[0], dtype=bool)
    assert (bits[own] >= 0).all()
    assert (bits[~own] <= 0).all() and (bits[~own] < 0).any()
