"""Trace a pool of user tracks: resumable, and the same whether or not it was interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from .cache import FORMAT_VERSION, STEP_DB, ChannelCache, ChannelCacheError, gains_to_steps
from .cache_file import load, save
from .evolution import evolve, mean_power, prb_frequencies_hz
from .link_budget import snr_db
from .motion import Track, make_track, stations
from .rays import RayTracer
from .trace_config import TraceConfig

_COUNTS: tuple[str, ...] = ("no_path", "outside_coverage", "surplus")
_CONVENTION = (
    "gains are |H|^2 at PRB centres in 0.01 dB steps between isotropic-reference antenna ports, "
    "antenna patterns included, transmit power excluded; summed over receive antennas and "
    "averaged over transmit antennas; -30000 = no path"
)


def run_trace(config: TraceConfig, out: str | os.PathLike, progress: bool = True) -> ChannelCache:
    """Trace, save to ``out`` and return the cache, memory-mapped.

    Finished chunks go to ``<out>.partial/``; the same call resumes from them after an
    interruption of any kind and gives the same bytes.

    Raises:
        RuntimeError: no ray tracer here, or no track can be found.
        ValueError: unknown scene, or a folder of another configuration's chunks.
    """
    out = Path(out)
    cache = trace(config, work=Path(f"{out}.partial"), progress=progress)
    save(out, cache)
    shutil.rmtree(f"{out}.partial", ignore_errors=True)
    return load(out)


def trace(
    config: TraceConfig, work: str | os.PathLike | None = None, progress: bool = False
) -> ChannelCache:
    """Trace ``config.tracks`` tracks into a cache in memory.

    Args:
        config: what to trace.
        work: folder of finished chunks, made if need be; None keeps nothing.
        progress: show a progress bar on standard error.

    Raises:
        RuntimeError: no ray tracer here, or too few positions can be served.
        ValueError: unknown scene, or ``work`` belongs to another configuration.
    """
    config = config.with_presets()
    folder = None if work is None else _open_work(Path(work), config)
    tracer: RayTracer | None = None
    speeds = config.speeds_m_s
    quotas = config.quotas()
    kept: list[dict[str, np.ndarray]] = []
    turned_away: dict[str, int] = dict.fromkeys(_COUNTS, 0)
    facts: dict[str, Any] = {}
    with _progress(progress) as bar:
        task = bar.add_task(f"tracing {config.scene}", total=config.tracks)
        for group in range(len(speeds)):
            have, quota = np.zeros(config.cells, int), quotas[group]
            batch = idle = 0
            while (have < quota).any():
                path = None if folder is None else folder / f"chunk-{group}-{batch}.npz"
                chunk = None if path is None else _read_chunk(path)
                if chunk is None:
                    tracer = tracer or RayTracer(config)
                    chunk = _trace_chunk(tracer, config, group, batch)
                    if path is not None:
                        _write_chunk(path, chunk)
                facts = facts or json.loads(str(chunk["facts"]))
                for name in _COUNTS[:2]:
                    turned_away[name] += int(chunk[name])
                before = have.sum()
                for index, cell in enumerate(chunk["serving"]):
                    if have[cell] < quota[cell]:
                        have[cell] += 1
                        kept.append({name: chunk[name][index] for name in _per_track(config)})
                    else:
                        turned_away["surplus"] += 1
                bar.advance(task, int(have.sum() - before))
                idle = 0 if have.sum() > before else idle + 1
                if idle >= 20:
                    short = int((have - quota).argmin())
                    raise RuntimeError(
                        f"20 chunks without a new track: cell {short} of scene {config.scene} "
                        "covers too little; move its site or widen coverage_db."
                    )
                batch += 1
    return _assemble(config, kept, turned_away, facts)


def _per_track(config: TraceConfig) -> tuple[str, ...]:
    names = ("gains", "serving", "start", "velocity", "speed", "snr")
    return (*names, "coefficients") if config.coefficients else names


def _trace_chunk(
    tracer: RayTracer, config: TraceConfig, group: int, batch: int
) -> dict[str, np.ndarray]:
    """One chunk: a pure function of (config, group, batch)."""
    rng = np.random.default_rng([config.seed, group, batch])
    tracks = walkable_tracks(tracer, config, config.speeds_m_s[group], rng)
    # Most open ground has no path at all: trace the starts before whole tracks.
    starts = np.array([track.points_m[0] for track in tracks])
    headings = np.array([track.velocities_m_s[0] for track in tracks])
    start_paths, start_positions, start_any = solve_points(tracer, config, starts, headings)
    served = np.flatnonzero(start_any.any(axis=1))
    no_path = len(tracks) - len(served)
    where = [stations(tracks[index]) for index in served]
    rest_paths, _, rest_any = solve_points(
        tracer,
        config,
        np.concatenate([np.zeros((0, 2)), *(points[1:] for points, _, _ in where)]),
        np.concatenate([np.zeros((0, 2)), *(velocity[1:] for _, velocity, _ in where)]),
    )

    slot_times = np.arange(config.slots) * config.slot_seconds
    frequencies = prb_frequencies_hz(config.num_prbs, config.prb_bandwidth_hz)
    rows: dict[str, list] = {name: [] for name in _per_track(config)}
    outside = first = 0
    for index, (points, velocities, ends) in zip(served, where, strict=True):
        track, mine = tracks[index], slice(first, first + len(points) - 1)
        first += len(points) - 1
        paths = [start_paths[index], *rest_paths[mine]]
        covered = np.logical_and.reduce([start_any[index], *rest_any[mine]])
        if not covered.any():
            no_path += 1
            continue
        responses = np.stack(
            [
                evolve(track, ends, [row[cell] for row in paths], slot_times, frequencies)
                for cell in range(config.cells)
            ],
            axis=1,
        )
        power = mean_power(responses)
        mean = power.mean(axis=(0, 2))
        serving = int(mean.argmax())
        if not covered[serving]:
            no_path += 1
            continue
        snr = float(snr_db(10 * np.log10(mean[serving]), config.num_prbs, config.power_dbm))
        if not config.coverage_db[0] <= snr <= config.coverage_db[1]:
            outside += 1
            continue
        rows["gains"].append(gains_to_steps(power))
        rows["serving"].append(serving)
        rows["start"].append(start_positions[index])
        rows["velocity"].append([*velocities[0], 0.0])
        rows["speed"].append(config.speeds_m_s[group])
        rows["snr"].append(snr)
        if config.coefficients:
            rows["coefficients"].append(responses.astype(np.complex64))
    facts = {
        "versions": tracer.versions(),
        "sites": [dataclasses.asdict(site) for site in tracer.sites],
    }
    return {
        **{name: np.array(values) for name, values in rows.items()},
        "no_path": np.array(no_path),
        "outside_coverage": np.array(outside),
        "facts": np.array(json.dumps(facts, sort_keys=True)),
    }


def solve_points(tracer: RayTracer, config: TraceConfig, points: np.ndarray, velocity: np.ndarray):
    """Trace ground points [R, 2] in chunks; paths, positions [R, 3] and path flags [R, C]."""
    height = tracer.ground(points)[0] if len(points) else np.zeros(0)
    position = np.column_stack([points, height + config.user_height_m])
    velocity = np.column_stack([velocity, np.zeros(len(velocity))])
    paths, any_path = [], [np.zeros((0, config.cells), bool)]
    for first in range(0, len(position), config.receivers_per_solve):
        part = slice(first, first + config.receivers_per_solve)
        some_paths, some_any = tracer.solve(position[part], velocity[part])
        paths += some_paths
        any_path.append(some_any)
    return paths, position, np.concatenate(any_path)


def walkable_tracks(
    tracer: RayTracer, config: TraceConfig, speed: float, rng: np.random.Generator
) -> list[Track]:
    """One chunk's candidate tracks, all over open ground."""
    sites = np.array([site.position_m[:2] for site in tracer.sites])
    duration = (config.slots - 1) * config.slot_seconds
    tracks: list[Track] = []
    for _ in range(1000):
        starts = rng.uniform(-config.radius_m, config.radius_m, (256, 2))
        starts += sites[rng.integers(len(sites), size=256)]
        # Uniform over the union of discs: a point in k discs is drawn k times as often.
        inside = np.linalg.norm(starts[:, None] - sites, axis=2) <= config.radius_m
        keep = inside.any(1) & (rng.uniform(size=256) * inside.sum(1) < 1)
        starts = starts[keep]
        starts = starts[tracer.ground(starts)[1]]
        lot = [
            make_track(
                rng,
                start,
                speed,
                duration,
                config.key_spacing_m,
                config.motion,
                config.waypoint_leg_m,
            )
            for start in starts
        ]
        for track, walkable in zip(lot, _walkable(tracer, config, lot), strict=True):
            if walkable:
                tracks.append(track)
        if len(tracks) >= config.tracks_per_chunk:
            return tracks[: config.tracks_per_chunk]
    raise RuntimeError(f"found no open ground within {config.radius_m} m of the sites.")


