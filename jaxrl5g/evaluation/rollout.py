"""Whole episodes of a scheduler on matched realisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g import phy
from jaxrl5g.channel.link_budget import PRB_BANDWIDTH_HZ
from jaxrl5g.env import DownlinkEnv, DownlinkParams
from jaxrl5g.evaluation.metrics import Metrics, Tally, add_slot, empty_tally, summarise
from jaxrl5g.mac import Scheduler

WARM_UP_SLOTS = 100
"""Slots at the start of an episode that metrics leave out: the EWMA's window."""


def drop_tracks(params: DownlinkParams, num_drops: int) -> np.ndarray:
    """int32[D, C, U]: the disjoint track groups of drops 0..D-1, or the pinned tracks for all.

    Raises:
      ValueError: the channel has fewer disjoint groups; the message says how many.
    """
    pinned = np.asarray(params.tracks)
    if (pinned >= 0).any():
        return np.broadcast_to(pinned, (num_drops, *pinned.shape))
    return params.channel.disjoint_drops(params.config.num_users, num_drops)


def _episode(env, scheduler, key, tracks, params, num_slots, record):
    """Runs one drop; `record(carry, info, slot)` folds each slot's info and may stack a value."""
    params = params.replace(tracks=tracks)
    reset_key, decision_key = jax.random.split(key)
    observation, state = env.reset_env(reset_key, params)

    def slot(carry, index):
        observation, state, memory, folded = carry
        choose = jax.random.fold_in(decision_key, index)
        allocation, memory = scheduler.apply(choose, observation, memory, params)
        observation, state, _, _, info = env.step_env(choose, state, allocation, params)
        folded, stacked = record(folded, info, index)
        return (observation, state, memory, folded), stacked

    start = (observation, state, scheduler.init(params), empty_tally(state.mask))
    (_, _, _, folded), stacked = jax.lax.scan(slot, start, jnp.arange(num_slots))
    return folded, stacked


@partial(jax.jit, static_argnames=("env", "make", "num_slots", "warm_up", "chunk"))
def _tally(env, make, settings, keys, tracks, params, num_slots, warm_up, chunk) -> Tally:
    """Tallies of E episodes; `settings`, `keys` and `tracks` have leading axis E."""
    config = params.config
    top = phy.num_mcs(config.mcs_table) - 1

    def record(tally, info, index):
        return add_slot(tally, info, index >= warm_up, top, config.slot_seconds), None

    def one(episode):
        setting, key, tracks = episode
        return _episode(env, make(*setting), key, tracks, params, num_slots, record)[0]

    return jax.lax.map(one, (settings, keys, tracks), batch_size=chunk)


class Always(NamedTuple):
    """Makes the same scheduler from no setting; equal, and so compiled once, for equal ones."""

    scheduler: Scheduler

    def __call__(self) -> Scheduler:
        return self.scheduler


def _num_slots(params: DownlinkParams, warm_up: int) -> int:
    num_slots = int(params.max_steps_in_episode)
    if not 0 <= warm_up < num_slots:
        raise ValueError(
            f"warm_up must leave slots to count: at least 0 and below the horizon of {num_slots}, "
            f"got {warm_up}."
        )
    return num_slots


def _drop_keys(key: jax.Array, num_drops: int) -> jax.Array:
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_drops))


def evaluate(
    env: DownlinkEnv,
    params: DownlinkParams,
    scheduler: Scheduler,
    key: jax.Array,
    num_drops: int,
    *,
    warm_up: int = WARM_UP_SLOTS,
    chunk: int = 32,
) -> Metrics:
    """Runs a scheduler over whole episodes and measures it, drop by drop.

    With the same `key`, every scheduler meets the same users, channel and HARQ luck, so that
    results pair drop by drop. Ray-traced drops use disjoint tracks and are independent.

    Args:
      env, params: as returned by `jaxrl5g.make`; the horizon is `params.max_steps_in_episode`.
      scheduler: a `Scheduler(init, apply)` pair.
      key: typed PRNG key.
      num_drops: D, at least 1.
      warm_up: slots left out of the metrics at the start of each episode.
      chunk: drops in flight at once.

    Returns:
      `Metrics` of NumPy arrays [D].

    Raises:
      ValueError: more drops than the channel has disjoint ones, or no slots left to count.
    """
    family = evaluate_family(
        env, params, Always(scheduler), ((),), key, num_drops, warm_up=warm_up, chunk=chunk
    )
    return family[0]


