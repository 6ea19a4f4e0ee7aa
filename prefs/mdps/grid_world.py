"""Grid worlds with slip, a goal that pays again and again, and hazards."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from prefs.mdps.tables import TabularMDP, state_reward, tabular_mdp

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right, as (row, column)


def grid_transition(size: int, slip: ArrayLike) -> jax.Array:
    """[S, 4, S] with S = size^2, cell row * size + column.

    The chosen move is made with probability 1 - slip, each other one with slip / 3; a move off the
    grid stays.

    Raises:
      ValueError: a size below 2.
    """
    if size < 2:
        raise ValueError(f"size must be at least 2 cells, got {size}.")
    cells = np.arange(size * size)
    place = np.stack(np.divmod(cells, size), -1)
    landing = np.zeros((size * size, 4, size * size))
    for index, move in enumerate(MOVES):
        row, column = np.clip(place + move, 0, size - 1).T
        landing[cells, index, row * size + column] = 1
    slip = jnp.asarray(slip, float)
    made = jnp.where(jnp.eye(4, dtype=bool), 1 - slip, slip / 3)  # [chosen, made]
    return jnp.einsum("cm,smt->sct", made, jnp.asarray(landing, float), precision="highest")


@partial(jax.jit, static_argnames=("size", "num_hazards"))
def grid_world(
    key: jax.Array,
    size: int = 7,
    slip: ArrayLike = 0.1,
    step_reward: ArrayLike = -0.05,
    num_hazards: int = 4,
    hazard_reward: ArrayLike = -0.5,
    goal_reward: ArrayLike = 1.0,
    discount: ArrayLike = 0.95,
) -> TabularMDP:
    """A grid with one goal cell and `num_hazards` hazard cells, drawn without replacement.

    An action's reward is that of the cell in which it is taken: goal, hazard or step reward. The
    goal does not end anything. Episodes start in a uniformly random cell.

    Args:
      key: draws goal and hazards.
      size: cells per side, at least 2.
      slip: probability in [0, 1] that another move is made than the one chosen.
      step_reward: of an ordinary cell.
      num_hazards: at most size^2 - 1.
      hazard_reward: of a hazard cell.
      goal_reward: of the goal cell.
      discount: in [0, 1).

    Raises:
      ValueError: a size below 2, or more hazards than cells left.
    """
    num_cells = size * size
    transition = grid_transition(size, slip)
    if not 0 <= num_hazards < num_cells:
        raise ValueError(f"num_hazards must be in 0..{num_cells - 1}, got {num_hazards}.")
    special = jax.random.permutation(key, num_cells)[: num_hazards + 1]
    cells = jnp.full(num_cells, step_reward, float)
    cells = cells.at[special[1:]].set(hazard_reward).at[special[0]].set(goal_reward)
    initial = jnp.full(num_cells, 1 / num_cells)
    return tabular_mdp(transition, state_reward(cells, 4), initial, discount)


def fixed_grid() -> TabularMDP:
    """5 x 5, slip 0.1, discount 0.9: cells cost 0.1, the last one pays 1, the central one costs 1.

    Made for exact checks at temperature 0.1; episodes start in a uniformly random cell.
    """
    cells = jnp.full(25, -0.1).at[24].set(1.0).at[12].set(-1.0)
    initial = jnp.full(25, 1 / 25)
    return tabular_mdp(grid_transition(5, 0.1), state_reward(cells, 4), initial, 0.9)