def _walkable(tracer: RayTracer, config: TraceConfig, tracks: list[Track]) -> np.ndarray:
    """Whether all keys are on open ground and nothing stands on the way between them."""
    if not tracks:
        return np.zeros(0, bool)
    owner = np.repeat(np.arange(len(tracks)), [len(track.points_m) for track in tracks])
    points = np.concatenate([track.points_m for track in tracks])
    height, open_ground = tracer.ground(points)
    level = np.column_stack([points, np.where(open_ground, height, 0.0) + config.user_height_m])
    same = owner[1:] == owner[:-1]
    clear = tracer.free_way(level[:-1], level[1:]) | ~same
    bad = np.zeros(len(tracks), bool)
    np.logical_or.at(bad, owner, ~open_ground)
    np.logical_or.at(bad, owner[:-1], ~clear)
    return ~bad


def _assemble(
    config: TraceConfig,
    kept: list[dict[str, np.ndarray]],
    turned_away: dict[str, int],
    facts: dict[str, Any],
) -> ChannelCache:
    # Shuffled, so that any run of consecutive tracks is an exchangeable sample of the pool.
    order = np.random.default_rng([config.seed, len(kept)]).permutation(len(kept))
    kept = [kept[index] for index in order]
    header = {
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(config),
        "scene": config.scene,
        "versions": facts["versions"],
        "seed": config.seed,
        "carrier_hz": config.carrier_hz,
        "scs_hz": config.scs_hz,
        "num_prbs": config.num_prbs,
        "slot_seconds": config.slot_seconds,
        "step_db": STEP_DB,
        "sites": facts["sites"],
        "tx_array": {"shape": config.tx_shape, "pattern": config.tx_pattern, "polarization": "V"},
        "rx_array": {"shape": config.rx_shape, "pattern": config.rx_pattern, "polarization": "V"},
        "power_convention": _CONVENTION,
        "calibration": {"power_dbm": config.power_dbm, "coverage_db": config.coverage_db},
        "turned_away": turned_away,
        "serving_cell": [int(track["serving"]) for track in kept],
        "speed_m_s": [float(track["speed"]) for track in kept],
        "snr_db": [round(float(track["snr"]), 3) for track in kept],
        "start_m": [[round(float(x), 3) for x in track["start"]] for track in kept],
        "velocity_m_s": [[round(float(x), 4) for x in track["velocity"]] for track in kept],
    }
    gains = np.stack([track["gains"] for track in kept])
    coefficients = None
    if config.coefficients:
        coefficients = np.stack([track["coefficients"] for track in kept])
    return ChannelCache(gains, json.loads(json.dumps(header)), coefficients)


def _open_work(folder: Path, config: TraceConfig) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "config.sha256"
    if mark.exists():
        if mark.read_text().strip() != config.digest():
            raise ChannelCacheError(
                f"{folder}: holds chunks of another configuration; delete it or choose another "
                "output file."
            )
    else:
        _replace(mark, config.digest().encode())
    return folder


def _read_chunk(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # unreadable: trace it again


def _write_chunk(path: Path, chunk: dict[str, np.ndarray]) -> None:
    temporary = path.with_suffix(".tmp.npz")
    with open(temporary, "wb") as file:
        np.savez(file, **chunk)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _progress(show: bool) -> Progress:
    from rich.console import Console

    return Progress(console=Console(stderr=True), disable=not show)
