"""The JaxMARL-style view keeps JaxMARL's contract and plays the task itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g.agents.controller import ControllerConfig
from jaxrl5g.agents.features import feature_names
from jaxrl5g.agents.marl_view import DownlinkTurns
from jaxrl5g.agents.task import downlink_task

CELLS, USERS, HORIZON, BATCH = 2, 3, 5, 3
STEPS = 2 * HORIZON  # two episodes
OPTIONS = {"fidelity": "shannon", "csi": "perfect", "num_cells": CELLS, "num_users": USERS}
ENV, PARAMS = jaxrl5g.make("TinyDownlink-v0", min_users=1, max_steps_in_episode=HORIZON, **OPTIONS)
CONFIG = ControllerConfig("paper", 1)
TURNS = DownlinkTurns(ENV, CONFIG, reward_scale=2.0)
SIZE = CELLS * USERS
KEYS = jax.random.split(jax.random.key(0), BATCH)
STEP_KEYS = jax.random.split(jax.random.key(1), (2 * STEPS, BATCH))


@jax.jit
def play(actions):
    """Every turn of a batch: state, observations and availability before it, what came of it."""

    def turn(carry, inputs):
        observations, state = carry
        keys, actions = inputs
        available = jax.vmap(TURNS.get_avail_actions)(state)
        after, following, *outcome = jax.vmap(TURNS.step)(keys, state, actions)
        return (after, following), (state, observations, available, outcome)

    start = jax.vmap(TURNS.reset)(KEYS)
    end, played = jax.lax.scan(turn, start, (STEP_KEYS, actions))
    return played, end[0]


@jax.jit
def play_task(first, second):
    """The same decisions, taken by the learner's task: what both see, and the turn."""
    task = downlink_task(ENV, CONFIG, reward_scale=2.0)
    alert = jnp.bool_(False)

    def step(state, inputs):
        key, one, two = inputs
        seen, plan = task.first(state, PARAMS)
        informed, plan = task.second(plan, one, alert, PARAMS)
        state, turn = task.step(key, state, plan, two, alert, PARAMS)
        return state, (seen, informed, turn)

    def episodes(inputs):
        key, *inputs = inputs
        return jax.lax.scan(step, task.reset(key, PARAMS), inputs)[1]

    # one environment after the other, where the view plays them as a batch
    inputs = (jnp.swapaxes(leaf, 0, 1) for leaf in (STEP_KEYS[1::2], first, second))
    return jax.lax.map(episodes, (KEYS, *inputs))


def some_actions():
    rng = np.random.default_rng(0)
    shape = (2 * STEPS, BATCH, SIZE)
    return {name: jnp.asarray(rng.uniform(-3, 3, shape), jnp.float32) for name in TURNS.agents}


@pytest.fixture(scope="module")
def actions():
    return some_actions()


@pytest.fixture(scope="module")
def played(actions):
    """`play` of random actions, as NumPy arrays [turns, batch, ...]."""
    return jax.tree.map(np.asarray, play(actions)[0][1:])


