"""Parts of an experiment that need not wait for each other, as many at once as there is room."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.devices import usable_cores

_MOST = 8  # at once: each holds its data


class Job(NamedTuple):
    """Something to measure.

    Attributes:
        key: by which its result is known.
        label: as the progress bar names it while it runs.
        measure: does it, in a thread with a device of its own as JAX's default.
    """

    key: Hashable
    label: str
    measure: Callable[[], Any]


class Bar:
    """A progress bar over jobs; `with` shows it."""

    def __init__(self, total: int):
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        console = Console() if Console().is_terminal else Console(width=110)
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("", total=total)
        self._running: list[str] = []

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Show a description."""
        self._progress.update(self._task, description=text)

    def begin(self, label: str) -> None:
        """A job starts."""
        self._running.append(label)
        self.say(" | ".join(self._running))

    def end(self, label: str) -> None:
        """A job is over."""
        self._running.remove(label)
        self.say(" | ".join(self._running))

    def advance(self) -> None:
        """Count a job that is done."""
        self._progress.advance(self._task)


def side_by_side(jobs: Sequence[Job], bar: Bar) -> Iterator[tuple[Any, Any]]:
    """Yield key and result of every job as it ends, begun in their order.

    On a CPU one runs on each core: threads leave no core idle while another one traces, compiles
    or steps through small loops, as splitting each job over devices would. Of accelerators each
    has one.

    Raises:
        Exception: what a job raised; those that run are waited for, the others are not begun.
    """
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    devices = _devices()
    for device in devices:
        free.put(device)

    def work(job: Job) -> Any:
        device = free.get()
        bar.begin(job.label)
        try:
            with jax.default_device(device):
                return job.measure()
        finally:
            bar.end(job.label)
            free.put(device)

    with ThreadPoolExecutor(len(devices)) as pool:
        futures = {pool.submit(work, job): job.key for job in jobs}
        try:
            for future in as_completed(futures):
                done = futures[future], future.result()
                bar.advance()
                yield done
        except BaseException:
            bar.say("stopping when what runs is done")
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _devices() -> list[Any]:
    """One per job at once; on a CPU always the first, so that jobs share compiled programs."""
    if jax.default_backend() != "cpu":
        return jax.local_devices()[:_MOST]
    return jax.local_devices()[:1] * min(usable_cores() or os.cpu_count() or 1, _MOST)
