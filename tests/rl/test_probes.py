"""The learner solves every probe, several seeds and probes in one compiled program."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import probes
from jaxrl5g.rl.mappo import Hyper, MappoConfig, PhaseSettings, make_train, policy, rollout, value
from jaxrl5g.rl.normalisers import denormalise
from jaxrl5g.rl.two_turn import TwoTurnTask

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
CONFIG = MappoConfig(
    num_envs=16,
    rollout_steps=8,
    epochs=4,
    minibatches=2,
    actor_features=(16, 16),
    critic_features=(16, 16),
)
DISCOUNTS = np.float32([0.5, 0.7, 0.9])  # one for each seed


class Solved(NamedTuple):
    """What trained learners say of a rollout of their own, leaves [probe, seed, T, B, ...]."""

    signal: np.ndarray
    time: np.ndarray
    said: np.ndarray  # the first agent's latents
    first: np.ndarray  # modes
    second: np.ndarray
    first_value: np.ndarray  # in the reward's unit
    second_value: np.ndarray


def one_of(tasks: list[TwoTurnTask]) -> TwoTurnTask:
    """Tasks of equal shapes as one, whose parameters are the number of the task."""

    def pick(name: str):
        def call(*arguments):
            *rest, which = arguments
            branches = [lambda *a, task=task: getattr(task, name)(*a, None) for task in tasks]
            return jax.lax.switch(which, branches, *rest)

        return call

    return TwoTurnTask(pick("reset"), pick("first"), pick("second"), pick("step"))


def solve(tasks: list[TwoTurnTask], updates: int, train_first: list[bool]) -> Solved:
    """Train three seeds on each task, all at once."""
    task = one_of(tasks)

    def one(key, which, train_first, discount):
        hyper = Hyper(learning_rate=5e-3, discount=discount, value_beta=0.8)
        phase = PhaseSettings(train_first=train_first)
        state = make_train(task, CONFIG, ((updates, phase),))(key, which, hyper).state
        _, played = rollout(state, task, which, CONFIG, phase, state.key)
        params = state.params
        values = [
            denormalise(moments, value(params[name], seen, CONFIG))
            for moments, name, seen in (
                (state.first_moments, "first_critic", played.first),
                (state.second_moments, "second_critic", played.second),
            )
        ]
        features = played.first.features[..., 0, :, :]
        modes = [
            policy(params[name], seen, CONFIG).mode()[..., 0, :]
            for name, seen in (("first", played.first), ("second", played.second))
        ]
        said = played.first_latent[..., 0, :]
        return Solved(features[..., 0], features[..., 0, 1], said, *modes, *values)

    seeds = jax.vmap(one, (0, None, None, 0))
    both = jax.jit(jax.vmap(seeds, (None, 0, 0, None)), compiler_options=QUICK)
    keys = jax.random.split(jax.random.key(0), len(DISCOUNTS))
    found = both(keys, jnp.arange(len(tasks)), jnp.asarray(train_first), DISCOUNTS)
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def of_values() -> Solved:
    tasks = [
        probes.constant_value(),
        probes.constant_value(truncates=True),
        probes.predictable_reward(),
        probes.discounted_reward(),
    ]
    return solve(tasks, 80, [True] * len(tasks))


@pytest.fixture(scope="module")
def of_policies() -> Solved:
    tasks = [probes.follow_signal(0), probes.follow_signal(1), *[probes.cooperate()] * 2]
    return solve(tasks, 80, [True, True, True, False])


def both_values(found: Solved, probe: int) -> np.ndarray:
    """V1 and V2, [2, seed, T, B]."""
    return np.stack([found.first_value[probe], found.second_value[probe]])


DISCOUNT = DISCOUNTS[:, None, None]

# Values: a critic that were wrong in kind (no bootstrap, no discount, blind to its input) would be
# off by 0.1 at the least, V = 0.9 against 1; half of that is the tolerance.


def test_a_constant_value_is_found(of_values):
    np.testing.assert_allclose(both_values(of_values, 0), 1.0, atol=0.05)


def test_truncation_is_bootstrapped_through(of_values):
    expected = np.broadcast_to(1 / (1 - DISCOUNT), of_values.time[1].shape)  # 2, 3.3 and 10
    np.testing.assert_allclose(both_values(of_values, 1), [expected] * 2, rtol=0.05)


def test_a_reward_that_can_be_seen_is_predicted(of_values):
    signal = of_values.signal[2, ..., 0]
    assert {-1.0, 1.0} == set(signal.ravel())
    np.testing.assert_allclose(both_values(of_values, 2), [signal] * 2, atol=0.1)


def test_a_later_reward_is_discounted(of_values):
    time = of_values.time[3]
    assert {0.0, 1.0} == set(time.ravel())
    expected = np.where(time == 0, DISCOUNT, 1.0)
    np.testing.assert_allclose(both_values(of_values, 3), [expected] * 2, atol=0.05)


# Policies: latents to be told apart are 1 or more apart. An error of e costs e^2: at 0.1, 1 % of
# what an agent that says 0 loses.


@pytest.mark.parametrize("agent", [0, 1])
def test_either_agent_follows_the_signal(of_policies, agent):
    said = (of_policies.first, of_policies.second)[agent][agent]
    np.testing.assert_allclose(said, of_policies.signal[agent], atol=0.1)


def test_agents_learn_to_cooperate(of_policies):
    signal, said = of_policies.signal[2], of_policies.said[2]
    np.testing.assert_allclose(of_policies.first[2], signal / 2, atol=0.1)
    missed = of_policies.second[2] + said + signal
    assert np.sqrt(np.mean(missed**2)) < 0.1


def test_the_second_answers_what_the_first_really_did(of_policies):
    # The first stays as it began, at random: best answers spread by 0.37, which a second agent
    # that did not see them would miss.
    signal, said = of_policies.signal[3], of_policies.said[3]
    assert 0.3 < np.std(said) < 0.45 and np.abs(of_policies.first[3]).max() < 0.1
    missed = of_policies.second[3] + said + signal
    assert np.sqrt(np.mean(missed**2)) < 0.1
    # and neither critic mistakes the other's view: V2 knows more than V1, and V1 is its mean
    assert abs(of_policies.second_value[3].mean() - of_policies.first_value[3].mean()) < 0.1


latents = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), latents)
def test_the_best_policies_are_as_documented(seed, said):
    key = jax.random.key(seed)
    one, two = np.float32(said).reshape(2, 1, 2)

    def play(task, first, second):
        state = task.reset(key, None)
        _, plan = task.first(state, None)
        seen, plan = task.second(plan, first, jnp.bool_(False), None)
        np.testing.assert_array_equal(seen.features[0, :, 2], first[0])
        return task.step(key, state, plan, second, jnp.bool_(False), None)[1]

    for task, (first, second) in {
        probes.follow_signal(0): (1.0, None),
        probes.follow_signal(1): (None, 1.0),
        probes.cooperate(): (0.5, -1.5),
    }.items():
        signal = np.asarray(task.reset(key, None).signal)[None]
        best = play(
            task,
            one if first is None else first * signal,
            two if second is None else second * signal,
        )
        assert best.reward == 0 and best.terminated and not best.truncated
        assert play(task, one, two).reward <= 0


def test_an_agent_at_rest_says_nothing():
    key, loud = jax.random.key(1), jnp.full((1, 2), 7.0)
    task = probes.cooperate()
    state = task.reset(key, None)
    _, plan = task.first(state, None)
    seen, plan = task.second(plan, loud, jnp.bool_(True), None)
    turn = task.step(key, state, plan, loud, jnp.bool_(True), None)[1]
    assert not seen.features[0, :, 2].any()
    assert turn.reward == pytest.approx(-(0.5**2 + 1))


def test_episodes_end_as_named():
    key, still = jax.random.key(2), jnp.zeros((1, 1))
    step = partial(jax.tree.map, bool)
    for task, horizon, terminated in (
        (probes.constant_value(), 1, True),
        (probes.constant_value(truncates=True), 1, False),
        (probes.discounted_reward(), 2, True),
    ):
        state = task.reset(key, None)
        for number in range(horizon):
            _, plan = task.first(state, None)
            _, plan = task.second(plan, still, jnp.bool_(False), None)
            state, turn = task.step(key, state, plan, still, jnp.bool_(False), None)
            last = number == horizon - 1
            ends = step((turn.terminated, turn.truncated))
            assert ends == (last and terminated, last and not terminated)
            assert turn.final.features[0, 0, 1] == number + 1
        assert state.time == 0
