"""Channel quality indicator (TS 38.214 5.2.2.1): quantiser, thresholds, reading of an index."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy.error_model import measured_mcs, transport_block_error_rate
from jaxrl5g.phy.mcs import mcs_arrays
from jaxrl5g.phy.nr_curves import shannon_limit_db
from jaxrl5g.phy.options import check_fidelity, check_table

CQI_REFERENCE_RE = 4 * 132  # one subband of 4 PRB with 132 data resource elements each
CQI_BLER = 0.1
_RATE_UNIT = 2048  # every Qm*R is a multiple of 1/2048 bit

# (modulation order, code rate * 1024) of CQI 1..15, TS 38.214 tables 5.2.2.1-2 and 5.2.2.1-3
_TABLES = {
    1: (
        (2, 78), (2, 120), (2, 193), (2, 308), (2, 449), (2, 602), (4, 378), (4, 490), (4, 616),
        (6, 466), (6, 567), (6, 666), (6, 772), (6, 873), (6, 948),
    ),
    2: (
        (2, 78), (2, 193), (2, 449), (4, 378), (4, 490), (4, 616), (6, 466), (6, 567), (6, 666),
        (6, 772), (6, 873), (8, 711), (8, 797), (8, 885), (8, 948),
    ),
}  # fmt: skip


def _grid_db() -> np.ndarray:
    """SINR grid on which thresholds are found, 0.005 dB apart."""
    return np.arange(-12.0, 40.0, 0.005)


@functools.cache
def mcs_thresholds_db(table: int, fidelity: str) -> np.ndarray:
    """Smallest SINR in dB at which each MCS keeps TBLER <= 0.1 on the CSI reference, float64[M].

    +inf where the table never gets there ("sionna": MCS without data, error floors above 0.1).
    """
    check_fidelity(fidelity)
    orders, rates = mcs_arrays(table)
    if fidelity == "shannon":
        return shannon_limit_db(orders * rates.astype(np.float64))
    grid = _grid_db()
    # one small program: operation by operation it takes seconds
    rule = functools.partial(transport_block_error_rate, table=table, fidelity=fidelity)
    with jax.ensure_compile_time_eval():
        tbler = jax.jit(rule)(
            np.arange(len(orders))[:, None], CQI_REFERENCE_RE, 10.0 ** (grid / 10.0)
        )
    met = np.asarray(tbler) <= CQI_BLER
    return np.where(met.any(axis=1), grid[np.argmax(met, axis=1)], np.inf)


@functools.cache
def cqi_thresholds_db(table: int = 1, fidelity: str = "nr") -> np.ndarray:
    """Smallest SINR in dB of CQI 1..15, float32[15], non-decreasing (NumPy).

    A CQI has the curve of the MCS with its modulation and rate; one that no MCS has (78/1024
    QPSK), or whose MCS has no data, borrows the nearest usable MCS of its modulation, moved by the
    difference of the Shannon limits. "shannon": 2^efficiency - 1. In "sionna" the last CQI of
    table 2 is +inf: the error floor of its curve lies above 0.1.

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_table(table)
    check_fidelity(fidelity)
    efficiency = _efficiency(table)
    if fidelity == "shannon":
        return shannon_limit_db(efficiency).astype(np.float32)
    orders, rates = mcs_arrays(table)
    usable = measured_mcs(table, fidelity)
    thresholds = mcs_thresholds_db(table, fidelity)
    limit = shannon_limit_db(orders * rates.astype(np.float64))
    result = np.empty(len(efficiency))
    for row, (order, _) in enumerate(_TABLES[table]):
        own = shannon_limit_db(efficiency[row])
        same = np.flatnonzero((orders == order) & usable)
        donor = same[np.argmin(np.abs(limit[same] - own))]
        result[row] = thresholds[donor] + (own - limit[donor])
    # the index reported is the highest one whose threshold is met
    return np.minimum.accumulate(result[::-1])[::-1].astype(np.float32)


def _efficiency(table: int) -> np.ndarray:
    return np.asarray([order * rate / 1024.0 for order, rate in _TABLES[table]])


def quantise_cqi(sinr: ArrayLike, table: int = 1, fidelity: str = "nr") -> Array:
    """CQI of a flat channel: the highest index with TBLER <= 0.1 (TS 38.214 5.2.2.1).

    Args:
        sinr: linear SINR of any shape, >= 0.
        table: CQI table, 1 (64QAM) or 2 (256QAM).
        fidelity: which error model sets the thresholds.

    Returns:
        int32 in 0..15, 0 = out of range; non-decreasing in `sinr`. The CSI reference resource is
        4 PRB of 132 resource elements.

    Raises:
        ValueError: unknown fidelity or table.
    """
    thresholds = 10.0 ** (cqi_thresholds_db(table, fidelity).astype(np.float64) / 10.0)
    sinr = jnp.asarray(sinr, jnp.float32)
    index = jnp.zeros(sinr.shape, jnp.int32)
    # unrolled: in a reduction over thresholds XLA would compute the SINR anew for each of them
    for threshold in thresholds.astype(np.float32):
        index = index + (sinr >= threshold)
    return index


