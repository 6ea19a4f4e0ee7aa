"""Tasks in which two agents decide one after the other in every step, and share the reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Seen(NamedTuple):
    """What an agent and its critic see: sets of elements, such as the users of each cell.

    Attributes:
      features: float32[..., G, E, F], G groups of E elements with F features.
      mask: bool[..., G, E], elements that are there.
      along: float32[..., G, E], latents in whose direction a group's elements are also explored
        together (`CoherentGaussian`); None for independent exploration alone.
    """

    features: jax.Array
    mask: jax.Array
    along: jax.Array | None = None


class Turn(NamedTuple):
    """What a step led to.

    Attributes:
      reward: float32[], shared by both agents.
      terminated: bool[], the episode is over: nothing follows.
      truncated: bool[], the episode was cut off: its last state has a value.
      final: what the first agent would see next, before any reset.
      info: dict of float32[], averaged into the training metrics.
    """

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final: Seen
    info: dict[str, jax.Array]


class TwoTurnTask(NamedTuple):
    """A task as pure functions of one environment; the learner vmaps them.

    An agent's latent action is float32[G, E]. An agent at rest (bool[], traced) is to be replaced
    by what the task does without it; its latent is then not to be read.

    Attributes:
      reset: `reset(key, params) -> state`.
      first: `first(state, params) -> (Seen, plan)`, what the first agent sees.
      second: `second(plan, latent, at_rest, params) -> (Seen, plan)`, what the second agent sees
        once the first has decided.
      step: `step(key, state, plan, latent, at_rest, params) -> (state, Turn)`, which resets by
        itself where an episode ends.
    """

    reset: Callable[[jax.Array, Any], Any]
    first: Callable[[Any, Any], tuple[Seen, Any]]
    second: Callable[[Any, jax.Array, jax.Array, Any], tuple[Seen, Any]]
    step: Callable[..., tuple[Any, Turn]]
