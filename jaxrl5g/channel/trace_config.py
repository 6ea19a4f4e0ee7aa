"""Everything that decides what a traced cache contains."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from .link_budget import POWER_BUDGET_DBM
from .sites import Site, preset_radius_m, preset_sites

MOTIONS = ("straight", "waypoint")
PATTERNS = ("iso", "dipole", "hw_dipole", "tr38901")

_TABLE_LIMIT = 2**32 - 8  # the solver counts table entries of all cells in 32 bits


@dataclass(frozen=True)
class TraceConfig:
    """What to trace.

    Attributes:
        scene: name of a scene in the sionna-rt wheel, or path of a Mitsuba XML file.
        cells: number of cells; chooses ``sites`` unless they are given.
        tracks: tracks to keep, at least cells * len(speeds_m_s), spread evenly over both.
        slots: slots per track.
        speeds_m_s: the tracks are split evenly over these speeds [m/s].
        motion: "straight", or "waypoint": legs of random length and heading.
        waypoint_leg_m: (shortest, longest) leg of a waypoint track [m].
        seed: of positions, headings and path sampling.
        num_prbs, scs_hz, carrier_hz: carrier grid; a slot lasts 1 ms * 15 kHz / scs_hz.
        samples: rays per source. max_depth: most interactions on a path.
        key_spacing_m: largest distance between traced positions on a track [m].
        radius_m: users are within this horizontal distance of some site [m]; 0 = the preset's.
        coverage_db: (lowest, highest) mean wideband SNR of a kept track [dB].
        power_dbm: cell power behind that SNR, equal over the PRBs [dBm].
        user_height_m: antenna height above the ground [m].
        sites: the cells' transmitters; () = the scene's preset, else automatic.
        tx_pattern, rx_pattern: antenna element patterns, vertically polarised.
        tx_shape, rx_shape: (rows, columns) of half-wavelength planar arrays.
        coefficients: also store complex coefficients.
        tracks_per_chunk: candidate tracks per chunk, the unit of resuming.
        receivers_per_solve: positions traced at once; bounds memory.
        max_paths: most paths per cell in one solve.
        table_size: entries per cell in the solver's hash tables of known reflection chains.
            Chains that collide there are lost; the share that does grows with
            ``receivers_per_solve`` / ``table_size``. 8 bytes of memory per entry and cell.
    """

    scene: str = "munich"
    cells: int = 1
    tracks: int = 512
    slots: int = 400
    speeds_m_s: tuple[float, ...] = (1.5,)
    motion: str = "straight"
    waypoint_leg_m: tuple[float, float] = (2.0, 10.0)
    seed: int = 0
    num_prbs: int = 51
    scs_hz: float = 30e3
    carrier_hz: float = 3.5e9
    samples: int = 100_000
    max_depth: int = 4
    key_spacing_m: float = 0.3
    radius_m: float = 0.0
    coverage_db: tuple[float, float] = (-4.0, 30.0)
    power_dbm: float = POWER_BUDGET_DBM
    user_height_m: float = 1.5
    sites: tuple[Site, ...] = ()
    tx_pattern: str = "tr38901"
    rx_pattern: str = "iso"
    tx_shape: tuple[int, int] = (1, 1)
    rx_shape: tuple[int, int] = (1, 1)
    coefficients: bool = False
    tracks_per_chunk: int = 256
    receivers_per_solve: int = 64
    max_paths: int = 200_000
    table_size: int = 100_000_000

    def __post_init__(self) -> None:
        for name in (
            "cells",
            "tracks",
            "slots",
            "num_prbs",
            "samples",
            "tracks_per_chunk",
            "max_paths",
            "table_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("scs_hz", "carrier_hz", "key_spacing_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.radius_m < 0 or self.receivers_per_solve < 1:
            raise ValueError(
                "radius_m must not be negative and receivers_per_solve at least 1, got "
                f"{self.radius_m} and {self.receivers_per_solve}."
            )
        if self.cells * max(self.table_size, self.max_paths) >= _TABLE_LIMIT:
            raise ValueError(
                f"cells times table_size must stay below {_TABLE_LIMIT}, got {self.cells} times "
                f"{max(self.table_size, self.max_paths)}."
            )
        if not self.speeds_m_s or min(self.speeds_m_s) < 0:
            raise ValueError(f"speeds_m_s must be non-negative, got {self.speeds_m_s}.")
        if self.motion not in MOTIONS:
            raise ValueError(f"motion must be one of {MOTIONS}, got {self.motion!r}.")
        for pattern in (self.tx_pattern, self.rx_pattern):
            if pattern not in PATTERNS:
                raise ValueError(f"antenna pattern must be one of {PATTERNS}, got {pattern!r}.")
        if self.sites and len(self.sites) != self.cells:
            raise ValueError(f"{len(self.sites)} sites were given for {self.cells} cells.")
        if self.tracks < self.cells * len(self.speeds_m_s):
            raise ValueError(
                f"tracks must be at least cells * speeds = "
                f"{self.cells * len(self.speeds_m_s)}, got {self.tracks}."
            )
        if self.coverage_db[0] >= self.coverage_db[1]:
            raise ValueError(f"coverage_db must be (low, high), got {self.coverage_db}.")
        if not 0 < self.waypoint_leg_m[0] <= self.waypoint_leg_m[1]:
            raise ValueError(f"waypoint_leg_m must be (low, high), got {self.waypoint_leg_m}.")

    @property
    def slot_seconds(self) -> float:
        """Slot duration [s] (TS 38.211 4.3.2)."""
        return 1e-3 * 15e3 / self.scs_hz

    @property
    def prb_bandwidth_hz(self) -> float:
        """Width of a PRB [Hz]."""
        return 12 * self.scs_hz

    def quotas(self) -> np.ndarray:
        """Tracks to keep per speed and serving cell, int[speeds, cells], even to within 1."""
        shape = (len(self.speeds_m_s), self.cells)
        even, rest = divmod(self.tracks, shape[0] * shape[1])
        return even + (np.arange(shape[0] * shape[1]) < rest).astype(int).reshape(shape)

    def with_presets(self) -> TraceConfig:
        """The same with the scene's preset sites, if there are any, and radius filled in."""
        return dataclasses.replace(
            self,
            sites=self.sites or preset_sites(self.scene, self.cells) or (),
            radius_m=self.radius_m or preset_radius_m(self.scene, self.cells),
        )

    def digest(self) -> str:
        """SHA-256 over what a chunk depends on: tells whether two runs may share theirs.

        The number of tracks is left out: a larger pool starts with the chunks of a smaller one.
        """
        fields = dataclasses.asdict(self.with_presets())
        del fields["tracks"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
