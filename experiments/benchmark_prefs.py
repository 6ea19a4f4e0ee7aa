"""`benchmark prefs`: complete runs of learners from preferences per second, beside rivals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import benchmark_prefs_runs as timed
from experiments.benchmark_prefs_runs import LENGTH, PAIRS, Setting
from experiments.cpl_torch import import_torch
from experiments.names import UsageError, integers
from experiments.processes import run_apart
from experiments.record import provenance, write_json

_RIVAL_RUNS = 3  # whole runs of a rival in each of its repeats


@dataclass(frozen=True)
class BenchmarkPrefs:
    """Time complete learning runs from preferences, many at once.

    A CPL run draws a 7 x 7 grid and 500 labelled pairs of 8-step segments, clones all segments in
    300 full-batch Adam updates, minimises CPL's loss in 1500 more and evaluates the policy
    exactly. A PR-LSVI run has 1500 episodes on random tables of 4 states, 3 actions and 3 steps,
    with practical constants and threshold 0.1. Each number of runs is measured in a process of
    its own, compile time apart, on one device and on virtual ones that share the runs.

    Rivals, one run after the other on the same problems: a PyTorch loop with the same data and
    the same 300 + 1500 updates, with one thread and with one per core, and PR-LSVI in NumPy;
    drawing the problem and evaluating count for ours only. Leave the machine otherwise idle.

    Examples:
      python -m experiments benchmark prefs
      python -m experiments benchmark prefs --quick --no-rivals
      python -m experiments benchmark prefs --cpl-runs 1024,16384 --lsvi-runs 256,4096 --devices 1
    """

    out: Path = Path("runs/benchmark-prefs.json")
    """JSON file to write."""
    cpl_runs: str = "1,16,128,1024"
    """CPL runs at once, comma-separated."""
    lsvi_runs: str = "1,16,256"
    """PR-LSVI runs at once, comma-separated."""
    devices: str = "1,2"
    """Devices, comma-separated; virtual on a CPU. Left out where they do not divide the runs."""
    chunk: int = 0
    """Runs under one vmap on a device, which then takes chunk after chunk; 0 = all."""
    repeats: int = 3
    """Timed passes per setting, of which the median counts."""
    rivals: bool = True
    """Also time PyTorch's CPL and NumPy's PR-LSVI."""
    quick: bool = False
    """Fewest runs, few updates and episodes, two passes: a smoke test."""


def settings(options: BenchmarkPrefs) -> list[Setting]:
    """What to time: ours by learner, devices and number of runs, then the rivals.

    Raises:
        UsageError: an option is malformed or out of range, or nothing is left to time.
    """
    if options.repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {options.repeats}.")
    if options.chunk < 0:
        raise UsageError(f"--chunk must be at least 0, got {options.chunk}.")
    runs = {
        "cpl": integers("--cpl-runs", options.cpl_runs),
        "pr-lsvi": integers("--lsvi-runs", options.lsvi_runs),
    }
    base = Setting(repeats=options.repeats)
    if options.quick:
        runs = {learner: (min(numbers),) for learner, numbers in runs.items()}
        passes = min(options.repeats, 2)
        base = replace(base, bc_updates=10, updates=20, episodes=20, repeats=passes)
    found = []
    for learner, numbers in runs.items():
        for devices in integers("--devices", options.devices):
            for number in (number for number in numbers if number % devices == 0):
                one = replace(base, learner=learner, runs=number, devices=devices)
                if number // devices % (options.chunk or 1) == 0:
                    one = replace(one, chunk=options.chunk)
                found.append(one)
    if not found:
        raise UsageError(f"--devices {options.devices} divide no number of runs.")
    if options.rivals:
        rival = replace(base, rival=True, runs=_RIVAL_RUNS)
        found += [replace(rival, learner="cpl", threads=threads) for threads in (1, 0)]
        found.append(replace(rival, learner="pr-lsvi"))
    return found


def work(setting: Setting) -> dict[str, float]:
    """What a run must do at least, whatever does it: the floor to hold the times against.

    Returns:
        For CPL, over the updates of its own loss: `look_ups` of a table's entries, as many
        `additions` to a table's gradient, `exponentials` of the preferences' probabilities, and
        `bytes` of entry numbers read for both. For PR-LSVI, over all episodes: multiplications
        and additions, `flop`, of both square-root updates, the draws, the widths, the backward
        pass and both policies' values, and `bytes` of state read and written.
    """
    if setting.learner == "cpl":
        steps = setting.updates * 2 * PAIRS * LENGTH
        return {
            "look_ups": steps,
            "additions": steps,
            "exponentials": 2 * PAIRS * setting.updates,
            "bytes": 2 * 4 * steps,
        }
    states, actions, horizon, size = 4, 3, 3, 12
    dimension, tables = horizon * size, horizon * states * actions
    absorbed = 6 * dimension**2 + 2 * horizon * 6 * size**2  # x R, R y and the outer product
    drawn = 2 * dimension**2 + horizon * 2 * size**2
    values = tables * (2 * size + 2 * size + 2 * size**2)  # reward, transition term, width
    fitted = horizon * (2 * size * states + 4 * size**2)
    evaluated = 2 * horizon * states * 2 * states
    state = dimension**2 + horizon * size**2 + horizon * size * states
    return {
        "flop": setting.episodes * (absorbed + drawn + values + fitted + evaluated),
        "bytes": setting.episodes * 2 * 4 * state,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say together, by learner.

    Returns:
        `best`, the row of most runs per second; `seconds_per_1024` runs at that rate;
        `times_rival`, how many times the fastest rival's runs per second that is, and
        `times_rival_cpu`, the same of processor time; `bytes_per_run` of the compiled program, by
        least squares over rows on one device, and `bytes_off_line`, the largest relative
        distance from that line (memory is linear in runs where it is small). None where there is
        nothing to tell it from.
    """
    told = {}
    for learner in timed.LEARNERS:
        own = [row for row in rows if row["learner"] == learner]
        ours = [row for row in own if not row["rival"]]
        rivals = [row for row in own if row["rival"]]
        if not ours:
            continue
        best = max(ours, key=lambda row: row["runs_per_s"])
        told[learner] = {
            "best": {name: best[name] for name in ("runs", "devices", "runs_per_s")},
            "seconds_per_1024": 1024 / best["runs_per_s"],
            "times_rival": best["runs_per_s"] / max(row["runs_per_s"] for row in rivals)
            if rivals
            else None,
            "times_rival_cpu": min(row["cpu_ms_per_run"] for row in rivals) / best["cpu_ms_per_run"]
            if rivals
            else None,
            **_memory([row for row in ours if row["devices"] == 1]),
        }
    return told


