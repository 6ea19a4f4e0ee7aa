"""The only file that talks to Sionna RT: load a scene, find open ground, trace positions."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from .evolution import Paths
from .llvm import check_llvm
from .sites import Site, automatic_sites
from .trace_config import TraceConfig

_ABOVE_M = 1e4


@contextlib.contextmanager
def _table_size(entries: int) -> Iterator[None]:
    # The solver sizes its table by max_num_paths_per_src, which costs a large path buffer too, or
    # by this constant if that is greater.
    from sionna.rt.path_solvers.sb_candidate_generator import SBCandidateGenerator

    before = SBCandidateGenerator.MIN_SPEC_COUNT_SIZE
    SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = entries
    try:
        yield
    finally:
        SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = before


class RayTracer:
    """A loaded scene with its cells.

    Raises:
        RuntimeError: sionna-rt is not installed, or no LLVM that works.
        ValueError: unknown scene.
    """

    def __init__(self, config: TraceConfig) -> None:
        if importlib.util.find_spec("sionna") is None or (
            importlib.util.find_spec("sionna.rt") is None
        ):
            raise RuntimeError('Ray tracing needs sionna-rt: pip install "jaxrl5g[rt]".')
        check_llvm()
        import mitsuba
        import sionna.rt

        self._mi: Any = mitsuba
        self._rt: Any = sionna.rt
        self.config = config
        self.scene: Any = self._load()
        self.scene.frequency = config.carrier_hz
        self.sites = config.sites or self._automatic()
        self.scene.tx_array = self._array(config.tx_shape, config.tx_pattern)
        self.scene.rx_array = self._array(config.rx_shape, config.rx_pattern)
        for index, site in enumerate(self.sites):
            self._add_cell(index, site)
        self._receivers: list[Any] = []
        self._solver: Any = self._rt.PathSolver(deterministic=True)

    def versions(self) -> dict[str, str]:
        """Versions of the ray tracer."""
        from importlib.metadata import version

        return {name: version(name) for name in ("sionna-rt", "mitsuba", "drjit")}

    def ground(self, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Height of what one hits from above, and whether it is open ground.

        Args:
            points_m: float64[R, 2] [m].

        Returns:
            heights float64[R] [m], bool[R]: at most 2 m above the scene's lowest point, where a
            roof, a tree or a bridge would be higher.
        """
        count = len(points_m)
        origin = np.column_stack([points_m, np.full(count, _ABOVE_M)])
        hit = self._intersect(origin, np.tile([0.0, 0.0, -1.0], (count, 1)))
        heights = _ABOVE_M - hit
        lowest = float(self.scene.mi_scene.bbox().min[2])
        return heights, np.isfinite(heights) & (heights < lowest + 2.0)

    def free_way(self, begin_m: np.ndarray, end_m: np.ndarray) -> np.ndarray:
        """Whether nothing stands between float64[R, 3] points, with half a metre to spare."""
        way = end_m - begin_m
        length = np.linalg.norm(way, axis=1)
        direction = np.where(length[:, None] > 0, way, [1.0, 0.0, 0.0])
        direction = direction / np.linalg.norm(direction, axis=1)[:, None]
        return self._intersect(begin_m, direction) > length + 0.5

    def solve(
        self, positions_m: np.ndarray, velocities_m_s: np.ndarray
    ) -> tuple[list[list[Paths]], np.ndarray]:
        """Trace all cells to receivers.

        Args:
            positions_m: float64[R, 3] [m].
            velocities_m_s: float64[R, 3] [m/s].

        Returns:
            paths[receiver][cell], and bool[R, C]: whether there is any.
        """
        self._place(positions_m, velocities_m_s)
        with _table_size(self.config.table_size):
            paths = self._solver(
                self.scene,
                max_depth=self.config.max_depth,
                samples_per_src=self.config.samples,
                max_num_paths_per_src=self.config.max_paths,
                seed=self.config.seed + 1,
            )
        real, imag = (np.asarray(part, np.float64) for part in paths.a)
        delays = np.asarray(paths.tau, np.float64)
        dopplers = np.asarray(paths.doppler, np.float64)
        valid = np.asarray(paths.valid, bool)
        coefficients = real + 1j * imag  # [rx, rx antenna, tx, tx antenna, path]
        result, any_path = [], np.zeros((len(positions_m), len(self.sites)), bool)
        for receiver in range(len(positions_m)):
            row = []
            for cell in range(len(self.sites)):
                keep = valid[receiver, cell]
                tau = delays[receiver, cell, keep]
                carrier = np.exp(-2j * np.pi * self.config.carrier_hz * tau)
                row.append(
                    Paths(
                        coefficients[receiver, :, cell, :, keep].transpose(1, 2, 0) * carrier,
                        tau,
                        dopplers[receiver, cell, keep],
                    )
                )
                any_path[receiver, cell] = bool(np.any(np.abs(row[-1].coefficients) > 0))
            result.append(row)
        return result, any_path

    def _load(self) -> Any:
        built_in = getattr(self._rt.scene, self.config.scene, None)
        if isinstance(built_in, str):
            return self._rt.load_scene(built_in)
        if os.path.exists(self.config.scene):
            return self._rt.load_scene(self.config.scene)
        names = sorted(
            name
            for name, path in vars(self._rt.scene).items()
            if isinstance(path, str) and path.endswith(".xml")
        )
        raise ValueError(f"Unknown scene {self.config.scene!r}; there are: {', '.join(names)}.")

    def _automatic(self) -> tuple[Site, ...]:
        box = self.scene.mi_scene.bbox()
        bounds = tuple((float(box.min[i]), float(box.max[i])) for i in (0, 1))
        placed = automatic_sites((bounds[0], bounds[1]), self.config.cells, 0.0)
        lifted = []
        for site in placed:
            height, _ = self.ground(np.array([site.position_m[:2]]))
            # Above the roof where there is one, else at a lamp post's height.
            base = float(height[0]) if np.isfinite(height[0]) else float(box.min[2])
            z = max(base + 3.0, float(box.min[2]) + 25.0)
            lifted.append(Site((*site.position_m[:2], z), site.azimuth_deg, site.downtilt_deg))
        return tuple(lifted)

    def _array(self, shape: tuple[int, int], pattern: str) -> Any:
        return self._rt.PlanarArray(
            num_rows=shape[0], num_cols=shape[1], pattern=pattern, polarization="V"
        )

    def _add_cell(self, index: int, site: Site) -> None:
        self.scene.add(
            self._rt.Transmitter(
                f"cell{index}",
                position=[float(x) for x in site.position_m],
                orientation=[math.radians(site.azimuth_deg), math.radians(site.downtilt_deg), 0.0],
            )
        )

    def _place(self, positions_m: np.ndarray, velocities_m_s: np.ndarray) -> None:
        # Receivers are kept and moved: a fixed number of them keeps Dr.Jit's kernels compiled.
        while len(self._receivers) < max(len(positions_m), self.config.receivers_per_solve):
            receiver = self._rt.Receiver(f"user{len(self._receivers)}", position=[0.0, 0.0, 0.0])
            self.scene.add(receiver)
            self._receivers.append(receiver)
        for index, receiver in enumerate(self._receivers):
            source = min(index, len(positions_m) - 1)
            receiver.position = [float(x) for x in positions_m[source]]
            receiver.velocity = [float(x) for x in velocities_m_s[source]]

    def _intersect(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        mi = self._mi
        point = mi.Point3f(*(mi.Float(np.ascontiguousarray(axis)) for axis in origin.T))
        vector = mi.Vector3f(*(mi.Float(np.ascontiguousarray(axis)) for axis in direction.T))
        hit = self.scene.mi_scene.ray_intersect(mi.Ray3f(point, vector))
        distance = np.array(hit.t, np.float64)
        return np.where(np.array(hit.is_valid(), bool), distance, np.inf)
