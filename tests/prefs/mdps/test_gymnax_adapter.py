"""Any gymnax environment becomes a problem; nothing the learner gets tells the reward."""

from functools import partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.mdps import from_gymnax, tables


def play(env, params, key, length, reward_of):
    def body(state, key):
        by_action, by_step = jax.random.split(key)
        action = env.action_space(params).sample(by_action)
        observation, state, reward, terminated, truncated, info = env.step(
            by_step, state, action, params
        )
        final = info.pop("final_observation")
        told = (observation, terminated, truncated, final)
        return state, (told, reward, reward_of(state, reward), info)

    observation, state = env.reset(key, params)
    return observation, jax.lax.scan(body, state, jax.random.split(key, length))[1]


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_the_rollout_is_the_environments_own_without_its_reward(name):
    env, params = gymnax.make(name)
    params = params.replace(max_steps_in_episode=6)
    problem = from_gymnax(env, params)
    key = jax.random.key(0)
    run = partial(jax.jit, static_argnums=(0, 3, 4))(play)
    first, (told, reward, _, _) = run(env, params, key, 15, lambda state, reward: reward)
    same_first, (same_told, shown, truth, info) = run(
        problem.env, problem.params, key, 15, lambda state, reward: problem.env.true_reward(state)
    )
    for one, other in zip(
        jax.tree.leaves((first, told)), jax.tree.leaves((same_first, same_told)), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-6)
    assert (np.asarray(shown) == 0).all()
    assert info == {}
    # the truth is there for the judge, in steps that end an episode as in others
    assert bool(told[2][5])
    np.testing.assert_allclose(truth, reward, rtol=1e-6)
    assert (np.asarray(truth) != 0).all()


def test_a_visible_reward():
    env, params = gymnax.make("CartPole-v1")
    problem = from_gymnax(env, hidden_reward=False)
    _, state = problem.env.reset(jax.random.key(0), problem.params)
    result = jax.jit(problem.env.step)(jax.random.key(1), state, jnp.int32(0), problem.params)
    assert float(result[2]) == 1 == float(problem.env.true_reward(result[1]))
    assert problem.env.name == "CartPole-v1"
    observation_space = problem.env.observation_space(problem.params)
    assert observation_space.shape == env.observation_space(params).shape


def test_bad_input():
    with pytest.raises(ValueError, match="expected a gymnax environment, got str"):
        from_gymnax("CartPole-v1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="CartPole-v1 has no tables"):
        tables(from_gymnax(gymnax.make("CartPole-v1")[0]))
