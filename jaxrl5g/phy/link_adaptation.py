"""Inner and outer loop link adaptation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy import nr_curves
from jaxrl5g.phy.error_model import (
    measured_mcs,
    nr_log_bler,
    nr_row,
    sionna_bler_at,
    sionna_row,
)
from jaxrl5g.phy.lookup import highest_true, log1p, one_minus_exp, take, to_db
from jaxrl5g.phy.mcs import mcs_arrays
from jaxrl5g.phy.options import check_fidelity, check_table
from jaxrl5g.phy.transport_block import segment, sizes_by_eighth

OFFSET_LIMIT_DB = 20.0
_MAX_BLOCKS = 64  # more than 65 535 resource elements can carry on one layer


def select_mcs(
    sinr_eff: ArrayLike,
    num_re: ArrayLike,
    bler_target: ArrayLike = 0.1,
    table: int = 1,
    fidelity: str = "nr",
) -> Array:
    """Highest MCS whose transport block error rate does not exceed the target.

    Args:
        sinr_eff: linear effective SINR, one per user [...], or one per user and candidate MCS
            [..., M]. It is per candidate exactly when it has one axis more than `num_re` and its
            last axis has length M.
        num_re: resource elements of each user's grant, integers [...], at most 65 535.
        bler_target: in (0, 1), may be traced; broadcasts against `num_re`.
        table: MCS table, 1 or 2.
        fidelity: "nr"; "sionna", where MCS without data are never chosen; "shannon": the MCS of
            highest spectral efficiency that does not exceed log2(1 + SINR).

    Returns:
        int32 [...]. If no MCS meets the target, the lowest available one ("shannon": the one of
        lowest efficiency). 0 for a user without resource elements, Sionna's fill value.

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_fidelity(fidelity)
    check_table(table)
    orders, rates = mcs_arrays(table)
    num_re = jnp.asarray(num_re, jnp.int32)
    sinr = jnp.asarray(sinr_eff, jnp.float32)
    per_candidate = sinr.ndim == num_re.ndim + 1 and sinr.shape[-1] == len(orders)
    sinr = sinr if per_candidate else sinr[..., None]
    resources = num_re[..., None]
    target = jnp.asarray(bler_target, jnp.float32)[..., None]

    if fidelity == "shannon":
        rank, lowest = _by_efficiency(orders, rates)
        allowed = jnp.log2(1.0 + sinr) >= jnp.asarray(orders * rates)
    else:
        rank = np.arange(len(orders), dtype=np.int32)
        lowest = int(np.argmax(measured_mcs(table, fidelity)))
        allowed = _meets_target(sinr, resources, target, table, fidelity)
    best = highest_true(allowed, rank)
    by_rank = np.argsort(rank).astype(np.int32)
    chosen = best if fidelity != "shannon" else jnp.asarray(by_rank)[jnp.maximum(best, 0)]
    chosen = jnp.where(best >= 0, chosen, lowest)
    return jnp.where(num_re > 0, chosen, 0)


def _by_efficiency(orders: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, int]:
    """Rank of every MCS by Qm*R, and the MCS of the lowest (table 1 is not sorted)."""
    ascending = np.argsort(orders * rates, kind="stable")
    rank = np.empty(len(orders), np.int32)
    rank[ascending] = np.arange(len(orders))
    return rank, int(ascending[0])


def _meets_target(sinr: Array, resources: Array, target: Array, table: int, fidelity: str) -> Array:
    """Which candidates keep the transport block error rate at the target, bool [..., M]."""
    orders, rates = mcs_arrays(table)
    cut = segment(resources * jnp.asarray(orders), jnp.asarray(rates), fidelity)
    per_block = code_block_limit(target, cut.blocks, log10=fidelity != "sionna")
    if fidelity == "sionna":
        large_row, bler_at = sionna_row(cut.large_size), sionna_bler_at
    else:
        # code blocks outside the size table have at least 1960 bits: always the last row
        large_row, bler_at = nr_curves.CBS_ROWS - 1, nr_log_bler
    row = jnp.where(cut.small, take(_small_rows(fidelity), cut.eighth), large_row)
    every = jnp.arange(len(orders), dtype=jnp.int32)
    mcs, row, sinr_db = jnp.broadcast_arrays(every, row, to_db(sinr))
    return bler_at(mcs, row, sinr_db, table) <= per_block


@functools.cache
def _small_rows(fidelity: str) -> np.ndarray:
    """int32[479]: curve row of a transport block from the size table, by N'/8."""
    row_of = sionna_row if fidelity == "sionna" else nr_row
    with jax.ensure_compile_time_eval():
        return np.asarray(row_of(jnp.asarray(sizes_by_eighth() + 16)))


def code_block_limit(target: Array, blocks: ArrayLike, log10: bool) -> Array:
    """Largest code-block error rate b that keeps 1 - (1 - b)^C at the target (or its log10)."""
    blocks = jnp.asarray(blocks, jnp.int32)
    if target.ndim > 1:  # one target per user
        limit = one_minus_exp(-log1p(-target) / blocks.astype(jnp.float32))
        return jnp.log10(limit) if log10 else limit
    # one target: tabulate it over C, which costs less than a logarithm per candidate
    counts = jnp.maximum(jnp.arange(_MAX_BLOCKS, dtype=jnp.float32), 1.0)
    limit = one_minus_exp(-log1p(-target) / counts)
    return take(jnp.log10(limit) if log10 else limit, blocks)


def outer_loop_update(
    offset_db: ArrayLike,
    feedback: ArrayLike,
    step_up_db: ArrayLike = 1.0,
    bler_target: ArrayLike = 0.1,
) -> Array:
    """Outer-loop offset after one HARQ feedback; subtract it from the SINR in dB.

    Args:
        offset_db: current offset in dB.
        feedback: 1 for ACK, 0 for NACK, -1 for none; broadcasts.
        step_up_db: step after a NACK, > 0. An ACK moves by step_up_db * t / (1 - t), so that
            the long-run error rate equals t whatever the step, as long as nothing clips.
        bler_target: t in (0, 1).

    Returns:
        float32 dB within +-20; unchanged without feedback.
    """
    offset_db = jnp.asarray(offset_db, jnp.float32)
    feedback = jnp.asarray(feedback)
    step_up = jnp.asarray(step_up_db, jnp.float32)
    target = jnp.asarray(bler_target, jnp.float32)
    step_down = step_up * target / (1.0 - target)
    change = jnp.where(feedback == 0, step_up, jnp.where(feedback == 1, -step_down, 0.0))
    return jnp.clip(offset_db + change, -OFFSET_LIMIT_DB, OFFSET_LIMIT_DB)
