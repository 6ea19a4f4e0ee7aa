"""Repaired BLER curves of the "nr" fidelity.

Between the measured knots they are Sionna's curves. The repairs: monotone in SINR; past the last
non-zero rate one decade per dB or steeper instead of a floor; BLER = 1 from one knot below the
first; and the missing lowest MCS borrow the nearest curve of their modulation, moved by the
difference of the Shannon limits.
"""

import functools
from typing import NamedTuple

import numpy as np

from jaxrl5g.phy.bler_data import load_bler_data
from jaxrl5g.phy.mcs import mcs_arrays

CBS_MIN, CBS_MAX, CBS_ROWS = 24, 2000, 48
_TOP_DB = 31.0  # last knot at or above the largest effective SINR
# A zero means that no error was seen in about 3000 blocks; like Sionna, read the first one as
# two decades below one error.
_LOG_ZERO = np.log10(1.0 / 3000.0) - 2.0


class NrCurves(NamedTuple):
    """Knots of log10(BLER); linear in dB between them and, with the last slope, beyond them.

    Attributes:
        log_bler: float32[M, 48, K], rows at code-block sizes spaced evenly in the logarithm.
        shift_db: float32[M], added to the SINR before the look-up (0 for measured MCS).
        start_db: SINR of the first knot.
        step_db: distance of two knots.
    """

    log_bler: np.ndarray
    shift_db: np.ndarray
    start_db: float
    step_db: float


def shannon_limit_db(efficiency: np.ndarray) -> np.ndarray:
    """SINR in dB at which log2(1 + SINR) equals `efficiency`."""
    return 10.0 * np.log10(np.expm1(np.asarray(efficiency, np.float64) * np.log(2.0)))


def monotone(bler: np.ndarray) -> np.ndarray:
    """Non-increasing version of `bler` along the last axis: mean of its two envelopes."""
    lower = np.minimum.accumulate(bler, axis=-1)
    upper = np.maximum.accumulate(bler[..., ::-1], axis=-1)[..., ::-1]
    return 0.5 * (lower + upper)


def _continue_waterfall(bler: np.ndarray, step_db: float, num_knots: int) -> np.ndarray:
    """log10 of one monotone curve, continued to `num_knots` knots without a floor."""
    log_bler = np.empty(num_knots)
    measured = int(np.count_nonzero(bler > 0))  # a prefix, since the curve is monotone
    log_bler[:measured] = np.log10(bler[:measured])
    drop = step_db  # one decade per dB
    if measured < len(bler):
        log_bler[measured] = min(_LOG_ZERO, log_bler[measured - 1] - drop)
        measured += 1
    else:
        drop = max(drop, log_bler[measured - 2] - log_bler[measured - 1])
    tail = np.arange(1, num_knots - measured + 1)
    log_bler[measured:] = log_bler[measured - 1] - drop * tail
    return log_bler


@functools.cache
def nr_curves(table: int) -> NrCurves:
    """Build the repaired curves of one table from the shipped data."""
    data = load_bler_data(table)
    orders, rates = mcs_arrays(table)
    start_db = float(data.snr_db[0])
    step_db = float(data.snr_db[-1] - start_db) / (len(data.snr_db) - 1)
    num_knots = int(np.ceil((_TOP_DB - start_db) / step_db)) + 1
    measured = np.stack(
        [
            [_continue_waterfall(curve, step_db, num_knots) for curve in monotone(bler)]
            for bler in data.bler
        ]
    )
    sizes = np.geomspace(CBS_MIN, CBS_MAX, CBS_ROWS)
    # weights of the two neighbouring measured sizes: log10(BLER) is linear in the size
    right = np.clip(np.searchsorted(data.code_block_size, sizes), 1, 4)
    low, high = data.code_block_size[right - 1], data.code_block_size[right]
    weight = np.clip((sizes - low) / (high - low), 0.0, 1.0)[:, None]
    rows = (1.0 - weight) * measured[:, right - 1] + weight * measured[:, right]
    certain = np.zeros((*rows.shape[:2], 1))  # one more knot below the first, where BLER = 1
    rows = np.concatenate([certain, rows], axis=-1)

    limit = shannon_limit_db(orders.astype(np.float64) * rates)
    donor = _nearest_measured(data.mcs, orders)
    shift = np.where(donor == np.arange(len(orders)), 0.0, limit[donor] - limit)
    return NrCurves(
        log_bler=rows[donor - data.mcs[0]].astype(np.float32),
        shift_db=shift.astype(np.float32),
        start_db=start_db - step_db,
        step_db=step_db,
    )


def _nearest_measured(measured: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """For each MCS the nearest measured one of the same modulation."""
    every = np.arange(len(orders))
    distance = np.abs(every[:, None] - measured[None, :]).astype(np.float64)
    distance[orders[:, None] != orders[measured][None, :]] = np.inf
    return measured[np.argmin(distance, axis=1)]
