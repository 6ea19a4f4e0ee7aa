"""`benchmark env`: cell-slots per second beside Sionna SYS and the machine's floor."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.benchmark_rollout import Setting, cost_of_slot, measure, measure_apart
from experiments.benchmark_sionna import measure_sionna
from experiments.devices import usable_cores
from experiments.machine_floor import exponential_rate, floor_seconds, memory_bandwidth
from experiments.names import UsageError, integers, split_list, unknown
from experiments.record import provenance, write_json
from experiments.schedulers import parse_scheduler
from jaxrl5g.env import registered, spec
from jaxrl5g.env.types import FIDELITIES

_SIZES = ((4, 12), (8, 25), (16, 51), (16, 106), (32, 106))


@dataclass(frozen=True)
class BenchmarkEnv:
    """Time the environment under a scheduler, by default PF with equal power.

    Counts cell-slots per second through the environment's own step, autoreset included, against
    batch size and fidelity; beside it Sionna SYS's closed loop where the `sionna` extra is
    installed, the floor from memory bandwidth and exponentials measured here, and the cost
    against users x PRBs. Leave the machine otherwise idle.

    Examples:
      python -m experiments benchmark env
      python -m experiments benchmark env --quick --fidelities nr
      python -m experiments benchmark env --env RayleighDownlink-v0 --batches 128,1024,8192
      python -m experiments benchmark env --scheduler equal_quotas --fidelities nr --no-sionna
    """

    out: Path = Path("runs/benchmark-env.json")
    """JSON file to write."""
    env: str = "MunichDownlink-v0"
    """Environment to time; the cost against sizes is always that of RayleighDownlink-v0."""
    batches: str = "1,8,64,128,512,1024,4096,8192"
    """Environments side by side, comma-separated."""
    fidelities: str = "sionna,nr,shannon"
    """Link models, comma-separated."""
    scheduler: str = "pf"
    """Scheduler, named as for `evaluate`; Sionna's loop is PF with equal power."""
    users: int = 16
    """Users per cell."""
    prbs: int = 51
    """Physical resource blocks."""
    chunk: int = 128
    """On a CPU, larger batches also run as consecutive chunks of this many; 0 = never."""
    devices: int = 2
    """On a CPU, also split the larger batches over this many virtual devices; 1 = never."""
    repeats: int = 5
    """Timed rollouts per setting, of which the median counts."""
    sionna: bool = True
    """Time Sionna SYS too, where it is installed."""
    quick: bool = False
    """Two batches, three repeats and no sizes: a smoke test."""


def run(options: BenchmarkEnv, argv: list[str]) -> dict[str, Any]:
    """Run the benchmark and return what the JSON file holds.

    Raises:
        UsageError: an option names something unknown or out of range.
    """
    batches, fidelities = _checked(options)
    on_cpu = jax.default_backend() == "cpu"
    console = Console() if Console().is_terminal else Console(width=110)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    repeats = 3 if options.quick else options.repeats
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("machine floor", total=None)
        bandwidth, exponentials = memory_bandwidth(), exponential_rate()
        base = Setting(
            options.env,
            scheduler=options.scheduler,
            users=options.users,
            prbs=options.prbs,
            repeats=repeats,
        )
        floors = {}
        for fidelity in fidelities:
            cost = cost_of_slot(dataclasses.replace(base, fidelity=fidelity))
            seconds = floor_seconds(cost, bandwidth, exponentials)
            floors[fidelity] = cost | {"floor_slots_per_s": 1 / seconds if seconds else math.inf}
        for setting in settings(options, base, batches, fidelities, on_cpu):
            what = (
                f"{setting.fidelity}, batch {setting.batch}, {_form(dataclasses.asdict(setting))}"
            )
            progress.update(task, description=what)
            rows.append(measure_apart(setting) if setting.devices > 1 else measure(setting))
        if not options.quick:
            for users, prbs in _SIZES:
                progress.update(task, description=f"{users} users x {prbs} PRBs")
                size = Setting(
                    fidelity=fidelities[0],
                    scheduler=options.scheduler,
                    batch=128,
                    users=users,
                    prbs=prbs,
                    repeats=repeats,
                )
                sizes.append(measure(size))
        memory = None
        if on_cpu and not options.quick:
            progress.update(task, description="peak memory of 1024 environments")
            memory = measure_apart(
                dataclasses.replace(base, fidelity=fidelities[0], batch=1024, chunk=0, repeats=1)
            )
        sionna: dict[str, Any] = {"skipped": "--no-sionna"}
        if options.sionna:
            progress.update(task, description="Sionna SYS")
            threads = usable_cores() or 2
            sionna = measure_sionna(options.users, options.prbs, threads, options.quick)

    best = best_rows(rows)
    results = {
        **provenance(argv),
        "config": dataclasses.asdict(options),
        "rows": rows,
        "best": best,
        "floor": {
            "memory_bandwidth_bytes_per_s": bandwidth,
            "exponentials_per_s": exponentials,
            "per_fidelity": floors,
        },
        "sizes": {"rows": sizes, "exponent": cost_exponent(sizes)},
        "memory_1024": memory,
        "sionna": sionna,
        "ratio_to_sionna": _ratios(best, sionna),
    }
    write_json(options.out, results)
    _print(console, results)
    console.print(f"written to {options.out}")
    return results


