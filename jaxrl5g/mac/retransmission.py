"""PRBs set aside for HARQ retransmissions before anything else is scheduled."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    prbs = np.arange(num_prbs)
    subband = prbs // config.subband_size
    # products, constant matrices where possible, keep XLA from fusing gathers into the comparison
    member = (subband[:, None] == np.arange(num_subbands)).astype(np.float32)
    before = ((subband[:, None] == subband) & (prbs[:, None] < prbs)).astype(np.float32)
    # falling by less than any two reports differ, so that no two subbands tie
    ranked_db = observation.csi_db - 1e-5 * np.arange(num_subbands, dtype=np.float32)

    def cell(csi_db, waiting):
        def serve(carry):
            owner, waiting = carry
            user = jnp.argmax(waiting > 0)
            count = waiting[user].astype(jnp.float32)
            free = (owner < 0).astype(jnp.float32)
            free_in = product(free, member)
            csi = product((jnp.arange(num_users) == user).astype(jnp.float32), csi_db)
            taken_before = product((csi > csi[:, None]).astype(jnp.float32), free_in)
            quota = jnp.where(count <= jnp.sum(free_in), count - taken_before, 0.0)
            taken = (free > 0) & (product(free, before) < product(member, quota))
            return jnp.where(taken, user, owner), waiting.at[user].set(0)

        owner = jnp.full(num_prbs, -1, jnp.int32)
        return jax.lax.while_loop(lambda c: jnp.any(c[1] > 0), serve, (owner, waiting))[0]

    owner = jax.vmap(cell)(ranked_db, waiting)
    users = jnp.arange(num_users)
    holds = jnp.any(owner[:, None, :] == users[:, None], axis=-1)
    eligible = observation.mask & (observation.harq_free > 0) & ~holds
    return Reservation(owner, eligible)
