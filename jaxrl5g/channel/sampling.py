"""Drawing tracks without replacement, cheaply enough to be done at every step."""

import jax
import jax.numpy as jnp


def draw_ranks(key: jax.Array, free: jax.Array, taken: jax.Array, count: jax.Array) -> jax.Array:
    """Distinct uniform ranks in [0, count) avoiding ``taken``.

    O(U^2) elementwise work whatever the pool's size: a top-k over the pool would cost more, and
    gymnax resets at every step under vmap.

    Args:
        key: typed PRNG key.
        free: bool[U]; which entries are to be drawn. The others return an unspecified rank.
        taken: int32[K] ranks not to be drawn, each once; -1 = no rank.
        count: int32[]; size of the pool, at least the number of free and taken entries.

    Returns:
        int32[U], within [0, count) even if the pool is too small (then not distinct).
    """
    num_free = count - jnp.sum(taken >= 0)
    earlier = jnp.cumsum(free) - free
    code = jax.random.randint(key, free.shape, 0, jnp.maximum(num_free - earlier, 1))
    rank = skip_taken(decode_ranks(code, free), taken)
    return jnp.clip(rank, 0, jnp.maximum(count - 1, 0))


def decode_ranks(code: jax.Array, free: jax.Array) -> jax.Array:
    """Turn a Lehmer code into distinct ranks, int32[U].

    ``code[j]`` counts positions in the list left after the earlier free entries were removed;
    undoing the removals last to first only takes comparisons, no sort and no scatter.
    """
    index = jnp.arange(code.shape[0])
    rank = code
    for i in reversed(range(code.shape[0])):
        rank = rank + ((index > i) & free[i] & (rank >= code[i]))
    return rank


def skip_taken(rank: jax.Array, taken: jax.Array) -> jax.Array:
    """Move ranks, int32[U], of the untaken into the whole pool by stepping over ``taken``."""
    real = taken >= 0
    below = jnp.sum(real[None, :] & (taken[None, :] < taken[:, None]), axis=1)
    steps = real[None, :] & (taken[None, :] - below[None, :] <= rank[:, None])
    return rank + jnp.sum(steps, axis=1, dtype=rank.dtype)
