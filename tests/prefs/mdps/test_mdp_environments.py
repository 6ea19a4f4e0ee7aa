"""Every registered problem keeps gymnax's contract, and rolls its own tables out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.mdps import (
    EpisodicMDP,
    Problem,
    TabularMDP,
    TabularState,
    episodic_problem,
    fixed_grid,
    make,
    registered,
    river_swim,
    tables,
    tabular_problem,
)

STEPS = 5
FINITE = [name for name in registered() if name != "PointMaze-v0"]


def short(problem_id: str) -> Problem:
    problem = make(problem_id)
    if hasattr(problem.params, "max_steps_in_episode"):
        steps = problem.params.replace(max_steps_in_episode=jnp.int32(STEPS))
        return problem.replace(params=steps)
    mdp = tables(problem)
    cut = [leaf[:STEPS] for leaf in (mdp.transition, mdp.reward)]
    return episodic_problem(
        mdp.replace(transition=cut[0], reward=cut[1], features=mdp.features[:STEPS])
    )


def rollout(key, problem, length):
    """Everything that random actions bring."""
    env, params = problem.env, problem.params
    action_space, space = env.action_space(params), env.observation_space(params)

    def body(carry, key):
        observation, state = carry
        by_action, by_step = jax.random.split(key)
        action = action_space.sample(by_action)
        result = env.step(by_step, state, action, params)
        inside = space.contains(result[0]) & space.contains(result[5]["final_observation"])
        return result[:2], (observation, action, result, inside)

    first = env.reset(key, params)
    return first, jax.lax.scan(body, first, jax.random.split(key, length))[1]


ROLLOUTS = jax.jit(jax.vmap(rollout, (0, None, None)), static_argnums=2)


@pytest.mark.parametrize("problem_id", registered())
def test_registered_problems_keep_the_contract(problem_id):
    problem = short(problem_id)
    horizon = STEPS
    if isinstance(problem.params, type(make("RandomEpisodic-v0").params)):
        horizon = tables(problem).horizon
    together = ROLLOUTS(jax.random.split(jax.random.key(0), 3), problem, 2 * horizon + 1)
    alone = jax.tree.map(lambda leaf: leaf[1], together)
    (first, state), (seen, action, result, inside) = alone
    assert inside.all()
    assert len(result) == 6
    following, states, reward, terminated, truncated, info = result
    for one, many in ((first, seen), (first, following), (first, info["final_observation"])):
        assert many.shape[1:] == one.shape and many.dtype == one.dtype
    for one, many in zip(jax.tree.leaves(state), jax.tree.leaves(states), strict=True):
        assert many.shape[1:] == one.shape and many.dtype == one.dtype
    assert reward.shape == terminated.shape == truncated.shape == (2 * horizon + 1,)
    assert terminated.dtype == truncated.dtype == bool
    assert np.isfinite(reward).all()

    at_horizon = np.arange(1, 2 * horizon + 2) % horizon == 0
    over, cut = (terminated, truncated)[:: 1 if isinstance(_tables(problem), EpisodicMDP) else -1]
    assert (over == at_horizon).all() and not cut.any()
    assert (states.time == np.arange(1, 2 * horizon + 2) % horizon).all()
    # between ends an observation is what the last step left, and the final one is not the reset's
    np.testing.assert_array_equal(seen[1:], following[:-1])
    final = info["final_observation"]
    np.testing.assert_array_equal(final[~at_horizon], following[~at_horizon])


@pytest.mark.parametrize("problem_id", ["RiverSwim-v0", "RandomEpisodic-v0", "PointMaze-v0"])
def test_many_rollouts_are_what_each_is_alone(problem_id):
    """And a second seed or problem of the same kind compiles nothing."""
    problem = short(problem_id)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def alone(key, problem):
        return rollout(key, problem, 7)

    keys = jax.random.split(jax.random.key(0), 3)
    together = ROLLOUTS(keys, problem, 7)
    for index in range(3):
        single = alone(keys[index], problem)
        for one, many in zip(jax.tree.leaves(single), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(np.asarray(many)[index], one, rtol=1e-6, atol=1e-6)


def _tables(problem):
    return None if problem.env.name == "PointMaze" else tables(problem)


@pytest.mark.parametrize("problem_id", FINITE)
def test_finite_problems_have_tables(problem_id):
    assert isinstance(tables(make(problem_id)), TabularMDP | EpisodicMDP)


def test_a_maze_has_no_tables():
    with pytest.raises(ValueError, match="PointMaze has no tables"):
        tables(make("PointMaze-v0"))


def frequencies(following: np.ndarray, expected: np.ndarray) -> None:
    """Draws [n, ...] against probabilities [..., S], within 5 standard errors; never impossible."""
    num = following.shape[0]
    found = np.stack([(following == s).mean(0) for s in range(expected.shape[-1])], -1)
    error = np.sqrt(expected * (1 - expected) / num)
    assert (np.abs(found - expected) <= 5 * error + 1e-6).all()
    assert (found[expected == 0] == 0).all()


def steps(problem, time, states, actions):
    """Draws [n, pairs] of (observation, reward, terminated) from every pair."""

    def one(key, state, action):
        here = TabularState(state, jnp.int32(time))
        observation, _, reward, terminated, _ = problem.env.step_env(
            key, here, action, problem.params
        )
        return observation, reward, terminated

    keys = jax.random.split(jax.random.key(time), (2000, states.size))
    return map(np.asarray, jax.jit(jax.vmap(jax.vmap(one), (0, None, None)))(keys, states, actions))


def test_steps_follow_the_discounted_tables():
    problem = make("RiverSwim-v0")
    mdp = tables(problem)
    states, actions = np.divmod(np.arange(12), 2)
    following, reward, terminated = steps(problem, 0, states, actions)
    frequencies(following, np.asarray(mdp.transition)[states, actions])
    np.testing.assert_array_equal(reward[0], mdp.reward[states, actions])
    assert not terminated.any()


def test_steps_follow_the_episodic_tables():
    problem = make("RandomEpisodic-v0")
    mdp = tables(problem)
    states, actions = np.divmod(np.arange(12), 3)
    for time in (0, 2):
        following, reward, terminated = steps(problem, time, states, actions)
        assert (following // 4 == time + 1).all()
        frequencies(following % 4, np.asarray(mdp.transition)[time, states, actions])
        np.testing.assert_array_equal(reward[0], mdp.reward[time, states, actions])
        assert (terminated == (time == 2)).all()


def test_resets_follow_the_initial_distribution():
    mdp = fixed_grid().replace(
        initial=jnp.zeros(25).at[jnp.array([3, 7])].set(jnp.array([0.2, 0.8]))
    )
    problem = tabular_problem(mdp)
    reset = jax.jit(jax.vmap(problem.env.reset, (0, None)))
    observation, _ = reset(jax.random.split(jax.random.key(0), 2000), problem.params)
    frequencies(np.asarray(observation), np.asarray(mdp.initial))


def test_actions_out_of_range_count_as_the_nearest():
    problem = make("RiverSwim-v0")
    step = jax.jit(problem.env.step)
    start = TabularState(jnp.int32(0), jnp.int32(0))
    key = jax.random.key(0)
    for given, meant in ((-3, 0), (9, 1)):
        one = step(key, start, jnp.int32(given), problem.params)
        other = step(key, start, jnp.int32(meant), problem.params)
        chex.assert_trees_all_equal(one, other)


def test_problems_of_a_kind_stack():
    problems = [tabular_problem(river_swim(4, discount)) for discount in (0.5, 0.9)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    assert isinstance(stack, Problem)
    np.testing.assert_allclose(tables(stack).discount, [0.5, 0.9])
    built = jax.vmap(lambda discount: tabular_problem(river_swim(4, discount)))(jnp.ones(3) / 2)
    assert tables(built).discount.shape == (3,)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="transition must sum to 1"):
        tabular_problem(river_swim().replace(transition=river_swim().transition * 2))
    with pytest.raises(ValueError, match="reward must be finite"):
        mdp = tables(make("RandomEpisodic-v0"))
        episodic_problem(mdp.replace(reward=mdp.reward * jnp.nan))
    with pytest.raises(ValueError, match="expected a EpisodicMDP, got TabularMDP"):
        episodic_problem(river_swim())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_steps_in_episode must be at least 1, got 0"):
        tabular_problem(river_swim(), 0)
