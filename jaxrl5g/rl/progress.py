"""The progress bar of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """One line a phase on stderr: name, chunks done, rate and a few metrics.

    Args:
        shown: the metrics to show; an array is shown as its mean, an absent one not at all.
        unit: what the rate counts.
        visible: False: nothing is drawn; notes are printed all the same.
    """

    def __init__(self, shown: Sequence[str] = (), unit: str = "units", visible: bool = True):
        self._shown = tuple(shown)
        self._unit = unit
        self._latest: dict[str, np.ndarray] = {}  # what is not in every chunk stays in sight
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=2,
            disable=not visible,
        )

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def phase(self, name: str, done: int, chunks: int) -> None:
        """Begin the line of a phase, `done` of whose chunks are done already."""
        self._task = self._bar.add_task(name, total=chunks, completed=done, rate="", metrics="")

    def chunk(
        self, done: int, units: float | None, seconds: float, metrics: Mapping[str, np.ndarray]
    ) -> None:
        """Show a finished chunk."""
        rate = "" if units is None else f"{units / max(seconds, 1e-9):,.0f} {self._unit}/s"
        self._latest |= {name: metrics[name] for name in self._shown if name in metrics}
        values = "  ".join(f"{name} {np.mean(value):.4g}" for name, value in self._latest.items())
        self._bar.update(self._task, completed=done, rate=rate, metrics=values)