def evaluate_family(
    env: DownlinkEnv,
    params: DownlinkParams,
    make: Callable[..., Scheduler],
    settings: Sequence[Sequence[float]],
    key: jax.Array,
    num_drops: int,
    *,
    warm_up: int = WARM_UP_SLOTS,
    chunk: int = 32,
) -> list[Metrics]:
    """`evaluate` for many settings of one kind of scheduler, compiled once.

    Args:
      make: gives a scheduler for a setting's numbers, which are traced.
      settings: K rows of as many numbers as `make` takes.
      The others are those of `evaluate`; every setting meets the same drops.

    Returns:
      K `Metrics`, in the order of the settings.

    Raises:
      ValueError: as `evaluate`, or no setting.
    """
    if not settings:
        raise ValueError("settings must hold at least one row.")
    columns = tuple(np.asarray(column, np.float32) for column in zip(*settings, strict=True))
    count = len(settings)
    return evaluate_stack(
        env, params, make, columns, count, key, num_drops, warm_up=warm_up, chunk=chunk
    )


def evaluate_stack(
    env: DownlinkEnv,
    params: DownlinkParams,
    make: Callable[..., Scheduler],
    settings: tuple[Any, ...],
    count: int,
    key: jax.Array,
    num_drops: int,
    *,
    warm_up: int = WARM_UP_SLOTS,
    chunk: int = 32,
) -> list[Metrics]:
    """`evaluate_family` for settings that are any pytrees, such as trained parameters.

    Args:
      make: hashable; gives a scheduler from the entries of `settings` for one setting.
      settings: positional arguments of `make`, leaves [K, ...].
      count: K.
      The others are those of `evaluate`; every setting meets the same drops.

    Returns:
      K `Metrics`, in the order of the settings.

    Raises:
      ValueError: as `evaluate`.
    """
    if num_drops < 1:
        raise ValueError(f"num_drops must be at least 1, got {num_drops}.")
    num_slots = _num_slots(params, warm_up)
    repeated = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), num_drops, axis=0), settings)
    tracks = np.tile(drop_tracks(params, num_drops), (count, 1, 1))
    keys = jnp.tile(_drop_keys(key, num_drops), count)
    chunk = min(chunk, count * num_drops)
    tally = _tally(env, make, repeated, keys, tracks, params, num_slots, warm_up, chunk)
    parts = [
        jax.tree.map(lambda leaf, i=i: leaf[i * num_drops : (i + 1) * num_drops], tally)
        for i in range(count)
    ]
    counted = num_slots - warm_up
    return [summarise(part, counted, params.config, PRB_BANDWIDTH_HZ) for part in parts]


@partial(jax.jit, static_argnames=("env", "scheduler", "num_slots"))
def _trace_drop(env, scheduler, key, tracks, params, num_slots) -> dict[str, Any]:
    fields = ("owner", "radiated", "mcs", "attempt", "decoded", "acked_bits")

    def record(folded, info, index):
        del index
        return folded, {name: info[name] for name in fields}

    return _episode(env, scheduler, key, tracks, params, num_slots, record)[1]


def record_episode(
    env: DownlinkEnv,
    params: DownlinkParams,
    scheduler: Scheduler,
    key: jax.Array,
    drop: int = 0,
) -> dict[str, np.ndarray]:
    """Every slot of one drop of `evaluate`, for pictures.

    Returns:
      NumPy arrays over T slots: `owner` int32[T, C, N] (-1 muted), `power` float32[T, C, N] W,
      `mcs`, `attempt`, `decoded` int32[T, C, U], `bits` float32[T, C, U] acknowledged.
    """
    tracks = jnp.asarray(drop_tracks(params, drop + 1)[drop])
    episode_key = jax.random.fold_in(key, drop)
    slots = _trace_drop(env, scheduler, episode_key, tracks, params, _num_slots(params, 0))
    arrays = {name: np.asarray(value) for name, value in slots.items()}
    arrays["power"], arrays["bits"] = arrays.pop("radiated"), arrays.pop("acked_bits")
    return arrays
