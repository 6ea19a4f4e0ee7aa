"""How far the evolution between key positions is from tracing every position."""

from __future__ import annotations

import dataclasses

import numpy as np

from .evolution import Paths, evolve, mean_power, prb_frequencies_hz, response
from .motion import stations
from .rays import RayTracer
from .trace_config import TraceConfig
from .tracer import solve_points, walkable_tracks


def evolution_error_db(
    config: TraceConfig, num_tracks: int = 8, every: int = 20
) -> dict[float, np.ndarray]:
    """Errors of stored gains [dB] against gains traced at the slot's own position.

    Args:
        config: as for `trace`; its first cell is looked at.
        num_tracks: served tracks per speed.
        every: slots between compared ones.

    Returns:
        by speed [m/s]: float64[track, compared slot, PRB], evolved minus traced. Where an
        endpoint of the track has no path the track is passed over.

    Raises:
        RuntimeError: no ray tracer here.
    """
    config = dataclasses.replace(config.with_presets(), tracks_per_chunk=6 * num_tracks)
    tracer = RayTracer(config)
    slot_times = np.arange(config.slots) * config.slot_seconds
    frequencies = prb_frequencies_hz(config.num_prbs, config.prb_bandwidth_hz)
    compared = slot_times[::every]
    errors: dict[float, np.ndarray] = {}
    for speed in config.speeds_m_s:
        rows = []
        for track in walkable_tracks(tracer, config, speed, np.random.default_rng(config.seed)):
            points, velocities, ends = stations(track)
            paths, _, served = solve_points(tracer, config, points, velocities)
            if not served[:, 0].all():
                continue
            evolved = evolve(track, ends, [row[0] for row in paths], compared, frequencies)
            dense = np.stack(
                [np.interp(compared, track.times_s, axis) for axis in track.points_m.T], axis=1
            )
            traced, _, _ = solve_points(tracer, config, dense, np.zeros_like(dense))
            still = np.stack([_at_rest(row[0], frequencies) for row in traced])
            with np.errstate(divide="ignore"):
                rows.append(10 * np.log10(mean_power(evolved) / mean_power(still)))
            if len(rows) == num_tracks:
                break
        errors[speed] = np.array(rows)
    return errors


def _at_rest(paths: Paths, frequencies: np.ndarray) -> np.ndarray:
    return response(paths, np.zeros(1), frequencies)[0]
