"""RiverSwim (Strehl and Littman, 2008), with the numbers of Osband, Russo and Van Roy (2013)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from prefs.mdps.tables import EpisodicMDP, TabularMDP, episodic_mdp, tabular_mdp


def _tables(num_states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transition [S, 2, S], reward [S, 2] and initial [S]; action 0 is left, 1 is right."""
    if num_states < 2:
        raise ValueError(f"num_states must be at least 2, got {num_states}.")
    last = num_states - 1
    transition = np.zeros((num_states, 2, num_states))
    for state in range(num_states):
        transition[state, 0, max(state - 1, 0)] = 1
        if 0 < state < last:
            transition[state, 1, state - 1 : state + 2] = 0.05, 0.6, 0.35
    transition[0, 1, :2] = 0.4, 0.6
    transition[last, 1, last - 1 :] = 0.4, 0.6
    reward = np.zeros((num_states, 2))
    reward[0, 0], reward[last, 1] = 0.005, 1
    return transition, reward, np.eye(num_states)[0]


def river_swim(num_states: int = 6, discount: ArrayLike = 0.95) -> TabularMDP:
    """A chain in which swimming right, against the current, pays only at the far end.

    Left (action 0) always succeeds and pays 0.005 at the left bank; right (action 1) pays 1 at the
    right bank. Episodes start at the left bank.

    Raises:
      ValueError: fewer than 2 states.
    """
    return tabular_mdp(*_tables(num_states), discount)


def river_swim_episodic(num_states: int = 6, horizon: int = 20) -> EpisodicMDP:
    """The same chain for `horizon` steps, rewards divided by it: a return is in [0, 1].

    Raises:
      ValueError: fewer than 2 states, or a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 step, got {horizon}.")
    transition, reward, initial = _tables(num_states)

    def every_step(table):
        return jnp.broadcast_to(jnp.asarray(table, float), (horizon, *table.shape))

    return episodic_mdp(every_step(transition), every_step(reward / horizon), initial)
