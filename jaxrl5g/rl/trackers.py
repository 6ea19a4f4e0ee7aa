"""Experiment trackers: where metrics go besides the run folder's own log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

_EXTRA = 'pip install "jaxrl5g[track]"'


class Tracker(Protocol):
    """What the training loop logs to after every chunk, and closes at the end of the run."""

    def log(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Take the metrics, host arrays of any small shape, after `step` chunks."""
        ...

    def close(self) -> None:
        """Write what is still to be written; nothing is logged afterwards."""
        ...


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as numbers: the elements of an array `loss` are `loss/0`, `loss/1`, ..."""
    flat = {}
    for name, value in metrics.items():
        array = np.asarray(value, dtype=float)
        for place, element in np.ndenumerate(array):
            flat["/".join([name, *map(str, place)])] = float(element)
    return flat


class ConsoleTracker:
    """A table of each metric's first, last, lowest and highest value, printed at the end.

    An array counts as its mean.

    Args:
        console: where to print; None: standard output.
    """

    def __init__(self, console: Console | None = None):
        self._console = console
        self._seen: dict[str, list[float]] = {}  # first, last, lowest, highest
        self._steps: list[int] = []

    def log(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        self._steps = [*self._steps[:1], step]
        for name, value in metrics.items():
            new = float(np.mean(value))
            first, _, low, high = self._seen.get(name, [new] * 4)
            self._seen[name] = [first, new, min(low, new), max(high, new)]

    def close(self) -> None:
        if not self._steps:
            return
        table = Table(title=f"chunks {self._steps[0]} to {self._steps[-1]}")
        table.add_column("metric")
        for heading in ("first", "last", "lowest", "highest"):
            table.add_column(heading, justify="right")
        for name, values in self._seen.items():
            table.add_row(name, *(f"{value:.4g}" for value in values))
        (self._console or Console()).print(table)


class TensorBoardTracker:
    """Scalars for TensorBoard, by tensorboardX (the `track` extra).

    Args:
        folder: of the event files.
        after: chunks done when the run is resumed; events beyond them are hidden.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path, after: int = 0):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"the TensorBoard tracker needs tensorboardX: {_EXTRA}", name=error.name
            ) from error
        self._writer = SummaryWriter(logdir=str(folder), purge_step=after + 1 if after else None)

    def log(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        for name, value in scalars(metrics).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """Scalars for Weights & Biases (the `track` extra).

    Args:
        project: the project's name.
        settings: further arguments of `wandb.init`, such as `name`, `config`, `dir`,
            `mode="offline"`, or `id` with `resume="allow"` to go on with a run.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, project: str, **settings: Any):
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                f"the Weights & Biases tracker needs wandb: {_EXTRA}", name=error.name
            ) from error
        self._run = wandb.init(project=project, **settings)

    def log(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        self._run.log(scalars(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
