"""Random finite-horizon problems: linear MDPs of low rank, and plain tables.

A linear MDP (Jin, Yang, Wang and Jordan, 2020) has P_h(t | s, a) = <phi_h(s, a), mu_h(t)> and
r_h(s, a) = <phi_h(s, a), theta_h>. With phi on the simplex and rows of mu distributions the product
is a distribution, ||phi|| <= 1, and the S A x S matrix of each step has rank d.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prefs.mdps.simplex import dirichlet_half
from prefs.mdps.tables import EpisodicMDP, episodic_mdp


class LinearFactors(NamedTuple):
    """What a linear MDP is made of.

    Attributes:
      features: [H, S, A, d], phi, on the simplex.
      measures: [H, d, S], mu, each row a distribution over next states.
      weights: [H, d], theta, in [0, 1 / H], so that an episode's return is in [0, 1].
    """

    features: jax.Array
    measures: jax.Array
    weights: jax.Array


@partial(jax.jit, static_argnames=("num_states", "num_actions", "horizon", "rank"))
def linear_factors(
    key: jax.Array, num_states: int, num_actions: int, horizon: int, rank: int
) -> LinearFactors:
    """Random factors: features and measures Dirichlet(1/2), weights uniform.

    Raises:
      ValueError: a size below 1, or a rank above the number of states.
    """
    _check_sizes(num_states=num_states, num_actions=num_actions, horizon=horizon, rank=rank)
    if rank > num_states:
        raise ValueError(f"rank must be at most num_states = {num_states}, got {rank}.")
    by_features, by_measures, by_weights = jax.random.split(key, 3)
    return LinearFactors(
        dirichlet_half(by_features, (horizon, num_states, num_actions, rank)),
        dirichlet_half(by_measures, (horizon, rank, num_states)),
        jax.random.uniform(by_weights, (horizon, rank), float) / horizon,
    )


@partial(jax.jit, static_argnames=("num_states", "num_actions", "horizon", "rank"))
def linear_mdp(
    key: jax.Array, num_states: int, num_actions: int, horizon: int, rank: int
) -> EpisodicMDP:
    """The linear MDP of `linear_factors(key, ...)`, with its features; starts in state 0."""
    phi, mu, theta = linear_factors(key, num_states, num_actions, horizon, rank)
    transition = jnp.einsum("hsad,hdt->hsat", phi, mu, precision="highest")
    reward = jnp.einsum("hsad,hd->hsa", phi, theta, precision="highest")
    return episodic_mdp(transition, reward, _first_state(num_states), phi)


@partial(jax.jit, static_argnames=("num_states", "num_actions", "horizon"))
def random_episodic(
    key: jax.Array, num_states: int = 4, num_actions: int = 3, horizon: int = 3
) -> EpisodicMDP:
    """Tables without structure, with one-hot features; starts in state 0.

    Transitions are Dirichlet(1/2); a reward is 0 with probability 0.6 and else uniform on
    [0, 1 / H], so that an episode's return is in [0, 1].

    Raises:
      ValueError: a size below 1.
    """
    _check_sizes(num_states=num_states, num_actions=num_actions, horizon=horizon)
    by_transition, by_reward, by_mask = jax.random.split(key, 3)
    pairs = (horizon, num_states, num_actions)
    reward = jax.random.uniform(by_reward, pairs, float) / horizon
    paid = jax.random.bernoulli(by_mask, 0.4, pairs)
    transition = dirichlet_half(by_transition, (*pairs, num_states))
    return episodic_mdp(transition, jnp.where(paid, reward, 0), _first_state(num_states))


def _first_state(num_states: int) -> jax.Array:
    return jnp.zeros(num_states, float).at[0].set(1)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
