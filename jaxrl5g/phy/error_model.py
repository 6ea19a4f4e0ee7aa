"""Block error rates at an effective SINR."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy import nr_curves, sionna_curves
from jaxrl5g.phy.lookup import log1p, one_minus_exp, take, to_db
from jaxrl5g.phy.mcs import mcs_parameters, num_mcs, spectral_efficiency
from jaxrl5g.phy.options import check_fidelity, check_table
from jaxrl5g.phy.transport_block import code_blocks, transport_block_size

_LN10 = math.log(10.0)


def nr_row(code_block_size: Array) -> Array:
    """Row of the repaired curves nearest to a code-block size (in the logarithm), int32."""
    scale = (nr_curves.CBS_ROWS - 1) / math.log(nr_curves.CBS_MAX / nr_curves.CBS_MIN)
    size = jnp.clip(code_block_size, nr_curves.CBS_MIN, nr_curves.CBS_MAX).astype(jnp.float32)
    return jnp.round((jnp.log(size) - math.log(nr_curves.CBS_MIN)) * scale).astype(jnp.int32)


def nr_log_bler(mcs_index: Array, row: Array, sinr_db: Array, table: int) -> Array:
    """log10(BLER) <= 0 of the repaired curves; MCS and row in range, all of one shape."""
    curves = nr_curves.nr_curves(table)
    num_rows, num_knots = curves.log_bler.shape[1:]
    shifted = sinr_db + take(curves.shift_db, mcs_index)
    knot = (shifted - curves.start_db) / curves.step_db
    left = jnp.clip(knot, 0.0, num_knots - 2.0).astype(jnp.int32)
    start = (mcs_index * num_rows + row) * num_knots + left
    flat = curves.log_bler.reshape(-1)
    low, high = take(flat, start), take(flat, start + 1)
    fraction = knot - left.astype(jnp.float32)  # outside [0, 1] past the ends: extrapolation
    value = low + fraction * (high - low)
    # rounding must not undercut the right knot, or the curve would step up where it begins
    value = jnp.where(fraction <= 1.0, jnp.maximum(value, high), value)
    return jnp.minimum(value, 0.0)


def sionna_row(code_block_size: Array) -> Array:
    """Row of Sionna's grid nearest to a code-block size, ties to even, int32.

    In integers: a size can lie exactly between two rows.
    """
    step = sionna_curves.CBS_STEP
    last = sionna_curves.CBS_ROWS - 1
    above = jnp.clip(code_block_size - sionna_curves.CBS_START, 0, step * (last + 1))
    row = jax.lax.div(above, jnp.int32(step))
    twice = 2 * (above - step * row)
    up = (twice > step) | ((twice == step) & (row & 1 == 1))
    return jnp.minimum(row + up.astype(jnp.int32), last)


def sionna_bler_at(mcs_index: Array, row: Array, sinr_db: Array, table: int) -> Array:
    """Nearest entry of Sionna's grid, ties to even; +inf for missing MCS."""
    grid = sionna_curves.sionna_bler_by_column(table)
    num_columns, num_rows, num_schemes = grid.shape
    column = jnp.round((sinr_db - sionna_curves.SNR_START_DB) * sionna_curves.SNR_STEPS_PER_DB)
    column = jnp.clip(column, 0, num_columns - 1).astype(jnp.int32)
    return take(grid.reshape(-1), (column * num_rows + row) * num_schemes + mcs_index)


def block_error_rate(
    mcs_index: ArrayLike,
    code_block_size: ArrayLike,
    sinr_eff: ArrayLike,
    table: int = 1,
    fidelity: str = "nr",
) -> Array:
    """Error probability of one code block on an AWGN channel.

    Args:
        mcs_index: integers, 0..28 (table 1) or 0..27 (table 2).
        code_block_size: bits with CRC, integers. Above 2000 the 2000-bit curve is used, in every
            fidelity: no longer block was measured.
        sinr_eff: linear effective SINR, >= 0. The three broadcast.
        table: MCS table, 1 or 2.
        fidelity: "nr" uses the repaired curves; "sionna" the nearest entry of Sionna's grid,
            +inf where it has no data (MCS 0-2 of table 1, 0-1 of table 2); "shannon" makes no
            errors.

    Returns:
        float32 probabilities, non-increasing in `sinr_eff` for "nr".

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_fidelity(fidelity)
    check_table(table)
    mcs, size, sinr = jnp.broadcast_arrays(
        jnp.asarray(mcs_index, jnp.int32),
        jnp.asarray(code_block_size, jnp.int32),
        jnp.asarray(sinr_eff, jnp.float32),
    )
    if fidelity == "shannon":
        return jnp.zeros_like(sinr)
    mcs = jnp.clip(mcs, 0, num_mcs(table) - 1)
    return bler_at_row(mcs, curve_row(size, fidelity), sinr, table, fidelity)


def curve_row(code_block_size: Array, fidelity: str) -> Array:
    """Row of the fidelity's curves ("nr" or "sionna") for a code-block size, int32."""
    return sionna_row(code_block_size) if fidelity == "sionna" else nr_row(code_block_size)