def test_two_turns_are_a_step_of_the_task_with_its_reward(actions, played):
    observations, _, (rewards, dones, infos) = played
    first, second = (
        actions[name][turn::2].reshape(STEPS, BATCH, CELLS, USERS)
        for turn, name in enumerate(TURNS.agents)
    )
    seen, informed, turn = play_task(first, second)

    def turns(leaf):
        """[batch, steps, ...] as the turns' [steps, batch, ...]."""
        return np.swapaxes(np.asarray(leaf), 0, 1)

    for name in TURNS.agents:
        assert not rewards[name][::2].any() and not dones[name][::2].any()
        np.testing.assert_allclose(rewards[name][1::2], turns(turn.reward), rtol=1e-5)
        np.testing.assert_array_equal(dones[name][1::2], turns(turn.truncated))
    np.testing.assert_array_equal(dones["__all__"], dones["prb"])
    ends = np.arange(1, 2 * STEPS + 1) % (2 * HORIZON) == 0
    np.testing.assert_array_equal(dones["__all__"], np.repeat(ends[:, None], BATCH, axis=1))
    np.testing.assert_array_equal(infos["truncated"][..., 0], dones["__all__"])
    for name, values in turn.info.items():
        assert infos[name].shape == (2 * STEPS, BATCH, 2) and not infos[name][::2].any()
        for agent in range(2):
            np.testing.assert_allclose(infos[name][1::2, :, agent], turns(values), rtol=1e-5)

    # observations are presence and features row by row, then the agent and whether it is in turn
    names = feature_names("paper")
    width = 1 + len(names["second"])
    for index, name in enumerate(TURNS.agents):
        users = observations[name][..., :-2].reshape(2 * STEPS, BATCH, CELLS, USERS, width)
        np.testing.assert_array_equal(users[::2, ..., 0], turns(seen.mask))
        known = 1 + len(names["first"])
        before, after = turns(seen.features), turns(informed.features)
        np.testing.assert_allclose(users[::2, ..., 1:known], before, rtol=1e-4, atol=1e-5)
        assert not users[::2, ..., known:].any()
        np.testing.assert_allclose(users[1::2, ..., 1:], after, rtol=1e-4, atol=1e-5)
        own = np.arange(2 * STEPS)[:, None] % 2 == index
        tail = np.stack(np.broadcast_arrays(float(index), own, np.ones(BATCH)), axis=-1)
        np.testing.assert_array_equal(observations[name][..., -2:], tail[..., :2])
        assert users[1::2, ..., known:].any()
    world = observations["world_state"]
    assert world.shape == (2 * STEPS, BATCH, 2, TURNS.world_state_size())
    np.testing.assert_array_equal(world[:, :, 0], world[:, :, 1])
    np.testing.assert_array_equal(world[:, :, 0, :-1], observations["prb"][..., :-2])
    power_turn = np.arange(2 * STEPS) % 2
    np.testing.assert_array_equal(world[..., -1], np.tile(power_turn[:, None, None], (BATCH, 2)))


def test_only_present_users_and_the_agent_in_turn_are_available(played):
    observations, available, _ = played
    present = observations["prb"][..., :-2].reshape(2 * STEPS, BATCH, SIZE, -1)[..., 0] > 0
    assert 0 < present.mean() < 1
    np.testing.assert_array_equal(available["prb"][::2], present[::2])
    np.testing.assert_array_equal(available["power"][1::2], present[1::2])
    assert not available["prb"][1::2].any() and not available["power"][::2].any()


def test_what_is_not_available_is_not_read(actions, played):
    _, available, outcome = played
    rng = np.random.default_rng(1)
    other = {
        name: jnp.where(available[name], actions[name], rng.choice([np.nan, 7.0, -np.inf]))
        for name in TURNS.agents
    }
    again = jax.tree.map(np.asarray, play(other)[0][1:])
    for one, two in zip(jax.tree.leaves(outcome), jax.tree.leaves(again[2]), strict=True):
        np.testing.assert_array_equal(one, two)
    # while what is available matters
    changed = {name: -values for name, values in actions.items()}
    assert (np.asarray(play(changed)[0][3][0]["prb"]) != outcome[0]["prb"]).any()


def test_spaces_hold_what_they_should(played):
    observations, *_ = played
    assert TURNS.agents == ["prb", "power"] and TURNS.num_agents == 2
    assert TURNS.name == "DownlinkTurns"
    assert TURNS.agent_classes == {"prb": ["prb"], "power": ["power"]}
    for name in TURNS.agents:
        space = TURNS.observation_space(name)
        assert space.shape == observations[name].shape[2:]
        assert observations[name].dtype == np.float32 and np.isfinite(observations[name]).all()
        assert bool(space.contains(observations[name][0, 0]))
        space = TURNS.action_space(name)
        assert space.shape == (SIZE,)
        sample = np.asarray(space.sample(jax.random.key(0)))
        assert (np.abs(sample) <= 3).all() and np.ptp(sample) > 0
    assert TURNS.world_state_size() == SIZE * (1 + len(feature_names("paper")["second"])) + 1


def test_bad_input_is_named():
    good = jnp.zeros(SIZE)
    state = jax.eval_shape(TURNS.reset, KEYS[0])[1]
    for actions, got in (
        ({"prb": good}, "'power' .* got none"),
        ({"prb": jnp.zeros(SIZE + 1), "power": good}, r"'prb' .* = \(6,\), got \(7,\)"),
    ):
        with pytest.raises(ValueError, match=got):
            jax.eval_shape(TURNS.step, KEYS[0], state, actions)
    for space in (TURNS.observation_space, TURNS.action_space):
        with pytest.raises(ValueError, match="agent must be one of prb, power, got 'ue'"):
            space("ue")
    with pytest.raises(ValueError, match="5 slots must be a multiple of the decision period, 4"):
        DownlinkTurns(ENV, ControllerConfig("paper", 4))
