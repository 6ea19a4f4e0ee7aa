"""Tracks on the ground: where a user is, how fast it moves, and where it is traced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Track:
    """One user's movement as straight segments between key positions.

    Attributes:
        times_s: float64[K], key times from 0 to the last slot [s].
        points_m: float64[K, 2], key positions [m].
        velocities_m_s: float64[K - 1, 2], velocity on each segment [m/s].
    """

    times_s: np.ndarray
    points_m: np.ndarray
    velocities_m_s: np.ndarray

    @property
    def num_segments(self) -> int:
        """Segments between neighbouring keys."""
        return len(self.times_s) - 1


def make_track(
    rng: np.random.Generator,
    start_m: np.ndarray,
    speed_m_s: float,
    duration_s: float,
    key_spacing_m: float,
    motion: str = "straight",
    leg_m: tuple[float, float] = (2.0, 10.0),
) -> Track:
    """A track with a random heading, or random way points, from ``start_m`` float[2] [m].

    Keys lie at both ends, at every turn, and at most ``key_spacing_m`` apart. A single slot
    (duration 0) still gets a segment, of no length.
    """
    heading = rng.uniform(0, 2 * np.pi)
    left, point, time = speed_m_s * duration_s, np.asarray(start_m, float), 0.0
    times, points, velocities = [0.0], [point], []
    while True:
        leg = left if motion == "straight" else min(left, rng.uniform(*leg_m))
        velocity = speed_m_s * np.array([np.cos(heading), np.sin(heading)])
        parts = max(1, int(np.ceil(leg / key_spacing_m - 1e-9)))
        seconds = leg / speed_m_s if speed_m_s > 0 else duration_s
        for part in range(1, parts + 1):
            times.append(time + seconds * part / parts)
            points.append(point + velocity * seconds * part / parts)
            velocities.append(velocity)
        point, time, left = points[-1], times[-1], left - leg
        if left <= 1e-9:
            return Track(np.array(times), np.array(points), np.array(velocities))
        heading += rng.uniform(-np.pi / 2, np.pi / 2)


def stations(track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The receivers that a track needs.

    Returns:
        positions float64[R, 2] [m], velocities float64[R, 2] [m/s], and int64[segments, 2]: the
        receivers at the start and the end of each segment. Neighbouring segments share one
        unless the velocity changes between them.
    """
    positions, velocities, ends = [], [], []
    for k in range(track.num_segments):
        velocity = track.velocities_m_s[k]
        if not ends or not np.array_equal(velocity, velocities[-1]):
            positions.append(track.points_m[k])
            velocities.append(velocity)
        first = len(positions) - 1
        positions.append(track.points_m[k + 1])
        velocities.append(velocity)
        ends.append((first, first + 1))
    return np.array(positions), np.array(velocities), np.array(ends)
