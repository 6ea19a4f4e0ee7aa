"""The maze's answer: soft values on a grid over positions and actions.

V solves V(p) = alpha log int exp(Q(p, a) / alpha) da over the actions [-1, 1]^2, with Q(p, a) =
r(p, a) + discount V(move(p, a)): the maximum-entropy optimum whose policy has the density
exp((Q - V) / alpha). The integral is a midpoint rule, and V between nodes is bilinear; since nodes
lie on the walls' faces, no value ever leaks through one (Davies, 1997: barycentric interpolation
keeps the Bellman operator a contraction). Both errors vanish as the grid is refined.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from prefs.mdps.environment import Problem
from prefs.mdps.point_maze import (
    CLEARANCE,
    MazeParams,
    clear_of_walls,
    maze_reward,
    move,
    observe,
    position_of,
)
from prefs.mdps.soft import soft_maximum

_MOST_SWEEPS = 20_000


class MazeReference(struct.PyTreeNode):
    """A solved maze.

    Attributes:
      params: the maze.
      temperature: [], alpha.
      node_values: [R n + 1, C n + 1], V at the nodes, in steps of 1 / n cells; 0 inside walls.
      nodes_per_cell: n, static.
      actions_per_axis: m, static; the rule has m^2 actions.
    """

    params: MazeParams
    temperature: jax.Array
    node_values: jax.Array
    nodes_per_cell: int = struct.field(pytree_node=False)
    actions_per_axis: int = struct.field(pytree_node=False)


def action_nodes(actions_per_axis: int) -> np.ndarray:
    """[m^2, 2] midpoints of m x m equal squares of [-1, 1]^2, each of area 4 / m^2."""
    middle = (2 * np.arange(actions_per_axis) + 1) / actions_per_axis - 1
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)


def solve_maze(
    problem: Problem,
    temperature: ArrayLike,
    nodes_per_cell: int = 16,
    actions_per_axis: int = 7,
) -> MazeReference:
    """Soft value iteration on the grid, to the rounding of the dtype.

    Args:
      problem: of `point_maze`.
      temperature: [], alpha > 0; anything else gives NaN.
      nodes_per_cell: n.
      actions_per_axis: m; odd, so that staying is one of the actions.

    Raises:
      ValueError: not a maze, no nodes, or an even number of actions.
    """
    if not isinstance(problem.params, MazeParams):
        raise ValueError(f"solve_maze wants a point maze, got {problem.env.name}.")
    if nodes_per_cell < 1:
        raise ValueError(f"nodes_per_cell must be at least 1, got {nodes_per_cell}.")
    if actions_per_axis < 1 or actions_per_axis % 2 == 0:
        raise ValueError(f"actions_per_axis must be odd and positive, got {actions_per_axis}.")
    return _solve(problem.params, jnp.asarray(temperature, float), nodes_per_cell, actions_per_axis)


@partial(jax.jit, static_argnames=("nodes_per_cell", "actions_per_axis"))
def _solve(
    params: MazeParams, temperature: jax.Array, nodes_per_cell: int, actions_per_axis: int
) -> MazeReference:
    actions = jnp.asarray(action_nodes(actions_per_axis), params.goals.dtype)
    alpha = jnp.where(temperature > 0, temperature, jnp.nan)
    grid = tuple(size * nodes_per_cell + 1 for size in params.walls.shape)
    positions, free = _nodes(params, grid, nodes_per_cell)

    def transition(position, action):
        corners, weights = _corners(move(position, action, params), grid, nodes_per_cell)
        return maze_reward(position, action, params), corners, weights

    over_actions = jax.vmap(transition, (None, 0))
    reward, corners, weights = jax.vmap(over_actions, (0, None))(positions, actions)
    eps = jnp.finfo(reward.dtype).eps

    def changes(carry):
        sweep, change, v = carry
        return (sweep < _MOST_SWEEPS) & (change > 16 * eps * jnp.max(jnp.abs(v)))

    def backup(carry):
        sweep, _, v = carry
        q = reward + params.discount * jnp.sum(weights * v[corners], -1)
        new = jnp.where(free, _soft_maximum(q, alpha, actions_per_axis), 0)
        return sweep + 1, jnp.max(jnp.abs(new - v)), new

    start = (jnp.int32(0), jnp.asarray(jnp.inf, reward.dtype), jnp.zeros_like(reward[:, 0]))
    v = jax.lax.while_loop(changes, backup, start)[2]
    return MazeReference(params, temperature, v.reshape(grid), nodes_per_cell, actions_per_axis)


def maze_q(reference: MazeReference, observation: jax.Array, action: jax.Array) -> jax.Array:
    """[...] Q of observations [..., 2] and actions [..., 2]: one exact step, then the grid's V."""

    @partial(jnp.vectorize, signature="(d),(d)->()")
    def q(observation, action):
        return _q(reference, position_of(observation, reference.params), action)

    return q(observation, action)


