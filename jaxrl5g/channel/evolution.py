"""From traced paths to one frequency response per slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .motion import Track


@dataclass(frozen=True)
class Paths:
    """Paths from one cell to one traced position.

    Attributes:
        coefficients: complex128[rx antenna, tx antenna, P], baseband-equivalent, the carrier's
            phase exp(-j 2 pi f_c tau) included.
        delays_s: float64[P], absolute [s].
        dopplers_hz: float64[P], at the segment's velocity [Hz].
    """

    coefficients: np.ndarray
    delays_s: np.ndarray
    dopplers_hz: np.ndarray


def prb_frequencies_hz(num_prbs: int, prb_bandwidth_hz: float) -> np.ndarray:
    """PRB centres relative to the carrier's centre [Hz], float64[num_prbs]."""
    return (np.arange(num_prbs) - (num_prbs - 1) / 2) * prb_bandwidth_hz


def response(paths: Paths, times_s: np.ndarray, frequencies_hz: np.ndarray) -> np.ndarray:
    """H(t, f) of paths whose phases turn with their Doppler from time 0.

    complex128[T, N, rx antenna, tx antenna]; delays are absolute, so that phases of several
    cells stay comparable (Sionna's ``normalize_delays=False``).
    """
    turn = np.exp(2j * np.pi * np.outer(times_s, paths.dopplers_hz))
    shift = np.exp(-2j * np.pi * np.outer(paths.delays_s, frequencies_hz))
    rx, tx, _ = paths.coefficients.shape
    result = np.empty((len(times_s), len(frequencies_hz), rx, tx), np.complex128)
    for i in range(rx):
        for j in range(tx):
            result[:, :, i, j] = (turn * paths.coefficients[i, j]) @ shift
    return result


def evolve(
    track: Track,
    ends: np.ndarray,
    paths: list[Paths],
    slot_times_s: np.ndarray,
    frequencies_hz: np.ndarray,
) -> np.ndarray:
    """Responses in every slot, complex128[slot, N, rx antenna, tx antenna].

    Between two keys the paths of the first run forward and those of the second backward, each
    by its own Doppler, and the two are cross-faded linearly: at a key the response is the
    traced one, and paths that come or go do so without a jump.

    Args:
        track: the movement.
        ends: int64[segments, 2], index into ``paths`` (`motion.stations`).
        paths: traced paths at the track's receivers.
        slot_times_s: float64[slots] [s].
        frequencies_hz: float64[N] [Hz].
    """
    segment = np.searchsorted(track.times_s, slot_times_s, side="right") - 1
    segment = np.clip(segment, 0, track.num_segments - 1)
    parts = []
    for k in range(track.num_segments):
        times = slot_times_s[segment == k]
        if not times.size:
            continue
        begin, end = track.times_s[k], track.times_s[k + 1]
        weight = (times - begin) / (end - begin) if end > begin else np.zeros_like(times)
        weight = np.clip(weight, 0.0, 1.0)[:, None, None, None]
        forward = response(paths[ends[k, 0]], times - begin, frequencies_hz)
        backward = response(paths[ends[k, 1]], times - end, frequencies_hz)
        parts.append((1 - weight) * forward + weight * backward)
    return np.concatenate(parts)


def mean_power(responses: np.ndarray) -> np.ndarray:
    """Stored gain of responses [..., rx antenna, tx antenna], float64[...].

    Summed over receive antennas (maximum-ratio combining) and averaged over transmit antennas
    (the cell's power divided equally among them).
    """
    return (np.abs(responses) ** 2).mean(axis=-1).sum(axis=-1)
