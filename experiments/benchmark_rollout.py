"""Time the environment's own step under PF and equal power, one setting at a time.

As a module it measures one `Setting` given as JSON and prints the outcome as JSON, so that a
setting can have a process, and therefore virtual devices and peak memory, of its own:
`python -m experiments.benchmark_rollout '{"env": "RayleighDownlink-v0", "batch": 64}'`.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import jaxrl5g
from experiments.processes import run_apart
from experiments.schedulers import parse_scheduler
from jaxrl5g.env import spec
from jaxrl5g.env.csi import measure as measure_csi


@dataclass(frozen=True)
class Setting:
    """What to time.

    Attributes:
        env: environment id.
        fidelity: link model.
        scheduler: name, as `evaluate` takes it.
        batch: environments, over all devices.
        chunk: environments stepped side by side by `vmap`; larger batches run as consecutive
            chunks of whole rollouts, which keeps the state in the processor's cache. 0 = batch.
        users: users per cell.
        prbs: PRBs.
        devices: JAX devices that share the batch; more than the machine has are virtual CPUs.
        slots: slots per rollout; 0 = enough for a steady reading.
        repeats: timed rollouts, of which the median counts.
    """

    env: str = "RayleighDownlink-v0"
    fidelity: str = "nr"
    scheduler: str = "pf"
    batch: int = 1
    chunk: int = 0
    users: int = 16
    prbs: int = 51
    devices: int = 1
    slots: int = 0
    repeats: int = 5

    @property
    def per_device(self) -> int:
        """Environments on each device."""
        return self.batch // self.devices

    @property
    def width(self) -> int:
        """Environments under one `vmap`."""
        return min(self.chunk or self.per_device, self.per_device)

    @property
    def num_slots(self) -> int:
        """Slots of a rollout."""
        return self.slots or int(np.clip(60_000 // self.batch, 40, 2000))


class Carry(NamedTuple):
    """One environment on its way, with its scheduler's memory."""

    key: jax.Array
    observation: Any
    state: Any
    memory: Any


def start(env: Any, scheduler: Any, params: Any, key: jax.Array) -> Carry:
    """Reset one environment and its scheduler."""
    key, reset_key = jax.random.split(key)
    observation, state = env.reset(reset_key, params)
    return Carry(key, observation, state, scheduler.init(params))


def slot(env: Any, scheduler: Any, params: Any, carry: Carry) -> tuple[Carry, jax.Array]:
    """One decision and one step, autoreset included; returns the bits delivered."""
    key, apply_key, step_key = jax.random.split(carry.key, 3)
    action, memory = scheduler.apply(apply_key, carry.observation, carry.memory, params)
    observation, state, _, _, truncated, info = env.step(step_key, carry.state, action, params)
    fresh = scheduler.init(params)
    memory = jax.tree.map(lambda new, old: jnp.where(truncated, new, old), fresh, memory)
    return Carry(key, observation, state, memory), jnp.sum(info["acked_bits"])


def rollout(env: Any, scheduler: Any, setting: Setting, params: Any, keys: jax.Array) -> jax.Array:
    """Delivered bits per slot of each environment [B], over `num_slots` slots from reset."""

    def chunk(keys: jax.Array) -> jax.Array:
        carry = jax.vmap(partial(start, env, scheduler, params))(keys)
        step = jax.vmap(partial(slot, env, scheduler, params))

        def body(state: tuple[Carry, jax.Array], _: None):
            carry, total = state
            carry, bits = step(carry)
            return (carry, total + bits), None

        zeros = jnp.zeros(keys.shape[0], jnp.float32)
        (_, total), _ = jax.lax.scan(body, (carry, zeros), length=setting.num_slots)
        return total / setting.num_slots

    if keys.shape[0] == setting.width:
        return chunk(keys)
    chunks = keys.reshape(-1, setting.width)
    return jax.lax.map(chunk, chunks).reshape(-1)


def make_env(setting: Setting) -> tuple[Any, Any]:
    """Return the environment and parameters of a setting."""
    return jaxrl5g.make(
        setting.env,
        fidelity=setting.fidelity,
        num_users=setting.users,
        num_prbs=setting.prbs,
    )


