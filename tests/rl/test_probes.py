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
from jaxrl5g.rl.two_turn import Seen, TwoTurnTask

CONFIG = MappoConfig(
    num_envs=16,
    rollout_steps=8,
    epochs=4,
    minibatches=2,
    actor_features=(16, 16),
    critic_features=(16,),
)
DISCOUNTS = np.float32([0.5, 0.7, 0.9])  # one for each seed


class Solved(NamedTuple):
    """What trained learners say of a rollout of their own, leaves [probe, seed, T, B, ...]."""

    signal: np.ndarray  # of both elements; in tasks of one the second is masked
    time: np.ndarray
    said: np.ndarray  # the first agent's latents
    first: np.ndarray  # modes
    second: np.ndarray
    first_value: np.ndarray  # in the reward's unit
    second_value: np.ndarray


def paired(task: TwoTurnTask) -> TwoTurnTask:
    """A task of one element, with a second one that is masked: the shapes of the others."""

    def grow(tree):
        return jax.tree.map(lambda leaf: jnp.pad(leaf, (0, 1)) if leaf.ndim else leaf, tree)

    def cut(tree):
        return jax.tree.map(lambda leaf: leaf[:1] if leaf.ndim else leaf, tree)

    def wider(seen: Seen) -> Seen:
        add = ((0, 0), (0, 1))
        return Seen(jnp.pad(seen.features, (*add, (0, 0))), jnp.pad(seen.mask, add))

    def reset(key, params):
        return grow(task.reset(key, params))

    def first(state, params):
        seen, plan = task.first(cut(state), params)
        return wider(seen), grow(plan)

    def second(plan, latent, at_rest, params):
        seen, plan = task.second(cut(plan), latent[:, :1], at_rest, params)
        return wider(seen), grow(plan)

    def step(key, state, plan, latent, at_rest, params):
        state, turn = task.step(key, cut(state), cut(plan), latent[:, :1], at_rest, params)
        return grow(state), turn._replace(final=wider(turn.final))

    return TwoTurnTask(reset, first, second, step)


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
    both = jax.jit(jax.vmap(seeds, (None, 0, 0, None)))
    keys = jax.random.split(jax.random.key(0), len(DISCOUNTS))
    found = both(keys, jnp.arange(len(tasks)), jnp.asarray(train_first), DISCOUNTS)
    return jax.tree.map(np.asarray, found)


VALUES = ("constant", "truncated", "predictable", "discounted")
POLICIES = ("follow first", "follow second", "cooperate", "answer")


@pytest.fixture(scope="module")
def solved() -> dict[str, Solved]:
    tasks = [
        paired(probes.constant_value()),
        paired(probes.constant_value(truncates=True)),
        paired(probes.predictable_reward()),
        paired(probes.discounted_reward()),
        probes.follow_signal(0),
        probes.follow_signal(1),
        *[probes.cooperate()] * 2,
    ]
    names = VALUES + POLICIES
    found = solve(tasks, 80, [name != "answer" for name in names])
    return {name: Solved(*(leaf[i] for leaf in found)) for i, name in enumerate(names)}


def both_values(found: Solved) -> np.ndarray:
    """V1 and V2, [2, seed, T, B]."""
    return np.stack([found.first_value, found.second_value])


DISCOUNT = DISCOUNTS[:, None, None]

# Values: a critic that were wrong in kind (no bootstrap, no discount, blind to its input) would be
# off by 0.1 at the least, V = 0.9 against 1; half of that is the tolerance.


def test_a_constant_value_is_found(solved):
    np.testing.assert_allclose(both_values(solved["constant"]), 1.0, atol=0.05)


def test_truncation_is_bootstrapped_through(solved):
    found = solved["truncated"]
    expected = np.broadcast_to(1 / (1 - DISCOUNT), found.time.shape)  # 2, 3.3 and 10
    np.testing.assert_allclose(both_values(found), [expected] * 2, rtol=0.05)


def test_a_reward_that_can_be_seen_is_predicted(solved):
    found = solved["predictable"]
    signal = found.signal[..., 0]
    assert {-1.0, 1.0} == set(signal.ravel())
    missed = both_values(found) - signal
    # V2 also sees a latent that says nothing: a rare, large one may still move it
    assert np.sqrt(np.mean(missed**2)) < 0.05 and np.abs(missed).max() < 0.5


def test_a_later_reward_is_discounted(solved):
    found = solved["discounted"]
    assert {0.0, 1.0} == set(found.time.ravel())
    expected = np.where(found.time == 0, DISCOUNT, 1.0)
    np.testing.assert_allclose(both_values(found), [expected] * 2, atol=0.05)


# Policies: latents to be told apart are 1 or more apart. An error of e costs e^2: at 0.1, 1 % of
# what an agent that says 0 loses.


@pytest.mark.parametrize("agent", ["first", "second"])
def test_either_agent_follows_the_signal(solved, agent):
    found = solved[f"follow {agent}"]
    np.testing.assert_allclose(getattr(found, agent), found.signal, atol=0.1)


def test_agents_learn_to_cooperate(solved):
    found = solved["cooperate"]
    np.testing.assert_allclose(found.first, found.signal / 2, atol=0.1)
    missed = found.second + found.said + found.signal
    assert np.sqrt(np.mean(missed**2)) < 0.1


def test_the_second_answers_what_the_first_really_did(solved):
    # The first stays as it began, at random: best answers spread by 0.37, which a second agent
    # that did not see them would miss.
    found = solved["answer"]
    assert 0.3 < np.std(found.said) < 0.45 and np.abs(found.first).max() < 0.1
    missed = found.second + found.said + found.signal
    assert np.sqrt(np.mean(missed**2)) < 0.1


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
