"""Garnet: random problems with sparse transitions (Archibald, McKinnon and Thomas, 1995)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from prefs.mdps.simplex import dirichlet_one
from prefs.mdps.tables import TabularMDP, tabular_mdp


@partial(jax.jit, static_argnames=("num_states", "num_actions", "branching"))
def garnet(
    key: jax.Array,
    num_states: int,
    num_actions: int,
    branching: int,
    discount: ArrayLike = 0.95,
) -> TabularMDP:
    """A random problem in which every pair leads to `branching` different states.

    The next states are drawn without replacement and their probabilities by uniformly random cuts
    of the unit interval, which is Dirichlet(1); rewards are uniform on [0, 1] (ours: sources
    differ); episodes start in a uniformly random state.

    Raises:
      ValueError: a size below 1, or `branching` not in 1..num_states.
    """
    for name, size in (("num_states", num_states), ("num_actions", num_actions)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    if not 1 <= branching <= num_states:
        raise ValueError(f"branching must be in 1..{num_states}, got {branching}.")
    by_states, by_cuts, by_reward = jax.random.split(key, 3)
    pairs = (num_states, num_actions)
    scores = jax.random.uniform(by_states, (*pairs, num_states), float)
    following = jax.nn.one_hot(jax.lax.top_k(scores, branching)[1], num_states, dtype=float)
    cuts = dirichlet_one(by_cuts, (*pairs, branching))
    transition = jnp.einsum("sab,sabt->sat", cuts, following, precision="highest")
    reward = jax.random.uniform(by_reward, pairs, float)
    return tabular_mdp(transition, reward, jnp.full(num_states, 1 / num_states), discount)