def bler_at_row(mcs_index: Array, row: Array, sinr: Array, table: int, fidelity: str) -> Array:
    """`block_error_rate` at a row of the curves; MCS and row in range, all of one shape."""
    if fidelity == "sionna":
        return sionna_bler_at(mcs_index, row, to_db(sinr), table)
    return jnp.exp(_LN10 * nr_log_bler(mcs_index, row, to_db(sinr), table))


def of_all_blocks(bler: Array, blocks: Array) -> Array:
    """1 - (1 - BLER)^C for C code blocks; +inf stays +inf."""
    finite = jnp.where(jnp.isinf(bler), 1.0, bler)
    rate = one_minus_exp(-blocks.astype(jnp.float32) * log1p(-jnp.minimum(finite, 1.0)))
    return jnp.where(jnp.isinf(bler), bler, rate)


def transport_block_error_rate(
    mcs_index: ArrayLike,
    num_re: ArrayLike,
    sinr_eff: ArrayLike,
    table: int = 1,
    fidelity: str = "nr",
) -> Array:
    """Probability that at least one code block of a transport block fails, 1 - (1 - BLER)^C.

    Args:
        mcs_index: integers, 0..28 (table 1) or 0..27 (table 2).
        num_re: resource elements of the grant, integers >= 0; they set the transport block size
            (TS 38.214 5.1.3.2) and with it the size and number of code blocks.
        sinr_eff: linear effective SINR, >= 0. The three broadcast.
        table: MCS table, 1 or 2.
        fidelity: as `block_error_rate`.

    Returns:
        float32 probabilities. Without resource elements: 0 in "nr" and "shannon"; in "sionna" -1,
        Sionna's mark of a user that is not scheduled. "sionna" also returns +inf for an MCS
        without data.

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_fidelity(fidelity)
    check_table(table)
    mcs, resources, sinr = jnp.broadcast_arrays(
        jnp.asarray(mcs_index, jnp.int32),
        jnp.asarray(num_re, jnp.int32),
        jnp.asarray(sinr_eff, jnp.float32),
    )
    if fidelity == "shannon":
        return jnp.zeros_like(sinr)
    order, rate = mcs_parameters(mcs, table)
    tbs = transport_block_size(resources, order, rate, fidelity=fidelity)
    size, blocks = code_blocks(tbs, rate)
    tbler = of_all_blocks(block_error_rate(mcs, size, sinr, table, fidelity), blocks)
    return jnp.where(resources > 0, tbler, -1.0 if fidelity == "sionna" else 0.0)


def incremental_redundancy_shift_db(
    mcs_index: ArrayLike, transmissions: ArrayLike, table: int = 1
) -> Array:
    """How much better the same modulation decodes at code rate R/m, in dB.

    Args:
        mcs_index: integers of any shape.
        transmissions: number m >= 1 of equal-size transmissions combined; broadcasts.
        table: MCS table, 1 or 2.

    Returns:
        float32 dB >= 0, 0 for one transmission: the distance of the Shannon limits,
        10 log10(2^(Qm R) - 1) - 10 log10(2^(Qm R/m) - 1). Add it to the SINR before looking up
        the curve of the original MCS.

    Raises:
        ValueError: unknown table.
    """
    nats = spectral_efficiency(mcs_index, table) * math.log(2.0)
    divided = nats / jnp.maximum(jnp.asarray(transmissions, jnp.float32), 1.0)
    return 10.0 * (jnp.log10(jnp.expm1(nats)) - jnp.log10(jnp.expm1(divided)))


@functools.cache
def measured_mcs(table: int, fidelity: str) -> np.ndarray:
    """bool[M]: MCS that link adaptation may choose in this fidelity."""
    available = sionna_curves.available_mcs(table)
    return available if fidelity == "sionna" else np.ones_like(available)
