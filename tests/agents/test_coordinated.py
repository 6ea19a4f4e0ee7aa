"""The controller of cells that decide together: at rest, between cells, and within its budget."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.agents import (
    ControllerConfig,
    DownlinkTurns,
    controller,
    deciding,
    downlink_task,
    feature_names,
    load_config,
    load_controller,
    save_controller,
)
from jaxrl5g.agents.decisions import agree, allot, assign, find
from jaxrl5g.agents.slots import coordinate
from jaxrl5g.rl.mappo import MappoConfig, policy
from jaxrl5g.rl.networks import Equivariant

CELLS, USERS, PRBS, PERIOD, SLOTS, DROPS = 3, 4, 10, 5, 40, 3
SIZES = {"num_cells": CELLS, "num_users": USERS, "num_prbs": PRBS, "csi": "centralised"}
ENV, PARAMS = jaxrl5g.make(
    "TinyDownlink-v0",
    min_users=2,
    bler_target=0.3,
    isolation_db=np.float32(6.0),
    max_steps_in_episode=SLOTS,
    **SIZES,
)
BUDGET = float(PARAMS.power_budget)
NETWORKS = MappoConfig(actor_features=(8, 8))
CONFIG = ControllerConfig("coordinated", PERIOD)
NAMES = feature_names("coordinated")
KEYS = jax.random.split(jax.random.key(1), DROPS)
REST = jnp.zeros((CELLS, USERS))
EXAMPLES = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def actors(seed):
    """Random networks, of visible effect; None for networks that say 0."""
    rng = np.random.default_rng(seed)

    def actor(features):
        sample = jnp.zeros((CELLS, USERS, features)), jnp.ones((CELLS, USERS), bool)
        network = Equivariant(NETWORKS.actor_features, 1)
        shapes = jax.eval_shape(network.init, jax.random.key(0), *sample)
        scale = 0.0 if seed is None else 0.6
        leaves = jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape)), shapes)
        return {"network": leaves, "log_std": jnp.float32(-1.0)}

    return {name: actor(len(features)) for name, features in NAMES.items()}


def play(make, key, params):
    """Each slot's observation, reward, what was sent, and the scheduler's memory after it."""
    scheduler = make()
    observation, state = ENV.reset_env(key, params)

    def slot(carry, _):
        observation, state, memory = carry
        allocation, memory = scheduler.apply(key, observation, memory, params)
        after, state, reward, _, info = ENV.step_env(key, state, allocation, params)
        sent = {name: info[name] for name in ("owner", "radiated", "attempt", "acked_bits")}
        return (after, state, memory), (observation, reward, sent, memory)

    start = (observation, state, scheduler.init(params))
    return jax.lax.scan(slot, start, None, length=SLOTS)[1]


@jax.jit
def episodes(parameters, keys, params):
    make = partial(controller, parameters, CONFIG, NETWORKS)
    return jax.vmap(partial(play, make), (0, None))(keys, params)


@jax.jit
def classical(keys, params):
    make = partial(mac.held_on_off, CONFIG.window, PERIOD)
    return jax.vmap(partial(play, make), (0, None))(keys, params)


@pytest.fixture(scope="module")
def known():
    return jax.device_get(classical(KEYS, PARAMS))


@pytest.fixture(scope="module")
def lively():
    return jax.device_get(episodes(actors(3), KEYS, PARAMS))


def test_at_rest_it_is_held_on_off_power(known):
    mine = jax.device_get(episodes(actors(None), KEYS, PARAMS))
    theirs = (*known[:3], known[3][:2])
    for one, other in zip(
        jax.tree.leaves((*mine[:3], (mine[3].mean, mine[3].levels))),
        jax.tree.leaves(theirs),
        strict=True,
    ):
        # decisions and feedback to the bit; reports in dB round as either program is compiled
        loose = {"rtol": 1e-5, "atol": 1e-4} if one.dtype == np.float32 else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(one, other, **loose)
    observation, _, sent, memory = mine
    assert not memory.first_latent.any() and not memory.second_latent.any()
    # with absent users, retransmissions, and patterns that are neither all on nor one alone
    assert 0 < observation.mask.mean() < 1 and (sent["attempt"] > 1).any()
    together = (memory.levels > 0).sum(axis=2)
    assert {1, 2} <= set(np.unique(together))


def test_levels_hold_for_a_period_and_budgets_are_kept(lively, known):
    observation, _, sent, memory = lively
    within = np.arange(1, SLOTS) % PERIOD != 0
    moved = np.diff(memory.levels, axis=1).any(axis=(2, 3))
    assert not moved[:, within].any() and moved[:, ~within].any()
    assert (sent["radiated"].sum(-1) <= BUDGET * (1 + 1e-5)).all()
    assert not sent["acked_bits"][~observation.mask].any()
    # on a muted PRB there is nothing but retransmissions
    new = np.take_along_axis(sent["attempt"], np.maximum(sent["owner"], 0), axis=-1) == 1
    assert (memory.levels[(sent["owner"] >= 0) & new] > 0).all()
    assert (sent["owner"] != known[2]["owner"]).any()
    # what was decided reaches power: not all of a cell's budget is spent
    assert (sent["radiated"].sum(-1) < 0.99 * BUDGET).any()


def observed(rng, mask=None):
    """A slot with gains of all kinds, in which no two users are alike."""
    shape = (CELLS, USERS)
    mask = rng.random(shape) < 0.8 if mask is None else mask
    cross = 10 ** rng.uniform(-1, 3, (*shape, CELLS, PRBS))
    return mac.Observation(
        csi_db=jnp.asarray(rng.uniform(-8, 25, (*shape, PRBS)), jnp.float32),
        olla_offset_db=jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32),
        throughput=jnp.asarray(rng.uniform(10, 1e3, shape), jnp.float32),
        acked_bits=jnp.asarray(rng.uniform(0, 1e3, shape) * mask, jnp.float32),
        feedback=jnp.asarray(rng.integers(-1, 2, shape), jnp.int32),
        harq_prbs=jnp.asarray(rng.integers(1, 4, shape) * (rng.random(shape) < 0.2), jnp.int32),
        harq_free=jnp.asarray(rng.integers(0, 9, shape), jnp.int32),
        mask=jnp.asarray(mask),
        cross_snr=jnp.asarray(cross, jnp.float32),
    )


@jax.jit
def decide(observation, mean, first, second):
    slot = find(observation, mean, PARAMS, "coordinated")
    levels = agree(slot, first, observation, PARAMS)
    slot = coordinate(slot, levels, observation, PARAMS)
    owner = assign(slot, first, PARAMS, "coordinated")
    power = allot(slot, owner, second, observation, PARAMS, "coordinated").power
    return levels, owner, power, slot.reservation


def means(rng):
    return jnp.asarray(np.exp(rng.uniform(3, 7, (CELLS, USERS))), jnp.float32)


@EXAMPLES
@given(seed=SEEDS)
def test_powers_follow_levels_and_tilts_within_the_budget(seed):
    rng = np.random.default_rng(seed)
    observation, mean = observed(rng), means(rng)
    first, second = (jnp.asarray(rng.normal(0, 1.5, (CELLS, USERS))) for _ in range(2))
    levels, owner, power, (held, eligible) = jax.device_get(
        decide(observation, mean, first, second)
    )
    reference = BUDGET / PRBS
    for cell in range(CELLS):
        new = (held[cell] < 0) & (owner[cell] >= 0)
        assert (levels[cell][new] > 0).all() and eligible[cell][owner[cell][new]].all()
        np.testing.assert_allclose(power[cell][held[cell] >= 0], reference, rtol=1e-5)
        z = 3 * np.tanh(np.asarray(second[cell], np.float64) / 3)
        wanted = reference * levels[cell][new] * np.exp(z)[owner[cell][new]]
        left = BUDGET - reference * (held[cell] >= 0).sum()
        wanted *= min(1.0, left / max(wanted.sum(), 1e-30))
        np.testing.assert_allclose(power[cell][new], wanted, rtol=1e-4, atol=1e-9)
    assert not power[owner < 0].any() and (power.sum(-1) <= BUDGET * (1 + 1e-5)).all()


@EXAMPLES
@given(seed=SEEDS)
def test_permuting_cells_permutes_what_they_agree_on(seed):
    rng = np.random.default_rng(seed)
    observation, mean = observed(rng), means(rng)
    latents = tuple(jnp.asarray(rng.normal(size=(CELLS, USERS)), jnp.float32) for _ in range(2))
    order = rng.permutation(CELLS)
    moved = jax.tree.map(lambda leaf: leaf[order], observation)
    moved = moved.replace(cross_snr=moved.cross_snr[:, :, order])
    here = decide(observation, mean, *latents)
    there = decide(moved, mean[order], *(latent[order] for latent in latents))
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(np.asarray(one)[order], other, rtol=1e-4)


@jax.jit
def speak(parameters, observation, mean):
    scheduler = controller(parameters, CONFIG, NETWORKS)
    memory = scheduler.init(PARAMS)._replace(mean=mean)
    return scheduler.apply(jax.random.key(0), observation, memory, PARAMS)[1]


@jax.jit
def left_out(parameters, observation, mean):
    scheduler = controller(parameters, CONFIG, NETWORKS, rest_first=True, rest_second=True)
    rule = mac.held_on_off(CONFIG.window, PERIOD)
    memory = scheduler.init(PARAMS)._replace(mean=mean)
    known = (mean, *rule.init(PARAMS)[1:])
    both = ((scheduler, memory), (rule, known))
    return [s.apply(jax.random.key(0), observation, m, PARAMS)[0] for s, m in both]


@pytest.mark.parametrize("seed", range(3))
def test_agents_left_out_are_agents_at_rest(seed):
    rng = np.random.default_rng(seed)
    mine, known = left_out(actors(seed), observed(rng), means(rng))
    np.testing.assert_array_equal(mine.owner, known.owner)
    np.testing.assert_array_equal(mine.power, known.power)


@pytest.mark.parametrize("seed", range(4))
def test_permuting_cells_permutes_what_agents_say(seed):
    rng = np.random.default_rng(seed)
    observation, mean, order = observed(rng), means(rng), rng.permutation(CELLS)
    moved = jax.tree.map(lambda leaf: leaf[order], observation)
    moved = moved.replace(cross_snr=moved.cross_snr[:, :, order])
    here, there = (
        speak(actors(seed), observation, mean),
        speak(actors(seed), moved, mean[order]),
    )
    for name in ("first_latent", "second_latent"):
        one, other = np.asarray(getattr(here, name)), np.asarray(getattr(there, name))
        assert np.abs(one).max() > 0.1 and not one[~np.asarray(observation.mask)].any()
        np.testing.assert_allclose(one[order], other, rtol=1e-3, atol=1e-4)


def test_a_user_that_counts_for_more_gets_prbs_from_other_cells():
    rng = np.random.default_rng(2)
    observation = observed(rng, np.ones((CELLS, USERS), bool)).replace(
        harq_prbs=jnp.zeros((CELLS, USERS), jnp.int32),
        harq_free=jnp.ones((CELLS, USERS), jnp.int32),
    )
    mean = means(rng)
    kept = [np.asarray(decide(observation, mean, REST, REST)[0])]
    for latent in (1.0, 3.0):
        levels = decide(observation, mean, REST.at[1].set(latent), REST)[0]
        kept.append(np.asarray(levels))
    on = [(levels > 0).sum(-1) for levels in kept]
    assert on[0][1] < on[1][1] <= on[2][1] and on[2][0] + on[2][2] < on[0][0] + on[0][2]


def test_the_task_plays_the_controllers_own_episode(lively):
    task = downlink_task(ENV, CONFIG)
    parameters = actors(3)

    @jax.jit
    def run(key, params):
        def step(state, step_key):
            first, plan = task.first(state, params)
            latent = policy(parameters["first"], first, NETWORKS).mode()
            second, plan = task.second(plan, latent, jnp.bool_(False), params)
            latent = policy(parameters["second"], second, NETWORKS).mode()
            state, turn = task.step(step_key, state, plan, latent, jnp.bool_(False), params)
            return state, (turn.reward, turn.truncated, turn.final)

        keys = jax.random.split(key, SLOTS // PERIOD)
        return jax.lax.scan(step, task.reset(key, params), keys)[1]

    reward, truncated, final = jax.device_get(jax.vmap(run, (0, None))(KEYS, PARAMS))
    _, slots, _, _ = lively
    np.testing.assert_allclose(reward, slots.reshape(DROPS, -1, PERIOD).mean(-1), rtol=1e-4)
    assert truncated[:, -1].all() and not truncated[:, :-1].any()
    assert final.features.shape[-1] == len(NAMES["first"])
    assert np.isfinite(final.features).all()


def test_alone_a_cell_keeps_the_whole_band():
    config = {**SIZES, "num_cells": 1}
    _, params = jaxrl5g.make("TinyDownlink-v0", **config)
    observation = observed(np.random.default_rng(0))
    observation = jax.tree.map(lambda leaf: leaf[:1], observation)
    observation = observation.replace(cross_snr=observation.cross_snr[:, :, :1])
    levels = jax.jit(mac.muting_levels)(jnp.ones((1, USERS)), observation, params)
    np.testing.assert_array_equal(levels, np.ones((1, PRBS)))


def test_jaxmarl_learners_see_the_same_features():
    turns = DownlinkTurns(ENV, CONFIG)
    shape = jax.eval_shape(turns.reset, jax.random.key(0), PARAMS)[0]["prb"].shape
    features = len(NAMES["second"])
    assert shape == (CELLS * USERS * (1 + features) + 2,) == turns.observation_space("prb").shape


def test_saved_and_loaded_it_decides_the_same(tmp_path):
    parameters = actors(5)
    save_controller(tmp_path / "kept", parameters, CONFIG, NETWORKS)
    rng = np.random.default_rng(0)
    observation, mean = observed(rng), means(rng)
    assert load_config(tmp_path / "kept") == CONFIG and CONFIG.csi == "centralised"
    loaded = load_controller(tmp_path / "kept")
    memory = loaded.init(PARAMS)._replace(mean=mean)
    apply = jax.jit(loaded.apply)
    one = apply(jax.random.key(0), observation, memory, PARAMS)[1]
    other = speak(parameters, observation, mean)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_it_needs_to_see_all_cells():
    config = dataclasses.replace(PARAMS.config, csi="perfect")
    observation = observed(np.random.default_rng(0)).replace(cross_snr=None)
    scheduler = deciding(lambda name, seen, key: REST, CONFIG)
    params = PARAMS.replace(config=config)
    with pytest.raises(ValueError, match='needs an environment with csi="centralised"'):
        memory = scheduler.init(params)
        jax.eval_shape(scheduler.apply, jax.random.key(0), observation, memory, params)