@functools.cache
def _cqi_levels_db(table: int, fidelity: str) -> np.ndarray:
    """float32[16]: SINR in dB that stands for each index; always finite."""
    thresholds = cqi_thresholds_db(table, fidelity).astype(np.float64)
    limit = shannon_limit_db(_efficiency(table))
    for row in range(1, len(thresholds)):
        if not np.isfinite(thresholds[row]):
            thresholds[row] = thresholds[row - 1] + limit[row] - limit[row - 1]
    steps = np.diff(thresholds)
    middle = thresholds[:-1] + 0.5 * steps
    first = thresholds[0] - 0.5 * steps[0]
    last = thresholds[-1] + 0.5 * steps[-1]
    return np.asarray([first, *middle, last], np.float32)


def cqi_sinr_db(cqi: ArrayLike, table: int = 1, fidelity: str = "nr") -> Array:
    """SINR in dB that a reported index stands for.

    Args:
        cqi: integers 0..15 of any shape.
        table: CQI table, 1 or 2.
        fidelity: as in `quantise_cqi`.

    Returns:
        float32: midway in dB between the index's threshold and the next; index 0 half a step
        below the first threshold, index 15 half of the last step above its own.

    Raises:
        ValueError: unknown fidelity or table.
    """
    cqi = jnp.asarray(cqi, jnp.int32)
    levels = _cqi_levels_db(table, fidelity)
    reading = jnp.full(cqi.shape, levels[0])
    # unrolled: a gather would be fused with all that computes the index, one scalar at a time
    for index in range(1, len(levels)):
        reading = jnp.where(cqi >= index, levels[index], reading)
    return reading


@functools.cache
def rate_steps(table: int, fidelity: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps of `predicted_rate`: ascending linear thresholds, float32, and the gain at each.

    Gains are int32 in units of 1/2048 bit per resource element.
    """
    orders, rates = mcs_arrays(table)
    efficiency = orders * rates.astype(np.float64)
    thresholds = mcs_thresholds_db(table, fidelity)
    order = np.lexsort((efficiency, thresholds))
    order = order[np.isfinite(thresholds[order])]
    best = np.maximum.accumulate(efficiency[order])
    gain = np.rint(np.diff(best, prepend=0.0) * _RATE_UNIT).astype(np.int32)
    keep = gain > 0
    linear = 10.0 ** (thresholds[order][keep] / 10.0)
    return linear.astype(np.float32), gain[keep]


def predicted_rate(sinr: ArrayLike, table: int = 1, fidelity: str = "nr") -> Array:
    """Bits per resource element that a scheduler may expect on a flat channel.

    Args:
        sinr: linear SINR of any shape, >= 0.
        table: MCS table, 1 or 2.
        fidelity: "nr": Qm*R of the best MCS with TBLER <= 0.1 on 4 PRB, and below the lowest
            threshold that MCS's efficiency times SINR/threshold, so that users out of range are
            still ranked; "shannon": min(log2(1 + SINR), top efficiency); "sionna":
            log2(1 + SINR), the rate its tutorial's proportional-fair scheduler is fed with.

    Returns:
        float32, non-decreasing in `sinr`.

    Raises:
        ValueError: unknown fidelity or table.
    """
    check_fidelity(fidelity)
    check_table(table)
    sinr = jnp.asarray(sinr, jnp.float32)
    if fidelity == "sionna":
        return jnp.log2(1.0 + sinr)
    if fidelity == "shannon":
        orders, rates = mcs_arrays(table)
        return jnp.minimum(jnp.log2(1.0 + sinr), float(np.max(orders * rates)))
    thresholds, gains = rate_steps(table, fidelity)
    first = jnp.minimum(sinr * float(gains[0] / thresholds[0]), float(gains[0]))
    # unrolled: in a reduction over thresholds XLA would compute the SINR anew for each of them;
    # in integers: a CPU takes five times as long to add the floats
    above = jnp.zeros(sinr.shape, jnp.int32)
    for threshold, gain in zip(thresholds[1:], gains[1:], strict=True):
        above = above + jnp.where(sinr >= threshold, int(gain), 0)
    return (first + above.astype(jnp.float32)) / _RATE_UNIT
