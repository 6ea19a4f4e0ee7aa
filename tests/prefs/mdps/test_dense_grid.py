"""The maze's reference: closed forms, its own equations, rollouts, and refinement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from prefs.mdps import (
    at_goal,
    free_nodes,
    greedy_action,
    make,
    maze_advantage,
    maze_reward,
    maze_value,
    move,
    observe,
    point_maze,
    position_of,
    river_swim,
    soft_action,
    solve_maze,
    tabular_problem,
)
from prefs.mdps.dense_grid import action_nodes

ALPHA = 0.1
MAZE = make("PointMaze-v0")
value, advantage = jax.jit(maze_value), jax.jit(maze_advantage)


@pytest.fixture(scope="module")
def reference():
    return solve_maze(MAZE, ALPHA, nodes_per_cell=8, actions_per_axis=5)


STARTS = jax.jit(jax.vmap(MAZE.env.reset, (0, None)))


def starts(problem):
    """64 observations and states."""
    return STARTS(jax.random.split(jax.random.key(0), 64), problem.params)


def gaussian_log_integral(cost: float, alpha: float) -> float:
    """alpha log of the integral of exp(-cost |a|^2 / alpha) over [-1, 1]^2."""
    width = np.sqrt(cost / alpha)
    return 2 * alpha * np.log(np.sqrt(np.pi) / width * scipy.special.erf(width))


def test_without_a_future_the_value_is_a_closed_form():
    problem = point_maze(discount=0.0, action_cost=0.3)
    exact = gaussian_log_integral(0.3, ALPHA)
    observation, state = starts(problem)
    squares = ((np.asarray(state.position) - np.asarray(problem.params.goals)) ** 2).sum(-1)
    near = np.exp(-squares / (2 * 0.25))
    errors = []
    for actions in (5, 15):
        found = value(solve_maze(problem, ALPHA, 1, actions), observation)
        errors.append(np.abs(np.asarray(found) - near - exact).max())
    assert errors[1] < 2e-4
    assert errors[0] / errors[1] > 6  # the midpoint rule is of second order: 9


def test_no_value_leaks_through_a_wall():
    """In a sealed room far from any goal an optimal action only avoids its cost."""
    layout = ("#######", "#..#..#", "#..#.G#", "####..#", "#.....#", "#.....#", "#######")
    problem = point_maze(layout, goal_width=0.2, action_cost=0.3, discount=0.9)
    reference = solve_maze(problem, ALPHA, 2, 5)
    cost = 0.3 * (action_nodes(5) ** 2).sum(-1)
    alone = ALPHA * scipy.special.logsumexp(-cost / ALPHA + np.log(4 / 25)) / (1 - 0.9)
    room = np.asarray(reference.node_values)[2:7, 2:7]  # rows and columns 1 to 3, walls' faces too
    np.testing.assert_allclose(room, alone, rtol=1e-4)
    assert float(reference.node_values[4, 11]) > alone + 1  # at the goal


def test_values_solve_the_soft_equations_at_the_nodes(reference):
    observation, free = free_nodes(reference)
    walls = np.asarray(MAZE.params.walls)
    touching = np.zeros((57, 57), bool)
    for row, column in np.argwhere(~walls):
        touching[8 * row : 8 * row + 9, 8 * column : 8 * column + 9] = True
    np.testing.assert_array_equal(np.asarray(free).reshape(57, 57), touching)
    v = np.asarray(reference.node_values).ravel()
    np.testing.assert_allclose(value(reference, observation)[free], v[free], atol=2e-4)
    assert (v[~np.asarray(free)] == 0).all()


def test_advantages_are_the_log_density_of_the_policy(reference):
    observation, _ = starts(MAZE)
    actions = jnp.asarray(action_nodes(5), jnp.float32)
    a = np.asarray(advantage(reference, observation[:, None], actions), np.float64)
    np.testing.assert_allclose((np.exp(a / ALPHA) * 4 / 25).sum(-1), 1, rtol=2e-3)


@jax.jit
def trace(reference, state, key, soft):
    """Positions, rewards and log densities of 120 steps from a position."""

    def body(position, key):
        observation = observe(position, reference.params)
        drawn = soft_action(key, reference, observation)
        action = jnp.where(soft, drawn, greedy_action(reference, observation))
        paid = maze_reward(position, action, reference.params)
        # the drawn action's density is constant over the square of its node
        nodes = jnp.asarray(action_nodes(reference.actions_per_axis), action.dtype)
        node = nodes[jnp.argmin(jnp.sum(jnp.square(nodes - action), -1))]
        spent = maze_advantage(reference, observation, node)
        return move(position, action, reference.params), (position, paid, spent)

    return jax.lax.scan(body, state, jax.random.split(key, 120))[1]


traces = jax.jit(jax.vmap(trace, (None, 0, 0, None)))


def test_the_reference_policy_reaches_the_goal_from_everywhere(reference):
    _, state = starts(MAZE)
    keys = jax.random.split(jax.random.key(1), 64)
    positions, _, _ = traces(reference, state.position, keys, False)
    arrived = jax.vmap(jax.vmap(at_goal, (0, None)), (0, None))(positions, MAZE.params)
    assert arrived[:, 60:].all()
    assert not arrived[:, 0].all()


def test_rollouts_of_the_soft_policy_earn_its_value(reference):
    observation, state = starts(MAZE)
    keys = jax.random.split(jax.random.key(2), 64)
    _, paid, spent = traces(reference, state.position, keys, True)
    weights = 0.95 ** np.arange(120)
    earned = ((np.asarray(paid) - np.asarray(spent)) * weights).sum(-1)
    expected = np.asarray(value(reference, observation))
    # the tail of 120 steps is 0.2 % of the value; the rest is the error of the grid
    assert abs(earned.mean() / expected.mean() - 1) < 0.03
    assert np.corrcoef(earned, expected)[0, 1] > 0.98


def test_refinement_converges(reference):
    """Halving the grid's step brings every value closer to that of a finer grid."""
    observation, _ = starts(MAZE)
    fine = np.asarray(value(reference, observation))
    coarse = [np.asarray(value(solve_maze(MAZE, ALPHA, n, 5), observation)) for n in (2, 4)]
    errors = [np.abs(found - fine).max() for found in coarse]
    assert errors[0] > 2 * errors[1]
    assert errors[1] < 0.05 * fine.max()


