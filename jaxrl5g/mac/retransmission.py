"""PRBs set aside for HARQ retransmissions before anything else is scheduled."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g.mac.rates import subband_members
from jaxrl5g.mac.types import CellConfig, Observation

_SERVED = -1  # marks a user whose retransmission has its PRBs


class Reservation(NamedTuple):
    """PRBs held for retransmissions.

    Attributes:
      owner: int32[C, N], the user whose retransmission holds the PRB, -1 where free.
      eligible: bool[C, U], users that may be given new data: unmasked, a process free, and no
        retransmission of their own in this slot.
    """

    owner: jax.Array
    eligible: jax.Array


def reserve_retransmissions(observation: Observation, config: CellConfig) -> Reservation:
    """Gives each waiting retransmission its original number of PRBs, the user's best ones.

    Users are served in index order; one that no longer fits among the free PRBs waits.
    PRBs are ranked by reported SINR, ties to the lowest index.
    """
    waiting = jnp.where(observation.mask, observation.harq_prbs, 0)
    num_prbs, num_users, num_subbands = (
        config.num_prbs,
        config.num_users,
        observation.csi_db.shape[-1],
    )
    # exact on any device: accelerators round factors to fewer bits by default
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    subband = np.arange(num_prbs) // config.subband_size
    # products, constant matrices where possible, keep XLA from fusing gathers into the comparison
    member = subband_members(config)
    # falling by less than any two reports differ, so that no two subbands tie
    ranked_db = observation.csi_db - 1e-5 * np.arange(num_subbands, dtype=np.float32)

    def cell(csi_db, waiting):
        def serve(carry):
            owner, waiting = carry
            user = jnp.argmax(waiting > 0)
            chosen = jnp.arange(num_users) == user
            count = jnp.sum(jnp.where(chosen, waiting, 0)).astype(jnp.float32)
            free = (owner < 0).astype(jnp.float32)
            free_in = product(free, member)
            csi = product(chosen.astype(jnp.float32), csi_db)
            taken_before = product((csi > csi[:, None]).astype(jnp.float32), free_in)
            fits = count <= jnp.sum(free_in)
            quota = jnp.where(fits, count - taken_before, 0.0)
            taken = (free > 0) & (_earlier_in_subband(free, subband) < product(member, quota))
            owner = jnp.where(taken, user, owner)
            return owner, jnp.where(chosen, jnp.where(fits, _SERVED, 0), waiting)

        owner = jnp.full(num_prbs, -1, jnp.int32)
        return jax.lax.while_loop(lambda c: jnp.any(c[1] > 0), serve, (owner, waiting))

    owner, served = jax.vmap(cell)(ranked_db, waiting)
    eligible = observation.mask & (observation.harq_free > 0) & (served != _SERVED)
    return Reservation(owner, eligible)


def _earlier_in_subband(free: jax.Array, subband: np.ndarray) -> jax.Array:
    """Free PRBs of lower index in each PRB's own subband, float32[N]."""
    count = jnp.zeros_like(free)
    for back in range(1, int(np.bincount(subband).max())):
        same = np.concatenate([np.zeros(back, bool), subband[back:] == subband[:-back]])
        count = count + jnp.where(same, jnp.pad(free, (back, 0))[: len(subband)], 0.0)
    return count
