"""Lossless compression of gains for shipping: integer linear prediction, then LZMA.

Each link (track, cell) has its own ten-tap predictor over earlier slots and the lower PRB,
fitted in floating point but stored and applied as integers, so that decoding is exact anywhere.
Most of what remains is rounding noise of the 0.01 dB steps.
"""

from __future__ import annotations

import lzma
import struct

import numpy as np

# (slots back, PRBs down): all past slots first; only the last tap is in the same slot.
_TAPS = ((1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (3, 1), (1, -1), (2, -1), (0, 1))
_MEMORY = max(back for back, _ in _TAPS)
_FRACTION_BITS = 12
_LIMIT = 32767
_FIT_EVERY = 3  # slots; a third of them decides ten taps as well as all do
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 6,
        "lc": 4,
        "lp": 0,
        "pb": 0,
        "dict_size": 1 << 20,
    }
]
_COUNTS = struct.Struct("<4Q")


def encode_gains(gains: np.ndarray) -> bytes:
    """Compress int16[track, slot, cell, PRB] without loss.

    Raises:
        ValueError: another type or number of axes.
    """
    if gains.dtype != np.int16 or gains.ndim != 4:
        raise ValueError(
            f"gains must be int16 with four axes, got {gains.dtype} of shape {gains.shape}."
        )
    if gains.size == 0:
        raise ValueError(f"gains must not be empty, got shape {gains.shape}.")
    tracks, slots, cells, prbs = gains.shape
    links = gains.transpose(1, 3, 0, 2).reshape(slots, prbs, tracks * cells).astype(np.int64)
    middle = np.rint(links.mean(axis=(0, 1))).astype(np.int64)
    links = links - middle
    taps = _fit(links)
    residual = np.empty_like(links)
    for slot in range(slots):
        below = np.concatenate([_row(links, slot)[:1], links[slot, :-1]])
        residual[slot] = links[slot] - _predict(links, slot, taps, below)
    # One link after another: their statistics differ, and LZMA adapts along the way.
    zigzag = ((residual << 1) ^ (residual >> 63)).transpose(2, 0, 1).reshape(-1)
    escapes = zigzag >= 255
    planes = (
        middle.astype("<i2").tobytes() + taps.T.astype("<i2").tobytes(),
        np.where(escapes, 255, zigzag).astype(np.uint8).tobytes(),
        zigzag[escapes].astype("<u4").tobytes(),
    )
    packed = [lzma.compress(plane, lzma.FORMAT_RAW, filters=_FILTERS) for plane in planes]
    counts = _COUNTS.pack(int(escapes.sum()), *(len(part) for part in packed))
    return counts + b"".join(packed)


