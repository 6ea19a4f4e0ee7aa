"""Whole-PRB grants: what `transport_block` and `error_model` say of n PRBs, tabulated once.

A simulator grants whole PRBs of equal size, so everything that depends on the grant and the MCS
alone is a constant table, and a slot only looks it up.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy.error_model import (
    bler_at_row,
    curve_row,
    measured_mcs,
    of_all_blocks,
    sionna_bler_at,
)
from jaxrl5g.phy.link_adaptation import code_block_limit
from jaxrl5g.phy.lookup import highest_true, take, to_db
from jaxrl5g.phy.mcs import mcs_arrays, num_mcs
from jaxrl5g.phy.options import check_fidelity, check_table
from jaxrl5g.phy.transport_block import code_blocks, transport_block_size


class Grants(NamedTuple):
    """Grants of 0..N PRBs at each of M MCS; NumPy arrays [N + 1, M], constants under jit.

    Attributes:
        block_bits: float32, transport block size, 0 without PRBs.
        row: int32, row of the error curves of its code blocks.
        blocks: int32 >= 1, number of code blocks.
        table, fidelity: what they were made for.
    """

    block_bits: np.ndarray
    row: np.ndarray
    blocks: np.ndarray
    table: int
    fidelity: str

    def at(self, field: np.ndarray, num_prbs: ArrayLike, mcs: ArrayLike) -> Array:
        """`field[num_prbs, mcs]`; the two broadcast."""
        num_prbs, mcs = jnp.broadcast_arrays(
            jnp.asarray(num_prbs, jnp.int32), jnp.asarray(mcs, jnp.int32)
        )
        return take(field.reshape(-1), num_prbs * field.shape[1] + mcs)


@functools.cache
def grants(num_prbs: int, res_per_prb: int, table: int = 1, fidelity: str = "nr") -> Grants:
    """Tables for grants of up to `num_prbs` PRBs of `res_per_prb` resource elements each.

    Args:
        fidelity: "nr" or "sionna".

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_table(table)
    check_fidelity(fidelity)
    orders, rates = mcs_arrays(table)
    num_re = res_per_prb * np.arange(num_prbs + 1)[:, None]

    @jax.jit  # one small program: operation by operation it takes seconds
    def tables(num_re: Array) -> tuple[Array, Array, Array]:
        size = transport_block_size(num_re, orders, rates, fidelity=fidelity)
        block_size, blocks = code_blocks(size, rates)
        return size, blocks, curve_row(block_size, fidelity)

    with jax.ensure_compile_time_eval():
        size, blocks, row = tables(num_re)
    return Grants(
        block_bits=np.asarray(size, np.float32),
        row=np.asarray(row, np.int32),
        blocks=np.maximum(np.asarray(blocks, np.int32), 1),
        table=table,
        fidelity=fidelity,
    )


def grant_error_rate(
    grants: Grants, num_prbs: ArrayLike, mcs_index: ArrayLike, sinr_eff: ArrayLike
) -> Array:
    """`transport_block_error_rate` of a grant of whole PRBs; 0 without PRBs.

    Args:
        num_prbs: integers in 0..N. mcs_index: integers in 0..M-1.
        sinr_eff: linear effective SINR. The three broadcast.
    """
    mcs, count, sinr = jnp.broadcast_arrays(
        jnp.asarray(mcs_index, jnp.int32),
        jnp.asarray(num_prbs, jnp.int32),
        jnp.asarray(sinr_eff, jnp.float32),
    )
    row = grants.at(grants.row, count, mcs)
    bler = bler_at_row(mcs, row, sinr, grants.table, grants.fidelity)
    rate = of_all_blocks(bler, grants.at(grants.blocks, count, mcs))
    return jnp.where(count > 0, rate, 0.0)


def grant_mcs(
    grants: Grants, num_prbs: ArrayLike, sinr_eff: ArrayLike, bler_target: ArrayLike
) -> Array:
    """`select_mcs` for grants of whole PRBs and one effective SINR a user, in "sionna" fidelity.

    Args:
        num_prbs: int32[...] in 0..N. sinr_eff: float32[...], linear.
        bler_target: float32[], may be traced.

    Returns:
        int32[...]; 0 without PRBs.
    """
    count = jnp.asarray(num_prbs, jnp.int32)[..., None]
    every = jnp.arange(num_mcs(grants.table), dtype=jnp.int32)
    # one row per grant size, shared by all users (and by a batch with a common target)
    limits = code_block_limit(jnp.asarray(bler_target, jnp.float32), grants.blocks, log10=False)
    limit, row = take(limits, count[..., 0]), take(grants.row, count[..., 0])
    sinr_db = jnp.broadcast_to(to_db(sinr_eff)[..., None], limit.shape)
    mcs = jnp.broadcast_to(every, limit.shape)
    allowed = sionna_bler_at(mcs, row, sinr_db, grants.table) <= limit
    lowest = int(np.argmax(measured_mcs(grants.table, grants.fidelity)))
    chosen = highest_true(allowed)
    chosen = jnp.where(chosen >= 0, chosen, lowest)
    return jnp.where(count[..., 0] > 0, chosen, 0)