def test_temperatures_stack():
    problem = point_maze(("####", "#.G#", "#..#", "####"), discount=0.5)
    temperatures = jnp.array([0.1, 0.5])
    together = jax.vmap(lambda alpha: solve_maze(problem, alpha, 2, 3).node_values)(temperatures)
    for index in range(2):
        alone = solve_maze(problem, temperatures[index], 2, 3).node_values
        np.testing.assert_allclose(together[index], alone, rtol=1e-5, atol=1e-6)
    broken = solve_maze(problem, -0.1, 2, 3).node_values
    assert np.isnan(broken).any()


def test_positions_come_back_from_observations():
    positions = jnp.array([[1.0001, 5.9999], [3.5, 2.0]])
    np.testing.assert_allclose(
        position_of(observe(positions, MAZE.params), MAZE.params), positions, atol=1e-6
    )


def test_bad_input():
    with pytest.raises(ValueError, match="solve_maze wants a point maze, got TabularEnv"):
        solve_maze(tabular_problem(river_swim()), ALPHA)
    with pytest.raises(ValueError, match="nodes_per_cell must be at least 1, got 0"):
        solve_maze(MAZE, ALPHA, 0)
    with pytest.raises(ValueError, match="actions_per_axis must be odd and positive, got 4"):
        solve_maze(MAZE, ALPHA, 2, 4)
