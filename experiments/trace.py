"""`trace`: fill a channel cache with Sionna RT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from experiments.names import UsageError, split_list
from jaxrl5g import channel


@dataclass(frozen=True)
class Trace:
    """Trace user tracks through a scene into a channel cache.

    Needs the `rt` extra and, on a CPU, libLLVM 19 or newer. Interrupted, the same command
    carries on where it stopped.

    Examples:
      python -m experiments trace --scene etoile --tracks 512 --slots 400 --out etoile.cache
      python -m experiments trace --scene munich --cells 3 --speed 1.5,15 --out munich3.cache
    """

    out: Path
    """Cache file to write."""
    scene: str = "munich"
    """Scene of the Sionna RT wheel, or a Mitsuba XML file."""
    cells: int = 1
    """Cells, at the scene's preset sites."""
    tracks: int = 512
    """User tracks to keep, split evenly over cells and speeds."""
    slots: int = 400
    """Slots per track."""
    speed: str = "1.5"
    """User speeds in m/s, comma-separated."""
    motion: Literal["straight", "waypoint"] = "straight"
    """Straight tracks, or random waypoints."""
    seed: int = 0
    """Of positions, headings and path sampling."""
    prbs: int = 51
    """Physical resource blocks."""
    scs_khz: float = 30.0
    """Subcarrier spacing in kHz; sets the slot duration too."""
    carrier_ghz: float = 3.5
    """Carrier frequency in GHz."""
    samples: int = 100_000
    """Rays per source."""
    depth: int = 4
    """Most interactions on a path."""
    radius: float = 0.0
    """Farthest horizontal distance of a user from a site, in m; 0 takes the scene's preset."""
    receivers_per_solve: int = 64
    """Positions traced at once; fewer need less memory and more time."""
    max_paths: int = 200_000
    """Most paths per cell in one solve."""
    table_size: int = 100_000_000
    """Entries per cell, of 8 bytes, in the table of known reflection chains; those that collide
    there are lost."""
    coefficients: bool = False
    """Store complex coefficients beside the gains."""


def config_of(options: Trace) -> channel.TraceConfig:
    """Return the tracer's configuration.

    Raises:
        UsageError: an option is out of range.
    """
    try:
        speeds = tuple(float(speed) for speed in split_list(options.speed))
    except ValueError:
        raise UsageError(f"--speed must list numbers, got {options.speed!r}.") from None
    try:
        return channel.TraceConfig(
            scene=options.scene,
            cells=options.cells,
            tracks=options.tracks,
            slots=options.slots,
            speeds_m_s=speeds,
            motion=options.motion,
            seed=options.seed,
            num_prbs=options.prbs,
            scs_hz=1e3 * options.scs_khz,
            carrier_hz=1e9 * options.carrier_ghz,
            samples=options.samples,
            max_depth=options.depth,
            radius_m=options.radius,
            receivers_per_solve=options.receivers_per_solve,
            max_paths=options.max_paths,
            table_size=options.table_size,
            coefficients=options.coefficients,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def run(options: Trace) -> None:
    """Trace, save and say what was kept.

    Raises:
        UsageError: an option is out of range, or nothing can trace here.
    """
    config = config_of(options)
    if not options.out.parent.is_dir():
        raise UsageError(f"--out: folder {options.out.parent} does not exist.")
    try:
        cache = channel.run_trace(config, options.out)
    except (ImportError, RuntimeError, ValueError) as error:
        raise UsageError(str(error)) from error
    turned_away = cache.header.get("turned_away", {})
    away = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in turned_away.items())
    Console().print(
        f"{options.out}: {cache.num_tracks} tracks of {cache.num_slots} slots, "
        f"{options.out.stat().st_size / 1e6:.1f} MB; turned away: {away or 'none'}"
    )
