"""The maze's dynamics: walls hold, motion is what it says, bad input is survived or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.mdps import at_goal, maze_reward, move, observe, point_maze, position_of
from prefs.mdps.point_maze import CLEARANCE, MAZE, MazeParams, clear_of_walls

OPEN = ("#######", "#.....#", "#.....#", "#..G..#", "#.....#", "#.....#", "#######")
PARAMS = point_maze().params
step = jax.jit(move)
reward = jax.jit(maze_reward)
reset = jax.jit(jax.vmap(point_maze().env.reset, (0, None)))


@jax.jit
def walk(position, actions, params):
    """Positions [T + 1, 2] from a start and actions [T, 2]."""

    def body(position, action):
        position = move(position, action, params)
        return position, position

    rest = jax.lax.scan(body, position, actions)[1]
    return jnp.concatenate([position[None], rest])


def in_wall(walls: np.ndarray, points: np.ndarray) -> np.ndarray:
    row, column = np.floor(points).astype(int).T
    return walls[row, column]


def assert_never_in_a_wall(walls: np.ndarray, positions: np.ndarray) -> None:
    """Neither where the point stops nor anywhere on its way: rows first, then columns."""
    share = np.linspace(0, 1, 21)[:, None, None]
    before, after = positions[:-1], positions[1:]
    corner = np.stack([after[:, 0], before[:, 1]], -1)
    for start, end in ((before, corner), (corner, after)):
        points = start + share * (end - start)
        assert not in_wall(walls, points.reshape(-1, 2)).any()
    for axis in (0, 1):  # and keeps its distance
        for side in (-1, 1):
            offset = np.zeros(2)
            offset[axis] = side * 0.9 * CLEARANCE
            assert not in_wall(walls, positions[1:] + offset).any()


mazes = st.lists(st.booleans(), min_size=25, max_size=25)
speeds = st.sampled_from([0.05, 0.5, 0.999999, 1.0])
styles = st.sampled_from(["uniform", "extreme", "straight"])


@given(mazes, st.integers(0, 2**20), speeds, styles)
@settings(max_examples=60, deadline=None)
def test_walls_are_never_crossed(cells, seed, speed, style):
    walls = np.ones((7, 7), bool)
    walls[1:6, 1:6] = np.reshape(cells, (5, 5))
    walls[3, 3] = False
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (200, 2))
    if style == "extreme":
        actions = np.sign(actions) * rng.choice([1.0, 50.0, np.inf], (200, 2))
    if style == "straight":
        actions = np.repeat(np.sign(actions[::10]), 10, 0)
    free = np.argwhere(~walls)
    start = free[rng.integers(len(free))] + rng.choice([0.0, 1e-7, 0.5, 0.99999], 2)
    params = PARAMS.replace(walls=jnp.asarray(walls), speed=jnp.float32(speed))
    position = clear(jnp.float32(start), params.walls)
    path = np.asarray(walk(position, jnp.float32(actions), params), np.float64)
    assert_never_in_a_wall(walls, path)


clear = jax.jit(clear_of_walls)


def test_a_sealed_room_is_never_left():
    layout = ("#######", "#..#..#", "#..#.G#", "####..#", "#.....#", "#.....#", "#######")
    params = point_maze(layout).params
    starts = jax.random.uniform(jax.random.key(0), (64, 2), minval=1.001, maxval=2.999)
    actions = jax.random.uniform(jax.random.key(1), (64, 300, 2), minval=-3, maxval=3)
    paths = np.asarray(jax.jit(jax.vmap(walk, (0, 0, None)))(starts, actions, params))
    assert (paths >= 1).all() and (paths < 3).all()
    assert np.ptp(paths, axis=(0, 1)).min() > 1.9


@given(st.tuples(*[st.floats(-1, 1)] * 2), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_free_motion_adds_speed_times_action(action, speed):
    params = point_maze(OPEN).params.replace(speed=jnp.float32(speed))
    found = step(jnp.array([3.3, 2.8]), jnp.float32(action), params)
    np.testing.assert_allclose(found, [3.3, 2.8] + speed * np.array(action), atol=1e-5)


def test_walls_stop_and_let_slide():
    params = point_maze(OPEN).params
    down_right = step(jnp.array([5.8, 2.0]), jnp.array([1.0, 0.5]), params)
    np.testing.assert_allclose(down_right, [6 - CLEARANCE, 2.25], atol=2e-6)
    up = step(jnp.array([1.2, 2.0]), jnp.array([-1.0, 0.0]), params)
    np.testing.assert_allclose(up, [1 + CLEARANCE, 2.0], atol=2e-6)
    into_corner = step(jnp.array([1.2, 5.9]), jnp.array([-1.0, 1.0]), params)
    np.testing.assert_allclose(into_corner, [1 + CLEARANCE, 6 - CLEARANCE], atol=2e-6)


def test_actions_out_of_range_or_not_finite():
    position = jnp.array([3.5, 2.5])
    for given_action, meant in (
        ([7.0, -7.0], [1.0, -1.0]),
        ([jnp.nan, 0.5], [0.0, 0.5]),
        ([jnp.inf, -jnp.inf], [0.0, 0.0]),
    ):
        given_action, meant = jnp.array(given_action), jnp.array(meant)
        np.testing.assert_array_equal(
            step(position, given_action, PARAMS), step(position, meant, PARAMS)
        )
        assert reward(position, given_action, PARAMS) == reward(position, meant, PARAMS)


def test_rewards_by_hand():
    layout = ("#####", "#G..#", "#...#", "#..G#", "#####")
    params = point_maze(layout, goal_width=0.7, action_cost=0.2).params
    np.testing.assert_allclose(params.goals, [[1.5, 1.5], [3.5, 3.5]])
    position, action = np.array([1.2, 2.4]), np.array([0.5, -1.0])
    squares = ((position - np.asarray(params.goals)) ** 2).sum(-1)
    expected = np.exp(-squares / (2 * 0.49)).sum() - 0.2 * 1.25
    found = reward(jnp.float32(position), jnp.float32(action), params)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    near = [bool(at_goal(jnp.array(p), params)) for p in ([1.5, 2.1], [1.5, 2.3], [3.1, 3.1])]
    assert near == [True, False, True]


def test_episodes_start_anywhere_free():
    keys = jax.random.split(jax.random.key(0), 3000)
    observation, state = reset(keys, PARAMS)
    positions = np.asarray(state.position)
    walls = np.asarray(PARAMS.walls)
    assert not in_wall(walls, positions).any()
    free = np.argwhere(~walls)
    counts = [(np.floor(positions) == cell).all(-1).mean() for cell in free]
    error = np.sqrt((1 - 1 / len(free)) / len(free) / 3000)
    assert np.abs(np.array(counts) - 1 / len(free)).max() < 5 * error
    np.testing.assert_allclose(np.mean(positions % 1, 0), 0.5, atol=0.03)
    np.testing.assert_allclose(position_of(observation, PARAMS), positions, atol=1e-5)


@given(st.tuples(*[st.floats(0, 7)] * 2))
@settings(max_examples=30, deadline=None)
def test_observations_are_positions_scaled(position):
    seen = np.asarray(observe(jnp.float32(position), PARAMS))
    np.testing.assert_allclose(seen, np.array(position) / 3.5 - 1, atol=1e-6)


def test_settings_vary_under_vmap():
    speeds = jnp.array([0.1, 0.3])
    many = jax.vmap(lambda speed: PARAMS.replace(speed=speed))(speeds)
    axes = MazeParams(*[0] * 7)
    moved = jax.jit(jax.vmap(move, (None, None, axes)))(
        jnp.array([3.5, 2.5]), jnp.array([0.0, 1.0]), many
    )
    np.testing.assert_allclose(moved, [[3.5, 2.6], [3.5, 2.8]], rtol=1e-5)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (("####", "#.G#", "###"), {}, "layout must be at least 3 rows of one length"),
        ((), {}, "layout must be at least 3 rows"),
        (("", "", ""), {}, "layout must be at least 3 rows"),
        (("####", "#xG#", "####"), {}, "layout knows '#', '.' and 'G', got 'x'"),
        (("####", "#.G.", "####"), {}, "walls all along its border"),
        (("####", "#..#", "####"), {}, "at least one goal 'G'"),
        (
            ("####", "#.##", "##G#", "####"),
            {},
            "only at a corner, in rows 1 and 2, columns 1 and 2",
        ),
        (("####", "##.#", "#G##", "####"), {}, "only at a corner"),
        (MAZE, {"speed": 1.5}, "speed must be finite and in (0, 1], got 1.5"),
        (MAZE, {"goal_width": 0.0}, "goal_width must be finite and positive, got 0.0"),
        (MAZE, {"action_cost": np.nan}, "action_cost must be finite and at least 0"),
        (MAZE, {"action_cost": np.inf}, "action_cost must be finite and at least 0"),
        (MAZE, {"discount": 1.0}, "discount must be finite and in [0, 1), got 1.0"),
        (MAZE, {"max_steps_in_episode": 0}, "max_steps_in_episode must be finite and at least 1"),
    ],
)
def test_mazes_that_cannot_be(layout, options, message):
    with pytest.raises(ValueError) as caught:
        point_maze(layout, **options)
    assert message in str(caught.value)
