"""The uniform numbers that decide which transport blocks are decoded."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl5g.env.types import DownlinkState

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """First word of Threefry-2x32 with 20 rounds (Salmon et al. 2011), uint32 as the counters.

    Straight-line code: JAX's own is a loop of tiny kernels on a CPU, which costs a slot more
    than its transport blocks.

    Args:
      key: uint32[2]; first, second: uint32[...], the two words of the counter.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            turned = (second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))
            second = first ^ turned
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return first


def block_uniforms(state: DownlinkState) -> jax.Array:
    """float32[C, U] in [0, 1): the numbers of blocks first sent in this slot.

    A function of (drop key, slot, track) alone, so that schedulers can be compared on the same
    luck and users may change places.
    """
    tracks = state.drop.tracks.astype(jnp.uint32)
    slot = jnp.broadcast_to(state.time, tracks.shape).astype(jnp.uint32)
    bits = threefry(jax.random.key_data(state.key), tracks, slot)
    return (bits >> 8).astype(jnp.float32) * 2.0**-24