def _memory(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    held = {min(row["runs"], row["chunk"] or row["runs"]): row["program_bytes"] for row in rows}
    if len(held) < 2 or None in held.values():
        return {"bytes_per_run": None, "bytes_off_line": None}
    runs, size = np.array(list(held), float), np.array(list(held.values()), float)
    # weighted by 1 / size, so that small numbers of runs count as much as large ones
    slope, constant = np.polyfit(runs, size, 1, w=1 / size)
    off = np.abs(constant + slope * runs - size) / size
    return {"bytes_per_run": float(slope), "bytes_off_line": float(off.max())}


def run(options: BenchmarkPrefs, argv: list[str]) -> dict[str, Any]:
    """Run the benchmark and return what the JSON file holds.

    Raises:
        UsageError: as `settings`, or PyTorch is not installed and rivals were asked for.
        RuntimeError: a setting could not be measured.
    """
    todo = settings(options)
    if options.rivals:
        import_torch()
    console = Console() if Console().is_terminal else Console(width=120)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        for setting in todo:
            progress.update(task, description=str(setting))
            row = run_apart(timed.__name__, setting, setting.devices)
            rows.append({**row, "work": work(setting)})
            write_json(options.out, {"config": asdict(options), "rows": rows})  # not to lose them
    # last, as it takes hold of JAX's devices here
    results = {
        **provenance(argv),
        "config": asdict(options),
        "rows": rows,
        "summary": summary(rows),
    }
    write_json(options.out, results)
    console.print(table(results))
    for learner, told in results["summary"].items():
        console.print(f"{learner}: {_sentence(told)}")
    console.print(f"written to {options.out}")
    return results


def table(results: dict[str, Any]) -> Table:
    """The results in a row per setting."""
    hardware = results["hardware"]
    shown = Table(
        title=f"complete runs on {hardware['cpu']}, {hardware['cores']} cores, JAX devices: "
        f"{', '.join(hardware['devices'])}",
        title_justify="left",
    )
    shown.add_column("learner")
    for column in ("runs", "devices", "runs/s", "slowest to fastest", "CPU ms a run"):
        shown.add_column(column, justify="right")
    for column in ("program, MiB", "process, MiB", "compile, s"):
        shown.add_column(column, justify="right")
    for row in results["rows"]:
        low, high = row["spread"]
        cells = [f"{row['runs_per_s']:,.2f}", f"{low:,.2f} to {high:,.2f}"]
        cells.append(f"{row['cpu_ms_per_run']:,.1f}")
        if row["rival"]:
            threads = {0: ", threads as it likes", 1: ", 1 thread"}[row["threads"]]
            name = f"PyTorch CPL{threads}" if row["learner"] == "cpl" else "NumPy PR-LSVI"
            shown.add_row(name, "1", "", *cells, "", "", "")
            continue
        held = row["program_bytes"]
        shown.add_row(
            row["learner"],
            str(row["runs"]),
            str(row["devices"]),
            *cells,
            "" if held is None else f"{held / 2**20:,.1f}",
            f"{row['peak_rss_bytes'] / 2**20:,.0f}",
            f"{row['trace_s'] + row['compile_s']:.1f}",
        )
    return shown


def _sentence(told: dict[str, Any]) -> str:
    """The summary of a learner in words."""
    said = f"1024 runs take {told['seconds_per_1024']:.1f} s at {told['best']['runs']} at once"
    if told["times_rival"] is not None:
        said += (
            f", {told['times_rival']:.1f} times the rival's pace ({told['times_rival_cpu']:.1f} "
            "times by processor time)"
        )
    if told["bytes_per_run"] is not None:
        said += (
            f"; {told['bytes_per_run'] / 1024:,.0f} KiB a run, off a line by at most "
            f"{told['bytes_off_line']:.1%}"
        )
    return said