def maze_value(reference: MazeReference, observation: jax.Array) -> jax.Array:
    """[...] V of observations [..., 2], by one step of lookahead from the grid's V."""
    every = maze_q(reference, observation[..., None, :], _actions(reference))
    return _soft_maximum(every, reference.temperature, reference.actions_per_axis)


def maze_advantage(
    reference: MazeReference, observation: jax.Array, action: jax.Array
) -> jax.Array:
    """[...] A = Q - V = alpha log density of the optimal policy, of pairs [..., 2], [..., 2]."""
    return maze_q(reference, observation, action) - maze_value(reference, observation)


def greedy_action(reference: MazeReference, observation: jax.Array) -> jax.Array:
    """[..., 2] the node action of highest Q at observations [..., 2]."""
    actions = _actions(reference)
    return actions[jnp.argmax(maze_q(reference, observation[..., None, :], actions), -1)]


def soft_action(key: jax.Array, reference: MazeReference, observation: jax.Array) -> jax.Array:
    """[..., 2] actions drawn from the optimal policy at observations [..., 2].

    A node action by its probability, then uniform in its square, so the draw has a density.
    """
    by_node, by_place = jax.random.split(key)
    actions = _actions(reference)
    logits = maze_q(reference, observation[..., None, :], actions) / reference.temperature
    chosen = actions[jax.random.categorical(by_node, logits)]
    place = jax.random.uniform(by_place, chosen.shape, chosen.dtype, -1, 1)
    return chosen + place / reference.actions_per_axis


def free_nodes(reference: MazeReference) -> tuple[jax.Array, jax.Array]:
    """(observations [N, 2], free bool[N]) of the nodes, in the order of `node_values.ravel()`."""
    grid = reference.node_values.shape
    positions, free = _nodes(reference.params, grid, reference.nodes_per_cell)
    return observe(positions, reference.params), free


def _actions(reference: MazeReference) -> jax.Array:
    return jnp.asarray(action_nodes(reference.actions_per_axis), reference.node_values.dtype)


def _q(reference: MazeReference, position: jax.Array, action: jax.Array) -> jax.Array:
    params, v = reference.params, reference.node_values
    corners, weights = _corners(move(position, action, params), v.shape, reference.nodes_per_cell)
    ahead = jnp.sum(weights * v.ravel()[corners])
    return maze_reward(position, action, params) + params.discount * ahead


def _soft_maximum(q: jax.Array, alpha: jax.Array, actions_per_axis: int) -> jax.Array:
    """[...] of [..., m^2]: alpha times the log of the integral of exp(q / alpha) over actions."""
    area = (2 / actions_per_axis) ** 2
    return soft_maximum(q, alpha).v + alpha * np.log(area)


def _nodes(
    params: MazeParams, grid: tuple[int, ...], nodes_per_cell: int
) -> tuple[jax.Array, jax.Array]:
    """(positions [N, 2], free bool[N]): nodes, moved off the walls into a free cell beside them."""
    index = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), -1).reshape(-1, 2)
    sides = jnp.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * (CLEARANCE / 2)
    beside = index[:, None] / nodes_per_cell + sides.astype(params.goals.dtype)
    cell = jnp.floor(beside).astype(jnp.int32)
    cell = jnp.clip(cell, 0, jnp.array(params.walls.shape) - 1)
    walls = params.walls[cell[..., 0], cell[..., 1]]
    chosen = jnp.argmin(walls, -1)
    position = jnp.take_along_axis(beside, chosen[:, None, None], 1)[:, 0]
    cleared = jax.vmap(clear_of_walls, (0, None))(position, params.walls)
    return cleared, ~walls.all(-1)


def _corners(
    position: jax.Array, grid: tuple[int, ...], nodes_per_cell: int
) -> tuple[jax.Array, jax.Array]:
    """(int32[4], [4]): flat indices of the nodes around a position, and bilinear weights."""
    scaled = position * nodes_per_cell
    low = jnp.clip(jnp.floor(scaled), 0, jnp.array(grid) - 2).astype(jnp.int32)
    part = scaled - low
    sides = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    corner = low + sides
    weights = jnp.prod(jnp.where(sides == 1, part, 1 - part), -1)
    return corner[:, 0] * grid[1] + corner[:, 1], weights
