"""A point in a maze: continuous positions and actions, walls that stop it, goals that pay.

The point is overdamped: an action sets its velocity, so a position is the whole state and a grid
over positions can answer exactly (`dense_grid`). Coordinates are (row, column) in cells, rows
counted downwards; walls fill whole cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from prefs.mdps.environment import Problem

# Free space of a body that has none: keeps rounding from putting a point into a wall, in cells.
CLEARANCE = 1e-4

MAZE = (
    "#######",
    "#..#..#",
    "#..#..#",
    "#.....#",
    "#..##.#",
    "#..#.G#",
    "#######",
)


class MazeParams(struct.PyTreeNode):
    """A maze.

    Attributes:
      walls: bool[R, C], true where a cell is wall; the border is.
      goals: [G, 2], positions.
      goal_width: [], standard width of the reward around a goal, in cells; within it counts as
        success.
      speed: [], cells per step at full action, up to 1.
      action_cost: [], reward lost per squared length of the action.
      discount: [], in [0, 1).
      max_steps_in_episode: int32[].
    """

    walls: jax.Array
    goals: jax.Array
    goal_width: jax.Array
    speed: jax.Array
    action_cost: jax.Array
    discount: jax.Array
    max_steps_in_episode: jax.Array


class MazeState(struct.PyTreeNode):
    """`position` [2] in cells after `time` int32[] steps."""

    position: jax.Array
    time: jax.Array


def point_maze(
    layout: Sequence[str] = MAZE,
    goal_width: float = 0.5,
    speed: float = 0.5,
    action_cost: float = 0.05,
    discount: float = 0.95,
    max_steps_in_episode: int = 100,
) -> Problem:
    """A maze from a picture: "#" is wall, "." is free and "G" is free with a goal in its middle.

    Reward of an action in a position: sum over goals of exp(-d^2 / (2 goal_width^2)), with d the
    distance in cells, less action_cost |action|^2. Goals do not end anything. Episodes start at a
    uniformly random free position. Numbers vary under vmap by `params.replace`.

    Raises:
      ValueError: rows of different lengths, an unknown letter, a border that is not all wall, no
        goal, free cells that meet only at a corner, or a number out of range.
    """
    if len(layout) < 3 or len(layout[0]) < 3 or len({len(row) for row in layout}) != 1:
        raise ValueError("layout must be at least 3 rows of one length of at least 3.")
    letters = np.array([list(row) for row in layout])
    unknown = set(letters.ravel()) - set("#.G")
    if unknown:
        raise ValueError(f"layout knows '#', '.' and 'G', got '{min(unknown)}'.")
    walls = letters == "#"
    if not (walls[[0, -1]].all() and walls[:, [0, -1]].all()):
        raise ValueError("layout must have walls all along its border.")
    if not (letters == "G").any():
        raise ValueError("layout must have at least one goal 'G'.")
    _check_corners(walls)
    numbers = {
        "goal_width": goal_width,
        "speed": speed,
        "action_cost": action_cost,
        "discount": discount,
        "max_steps_in_episode": max_steps_in_episode,
    }
    rules = (
        ("goal_width", lambda x: x > 0, "positive"),
        ("speed", lambda x: 0 < x <= 1, "in (0, 1]"),
        ("action_cost", lambda x: x >= 0, "at least 0"),
        ("discount", lambda x: 0 <= x < 1, "in [0, 1)"),
        ("max_steps_in_episode", lambda x: x >= 1, "at least 1"),
    )
    for name, holds, wanted in rules:
        if not (holds(numbers[name]) and np.isfinite(numbers[name])):
            raise ValueError(f"{name} must be finite and {wanted}, got {numbers[name]}.")
    steps = jnp.asarray(numbers.pop("max_steps_in_episode"), jnp.int32)
    params = MazeParams(
        walls=jnp.asarray(walls),
        goals=jnp.asarray(np.argwhere(letters == "G") + 0.5, float),
        max_steps_in_episode=steps,
        **{name: jnp.asarray(number, float) for name, number in numbers.items()},
    )
    return Problem(PointMaze(), params)


def move(position: jax.Array, action: jax.Array, params: MazeParams) -> jax.Array:
    """[2] where an action [2] in [-1, 1] leads: along the rows, then along the columns.

    A wall stops the motion towards it and lets the other one slide along it. Actions are clipped to
    [-1, 1]; a component that is not finite counts as 0.
    """
    step = jnp.clip(params.speed, 0, 1) * clipped(action)
    for axis in (0, 1):
        position = _slide(position, axis, step[axis], params.walls)
    return clear_of_walls(position, params.walls)


def maze_reward(position: jax.Array, action: jax.Array, params: MazeParams) -> jax.Array:
    """[] reward of an action [2] in a position [2]; the formula of `point_maze`."""
    squares = jnp.sum(jnp.square(position - params.goals), -1)
    near = jnp.sum(jnp.exp(-squares / (2 * jnp.square(params.goal_width))))
    return near - params.action_cost * jnp.sum(jnp.square(clipped(action)))


def at_goal(position: jax.Array, params: MazeParams) -> jax.Array:
    """bool[]: is a position [2] within `goal_width` of a goal?"""
    squares = jnp.sum(jnp.square(position - params.goals), -1)
    return jnp.any(squares <= jnp.square(params.goal_width))


def observe(position: jax.Array, params: MazeParams) -> jax.Array:
    """[..., 2] observations in [-1, 1] of positions [..., 2]: the maze scaled to a square."""
    return 2 * position / jnp.array(params.walls.shape, position.dtype) - 1


def position_of(observation: jax.Array, params: MazeParams) -> jax.Array:
    """[..., 2] positions in cells, from observations [..., 2]."""
    return (observation + 1) / 2 * jnp.array(params.walls.shape, observation.dtype)


def clipped(action: jax.Array) -> jax.Array:
    """[2] what an action counts as."""
    return jnp.clip(jnp.where(jnp.isfinite(action), action, 0), -1, 1)


def clear_of_walls(position: jax.Array, walls: jax.Array) -> jax.Array:
    """[2] a position in a free cell, moved at most `CLEARANCE` away from the cell's walls."""
    cell = _cell(position)
    for axis in (0, 1):
        side = jnp.zeros(2, jnp.int32).at[axis].set(1)
        low = jnp.where(_is_wall(walls, cell - side), cell[axis] + CLEARANCE, -jnp.inf)
        high = jnp.where(_is_wall(walls, cell + side), cell[axis] + 1 - CLEARANCE, jnp.inf)
        position = position.at[axis].set(jnp.clip(position[axis], low, high))
    return position


