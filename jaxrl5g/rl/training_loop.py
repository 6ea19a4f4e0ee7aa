"""The loop around compiled chunks: phases, logs, evaluation, checkpoints, faults.

Everything here happens on the host between two chunks; what a chunk computes is the caller's.
After each one, in this order: the metrics are fetched and must be finite, the state is evaluated,
a line goes to `metrics.jsonl`, and the state is saved. A run that is stopped at any moment and
resumed therefore ends with the same state and the same `metrics.jsonl` as one that was not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl5g.rl.checkpoints import (
    CheckpointFolder,
    check_origin,
    load_checkpoint,
    plain_config,
    read_metadata,
)
from jaxrl5g.rl.faults import (
    CheckpointError,
    FolderError,
    Interrupted,
    NonFiniteError,
    StopSignals,
    name_nonfinite,
    nonfinite_leaves,
    nonfinite_metrics,
)
from jaxrl5g.rl.leaves import describe, settled, summary, total_bytes
from jaxrl5g.rl.progress import ProgressBar
from jaxrl5g.rl.run_log import append_line, cut_lines, to_host
from jaxrl5g.rl.trackers import Tracker
from jaxrl5g.rl.writable import check_writable

METRICS_FILE = "metrics.jsonl"
TIMINGS_FILE = "timings.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"
EVALUATION = "evaluation/"  # before the names of evaluated quantities

# Latest and best, the next of them before the last goes, and one more for the logs.
_COPIES = 4
_SMALL_FILES = 16 * 2**20  # bytes

State = Any


def _same(state: State) -> State:
    return state


@dataclass(frozen=True)
class Phase:
    """A stage of training: `chunks` calls of one compiled function.

    Attributes:
        name: unique in a run.
        chunks: at least 1.
        step: one chunk, usually jitted, pure; returns the next state and a flat dict of metrics,
            scalars or small arrays. It may donate its argument.
        enter: applied once, before the phase's first chunk: resets, a new learning rate. Pure.
        units: what one chunk does, in the run's unit (environment slots, say), for the rate shown.

    Raises:
        ValueError: `chunks` below 1, or no name.
    """

    name: str
    chunks: int
    step: Callable[[State], tuple[State, Mapping[str, Any]]]
    enter: Callable[[State], State] = _same
    units: float | None = None

    def __post_init__(self):
        if not self.name:
            raise ValueError("a phase needs a name, got an empty one")
        if self.chunks < 1:
            raise ValueError(f"phase {self.name!r} needs at least 1 chunk, got {self.chunks}")


class _Best(NamedTuple):
    score: float
    total: int  # chunks done when it was reached


class _Done(NamedTuple):
    """A run after a finished, logged chunk: all that goes into a checkpoint."""

    state: State
    phase: int = 0  # index
    chunk: int = 0  # of the phase
    total: int = 0
    best: _Best | None = None


@dataclass(frozen=True)
class _Run:
    """What stays the same from chunk to chunk."""

    phases: tuple[Phase, ...]
    folder: Path
    config: dict[str, Any]
    evaluate: Callable[[State], Mapping[str, Any]] | None
    evaluate_every: int
    score: Callable[[Mapping[str, Any]], float] | None
    checkpoint_every: int
    watch: Callable[[State], Any] | None
    trackers: Sequence[Tracker]
    bar: ProgressBar

    @property
    def checkpoints(self) -> CheckpointFolder:
        return CheckpointFolder(self.folder / CHECKPOINTS_FOLDER)

    def where(self, done: _Done) -> str:
        """The sentence part that says how far the run is."""
        phase = self.phases[done.phase]
        return f"chunk {done.chunk} of {phase.chunks} of phase {phase.name!r}"

    def save(self, done: _Done) -> None:
        best = done.best is not None and done.best.total == done.total
        metadata = {
            "phase": self.phases[done.phase].name,
            "chunk": done.chunk,
            "total": done.total,
            "best": done.best and done.best._asdict(),
            "config": self.config,
        }
        self.checkpoints.save(done.total, done.state, metadata, best=best)


def run_phases(
    phases: Sequence[Phase],
    state: State,
    folder: str | Path,
    *,
    config: Mapping[str, Any],
    evaluate: Callable[[State], Mapping[str, Any]] | None = None,
    evaluate_every: int = 10,
    score: Callable[[Mapping[str, Any]], float] | None = None,
    checkpoint_every: int = 10,
    watch: Callable[[State], Any] | None = None,
    trackers: Sequence[Tracker] = (),
    resume: bool = False,
    ignore: Sequence[str] = (),
    shown: Sequence[str] = (),
    unit: str = "units",
    progress: bool = True,
) -> State:
    """Run the phases from `state`, or from the folder's latest checkpoint, and return the end.

    In the folder: `metrics.jsonl` (one object a chunk: `phase`, `chunk`, `total` chunks done,
    `metrics`; nothing that differs between two equal runs), `timings.jsonl` (seconds of the chunk,
    compilation included, and of the evaluation), `checkpoints` (see `CheckpointFolder`).

    Args:
        phases: at least one, names unique.
        state: pytree of arrays, typed keys and Python numbers: everything that training carries
            on. Leaves become strongly typed jax.Arrays before each chunk. It may be donated.
        folder: the run folder, made where absent. Without `resume` it must not hold a run.
        config: JSON-able; a checkpoint of another one is refused.
        evaluate: a function of the state alone; its numbers are logged as `evaluation/...`.
        evaluate_every: chunks, counted over all phases, at least 1.
        score: from the evaluated floats and arrays (names without prefix) to what is to be
            largest; the state with the first largest score is kept as checkpoint `best`.
        checkpoint_every: chunks, counted over all phases, at least 1. A new best, the end of a
            phase and an interruption are saved too.
        watch: returns the pytree of arrays that must stay finite besides the metrics.
        trackers: take every chunk's metrics; they are closed at the end of the run, however it
            ends.
        resume: go on from the latest checkpoint; where there is none, start and say so.
        ignore: dotted names of configuration values that may differ on resuming.
        shown: metrics to show beside the progress bar.
        unit: what `Phase.units` counts.
        progress: draw the bar.

    Raises:
        ValueError: bad arguments, or a metric that is not a number or an array.
        FolderError: the folder cannot be written or is too small, or holds a run and `resume` is
            False.
        CheckpointError: the checkpoint to resume from is damaged or of another program,
            configuration or plan.
        NonFiniteError: a metric, an evaluated or a watched quantity is NaN or infinite. The
            checkpoints are left as they were.
        Interrupted: SIGINT or SIGTERM; the last finished chunk was saved, unless the message says
            otherwise.
    """
    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
        _check_periods(evaluate_every, checkpoint_every)
        if score is not None and evaluate is None:
            raise ValueError("score needs evaluate, whose numbers it reads, got none")
        describe(state)  # refuses leaves that a checkpoint could not hold
        run = _Run(
            phases=_distinct(phases),
            folder=Path(folder),
            config=plain_config(config),
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            score=score,
            checkpoint_every=checkpoint_every,
            watch=watch,
            trackers=trackers,
            bar=ProgressBar(shown, unit, progress),
        )
        done = _start(run, settled(state), resume, ignore)
        del state  # it may be large, and a resumed run has no more use for it
        stop = stack.enter_context(StopSignals())
        stack.enter_context(run.bar)
        try:
            for finished in _chunks(run, done):
                done = finished
                if stop.asked:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise _interrupted(run, done) from None
    return done.state


def _check_periods(evaluate_every: int, checkpoint_every: int) -> None:
    periods = {"evaluate_every": evaluate_every, "checkpoint_every": checkpoint_every}
    for name, value in periods.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1 chunk, got {value}")


def _distinct(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    names = [phase.name for phase in phases]
    if not names:
        raise ValueError("a run needs at least one phase, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"phases need different names, got {', '.join(names)}")
    return tuple(phases)


def _start(run: _Run, state: State, resume: bool, ignore: Sequence[str]) -> _Done:
    """The run before its first chunk: fresh, or as the latest checkpoint left it."""
    latest = run.checkpoints.path("latest")
    if not resume and (latest is not None or (run.folder / METRICS_FILE).exists()):
        raise FolderError(
            f"{run.folder} already holds a run: go on with it (--resume) or choose another folder"
        )
    check_writable(run.folder, _COPIES * total_bytes(state) + _SMALL_FILES)
    if latest is None:
        done = _Done(state)
        if resume:
            run.bar.note(f"no checkpoint in {run.folder}: starting from the beginning")
    else:
        done = _restored(run, state, latest, ignore)
        run.bar.note(f"resuming from {latest}, {done.total} chunks done")
    for name in (METRICS_FILE, TIMINGS_FILE):
        if cut_lines(run.folder / name, done.total) < done.total:
            run.bar.note(f"{run.folder / name} has lost lines of the chunks done")
    return done


def _restored(run: _Run, state: State, path: Path, ignore: Sequence[str]) -> _Done:
    metadata = read_metadata(path)
    check_origin(metadata, path, run.config, ignore)
    at = _phase_index(run, metadata, path)
    restored, _ = load_checkpoint(path, _like(run.phases[: at + 1], state, metadata["leaves"]))
    best = metadata["best"] and _Best(**metadata["best"])
    return _Done(restored, at, metadata["chunk"], metadata["total"], best)


def _phase_index(run: _Run, metadata: dict[str, Any], path: Path) -> int:
    """Where in the plan a checkpoint is, which must be where it was when it was made."""
    name, chunk, total = metadata["phase"], metadata["chunk"], metadata["total"]
    names = [phase.name for phase in run.phases]
    if name not in names:
        raise CheckpointError(
            f"{path} is of phase {name!r}, and this run has only {', '.join(names)}"
        )
    at = names.index(name)
    before, chunks = sum(phase.chunks for phase in run.phases[:at]), run.phases[at].chunks
    if chunk > chunks or total != before + chunk:
        raise CheckpointError(
            f"{path} was made after chunk {chunk} of phase {name!r} and {total} chunks in all, but "
            f"in this run the phase has chunks {before + 1} to {before + chunks}"
        )
    return at


def _like(phases: Sequence[Phase], state: State, leaves: list[dict[str, Any]]) -> State:
    """A state of the checkpoint's structure, which `enter` may have changed."""
    like = state
    for enter in (_same, *(phase.enter for phase in phases)):
        like = settled(enter(like))
        if summary(describe(like)) == summary(leaves):
            return like
    return state  # loading refuses it, and names what differs