def measure(setting: Setting) -> dict[str, Any]:
    """Compile and time one setting.

    Returns:
        The setting with `slots_per_s` (cell-slots, median), `spread` (fastest and slowest),
        `trace_s`, `compile_s`, `state_bytes` (per environment), `program_bytes` (what the
        compiled program holds), `peak_rss_bytes` (of the process so far) and
        `bits_per_slot` (a check that the work was done).

    Raises:
        ValueError: the batch does not divide over devices and chunks.
    """
    if setting.batch % setting.devices or setting.per_device % setting.width:
        raise ValueError(
            f"batch {setting.batch} does not divide over {setting.devices} devices in chunks "
            f"of {setting.width}."
        )
    env, params = make_env(setting)
    scheduler = parse_scheduler(setting.scheduler)
    run = partial(rollout, env, scheduler, setting)
    if setting.devices > 1:
        mesh = Mesh(np.array(jax.devices()[: setting.devices]), ("batch",))
        split, whole = PartitionSpec("batch"), PartitionSpec()
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False
        )
    keys = jax.random.split(jax.random.key(0), setting.batch)
    began = time.perf_counter()
    lowered = jax.jit(run).lower(params, keys)
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    bits = jax.block_until_ready(compiled(params, keys))

    seconds = []
    for _ in range(setting.repeats):
        tick = time.perf_counter()
        jax.block_until_ready(compiled(params, keys))
        seconds.append(time.perf_counter() - tick)
    slots = setting.batch * setting.num_slots
    memory = compiled.memory_analysis()
    return {
        **asdict(setting),
        "num_slots": setting.num_slots,
        "slots_per_s": slots / float(np.median(seconds)),
        "spread": [slots / max(seconds), slots / min(seconds)],
        "trace_s": lowered_at - began,
        "compile_s": compiled_at - lowered_at,
        "state_bytes": tree_bytes(
            jax.eval_shape(partial(start, env, scheduler), params, jax.random.key(0))
        ),
        "program_bytes": (
            memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None
        ),
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "bits_per_slot": float(jnp.mean(bits)),
    }


def measure_apart(setting: Setting) -> dict[str, Any]:
    """Measure in a process of its own; virtual CPU devices are made where more are asked for.

    Raises:
        RuntimeError: the process failed; its last line of output is the message.
    """
    return run_apart(__name__, setting, setting.devices)


def cost_of_slot(setting: Setting) -> dict[str, float]:
    """Count what one slot of one environment of a batch must move and compute.

    Returns:
        `state_bytes` (read and written once), `gain_bytes` (the channel at the PRBs' owners and
        what a report reads of it) and `transcendentals` (exponentials, logarithms and the like in
        the program as written, before XLA repeats any of them in its fusions; what a batch shares
        is divided by its size, what only a slot with a report or a reset needs by their distance).
    """
    env, params = make_env(setting)
    scheduler = parse_scheduler(setting.scheduler)
    batch = 128
    carry = jax.eval_shape(partial(start, env, scheduler), params, jax.random.key(0))
    carries = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype), carry
    )

    def count(function: Callable[..., Any], *batched: Any) -> float:
        lowered = jax.jit(jax.vmap(function, (None, *[0] * len(batched)))).lower(params, *batched)
        return float((lowered.cost_analysis() or {}).get("transcendentals", 0.0)) / batch

    def report(params: Any, state: Any) -> jax.Array:
        idle = jnp.zeros((params.config.num_cells, params.config.num_prbs))
        return measure_csi(params.channel.gains(state.drop, state.time), idle, state.mask, params)

    config = params.config
    keys = jax.random.split(jax.random.key(0), batch)
    period = config.cqi_period if config.csi == "reported" else 1
    horizon = int(params.max_steps_in_episode)
    every_slot = count(partial(slot, env, scheduler), carries)
    in_reports = count(report, carries.state)
    in_resets = count(lambda params, key: env.reset_env(key, params), keys)
    traced = spec(setting.env).caches is not None
    gains = config.num_cells**2 * setting.prbs * (1 + setting.users / period) if traced else 0
    return {
        "state_bytes": 2.0 * tree_bytes(carry),
        "gain_bytes": 2.0 * gains,  # int16
        "transcendentals": every_slot
        - (1 - 1 / period) * in_reports
        - (1 - 1 / horizon) * in_resets,
    }


def tree_bytes(tree: Any) -> int:
    """Return the bytes of all leaves; a typed key counts as its words."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        total += int(np.prod(leaf.shape)) * leaf.dtype.itemsize
    return total


if __name__ == "__main__":
    print(json.dumps(measure(Setting(**json.loads(sys.argv[1])))))