def _slide(position: jax.Array, axis: int, step: jax.Array, walls: jax.Array) -> jax.Array:
    """Moves along one axis, by at most one cell."""
    cell = _cell(position)
    target = position.at[axis].add(step)
    # a step of a whole cell may round into the cell after the next
    index = jnp.clip(_cell(target)[axis], cell[axis] - 1, cell[axis] + 1)
    free = ~_is_wall(walls, cell.at[axis].set(index))
    low, high = cell[axis] + CLEARANCE, cell[axis] + 1 - CLEARANCE
    return jnp.where(free, target, position.at[axis].set(jnp.clip(target[axis], low, high)))


def _cell(position: jax.Array) -> jax.Array:
    return jnp.floor(position).astype(jnp.int32)


def _is_wall(walls: jax.Array, cell: jax.Array) -> jax.Array:
    # the border is wall, so a cell outside stands for one of it
    return walls[jnp.clip(cell[0], 0, walls.shape[0] - 1), jnp.clip(cell[1], 0, walls.shape[1] - 1)]


def _check_corners(walls: np.ndarray) -> None:
    free = ~walls
    here, right, below, across = free[:-1, :-1], free[:-1, 1:], free[1:, :-1], free[1:, 1:]
    pinched = (here & across & ~right & ~below) | (~here & ~across & right & below)
    if pinched.any():
        row, column = (int(i) for i in np.argwhere(pinched)[0])
        raise ValueError(
            f"layout has free cells that meet only at a corner, in rows {row} and {row + 1}, "
            f"columns {column} and {column + 1}."
        )


@dataclasses.dataclass(frozen=True)
class PointMaze(environment.Environment):
    """The maze to roll out: observations [2] in [-1, 1], actions [2] in [-1, 1].

    The horizon truncates and nothing terminates. `info["at_goal"]` bool[] says whether the new
    position is within `goal_width` of a goal.
    """

    def reset_env(self, key: jax.Array, params: MazeParams) -> tuple[jax.Array, MazeState]:
        by_cell, by_place = jax.random.split(key)
        walls = params.walls
        index = jax.random.categorical(by_cell, jnp.where(walls.ravel(), -jnp.inf, 0))
        cell = jnp.stack(jnp.divmod(index, walls.shape[1]))
        place = jax.random.uniform(by_place, (2,), params.goals.dtype)
        # 1 - 2^-24 more than a few cells away rounds up to the next cell
        inside = cell + jnp.clip(place, CLEARANCE, 1 - CLEARANCE)
        position = clear_of_walls(inside, walls)
        return observe(position, params), MazeState(position, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: MazeState, action: jax.Array, params: MazeParams
    ) -> tuple[jax.Array, MazeState, jax.Array, jax.Array, dict[Any, Any]]:
        reward = maze_reward(state.position, action, params)
        position = move(state.position, action, params)
        following = MazeState(position, state.time + 1)
        info = {"at_goal": at_goal(position, params)}
        return observe(position, params), following, reward, jnp.bool_(False), info

    def is_terminated(self, state: MazeState, params: MazeParams) -> jax.Array:
        return jnp.bool_(False)

    def action_space(self, params: MazeParams) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,))

    def observation_space(self, params: MazeParams) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,))
