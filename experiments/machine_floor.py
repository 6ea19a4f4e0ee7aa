"""What the machine can do at best: memory bandwidth and exponentials, measured with JAX."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def best_seconds(run: Callable[[], jax.Array], repeats: int = 7) -> float:
    """Return the fastest of `repeats` runs after a first one that compiles."""
    jax.block_until_ready(run())
    fastest = float("inf")
    for _ in range(repeats):
        tick = time.perf_counter()
        jax.block_until_ready(run())
        fastest = min(fastest, time.perf_counter() - tick)
    return fastest


def memory_bandwidth(elements: int = 1 << 25) -> float:
    """Return bytes/s of `a + 2 b` over arrays far larger than any cache, reads and writes."""
    a, b = jnp.ones(elements, jnp.float32), jnp.ones(elements, jnp.float32)
    triad = jax.jit(lambda a, b: a + 2.0 * b)
    return 3 * 4 * elements / best_seconds(lambda: triad(a, b))


def exponential_rate(elements: int = 1 << 20, rounds: int = 16) -> float:
    """Return float32 exponentials per second, all cores together."""

    @jax.jit
    def chain(x: jax.Array) -> jax.Array:
        for _ in range(rounds):  # exp(-x) of a number in [0, 1] stays in [0, 1]
            x = jnp.exp(-x)
        return x

    x = jnp.linspace(0.0, 1.0, elements, dtype=jnp.float32)
    return elements * rounds / best_seconds(lambda: chain(x))


def floor_seconds(cost: dict[str, float], bandwidth: float, exponentials: float) -> float:
    """Return the least time of a slot, memory and arithmetic overlapping perfectly.

    Args:
        cost: `benchmark_rollout.cost_of_slot`.
        bandwidth: bytes/s.
        exponentials: per second.
    """
    moved = cost["state_bytes"] + cost["gain_bytes"]
    return max(moved / bandwidth, cost["transcendentals"] / exponentials)
