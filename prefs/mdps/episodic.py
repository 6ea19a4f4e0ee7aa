"""Exact answers for finite-horizon problems, by one backward or forward pass.

Source: Puterman, Markov Decision Processes (1994), 4.5 (backward induction); the soft version puts
a log-sum-exp in place of the maximum (Ziebart, 2010).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from prefs.mdps.soft import soft_maximum
from prefs.mdps.tables import EpisodicMDP


@jax.jit
def backward_induction(mdp: EpisodicMDP) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Optimal values and policy.

    Returns:
      q [H, S, A]; v [H + 1, S], v[H] = 0; policy int32[H, S], ties to the lowest action.
    """

    def best(q):
        return jnp.max(q, -1), jnp.argmax(q, -1).astype(jnp.int32)

    return _backward(mdp, best)


@jax.jit
def soft_backward_induction(
    mdp: EpisodicMDP, temperature: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Optimal values and policy for reward plus `temperature` times the policy's entropy.

    Args:
      mdp: the problem.
      temperature: [], alpha > 0; anything else gives NaN.

    Returns:
      q [H, S, A]; v [H + 1, S] = alpha logsumexp(q / alpha), v[H] = 0; policy [H, S, A] =
      exp((q - v) / alpha).
    """
    alpha = jnp.where(jnp.asarray(temperature) > 0, temperature, jnp.nan)

    def best(q):
        v, _, policy = soft_maximum(q, alpha)
        return v, policy

    return _backward(mdp, best)


@jax.jit
def evaluate_episodic(mdp: EpisodicMDP, policy: jax.Array) -> jax.Array:
    """Value of a policy from each step on.

    Args:
      mdp: the problem.
      policy: int32[H, S] actions, or [H, S, A] probabilities.

    Returns:
      v [H + 1, S], v[H] = 0.
    """
    policy = _probabilities(mdp, policy)

    def step(v, tables):
        transition, reward, probabilities = tables
        v = jnp.sum(probabilities * _backup(transition, reward, v), -1)
        return v, v

    _, v = jax.lax.scan(step, _end(mdp), (mdp.transition, mdp.reward, policy), reverse=True)
    return _with_end(v)


def episodic_value(mdp: EpisodicMDP, policy: jax.Array) -> jax.Array:
    """[] expected return of a policy (forms of `evaluate_episodic`) from the initial states."""
    return mdp.initial @ evaluate_episodic(mdp, policy)[0]


@jax.jit
def occupancy_episodic(mdp: EpisodicMDP, policy: jax.Array) -> jax.Array:
    """[H, S, A]: the probability of each pair at each step; sums to 1 at each step.

    `policy` as in `evaluate_episodic`.
    """
    policy = _probabilities(mdp, policy)

    def step(states, tables):
        transition, probabilities = tables
        pairs = states[:, None] * probabilities
        following = jnp.einsum("sa,sat->t", pairs, transition, precision="highest")
        return following, pairs

    return jax.lax.scan(step, mdp.initial, (mdp.transition, policy))[1]


def _backward(mdp: EpisodicMDP, best):
    def step(v, tables):
        transition, reward = tables
        q = _backup(transition, reward, v)
        v, policy = best(q)
        return v, (q, v, policy)

    _, (q, v, policy) = jax.lax.scan(step, _end(mdp), (mdp.transition, mdp.reward), reverse=True)
    return q, _with_end(v), policy


def _backup(transition: jax.Array, reward: jax.Array, v: jax.Array) -> jax.Array:
    return reward + jnp.matmul(transition, v, precision="highest")


def _end(mdp: EpisodicMDP) -> jax.Array:
    return jnp.zeros(mdp.num_states, jnp.result_type(mdp.transition, mdp.reward))


def _with_end(v: jax.Array) -> jax.Array:
    return jnp.concatenate([v, jnp.zeros_like(v[:1])])


def _probabilities(mdp: EpisodicMDP, policy: jax.Array) -> jax.Array:
    if jnp.issubdtype(policy.dtype, jnp.integer):
        policy = jax.nn.one_hot(policy, mdp.num_actions, dtype=mdp.reward.dtype)
    if policy.shape != mdp.reward.shape:
        raise ValueError(
            f"policy must be int[H, S] or float[H, S, A] with [H, S, A] = {mdp.reward.shape}, "
            f"got {policy.shape}."
        )
    return policy
