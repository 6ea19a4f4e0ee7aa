"""Many MAPPO learners on a mesh of devices: environments split, all else on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.rl.mappo import (
    Hyper,
    LearnerState,
    MappoConfig,
    Metrics,
    PhaseSettings,
    init_learner,
    updates,
)
from jaxrl5g.rl.two_turn import TwoTurnTask

AXIS = "environments"
"""Name of the mesh axis that environments are split over."""


def learner_sharding(mesh: jax.sharding.Mesh) -> Any:
    """Shardings of a stack of learners [S, ...]: environments split, all else on every device."""
    whole = jax.sharding.NamedSharding(mesh, jax.P())
    split = jax.sharding.NamedSharding(mesh, jax.P(None, AXIS))
    fields = dict.fromkeys(LearnerState._fields, whole) | {"environments": split}
    return LearnerState(**fields)  # pyright: ignore[reportArgumentType]


def init_learners(
    keys: Array,
    task: TwoTurnTask,
    task_params: Any,
    config: MappoConfig,
    hyper: Hyper,
    mesh: jax.sharding.Mesh,
) -> LearnerState:
    """Learners of S seeds, leaves [S, ...], placed on a mesh.

    Args:
      keys: typed [S].
      hyper: leaves [S].

    Raises:
      ValueError: the environments cannot be split evenly over the devices.
    """
    each_device = 2 if config.mirrored else 1  # pairs stay together
    if config.num_envs % (each_device * mesh.size):
        raise ValueError(
            f"num_envs must be a multiple of {each_device * mesh.size} on {mesh.size} devices"
            f"{' with mirrored pairs' if config.mirrored else ''}, got {config.num_envs}."
        )

    def each(keys: Array, task_params: Any, hyper: Hyper) -> LearnerState:
        return jax.vmap(init_learner, (0, None, None, None, 0))(
            keys, task, task_params, config, hyper
        )

    return jax.jit(each, out_shardings=learner_sharding(mesh))(keys, task_params, hyper)


def make_chunk(
    count: int,
    task: TwoTurnTask,
    config: MappoConfig,
    mesh: jax.sharding.Mesh,
    seeds_at_once: int | None = None,
) -> Callable[..., tuple[LearnerState, Metrics]]:
    """`count` updates of S learners on a mesh, compiled once for all phases.

    Args:
      seeds_at_once: learners that run side by side, all by default. On a CPU one after the other
        is faster: their environments stay in the cache.

    Returns:
      `chunk(state, task_params, phase, hyper) -> (state, metrics)`, leaves [S, ...] but for
      `task_params` and `phase`; metrics are means over the updates.
    """

    def device(state: LearnerState, task_params: Any, phase: PhaseSettings, hyper: Hyper):
        def one(pair: tuple[LearnerState, Hyper]) -> tuple[LearnerState, Metrics]:
            state, metrics = updates(
                pair[0], count, task, task_params, config, phase, pair[1], AXIS
            )
            return state, jax.tree.map(jnp.mean, metrics)

        if seeds_at_once is None:
            return jax.vmap(one)((state, hyper))
        return _map_in_batches(one, (state, hyper), seeds_at_once)

    specs = jax.tree.map(lambda sharding: sharding.spec, learner_sharding(mesh))
    return jax.jit(
        jax.shard_map(
            device,
            mesh=mesh,
            in_specs=(specs, jax.P(), jax.P(), jax.P()),
            out_specs=(specs, jax.P()),
            check_vma=False,
        )
    )


def _map_in_batches(one: Callable[[Any], Any], stacked: Any, size: int) -> Any:
    """`jax.lax.map` with a batch size, for leaves without elements too, which it cannot reshape."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    size = min(size, count)
    whole = count // size * size

    def part(leaf: Array) -> Array:
        return leaf[:whole].reshape(whole // size, size, *leaf.shape[1:])

    done = jax.lax.map(jax.vmap(one), jax.tree.map(part, stacked))
    done = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), done)
    if whole == count:
        return done
    rest = jax.vmap(one)(jax.tree.map(lambda leaf: leaf[whole:], stacked))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), done, rest)
