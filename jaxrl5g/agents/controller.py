"""The two-agent controller as a scheduler like any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl5g.agents.decisions import (
    PARAMETRISATIONS,
    Parametrisation,
    agree,
    allot,
    assign,
    fair_assignment,
    find,
    value,
)
from jaxrl5g.agents.features import (
    cell_features,
    feature_names,
    joint_features,
    power_features,
    prb_features,
    weight_features,
)
from jaxrl5g.agents.slots import Slot, coordinate
from jaxrl5g.env.rarely import rarely
from jaxrl5g.mac import Observation, Scheduler
from jaxrl5g.mac.schedulers import average, check_window, initial_average
from jaxrl5g.rl.mappo import MappoConfig, policy
from jaxrl5g.rl.two_turn import Seen


@dataclasses.dataclass(frozen=True)
class ControllerConfig:
    """What the agents decide, and how often.

    Attributes:
      parametrisation: "residual" tilts the PRBs of proportional fair and its knapsack power,
        "weighted" what users count for in that rule, "paper" gives the shares themselves,
        "coordinated" tilts held on-off power of cells that decide together and
        needs centralised CSI (see `jaxrl5g.agents.decisions`).
      decision_period: slots for which a decision of the agents holds; PRBs and powers follow the
        channel in every slot all the same.
      window: slots of the controller's own average of acknowledged bits, at least 1.
    """

    parametrisation: Parametrisation = "residual"
    decision_period: int = 10
    window: float = 100.0

    def __post_init__(self):
        if self.parametrisation not in PARAMETRISATIONS:
            raise ValueError(
                f"parametrisation must be one of {', '.join(PARAMETRISATIONS)}, "
                f"got {self.parametrisation!r}."
            )
        if not isinstance(self.decision_period, int) or self.decision_period < 1:
            raise ValueError(
                "decision_period must be a whole number of slots, at least 1, "
                f"got {self.decision_period!r}."
            )
        check_window(self.window)

    @property
    def csi(self) -> Literal["reported", "centralised"]:
        """What its environments have to tell it of the channel."""
        return "centralised" if self.parametrisation == "coordinated" else "reported"


class Memory(NamedTuple):
    """A controller's memory within an episode.

    Attributes:
      mean: float32[C, U], average of acknowledged bits per slot.
      first_latent, second_latent: float32[C, U], decisions in force.
      slot: int32[], slots since the start.
      levels: float32[C, N], powers that cells have agreed on under `coordinated`, else None.
    """

    mean: jax.Array
    first_latent: jax.Array
    second_latent: jax.Array
    slot: jax.Array
    levels: jax.Array | None = None


def see(slot: Slot, observation: Observation, params: Any, config: ControllerConfig) -> Seen:
    """What the PRB agent sees: a group per cell, an element per user.

    `residual` is also explored along the joint optimum's latents, which pay off together alone,
    and in the slot that they are of; `weighted` along what users have above the mean, all of them
    counting for a little more or less by it, which moves many PRBs.
    """
    parametrisation = config.parametrisation
    features = prb_features(slot, observation, params)
    added = {
        "residual": joint_features,
        "weighted": weight_features,
        "coordinated": cell_features,
    }.get(parametrisation)
    if added is not None:
        features = jnp.concatenate([features, added(slot, observation, params)], axis=-1)
    names = feature_names(parametrisation)["first"]
    along = None
    if parametrisation == "weighted":
        along = 0.25 * features[..., names.index("excess")]
    elif parametrisation == "residual" and config.decision_period == 1:
        along = features[..., names.index("joint_latent")]
    return Seen(features, observation.mask, along)


def see_assignment(
    before: Seen, slot: Slot, owner: jax.Array, observation: Observation, params: Any
) -> Seen:
    """What the power agent sees."""
    return Seen(power_features(before.features, slot, owner, observation, params), before.mask)


def controller(
    actors: dict[str, Any],
    config: ControllerConfig,
    networks: MappoConfig,
    *,
    sample: bool = False,
    rest_first: bool = False,
    rest_second: bool = False,
) -> Scheduler:
    """A scheduler from the agents' parameters.

    Args:
      actors: "first" (PRBs) and "second" (power), as in `jaxrl5g.rl.mappo.LearnerState.params`.
      config: what they decide.
      networks: their sizes.
      sample: draw latents from the policies instead of taking their modes.
      rest_first: PRBs by proportional fair instead of the PRB agent, under `coordinated` in each
        cell within the pattern of z = 0.
      rest_second: the power agent's latent is 0: equal power in `paper`, knapsack in `residual`
        and `weighted`, the levels themselves in `coordinated`.
    """

    def decide(name: str, seen: Seen, key: jax.Array) -> jax.Array:
        chosen = policy(actors[name], seen, networks)
        return chosen.sample(key) if sample else chosen.mode()

    return deciding(decide, config, rest_first=rest_first, rest_second=rest_second)


def deciding(
    decide: Callable[[str, Seen, jax.Array], jax.Array],
    config: ControllerConfig,
    *,
    rest_first: bool = False,
    rest_second: bool = False,
) -> Scheduler:
    """A scheduler from any two rules that say latents.

    Args:
      decide: `decide(name, seen, key) -> float32[C, U]`, latents of the agent `name`, "first" or
        "second".
      config, rest_first, rest_second: as in `controller`.
    """

    def init(params: Any) -> Memory:
        mean = initial_average(params)
        levels = None
        if config.parametrisation == "coordinated":
            levels = jnp.zeros((params.config.num_cells, params.config.num_prbs), jnp.float32)
        return Memory(mean, jnp.zeros_like(mean), jnp.zeros_like(mean), jnp.int32(0), levels)

    def apply(
        key: jax.Array, observation: Observation, memory: Memory, params: Any
    ) -> tuple[Any, Memory]:
        first_key, second_key = jax.random.split(key)
        mean = average(memory.mean, observation.acked_bits, config.window)
        slot = find(observation, mean, params, config.parametrisation)
        due = memory.slot % config.decision_period == 0

        def look_and_decide(turn: jax.Array) -> tuple[Seen, jax.Array]:
            # the barrier keeps all of this in slots with a decision: looking ahead is expensive
            now, _ = jax.lax.optimization_barrier((slot, turn))
            seen = see(now, observation, params, config)
            return seen, decide("first", seen, first_key)

        unseen = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(look_and_decide, jnp.int32(0))[0],
        )
        seen, first = rarely(due, look_and_decide, (unseen, memory.first_latent))
        # what a controller at rest agrees on was found with the slot
        levels = slot.levels if rest_first else agree(slot, first, observation, params)
        if levels is not None and memory.levels is not None:
            levels = jnp.where(due, levels, memory.levels)
        slot = coordinate(slot, levels, observation, params)
        if not rest_first:
            slot = value(slot, first, params, config.parametrisation)
        owner = (
            fair_assignment(slot)
            if rest_first
            else assign(slot, first, params, config.parametrisation)
        )
        seen = see_assignment(seen, slot, owner, observation, params)
        second = jnp.where(due, decide("second", seen, second_key), memory.second_latent)
        if rest_second:
            second = jnp.zeros_like(second)
        allocation = allot(slot, owner, second, observation, params, config.parametrisation)
        return allocation, Memory(mean, first, second, memory.slot + 1, levels)

    return Scheduler(init, apply)
