"""Reservation of retransmissions: exact counts, best PRBs, nobody disturbed."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.env import DownlinkConfig
from jaxrl5g.mac import Observation, reserve_retransmissions

USERS, PRBS = 5, 17
CONFIG = DownlinkConfig(num_users=USERS, num_prbs=PRBS, csi="perfect")
RESERVE = jax.jit(lambda observation: reserve_retransmissions(observation, CONFIG))


def observation(csi_db, need, mask):
    zero = jnp.zeros((1, USERS))
    return Observation(
        csi_db=jnp.asarray(csi_db, jnp.float32)[None],
        olla_offset_db=zero,
        throughput=zero,
        acked_bits=zero,
        feedback=zero.astype(jnp.int32),
        harq_prbs=jnp.asarray(need, jnp.int32)[None],
        harq_free=jnp.full((1, USERS), 2),
        mask=jnp.asarray(mask)[None],
    )


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), load=st.floats(0.0, 1.0))
def test_reservations_match_a_greedy_loop(seed, load):
    rng = np.random.default_rng(seed)
    csi_db = np.round(rng.uniform(-39, 59, (USERS, PRBS)) * 4) / 4
    need = rng.integers(1, PRBS, USERS) * (rng.random(USERS) < load)
    mask = rng.random(USERS) < 0.8
    owner, eligible = RESERVE(observation(csi_db, need, mask))
    expected = np.full(PRBS, -1)
    for user in range(USERS):
        free = np.flatnonzero(expected < 0)
        if mask[user] and 0 < need[user] <= len(free):
            best = sorted(free, key=lambda n, u=user: (-csi_db[u, n], n))[: need[user]]
            expected[best] = user
    np.testing.assert_array_equal(owner[0], expected)
    holding = np.isin(np.arange(USERS), expected)
    np.testing.assert_array_equal(eligible[0], mask & ~holding)
