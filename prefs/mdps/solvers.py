"""Exact answers for discounted problems.

Optimal values come from policy iteration, which is Newton's method on the Bellman equation
(Puterman and Brumelle, 1979) and so takes a handful of steps. A policy's value comes from repeated
squaring, x_(2n) = x_n + M^n x_n with x_n the first n terms of (I - M)^-1 b, which reaches rounding
in log2 of the horizon matrix products, needs no factorisation and batches well.
Source of the soft equations: Ziebart (2010); Haarnoja, Tang, Abbeel and Levine (2017).

Everything is as exact as the dtype of the tables allows: an error of a few roundings over
1 - discount. A discount outside [0, 1) or a temperature that is not positive gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jax.typing import ArrayLike

from prefs.mdps.soft import soft_maximum
from prefs.mdps.tables import TabularMDP

_MOST_STEPS = 100  # of policy iteration; ten are many


class SoftSolution(NamedTuple):
    """The maximum-entropy optimum at temperature alpha.

    Attributes:
      q: [S, A], r + discount P v.
      v: [S], alpha logsumexp(q / alpha).
      advantage: [S, A], q - v = alpha log policy.
      policy: [S, A], probabilities.
    """

    q: jax.Array
    v: jax.Array
    advantage: jax.Array
    policy: jax.Array


class HardSolution(NamedTuple):
    """The optimum.

    Attributes:
      q: [S, A], r + discount P v.
      v: [S], max_a q.
      advantage: [S, A], q - v, at most 0.
      policy: [S, A], one-hot; of actions that are equal up to rounding, the lowest.
    """

    q: jax.Array
    v: jax.Array
    advantage: jax.Array
    policy: jax.Array


@jax.jit
def soft_optimal(mdp: TabularMDP, temperature: ArrayLike) -> SoftSolution:
    """Maximises E sum_t discount^t (r - temperature log policy).

    Args:
      mdp: the problem.
      temperature: [], alpha > 0.
    """
    alpha = _positive(temperature)

    def improve(q):
        return soft_maximum(q, alpha).policy

    # Newton: the step after one as small as the rounding of a value would be its square
    q = _policy_iteration(mdp, improve, alpha, 2 / (1 - mdp.discount))
    return SoftSolution(q, *soft_maximum(q, alpha))


@jax.jit
def hard_optimal(mdp: TabularMDP) -> HardSolution:
    """Maximises E sum_t discount^t r."""

    def improve(q):
        return jax.nn.one_hot(jnp.argmax(q, -1), q.shape[-1], dtype=q.dtype)

    # a policy met again has the same value, to the last bit
    q = _policy_iteration(mdp, improve, jnp.zeros((), mdp.reward.dtype), 4)
    v = jnp.max(q, -1)
    advantage = q - v[:, None]
    slack = 16 * jnp.finfo(q.dtype).eps * jnp.max(jnp.abs(q))
    first = jnp.argmax(advantage >= -slack, -1)
    return HardSolution(q, v, advantage, jax.nn.one_hot(first, q.shape[-1], dtype=q.dtype))


@jax.jit
def evaluate(mdp: TabularMDP, policy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(q [S, A], v [S]) of a policy [S, A] of probabilities."""
    return _evaluate(mdp, policy, jnp.zeros((), mdp.reward.dtype))


def value(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """[] expected discounted return of a policy [S, A] from the initial states."""
    return mdp.initial @ evaluate(mdp, policy)[1]


@jax.jit
def evaluate_soft(mdp: TabularMDP, policy: jax.Array, temperature: ArrayLike) -> jax.Array:
    """[S] expected discounted return plus `temperature` times the entropy of a policy [S, A]."""
    return _evaluate(mdp, policy, _positive(temperature))[1]


@jax.jit
def occupancy(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """[S, A] = (1 - discount) sum_t discount^t P(pair at time t); sums to 1."""
    discount = _discount(mdp)
    states = _resolvent(discount, _state_chain(mdp, policy).T, mdp.initial)
    states = jnp.where(jnp.isnan(discount), discount, states / jnp.sum(states))
    return states[:, None] * policy


@jax.jit
def normalised_return(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """[] return of a policy [S, A] on the scale 0 = uniform policy, 1 = optimal policy.

    Where the uniform policy is optimal every policy is, and the answer is 1.
    """
    uniform = value(mdp, jnp.full_like(policy, 1 / policy.shape[-1]))
    gap = mdp.initial @ hard_optimal(mdp).v - uniform
    rounding = 16 * jnp.finfo(gap.dtype).eps * jnp.abs(uniform)
    share = (value(mdp, policy) - uniform) / jnp.where(gap > rounding, gap, 1)
    return jnp.where(gap <= rounding, 1, share)


def _positive(temperature: ArrayLike) -> jax.Array:
    return jnp.where(jnp.asarray(temperature) > 0, temperature, jnp.nan)


def _discount(mdp: TabularMDP) -> jax.Array:
    return jnp.where((mdp.discount >= 0) & (mdp.discount < 1), mdp.discount, jnp.nan)


def _state_chain(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """[S, S] transition matrix of the states under a policy."""
    return jnp.einsum("sa,sat->st", policy, mdp.transition, precision="highest")


def _resolvent(discount: jax.Array, chain: jax.Array, b: jax.Array) -> jax.Array:
    """(I - discount chain)^-1 b for a matrix whose powers are bounded by 1."""
    eps = jnp.finfo(b.dtype).eps

    def unfinished(carry):
        return carry[0] > eps / 4  # discount^n bounds what the first n terms leave out

    def double(carry):
        left, power, x = carry
        x = x + jnp.matmul(power, x, precision="highest")
        return left * left, jnp.matmul(power, power, precision="highest"), x

    return jax.lax.while_loop(unfinished, double, (discount, discount * chain, b))[2]


def _backup(mdp: TabularMDP, v: jax.Array) -> jax.Array:
    return mdp.reward + _discount(mdp) * jnp.matmul(mdp.transition, v, precision="highest")


def _evaluate(mdp: TabularMDP, policy: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    bonus = alpha * jnp.sum(entr(policy), -1)
    gained = jnp.sum(policy * mdp.reward, -1) + bonus
    q = _backup(mdp, _resolvent(_discount(mdp), _state_chain(mdp, policy), gained))
    return q, jnp.sum(policy * q, -1) + bonus


def _policy_iteration(
    mdp: TabularMDP,
    improve: Callable[[jax.Array], jax.Array],
    alpha: jax.Array,
    slack: ArrayLike,
) -> jax.Array:
    """[S, A] optimal q, up to what policies gain when none gains over `slack` roundings.

    A policy is nowhere worse than the last, so the largest gain is positive until the optimum.
    """
    eps = jnp.finfo(mdp.reward.dtype).eps

    def unfinished(carry):
        step, gain, v, _ = carry
        # the first policy has no other to gain over
        gains = gain > slack * eps * jnp.max(jnp.abs(v))
        return (step < 2) | (gains & (step < _MOST_STEPS))

    def step(carry):
        index, _, v, q = carry
        q, better = _evaluate(mdp, improve(q), alpha)
        return index + 1, jnp.max(better - v), better, q

    start = (jnp.int32(0), jnp.zeros_like(mdp.discount), jnp.zeros_like(mdp.initial), mdp.reward)
    return jax.lax.while_loop(unfinished, step, start)[3]