def _chunks(run: _Run, done: _Done) -> Iterator[_Done]:
    """Do what is left of the run chunk by chunk; each is logged and saved before it is yielded."""
    for index in range(done.phase, len(run.phases)):
        phase = run.phases[index]
        if index > done.phase:
            done = done._replace(phase=index, chunk=0)
        run.bar.phase(phase.name, done.chunk, phase.chunks)
        if done.chunk == 0:
            done = done._replace(state=settled(phase.enter(done.state)))
        while done.chunk < phase.chunks:
            done = _chunk(run, phase, done._replace(chunk=done.chunk + 1, total=done.total + 1))
            yield done


def _chunk(run: _Run, phase: Phase, now: _Done) -> _Done:
    """One chunk from the state in `now`, whose counters are those of its end."""
    began = time.perf_counter()
    state, raw = phase.step(now.state)
    state = settled(state)
    jax.block_until_ready((state, raw))
    seconds = time.perf_counter() - began
    now = now._replace(state=state)

    metrics = to_host(raw)
    _refuse_nonfinite(run, now, nonfinite_metrics(metrics))
    if run.watch is not None:
        _refuse_nonfinite(run, now, nonfinite_leaves(run.watch(state)))

    timing = {"phase": phase.name, "chunk": now.chunk, "total": now.total, "seconds": seconds}
    new_best = False
    if run.evaluate is not None and now.total % run.evaluate_every == 0:
        began = time.perf_counter()
        evaluation = to_host(run.evaluate(state))
        timing["evaluation_seconds"] = time.perf_counter() - began
        prefixed = {f"{EVALUATION}{name}": value for name, value in evaluation.items()}
        _refuse_nonfinite(run, now, nonfinite_metrics(prefixed))
        metrics |= prefixed
        if run.score is not None:
            score = float(run.score({n: v if v.ndim else v.item() for n, v in evaluation.items()}))
            _refuse_nonfinite(run, now, nonfinite_metrics({"score": np.asarray(score)}))
            new_best = now.best is None or score > now.best.score
            now = now._replace(best=_Best(score, now.total)) if new_best else now

    place = {"phase": phase.name, "chunk": now.chunk, "total": now.total}
    append_line(run.folder / METRICS_FILE, {**place, "metrics": metrics})
    append_line(run.folder / TIMINGS_FILE, timing)
    for tracker in run.trackers:
        tracker.log(now.total, metrics)
    if new_best or now.chunk == phase.chunks or now.total % run.checkpoint_every == 0:
        run.save(now)
    run.bar.chunk(now.chunk, phase.units, seconds, metrics)
    return now


def _refuse_nonfinite(run: _Run, now: _Done, found: dict[str, str]) -> None:
    if not found:
        return
    good = run.checkpoints.path("latest")
    kept = f"the last good checkpoint is {good}" if good else "no checkpoint was saved before it"
    raise NonFiniteError(
        f"{name_nonfinite(found)} after {run.where(now)}; {kept}",
        tuple(found),
        None if good is None else str(good),
    )


def _interrupted(run: _Run, done: _Done) -> Interrupted:
    """Save the last finished chunk, and say how to go on."""
    latest = run.checkpoints.path("latest")
    saved = 0 if latest is None else int(latest.name)
    lost = any(leaf.is_deleted() for leaf in jax.tree.leaves(done.state))  # donated to a chunk
    if done.total > saved and not lost:
        run.save(done)
        latest = run.checkpoints.path("latest")
    if latest is None:
        return Interrupted(f"interrupted in {run.folder} before anything was saved")
    return Interrupted(
        f"interrupted after {run.where(done)}; {latest} has the state after {int(latest.name)} "
        "chunks in all: run the same command with --resume to go on"
    )
