"""PRBs set aside for HARQ retransmissions before anything else is scheduled."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl5g.mac.rates import per_prb
from jaxrl5g.mac.types import CellConfig, Observation


class Reservation(NamedTuple):
    """PRBs held for retransmissions.

    Attributes:
      owner: int32[C, N], the user whose retransmission holds the PRB, -1 where free.
      eligible: bool[C, U], users that may be given new data: unmasked, a process free, and no
        retransmission of their own in this slot.
    """

    owner: jax.Array
    eligible: jax.Array


def _best_prbs(key: jax.Array, count: jax.Array, bits: int) -> jax.Array:
    """Marks the `count` largest of distinct non-negative int32 keys [N] (bisection, no sort)."""

    def refine(bit, low):
        candidate = low | (1 << (bits - 1 - bit))
        return jnp.where(jnp.sum(key >= candidate) >= count, candidate, low)

    threshold = jax.lax.fori_loop(0, bits, refine, jnp.int32(0))
    return (key >= threshold) & (count > 0)


def reserve_retransmissions(observation: Observation, config: CellConfig) -> Reservation:
    """Gives each waiting retransmission its original number of PRBs, the user's best ones.

    Users are served in index order; one that no longer fits among the free PRBs waits.
    PRBs are ranked by reported SINR in steps of 1/4 dB, ties to the lowest index.
    """
    waiting = jnp.where(observation.mask, observation.harq_prbs, 0)
    num_prbs, num_users = config.num_prbs, config.num_users
    index_bits = max(1, (num_prbs - 1).bit_length())
    steps = jnp.clip(4.0 * (per_prb(observation.csi_db, config) + 64.0), 0.0, 510.0)
    order = jnp.arange(num_prbs, dtype=jnp.int32)
    # +1 keeps every key above 0, the key of a PRB that is already taken
    keys = ((steps.astype(jnp.int32) + 1) << index_bits) + (num_prbs - 1 - order)

    def cell(keys, waiting):
        def serve(carry):
            owner, waiting = carry
            user = jnp.argmax(waiting > 0)
            count = waiting[user]
            free = owner < 0
            fits = count <= jnp.sum(free)
            taken = _best_prbs(jnp.where(free, keys[user], 0), count, 9 + index_bits)
            owner = jnp.where(taken & fits & free, user, owner)
            return owner, waiting.at[user].set(0)

        owner = jnp.full(num_prbs, -1, jnp.int32)
        return jax.lax.while_loop(lambda c: jnp.any(c[1] > 0), serve, (owner, waiting))[0]

    owner = jax.vmap(cell)(keys, waiting)
    users = jnp.arange(num_users)
    holds = jnp.any(owner[:, None, :] == users[:, None], axis=-1)
    eligible = observation.mask & (observation.harq_free > 0) & ~holds
    return Reservation(owner, eligible)
