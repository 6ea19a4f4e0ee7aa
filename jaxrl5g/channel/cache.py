"""The channel cache in memory: a pool of user tracks and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FORMAT_VERSION = 1
"""Version of the file format this package writes and the newest it reads."""

STEP_DB = 0.01
"""Size of one stored step [dB]."""

FLOOR_STEPS = -30000
"""Stored value of a link without a path: -300 dB."""


class ChannelCacheError(ValueError):
    """A channel cache that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class ChannelCache:
    """A pool of user tracks.

    Attributes:
        gains: int16[track, slot, cell, PRB], power gain in 0.01 dB steps, -30000 = no path;
            often a read-only memory map.
        header: provenance and conventions, JSON-compatible; docs/channel-cache.md lists it.
        coefficients: complex64[track, slot, cell, PRB, rx antenna, tx antenna] or None.
    """

    gains: np.ndarray
    header: Mapping[str, Any] = field(default_factory=dict)
    coefficients: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.gains.dtype != np.int16 or self.gains.ndim != 4 or 0 in self.gains.shape:
            raise ChannelCacheError(
                "gains must be a non-empty int16 array [track, slot, cell, PRB], got "
                f"{self.gains.dtype} of shape {self.gains.shape}."
            )
        tracks, _, cells, _ = self.gains.shape
        serving = np.asarray(self.header.get("serving_cell", ()))
        if serving.shape != (tracks,) or serving.min() < 0 or serving.max() >= cells:
            raise ChannelCacheError(
                f"header['serving_cell'] must give one cell in [0, {cells}) for each of the "
                f"{tracks} tracks."
            )
        if self.coefficients is not None and (
            self.coefficients.ndim != 6 or self.coefficients.shape[:4] != self.gains.shape
        ):
            raise ChannelCacheError(
                f"coefficients must have shape {self.gains.shape} + [rx, tx], got "
                f"{self.coefficients.shape}."
            )

    @property
    def num_tracks(self) -> int:
        """Tracks in the pool."""
        return self.gains.shape[0]

    @property
    def num_slots(self) -> int:
        """Slots per track."""
        return self.gains.shape[1]

    @property
    def num_cells(self) -> int:
        """Cells, C."""
        return self.gains.shape[2]

    @property
    def num_prbs(self) -> int:
        """PRBs, N."""
        return self.gains.shape[3]

    @property
    def serving_cell(self) -> np.ndarray:
        """Strongest cell of each track, int32[track]."""
        return np.asarray(self.header["serving_cell"], np.int32)

    def mean_gain_db(self) -> np.ndarray:
        """Each track's gain [dB] from its serving cell, averaged over slots and PRBs in linear.

        float64[track].
        """
        result = np.empty(self.num_tracks)
        for track, cell in enumerate(self.serving_cell):
            steps = np.asarray(self.gains[track, :, cell], np.float32)
            result[track] = 10 * np.log10(np.mean(10 ** (steps.astype(np.float64) / 1000)))
        return result


def gains_to_steps(gains: np.ndarray) -> np.ndarray:
    """Linear power gains, any shape, to int16 steps of 0.01 dB, floored at -300 dB."""
    steps = np.rint(1000 * np.log10(np.maximum(gains, 1e-30)))
    return np.clip(steps, FLOOR_STEPS, 32767).astype(np.int16)
