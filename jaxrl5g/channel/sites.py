"""Where the base stations stand: named presets per scene, and an automatic placement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Site:
    """One cell's transmitter.

    Attributes:
        position_m: (x, y, z) in the scene's coordinates [m].
        azimuth_deg: boresight's turn from +x towards +y [degrees].
        downtilt_deg: boresight's angle below the horizon [degrees].
    """

    position_m: tuple[float, float, float]
    azimuth_deg: float = 0.0
    downtilt_deg: float = 0.0


PRESETS: dict[tuple[str, int], tuple[Site, ...]] = {
    ("munich", 1): (Site((8.5, 21.0, 27.0), 0.0, 8.0),),
    ("munich", 3): (
        Site((8.5, 21.0, 27.0), 10.0, 8.0),
        Site((8.5, 21.0, 27.0), 65.0, 8.0),
        Site((8.5, 21.0, 27.0), 130.0, 8.0),
    ),
    ("etoile", 1): (Site((0.0, 0.0, 30.0), 0.0, 8.0),),
    ("etoile", 3): (
        Site((0.0, 0.0, 30.0), 0.0, 8.0),
        Site((0.0, 0.0, 30.0), 120.0, 8.0),
        Site((0.0, 0.0, 30.0), 240.0, 8.0),
    ),
}
"""Sites by (scene, number of cells)."""

PRESET_RADIUS_M = {("munich", 3): 200.0}
"""Users' largest distance from a site [m] where it is not ``DEFAULT_RADIUS_M``."""

DEFAULT_RADIUS_M = 300.0
"""Users' largest horizontal distance from a site [m]."""


def preset_sites(scene: str, num_cells: int) -> tuple[Site, ...] | None:
    """The sites listed for a scene, or None if there is no such list."""
    return PRESETS.get((scene, num_cells))


def preset_radius_m(scene: str, num_cells: int) -> float:
    """How far from a site users are looked for [m]."""
    return PRESET_RADIUS_M.get((scene, num_cells), DEFAULT_RADIUS_M)


def automatic_sites(
    bounds_m: tuple[tuple[float, float], tuple[float, float]],
    num_cells: int,
    height_m: float,
) -> tuple[Site, ...]:
    """Sites on a ring about the middle of a scene, each looking outwards.

    Args:
        bounds_m: ((x low, x high), (y low, y high)) of the scene [m].
        num_cells: how many; one stands in the middle.
        height_m: antenna height [m].

    Raises:
        ValueError: fewer than one cell.
    """
    if num_cells < 1:
        raise ValueError(f"a scene needs at least one cell, got {num_cells}.")
    (x_low, x_high), (y_low, y_high) = bounds_m
    centre = np.array([(x_low + x_high) / 2, (y_low + y_high) / 2])
    if num_cells == 1:
        return (Site((float(centre[0]), float(centre[1]), height_m)),)
    ring = 0.25 * min(x_high - x_low, y_high - y_low)
    sites = []
    for angle in 2 * np.pi * np.arange(num_cells) / num_cells:
        x, y = centre + ring * np.array([np.cos(angle), np.sin(angle)])
        sites.append(Site((float(x), float(y), height_m), float(np.degrees(angle))))
    return tuple(sites)