def _checked(options: BenchmarkEnv) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if options.env not in registered():
        raise unknown("environment id", options.env, registered())
    parse_scheduler(options.scheduler)
    batches = integers("--batches", options.batches)
    if options.quick:
        batches = tuple(sorted({batches[0], min(batches, key=lambda size: abs(size - 128))}))
    fidelities = split_list(options.fidelities)
    for fidelity in fidelities:
        if fidelity not in FIDELITIES:
            raise unknown("fidelity", fidelity, FIDELITIES)
    if not fidelities:
        raise UsageError("--fidelities names no fidelity.")
    for name in ("users", "prbs", "devices", "repeats"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    caches = spec(options.env).caches
    if caches is not None and options.prbs != 51:
        raise UsageError(
            f"{options.env} has 51 PRBs; --prbs {options.prbs} needs RayleighDownlink-v0."
        )
    return batches, fidelities


def settings(
    options: BenchmarkEnv,
    base: Setting,
    batches: tuple[int, ...],
    fidelities: tuple[str, ...],
    on_cpu: bool,
) -> list[Setting]:
    """Return what to time: whole batches; on a CPU also in chunks and over virtual devices."""
    found = []
    for fidelity in fidelities:
        for batch in batches:
            whole = dataclasses.replace(base, fidelity=fidelity, batch=batch)
            found.append(whole)
            if not on_cpu:
                continue
            if options.chunk and batch > options.chunk and batch % options.chunk == 0:
                found.append(dataclasses.replace(whole, chunk=options.chunk))
            devices = options.devices
            share = batch // devices
            chunk = min(options.chunk or share, share)
            if devices > 1 and batch >= 64 and batch % devices == 0 and share % chunk == 0:
                found.append(dataclasses.replace(whole, chunk=chunk, devices=devices))
    return found


def best_rows(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the fastest row of each fidelity."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        fidelity = row["fidelity"]
        if fidelity not in best or row["slots_per_s"] > best[fidelity]["slots_per_s"]:
            best[fidelity] = row
    return best


def cost_exponent(sizes: list[dict[str, Any]]) -> float | None:
    """Return the slope of log time against log(users x PRBs): 1 is linear."""
    if len(sizes) < 2:
        return None
    x = [math.log(row["users"] * row["prbs"]) for row in sizes]
    y = [-math.log(row["slots_per_s"]) for row in sizes]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def _ratios(best: dict[str, dict[str, Any]], sionna: dict[str, Any]) -> dict[str, Any] | None:
    if not sionna.get("best"):
        return None
    forms = sionna["best_by_input"]
    return {
        fidelity: {
            form: row["slots_per_s"] / rival["slots_per_s"]
            for form, rival in forms.items()
            if rival
        }
        for fidelity, row in best.items()
    }


def _form(row: dict[str, Any]) -> str:
    """How a setting spreads its batch, in words."""
    share = row["batch"] // row["devices"]
    width = min(row["chunk"] or share, share)
    form = "whole" if width == share else f"chunks of {width}"
    return form if row["devices"] == 1 else f"{row['devices']} devices, {form}"


def _print(console: Console, results: dict[str, Any]) -> None:
    hardware = results["hardware"]
    title = f"{results['config']['env']}, {results['config']['scheduler']}, on "
    if jax.default_backend() == "cpu":
        title += f"{hardware['cpu']}, {hardware['cores']} cores"
    else:
        title += ", ".join(hardware["devices"])
    table = Table(title=title, title_justify="left")
    for column in ("fidelity", "batch", "form"):
        table.add_column(column)
    for column in ("cell-slots/s", "slowest to fastest", "compile, s", "of floor"):
        table.add_column(column, justify="right")
    for row in results["rows"]:
        low, high = row["spread"]
        floor = results["floor"]["per_fidelity"][row["fidelity"]]["floor_slots_per_s"]
        table.add_row(
            row["fidelity"],
            str(row["batch"]),
            _form(row),
            f"{row['slots_per_s']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{row['trace_s'] + row['compile_s']:.1f}",
            f"{row['slots_per_s'] / floor:.1%}",
        )
    console.print(table)
    floor = results["floor"]
    console.print(
        f"machine: {floor['memory_bandwidth_bytes_per_s'] / 1e9:.1f} GB/s, "
        f"{floor['exponentials_per_s'] / 1e9:.2f} G exponentials/s"
    )
    for fidelity, cost in floor["per_fidelity"].items():
        console.print(
            f"floor of {fidelity}: {cost['floor_slots_per_s']:,.0f} cell-slots/s from "
            f"{cost['state_bytes'] + cost['gain_bytes']:,.0f} bytes and "
            f"{cost['transcendentals']:,.0f} transcendentals a slot"
        )
    if results["sizes"]["rows"]:
        console.print(_size_table(results["sizes"]))
    if results["memory_1024"]:
        peak = results["memory_1024"]["peak_rss_bytes"] / 2**30
        console.print(f"peak memory of a process with 1024 environments: {peak:.2f} GiB")
    _print_sionna(console, results)


def _size_table(sizes: dict[str, Any]) -> Table:
    table = Table(
        title=f"cost against size: time grows as (users x PRBs)^{sizes['exponent']:.2f}",
        title_justify="left",
    )
    for column in ("users", "PRBs", "cell-slots/s", "ns per user and PRB"):
        table.add_column(column, justify="right")
    for row in sizes["rows"]:
        each = 1e9 / row["slots_per_s"] / (row["users"] * row["prbs"])
        table.add_row(
            str(row["users"]), str(row["prbs"]), f"{row['slots_per_s']:,.0f}", f"{each:.2f}"
        )
    return table


def _print_sionna(console: Console, results: dict[str, Any]) -> None:
    sionna = results["sionna"]
    if "skipped" in sionna:
        console.print(f"Sionna SYS not timed: {sionna['skipped']}")
        return
    table = Table(title=f"Sionna SYS, {sionna['threads']} torch threads", title_justify="left")
    for column in ("batch", "SINR input", "mode"):
        table.add_column(column)
    table.add_column("cell-slots/s", justify="right")
    for row in sionna["rows"]:
        mode = "torch.compile" if row["compiled"] else "eager"
        table.add_row(str(row["batch"]), row["input"], mode, f"{row['slots_per_s']:,.0f}")
    console.print(table)
    for row in sionna["failed"]:
        console.print(f"Sionna SYS, batch {row['batch']}, failed: {row['error']}")
    for fidelity, ratio in (results["ratio_to_sionna"] or {}).items():
        each = ", ".join(f"{value:,.1f}x ({form})" for form, value in ratio.items())
        console.print(f"{fidelity}, times Sionna SYS at its best batch, by SINR input: {each}")
