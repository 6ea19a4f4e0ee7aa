"""How high an envelope of one MCS must be so that no use of HARQ beats it.

Per PRB, a block pays floor + height * x for each transmission, x the mean of 1 - exp(-s/b) over
its PRBs, and earns its bits once, when decoded. The smallest height at which no policy earns
more than it pays in expectation is found by dynamic programming over the evidence collected.
Intervals of the evidence take the better end of everything, so the result errs on the safe side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# An effective SINR is at least this, whatever the power: what it gives costs nothing.
FREE_SINR = 1e-3
_CERTAIN = 1e-4  # error rate below which a block may count as decoded
_STEP_DB, _STEP_LOG = 0.01, 0.1  # size of an interval: SINR in dB, ln(error rate)
_TOLERANCE = 1e-4


class BlockCurve(NamedTuple):
    """Blocks of one MCS that share an error curve.

    Attributes:
      bits: per PRB of the first transmission.
      sinr: float64[S], linear, ascending, -30 to 30 dB.
      error: float64[S], non-increasing error probability at `sinr`.
    """

    bits: float
    sinr: np.ndarray
    error: np.ndarray


class _Intervals(NamedTuple):
    """Intervals of collected evidence e, the last one without an end.

    Attributes:
      worst: float64[A, I], error probability at the start after j + 1 transmissions; best: at the
        end.
      cost: float64[I, I], least cost / height of one transmission from one into another; inf
        where there is none.
      direct: float64[A, I], least cost / height of getting there with j + 1 transmissions all but
        the last of which were certain to fail.
    """

    worst: np.ndarray
    best: np.ndarray
    cost: np.ndarray
    direct: np.ndarray


def single_height(block: BlockCurve, beta: float, floor: float) -> float:
    """Smallest height with floor + height (1 - exp(-s/beta)) above the goodput of one try."""
    goodput = block.bits * (1.0 - block.error) - floor
    # between two samples: at most the goodput of the right, at least the curve of the left
    return max(0.0, float(np.max(goodput[1:] / -np.expm1(-block.sinr[:-1] / beta))))


def harq_height(
    block: BlockCurve,
    beta: float,
    floor: float,
    start: float,
    attempts: int,
    shift: np.ndarray | None,
) -> float:
    """Smallest height at which HARQ earns no more than it pays, or `start` if that suffices.

    Args:
      block: the blocks. beta: of the MCS, linear SINR.
      floor: paid per PRB and transmission whatever its SINR, bits.
      start: a height > 0.
      attempts: A, transmissions at most.
      shift: None for chase combining; for incremental redundancy float64[A], the linear gain in
        SINR that j + 1 transmissions bring by lowering the code rate.
    """
    height = start
    # most blocks are far from needing more than `start`: wide intervals show it at little cost
    for coarser in (3.0, 1.0):
        if shift is None:
            intervals = _chase(block, beta, attempts, coarser)
        else:
            intervals = _redundancy(block, beta, shift, 3.0 * coarser)
        surplus, paid = _best_surplus(block.bits, floor, height, intervals)
        if surplus <= 0:
            return height
    while surplus > 0:
        # where the best policy at this height breaks even (Dinkelbach), and a little more: that
        # alone would approach the answer from below
        height = max(height + surplus / paid, height * (1.0 + _TOLERANCE))
        surplus, paid = _best_surplus(block.bits, floor, height, intervals)
    return height


def _best_surplus(bits: float, floor: float, height: float, at: _Intervals) -> tuple[float, float]:
    """Upper bound of bits earned minus bits paid, and the (cost / height) of what achieves it."""
    attempts, size = at.worst.shape
    # value and cost / height of going on from an interval, given that all failed so far
    value, spent = np.zeros(size), np.zeros(size)
    best, best_spent = -np.inf, 1.0
    for stage in reversed(range(attempts)):
        # a last transmission lands here after `stage` certain failures
        fail = at.best[stage]
        gain = bits - fail * (bits - value) - floor * (stage + 1) - height * at.direct[stage]
        pick = int(np.argmax(gain))
        if gain[pick] > best:
            best, best_spent = gain[pick], at.direct[stage, pick] + fail[pick] * spent[pick]
        if stage == 0:
            break
        fail = np.minimum(1.0, at.best[stage] / np.maximum(at.worst[stage - 1][:, None], 1e-300))
        gain = bits - floor - fail * (bits - value) - height * at.cost
        pick = np.argmax(gain, axis=1)
        row = np.arange(size)
        here = at.cost[row, pick] + fail[row, pick] * spent[pick]
        value = np.maximum(gain[row, pick], 0.0)
        spent = np.where(gain[row, pick] > 0, here, 0.0)
    return float(best), float(best_spent)


def _knots(block: BlockCurve, coarser: float) -> np.ndarray:
    """SINRs between which the error rate, or the SINR itself, changes by one step."""
    log_error = np.log(np.maximum(block.error, 1e-300))
    sinr_db = 10.0 * np.log10(block.sinr)
    first = max(int(np.argmax(block.error < 1.0)) - 1, 0)
    below = block.error < _CERTAIN
    last = int(np.argmax(below)) if below.any() else len(block.sinr) - 1
    step = np.maximum(np.diff(sinr_db) / _STEP_DB, -np.diff(log_error) / _STEP_LOG) / coarser
    place = np.floor(np.cumsum(step[first:last]) + 1e-9)
    inner = first + 1 + np.flatnonzero(np.diff(place, prepend=0.0) > 0)
    return block.sinr[np.unique(np.concatenate([[first], inner, [last]]))]


def _chase(block: BlockCurve, beta: float, attempts: int, coarser: float) -> _Intervals:
    """Evidence is the sum of linear effective SINRs."""
    start = _knots(block, coarser)
    end = np.append(start[1:], np.inf)
    place = np.searchsorted(block.sinr, start)
    worst = block.error[place]
    best = np.append(worst[1:], 0.0)
    step = start[None, :] - end[:, None]
    cost = np.where(step > FREE_SINR, -np.expm1(-np.maximum(step, 0.0) / beta), 0.0)
    cost[np.tri(len(start), k=-1, dtype=bool)] = np.inf
    # the sum over several transmissions is least when all but one are free
    free = FREE_SINR * np.arange(attempts)[:, None]
    direct = -np.expm1(-np.maximum(start - free, 0.0) / beta)
    every = (attempts, len(start))
    return _Intervals(np.broadcast_to(worst, every), np.broadcast_to(best, every), cost, direct)


def _redundancy(block: BlockCurve, beta: float, shift: np.ndarray, coarser: float) -> _Intervals:
    """Evidence is the sum of 1 - exp(-s/b), whose mean over j gives the SINR at rate R/j."""
    count = np.arange(1, len(shift) + 1)[:, None]
    scale = beta * shift[:, None]
    start = np.unique(-count * np.expm1(-_knots(block, coarser) / scale))
    end = np.append(start[1:], np.inf)

    def error(evidence, side):
        share = np.minimum(evidence / count, 1.0)
        with np.errstate(divide="ignore"):
            sinr = -scale * np.log1p(-share)
        # the sample before is an upper bound, the one after a lower bound
        place = np.searchsorted(block.sinr, sinr * (1.0 + 1e-9 * side)) - (side < 0)
        samples = np.append(block.error, 0.0)
        return np.where(place < 0, 1.0, samples[np.clip(place, 0, len(samples) - 1)])

    worst = error(start, -1)
    best = np.append(error(start[1:], 1), np.zeros_like(worst[:, :1]), axis=1)
    free = -np.expm1(-FREE_SINR / beta)
    step = start[None, :] - end[:, None]
    cost = np.where(step > free, step, 0.0)
    cost[np.tri(len(start), k=-1, dtype=bool) | (step > 1.0)] = np.inf
    direct = np.maximum(start - free * (count - 1), 0.0)
    direct = np.where(start > count, np.inf, direct)
    return _Intervals(worst, best, cost, direct)
