"""The learner's task: the controller's own episodes, cut into decisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g.agents.controller import ControllerConfig, controller, see
from jaxrl5g.agents.features import feature_names
from jaxrl5g.agents.slots import prepare
from jaxrl5g.agents.task import downlink_task
from jaxrl5g.env.reward import jain_index
from jaxrl5g.mac.schedulers import average
from jaxrl5g.rl.mappo import MappoConfig, policy
from jaxrl5g.rl.networks import Equivariant

NETWORKS = MappoConfig(actor_features=(8, 8))
SCALE, EPISODES = 2.0, 2


class Case:
    """An environment, a configuration, and the programs of both ways to play an episode."""

    def __init__(self, config, horizon, **options):
        self.env, self.params = jaxrl5g.make(
            "TinyDownlink-v0", max_steps_in_episode=horizon, min_users=2, **options
        )
        self.config, self.horizon = config, horizon
        self.task = downlink_task(self.env, config, SCALE)
        self.steps = EPISODES * horizon // config.decision_period
        self.run_task = jax.jit(self._run_task)
        self.run_controller = jax.jit(
            self._run_controller, static_argnames=("rest_first", "rest_second")
        )

    def actors(self, seed):
        rng = np.random.default_rng(seed)
        sizes = self.params.config
        shape = (sizes.num_cells, sizes.num_users)

        def actor(features):
            network = Equivariant(NETWORKS.actor_features, 1)
            sample = jnp.zeros((*shape, features)), jnp.ones(shape, bool)
            shapes = jax.eval_shape(network.init, jax.random.key(0), *sample)
            leaves = jax.tree.map(lambda x: jnp.asarray(0.6 * rng.normal(size=x.shape)), shapes)
            return {"network": leaves, "log_std": jnp.float32(-1.0)}

        names = feature_names(self.config.parametrisation)
        return {name: actor(len(features)) for name, features in names.items()}

    def _run_task(self, actors, key, rest_first, rest_second, params):
        """What the first agent sees, the turn, and the state, of every step from a reset."""

        def step(state, step_key):
            first, plan = self.task.first(state, params)
            latent = policy(actors["first"], first, NETWORKS).mode()
            second, plan = self.task.second(plan, latent, rest_first, params)
            latent = policy(actors["second"], second, NETWORKS).mode()
            after, turn = self.task.step(step_key, state, plan, latent, rest_second, params)
            return after, (state, first, turn)

        return jax.lax.scan(step, self.task.reset(key, params), jax.random.split(key, self.steps))[
            1
        ]

    def _run_controller(self, actors, observation, state, params, *, rest_first, rest_second):
        """An episode as `evaluate` steps it: rewards, what is told, and what is seen afterwards."""
        scheduler = controller(
            actors, self.config, NETWORKS, rest_first=rest_first, rest_second=rest_second
        )
        key = jax.random.key(0)

        def slot(carry, _):
            observation, state, memory = carry
            allocation, memory = scheduler.apply(key, observation, memory, params)
            observation, state, reward, _, info = self.env.step_env(key, state, allocation, params)
            mean = average(memory.mean, observation.acked_bits, self.config.window)
            seen = see(prepare(observation, mean, params), observation, params, self.config)
            told = {
                "bits": info["acked_bits"].sum(),
                "jain": jain_index(observation.throughput, observation.mask),
                "log_throughput": jnp.mean(
                    jnp.log(jnp.maximum(observation.throughput, 1.0)), where=observation.mask
                ),
            }
            return (observation, state, memory), (reward, told, seen)

        start = (observation, state, scheduler.init(params))
        return jax.lax.scan(slot, start, None, length=self.horizon)[1]


OPTIONS = {"fidelity": "shannon", "csi": "perfect", "num_cells": 2, "num_users": 3}
CASES = {
    1: Case(ControllerConfig("paper", 1), 8, **OPTIONS),
    5: Case(ControllerConfig("paper", 5), 20, **OPTIONS),
    "weighted": Case(ControllerConfig("weighted", 5), 20, num_cells=2, num_users=3),
}


@pytest.mark.parametrize(
    "name, rests",
    [
        (1, (False, False)),
        (1, (True, True)),
        (5, (False, False)),
        ("weighted", (False, False)),
        ("weighted", (True, False)),
    ],
)
def test_a_task_s_episodes_are_those_of_the_controller(name, rests):
    case = CASES[name]
    period = case.config.decision_period
    per_episode = case.horizon // period
    actors = case.actors(1)
    rest = [jnp.bool_(flag) for flag in rests]
    states, first, turn = case.run_task(actors, jax.random.key(5), *rest, case.params)
    ends = np.arange(1, case.steps + 1) % per_episode == 0
    np.testing.assert_array_equal(turn.truncated, ends)
    assert not np.asarray(turn.terminated).any()

    rewards = []
    for episode in range(EPISODES):
        # the second episode starts from what the automatic reset left
        start = jax.tree.map(lambda leaf, at=episode * per_episode: leaf[at], states)
        reward, told, seen = jax.device_get(
            case.run_controller(
                actors,
                start.episode.observation,
                start.episode.environment,
                case.params,
                rest_first=rests[0],
                rest_second=rests[1],
            )
        )
        steps = slice(episode * per_episode, (episode + 1) * per_episode)

        def by_step(values):
            return values.reshape(per_episode, period).mean(-1)

        np.testing.assert_allclose(turn.reward[steps], SCALE * by_step(reward), rtol=1e-5)
        for key, values in told.items():
            np.testing.assert_allclose(turn.info[key][steps], by_step(values), rtol=1e-5)
        # `final` is what the first agent would see next, and sees unless there was a reset
        last = seen.features[period - 1 :: period]
        np.testing.assert_allclose(turn.final.features[steps], last, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(turn.final.mask[steps], seen.mask[period - 1 :: period])
        rewards.append(reward)
    following, final = np.asarray(first.features)[1:], np.asarray(turn.final.features)[:-1]
    within = ~ends[:-1]
    np.testing.assert_allclose(following[within], final[within], rtol=1e-4, atol=1e-5)
    assert (following[ends[:-1]] != final[ends[:-1]]).any(axis=(1, 2, 3)).all()
    assert (rewards[0] != rewards[1]).any()


def test_an_episode_after_an_automatic_reset_starts_like_one_after_a_reset():
    case = CASES[1]
    rest = jnp.bool_(False)
    states, *_ = case.run_task(case.actors(1), jax.random.key(5), rest, rest, case.params)
    # the average has seen the slot before the first, in which nothing was acknowledged
    expected = float(case.params.initial_throughput) * (1 - 1 / case.config.window)
    for start in range(0, case.steps, case.horizon):
        np.testing.assert_allclose(states.episode.mean[start], expected, rtol=1e-6)
        assert int(states.episode.environment.time[start]) == 0


def test_agents_at_rest_make_a_difference():
    case = CASES[1]
    actors, key = case.actors(1), jax.random.key(5)
    returns = [
        float(case.run_task(actors, key, jnp.bool_(a), jnp.bool_(b), case.params)[2].reward.sum())
        for a, b in ((False, False), (True, False), (True, True))
    ]
    assert len(set(returns)) == 3


def test_a_horizon_that_cuts_a_decision_is_refused():
    case = CASES[5]
    params = case.params.replace(max_steps_in_episode=jnp.int32(21))
    with pytest.raises(ValueError, match="21 slots must be a multiple of the decision period, 5"):
        case.task.reset(jax.random.key(0), params)
