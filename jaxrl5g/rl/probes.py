"""Tasks of two turns with known values and best policies, to see that a learner learns.

Each isolates one thing that can be wrong: if a probe fails, so does everything built on it. All
have one group; latents are float32[1, E]. `params` of every function is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask


class _State(NamedTuple):
    """What is seen, float32[E], and steps since reset, int32[]."""

    signal: jax.Array
    time: jax.Array


class _Plan(NamedTuple):
    state: _State
    latent: jax.Array


def _seen(state: _State, mine: jax.Array) -> Seen:
    """The signal, the time and what the first agent did, per element."""
    time = jnp.broadcast_to(state.time.astype(jnp.float32), mine.shape)
    features = jnp.stack([state.signal, time, mine], axis=-1)[None]
    return Seen(features, jnp.ones(features.shape[:-1], bool))


def _task(
    elements: int,
    horizon: int,
    reward: Callable[[_State, jax.Array, jax.Array], jax.Array],
    truncates: bool = False,
) -> TwoTurnTask:
    """Signals of +-1, drawn at reset and kept; an episode ends after `horizon` steps."""

    def reset(key: jax.Array, params: Any) -> _State:
        del params
        return _State(jax.random.rademacher(key, (elements,), jnp.float32), jnp.int32(0))

    def first(state: _State, params: Any) -> tuple[Seen, _Plan]:
        del params
        nothing = jnp.zeros(elements)
        return _seen(state, nothing), _Plan(state, nothing)

    def second(
        plan: _Plan, latent: jax.Array, at_rest: jax.Array, params: Any
    ) -> tuple[Seen, _Plan]:
        del params
        latent = jnp.where(at_rest, 0.0, latent[0])
        return _seen(plan.state, latent), plan._replace(latent=latent)

    def step(
        key: jax.Array,
        state: _State,
        plan: _Plan,
        latent: jax.Array,
        at_rest: jax.Array,
        params: Any,
    ) -> tuple[_State, Turn]:
        latent = jnp.where(at_rest, 0.0, latent[0])
        earned = reward(state, plan.latent, latent)
        last = state._replace(time=state.time + 1)
        over = last.time >= horizon
        following = jax.tree.map(lambda a, b: jnp.where(over, a, b), reset(key, params), last)
        ends = (over & (not truncates), over & truncates)
        return following, Turn(earned, *ends, _seen(last, jnp.zeros(elements)), {})

    return TwoTurnTask(reset, first, second, step)


def constant_value(truncates: bool = False) -> TwoTurnTask:
    """Reward 1 in every one-step episode: the value is 1, or 1/(1 - discount) if truncated."""
    return _task(1, 1, lambda state, one, two: jnp.float32(1.0), truncates)


def predictable_reward() -> TwoTurnTask:
    """One-step episodes that reward the signal: V = signal, whatever anybody does."""
    return _task(1, 1, lambda state, one, two: state.signal[0])


def discounted_reward() -> TwoTurnTask:
    """Two steps, reward 1 in the second: V = discount at time 0 and 1 at time 1."""
    return _task(1, 2, lambda state, one, two: (state.time == 1).astype(jnp.float32))


def follow_signal(agent: int) -> TwoTurnTask:
    """One-step episodes of two elements; agent 0 or 1 should say each element's signal.

    Reward: minus the mean squared distance of its latent from the signal, at best 0.
    """

    def reward(state: _State, one: jax.Array, two: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.square((one, two)[agent] - state.signal))

    return _task(2, 1, reward)


def cooperate() -> TwoTurnTask:
    """One-step episodes that need both agents.

    The first is paid for saying half the signal, the second for making up a sum of the signal and
    *minus* what the first said: rewards are at best 0, with latents s/2 and -3 s/2. The second's
    best answer depends on what the first really did.
    """

    def reward(state: _State, one: jax.Array, two: jax.Array) -> jax.Array:
        own = jnp.square(one - 0.5 * state.signal)
        answer = jnp.square(two + one + state.signal)
        return -jnp.mean(own + answer)

    return _task(2, 1, reward)
