"""Advantages of one agent, and of two that decide one after the other within a step.

Termination ends the returns; truncation only ends the recording, so the value of the state that
was cut off is bootstrapped. Sources: Schulman et al., High-dimensional continuous control using
generalised advantage estimation (2016), eq. 16; Pardo et al., Time limits in reinforcement
learning (2018), for truncation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class TwoStage(NamedTuple):
    """Advantages and value targets of two agents, each float32[T, ...] in the reward's unit."""

    first_advantages: Array
    second_advantages: Array
    first_targets: Array
    second_targets: Array


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    trace: ArrayLike,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    d[t] = r[t] + discount V'[t] - V[t] and A[t] = d[t] + discount trace A[t+1], where V' is 0
    after a termination and A[t+1] is left out after either end of an episode.

    Args:
      rewards: float[T, ...].
      values: float[T, ...], of the state in which step t was taken.
      next_values: float[T, ...], of the state that step t really led to, before any automatic
        reset. Not read where the step terminated.
      terminated: bool[T, ...], the episode is over and nothing follows.
      truncated: bool[T, ...], the recording stops though more would follow. A step that is both
        counts as terminated.
      discount: float[], in [0, 1]; may be traced.
      trace: float[], lambda in [0, 1]: 0 for one-step advantages, 1 for whole returns.

    Returns:
      advantages and value targets (values + advantages), float32[T, ...].

    Raises:
      ValueError: if the arrays' shapes differ or have no time axis.
    """
    steps = dict(rewards=rewards, values=values, next_values=next_values)
    rewards, values, next_values = _time_major(steps, terminated, truncated)
    ended, ahead = _after_step(next_values, terminated, truncated, discount)

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        error, last = step
        advantage = error + jnp.where(last, 0.0, discount * trace * later)
        return advantage, advantage

    errors = rewards + ahead - values
    _, advantages = jax.lax.scan(back, jnp.zeros_like(values[0]), (errors, ended), reverse=True)
    return advantages, values + advantages


def two_stage_gae(
    rewards: ArrayLike,
    first_values: ArrayLike,
    second_values: ArrayLike,
    next_first_values: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    trace: ArrayLike,
    inner_trace: ArrayLike,
) -> TwoStage:
    """Advantages of two agents that share a reward and decide in turn within each step.

    V1 values the state before the first decision, V2 state and first decision together. The turn
    between them costs no time and earns no reward:

      d1 = V2 - V1                A1 = d1 + inner_trace A2
      d2 = r + discount V1' - V2  A2 = d2 + discount trace A1'

    This is GAE over twice as many half-steps, the inner ones undiscounted. With inner_trace = 1
    and V2 = V1 both advantages are those of `gae`.

    Args:
      rewards: float[T, ...].
      first_values: float[T, ...], V1 of the state in which step t was taken.
      second_values: float[T, ...], V2 of that state and the first agent's decision.
      next_first_values: float[T, ...], V1 of the state that step t really led to, before any
        automatic reset. Not read where the step terminated.
      terminated: bool[T, ...], as in `gae`.
      truncated: bool[T, ...], as in `gae`.
      discount: float[], in [0, 1]; may be traced.
      trace: float[], lambda between steps, in [0, 1].
      inner_trace: float[], lambda between the two decisions of a step, in [0, 1].

    Returns:
      Advantages and targets (values + advantages) of both agents.

    Raises:
      ValueError: if the arrays' shapes differ or have no time axis.
    """
    steps = dict(
        rewards=rewards,
        first_values=first_values,
        second_values=second_values,
        next_first_values=next_first_values,
    )
    rewards, first, second, next_first = _time_major(steps, terminated, truncated)
    ended, ahead = _after_step(next_first, terminated, truncated, discount)

    def back(later: Array, step: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        first_error, second_error, last = step
        second_advantage = second_error + jnp.where(last, 0.0, discount * trace * later)
        first_advantage = first_error + inner_trace * second_advantage
        return first_advantage, (first_advantage, second_advantage)

    errors = (second - first, rewards + ahead - second, ended)
    _, (first_advantages, second_advantages) = jax.lax.scan(
        back, jnp.zeros_like(first[0]), errors, reverse=True
    )
    return TwoStage(
        first_advantages, second_advantages, first + first_advantages, second + second_advantages
    )


def _time_major(
    steps: dict[str, ArrayLike], terminated: ArrayLike, truncated: ArrayLike
) -> list[Array]:
    """The values of `steps` in float32, once all shapes, the flags' too, are known to agree."""
    shape = jnp.shape(steps["rewards"])
    if not shape:
        raise ValueError("rewards must be [T, ...] with a time axis, got a scalar.")
    for name, array in {**steps, "terminated": terminated, "truncated": truncated}.items():
        if jnp.shape(array) != shape:
            raise ValueError(
                f"{name} of shape {jnp.shape(array)} do not fit rewards of shape {shape}."
            )
    return [jnp.asarray(array, jnp.float32) for array in steps.values()]


def _after_step(
    next_values: Array, terminated: ArrayLike, truncated: ArrayLike, discount: ArrayLike
) -> tuple[Array, Array]:
    """Which steps end an episode, and what is bootstrapped after each."""
    over = jnp.asarray(terminated, bool)
    return over | jnp.asarray(truncated, bool), jnp.where(over, 0.0, discount * next_values)
