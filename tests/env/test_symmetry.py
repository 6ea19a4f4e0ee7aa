"""What must not matter: the order of users and cells, the transformation, the scheduler."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.channel import CachedChannel, link_budget
from jaxrl5g.env import DownlinkConfig, DownlinkEnv, block_uniforms, make_params
from jaxrl5g.mac import Allocation

SLOTS = 16
PER_USER = (
    "attempt num_prbs mcs block_bits sinr_eff error_rate decoded acked_bits feedback dropped"
).split()
FIDELITIES = ("nr", "sionna", "shannon")


def ray_traced_like(num_cells):
    """A channel of stored tracks, so that cells can be renamed in its file."""
    rng = np.random.default_rng(0)
    tracks, slots, prbs = 12, 40, 12
    mean_db = link_budget.gain_db_for_snr(10.0) + rng.uniform(-8, 8, (tracks, 1, num_cells, 1))
    fading_db = 10 * np.log10(rng.exponential(1.0, (tracks, slots, num_cells, prbs)) + 1e-2)
    serving = np.arange(tracks, dtype=np.int32) % num_cells
    per_cell = tracks // num_cells
    return CachedChannel(
        steps=jnp.asarray(np.round(100 * (mean_db + fading_db)), jnp.int16),
        pool=jnp.arange(tracks, dtype=jnp.int32).reshape(per_cell, num_cells).T,
        counts=jnp.full(num_cells, per_cell, jnp.int32),
        cell_of=jnp.asarray(serving),
        rank_of=jnp.asarray(np.arange(tracks) // num_cells, jnp.int32),
        num_cells=num_cells,
        num_prbs=prbs,
        num_slots=slots,
    )


def setting(fidelity):
    config = DownlinkConfig(
        num_cells=3, num_users=4, num_prbs=12, fidelity=fidelity, feedback_delay=1, cqi_delay=2
    )
    tracks = np.arange(12).reshape(4, 3).T
    params = make_params(
        config,
        ray_traced_like(3),
        tracks=tracks,
        start_slot=0,
        bler_target=0.3,
        max_steps_in_episode=40,
    )
    return DownlinkEnv(params), params


def episode(env, actions, params):
    key = jax.random.key(4)
    observation, state = env.reset_env(key, params)

    def slot(state, action):
        observation, state, reward, _, info = env.step_env(key, state, action, params)
        return state, (observation, reward, info)

    return jax.lax.scan(slot, state, actions)[1]


rollout = jax.jit(episode, static_argnums=0)


def random_actions(seed, params):
    config = params.config
    rng = np.random.default_rng(seed)
    shape = (SLOTS, config.num_cells, config.num_prbs)
    power = float(params.power_budget) / config.num_prbs * rng.uniform(0.2, 1.5, shape)
    owner = rng.integers(-1, config.num_users, shape)
    return Allocation(jnp.asarray(owner, jnp.int32), jnp.asarray(power, jnp.float32))


SETTINGS = {fidelity: setting(fidelity) for fidelity in FIDELITIES}


def assert_permuted(one, other, move):
    """`other` is `one` with `move` applied to every per-user array [T, C, U, ...]."""
    (observation, reward, info), (observation_2, reward_2, info_2) = jax.device_get((one, other))
    pairs = [(info[name], info_2[name]) for name in PER_USER]
    pairs += zip(jax.tree.leaves(observation), jax.tree.leaves(observation_2), strict=True)
    for before, after in pairs:
        # sums over PRBs and cells may be taken in another order
        np.testing.assert_allclose(after, move(before), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(reward_2, reward, rtol=1e-5)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), orders=st.tuples(*3 * [st.permutations(range(4))]))
def test_the_order_of_users_does_not_matter(fidelity, seed, orders):
    env, params = SETTINGS[fidelity]
    actions = random_actions(seed, params)
    order = np.array(orders)  # the user that comes to each place of each cell
    places = np.argsort(order, axis=-1)
    owner = np.asarray(actions.owner)
    cells = np.arange(3)[None, :, None]
    moved = np.where(owner >= 0, places[cells, np.maximum(owner, 0)], -1)
    tracks = jnp.take_along_axis(params.tracks, jnp.asarray(order), axis=-1)
    one = rollout(env, actions, params)
    other = rollout(
        env, actions.replace(owner=jnp.asarray(moved, jnp.int32)), params.replace(tracks=tracks)
    )
    assert_permuted(one, other, lambda leaf: leaf[:, np.arange(3)[:, None], order])
    assert np.asarray(one[2]["num_prbs"]).any()


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0)])
def test_the_order_of_cells_does_not_matter(fidelity, order):
    env, params = SETTINGS[fidelity]
    order = np.array(order)
    channel = params.channel.replace(steps=params.channel.steps[:, :, order])
    actions = random_actions(7, params)
    one = rollout(env, actions, params)
    other = rollout(
        env,
        jax.tree.map(lambda leaf: leaf[:, order], actions),
        params.replace(channel=channel, tracks=params.tracks[order]),
    )
    assert_permuted(one, other, lambda leaf: leaf[:, order])


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_absent_users_get_nothing_and_change_nothing(fidelity):
    env, params = SETTINGS[fidelity]
    params = params.replace(min_users=jnp.int32(2), max_users=jnp.int32(2))
    actions = random_actions(3, params)
    observation, reward, info = rollout(env, actions, params)
    absent = ~np.asarray(observation.mask)
    assert absent[:, :, 2:].all() and not absent[:, :, :2].any()
    for name in ("attempt", "num_prbs", "block_bits", "acked_bits", "sinr_eff"):
        assert not np.asarray(info[name])[absent].any(), name
    for name in ("throughput", "olla_offset_db", "harq_prbs"):
        assert not np.asarray(getattr(observation, name))[absent].any(), name
    assert (np.asarray(observation.csi_db)[absent] == -40).all()
    assert (np.asarray(info["bad_owner"]) == np.sum(np.asarray(actions.owner) >= 2, -1)).all()
    # muting the PRBs of absent users outright is the same thing
    muted = actions.replace(owner=jnp.where(actions.owner >= 2, -1, actions.owner))
    other = rollout(env, muted, params)
    np.testing.assert_array_equal(other[1], reward)
    np.testing.assert_array_equal(other[2]["acked_bits"], info["acked_bits"])


def test_one_trace_serves_every_number():
    env, params = SETTINGS["sionna"]
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(env.step, n=1))
    reset = jax.jit(chex.assert_max_traces(env.reset, n=1))
    key = jax.random.key(0)
    action = jax.tree.map(lambda leaf: leaf[0], random_actions(0, params))
    rewards = []
    for changed in (
        params,
        params.replace(bler_target=jnp.float32(0.01)),
        params.replace(tracks=params.tracks[:, ::-1]),
        params.replace(power_budget=jnp.float32(1e-3), start_slot=jnp.int32(3)),
        params.replace(channel=params.channel.replace(steps=params.channel.steps + jnp.int16(7))),
        params.replace(max_steps_in_episode=jnp.int32(1), fairness_weight=jnp.float32(2.0)),
    ):
        _, state = reset(key, changed)
        rewards.append(float(step(key, state, action, changed)[2]))
    assert rewards[0] != rewards[-1]


@pytest.mark.parametrize("fidelity", ["nr", "shannon"])
def test_vmapped_parameters_equal_single_runs(fidelity):
    env, params = SETTINGS[fidelity]
    actions = random_actions(5, params)
    budgets = params.power_budget * jnp.asarray([0.1, 1.0, 10.0])
    targets = jnp.asarray([0.05, 0.1, 0.4])
    axes = jax.tree.map(lambda _: None, params).replace(power_budget=0, bler_target=0)
    many = params.replace(power_budget=budgets, bler_target=targets)
    batched = jax.jit(
        jax.vmap(lambda actions, params: episode(env, actions, params), in_axes=(None, axes))
    )(actions, many)
    for index in range(len(budgets)):
        one = params.replace(power_budget=budgets[index], bler_target=targets[index])
        single = rollout(env, actions, one)
        assert_permuted(
            single,
            jax.tree.map(lambda leaf, index=index: leaf[index], batched),
            lambda leaf: leaf,
        )
    spread = np.asarray(batched[1]).std(0).max()
    assert spread > 0


def test_luck_does_not_depend_on_actions():
    env, params = jaxrl5g.make("TinyDownlink-v0")
    schedulers = (mac.round_robin(), mac.max_rate())

    @partial(jax.jit, static_argnums=0)
    def luck(scheduler, key, params):
        observation, state = env.reset_env(key, params)

        def slot(carry, _):
            observation, state, memory = carry
            action, memory = scheduler.apply(key, observation, memory, params)
            drawn = (block_uniforms(state), params.channel.gains(state.drop, state.time))
            observation, state, *_, info = env.step_env(key, state, action, params)
            return (observation, state, memory), (drawn, info["num_prbs"])

        start = (observation, state, scheduler.init(params))
        return jax.lax.scan(slot, start, None, length=30)[1]

    (one, granted), (other, granted_2) = (
        jax.device_get(luck(scheduler, jax.random.key(6), params)) for scheduler in schedulers
    )
    assert (granted != granted_2).any()
    uniforms, gains = one
    np.testing.assert_array_equal(uniforms, other[0])
    np.testing.assert_allclose(gains, other[1], rtol=1e-5)  # two programs round as they are fused
    assert ((uniforms >= 0) & (uniforms < 1)).all()
    assert len(np.unique(uniforms)) == uniforms.size  # a new number for every slot and track
    # another drop has other luck
    again, _ = jax.device_get(luck(schedulers[0], jax.random.key(7), params))
    assert (again[0] != uniforms).all()