def decode_gains(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Undo `encode_gains`; int16 of ``shape`` [track, slot, cell, PRB].

    Raises:
        ValueError: the data do not decode to that shape.
    """
    tracks, slots, cells, prbs = shape
    count = tracks * cells
    try:
        side, low, high = _unpack(data)
        side = np.frombuffer(side, "<i2")
        middle = side[:count].astype(np.int64)
        taps = side[count:].reshape(count, len(_TAPS)).T.astype(np.int64)
        zigzag = np.frombuffer(low, np.uint8).astype(np.int64)
        zigzag[zigzag == 255] = np.frombuffer(high, "<u4")
        zigzag = zigzag.reshape(count, slots, prbs)
    except (lzma.LZMAError, struct.error, ValueError) as error:
        raise ValueError(f"compressed gains do not decode to shape {shape}: {error}.") from None
    residual = ((zigzag >> 1) ^ -(zigzag & 1)).transpose(1, 2, 0)
    links = np.empty((slots, prbs, count), np.int64)
    for slot in range(slots):
        past = _past(links, slot, taps)
        below = _row(links, slot)[0]
        for prb in range(prbs):
            below = residual[slot, prb] + _finish(past, prb, taps, below, slot)
            links[slot, prb] = below
    links = (links + middle).reshape(slots, prbs, tracks, cells).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(links.astype(np.int16))


def _unpack(data: bytes) -> list[bytes]:
    _, *lengths = _COUNTS.unpack_from(data)
    if _COUNTS.size + sum(lengths) != len(data):
        raise ValueError("wrong length")
    planes, start = [], _COUNTS.size
    for length in lengths:
        part = data[start : start + length]
        planes.append(lzma.decompress(part, lzma.FORMAT_RAW, filters=_FILTERS))
        start += length
    return planes


def _row(links: np.ndarray, slot: int) -> np.ndarray:
    """A guess [PRB, link] of a slot's row from the rows before it."""
    if slot == 0:
        return np.zeros_like(links[0])
    if slot == 1:
        return links[0]
    return 2 * links[slot - 1] - links[slot - 2]


def _past(links: np.ndarray, slot: int, taps: np.ndarray) -> np.ndarray:
    """What earlier slots add to the prediction, in fixed point, [PRB, link]."""
    if slot < _MEMORY:
        return _row(links, slot) << _FRACTION_BITS
    total = np.full(links.shape[1:], 1 << (_FRACTION_BITS - 1), np.int64)
    for tap, (back, down) in zip(taps[:-1], _TAPS[:-1], strict=True):
        total += tap * _shifted(links[slot - back], down)
    return total


def _finish(past: np.ndarray, prb, taps: np.ndarray, below: np.ndarray, slot: int) -> np.ndarray:
    """Prediction of one PRB (or a slice of them) given the PRB below it."""
    if slot == 0:
        return below
    if slot < _MEMORY:
        return past[prb] >> _FRACTION_BITS
    return (past[prb] + taps[-1] * below) >> _FRACTION_BITS


def _predict(links: np.ndarray, slot: int, taps: np.ndarray, below: np.ndarray) -> np.ndarray:
    return _finish(_past(links, slot, taps), slice(None), taps, below, slot)


def _shifted(row: np.ndarray, down: int) -> np.ndarray:
    """The row [PRB, link] read ``down`` PRBs lower, the edge repeated."""
    if down == 0:
        return row
    if down > 0:
        return np.concatenate([row[:1]] * down + [row[:-down]])
    return np.concatenate([row[-down:]] + [row[-1:]] * -down)


def _fit(links: np.ndarray) -> np.ndarray:
    """Taps int64[tap, link] that make the mean absolute residual small."""
    slots, prbs, count = links.shape
    taps = np.zeros((len(_TAPS), count), np.int64)
    if slots <= _MEMORY:
        return taps
    for link in range(count):
        x = links[:, :, link].astype(np.float64)
        columns = [_lagged(x, back, down)[::_FIT_EVERY].reshape(-1) for back, down in _TAPS]
        design, target = np.stack(columns, axis=1), x[_MEMORY::_FIT_EVERY].reshape(-1)
        ridge = 1e-3 * len(target) * np.eye(len(_TAPS))
        weight = np.ones(len(target))
        solution = np.zeros(len(_TAPS))
        # Reweighting: deep fades are outliers that must not decide the taps.
        for _ in range(4):
            weighted = design * weight[:, None]
            solution = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ target)
            weight = 1 / np.maximum(np.abs(target - design @ solution), 1.0)
        fixed = np.rint(solution * (1 << _FRACTION_BITS))
        taps[:, link] = np.clip(fixed, -_LIMIT, _LIMIT).astype(np.int64)
    return taps


def _lagged(x: np.ndarray, back: int, down: int) -> np.ndarray:
    if back == 0:
        guess = 2 * x[_MEMORY - 1 : -1, :1] - x[_MEMORY - 2 : -2, :1]
        return np.concatenate([guess, x[_MEMORY:, :-1]], axis=1)
    return _shifted(x[_MEMORY - back : len(x) - back].T, down).T
