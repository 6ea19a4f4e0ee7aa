"""The folder of one run: what it was asked, where it was made, and what came out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from experiments.names import UsageError
from experiments.presets import Preset, differences, dump_preset, load_preset
from experiments.record import provenance, write_json, write_text


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one run.

    It holds config.yaml (a preset: `run PATH/config.yaml` repeats the run), provenance.json,
    figures/, and in the end results.json and report.md. Experiments add metrics.jsonl and
    whatever they need to go on after an interruption.

    Attributes:
        path: of the folder.
        preset: what is run, with every option resolved.
        argv: the command's arguments, after `python -m experiments`.
        resuming: whether an earlier run of the same preset was here.
    """

    path: Path
    preset: Preset
    argv: tuple[str, ...]
    resuming: bool

    @property
    def figures(self) -> Path:
        """Folder for figures."""
        return self.path / "figures"

    @property
    def metrics(self) -> Path:
        """File for the metrics of training, a JSON object a line."""
        return self.path / "metrics.jsonl"


def new_run_path(name: str, root: Path = Path("runs")) -> Path:
    """Make and return the first free folder NAME-1, NAME-2, ... in `root`.

    Raises:
        UsageError: nothing can be written there.
    """
    number = 1
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            path = root / f"{name}-{number}"
            try:
                path.mkdir()  # fails where another run has just taken it
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UsageError(f"{root}: {error.strerror}.") from None


def open_run_folder(
    path: Path, preset: Preset, argv: tuple[str, ...], *, resume: bool = False
) -> RunFolder:
    """Make the folder of a run, or with `resume` open that of an interrupted one.

    A folder is a run's from the moment that its config.yaml is there.

    Args:
        path: absent, empty, or with `resume` a run's.
        preset: what is run.
        argv: the command's arguments.
        resume: whether to go on with what the folder holds; where it holds nothing the run starts.

    Raises:
        UsageError: the folder holds something else, or cannot be written.
    """
    config = path / "config.yaml"
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {path} is a file, not a folder.")
        resuming = config.exists()
        if resuming:
            _refuse_another(config, preset, resume)
        elif path.is_dir() and any(item.suffix != ".partial" for item in path.iterdir()):
            raise UsageError(f"--out {path} is not empty and holds no run; choose another.")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_text(config, dump_preset(preset))
        folder = RunFolder(path, preset, argv, resuming)
        folder.figures.mkdir(exist_ok=True)
        _write_provenance(path / "provenance.json", list(argv))
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}.") from None
    return folder


def _refuse_another(config: Path, preset: Preset, resume: bool) -> None:
    """Let only the run that the folder holds go on."""
    if not resume:
        raise UsageError(
            f"--out {config.parent} holds a run; add --resume to go on with it, or choose another."
        )
    changed = differences(load_preset(str(config)), preset)
    if changed:
        raise UsageError(f"{config.parent} holds a run with other options: {'; '.join(changed)}.")


def _write_provenance(path: Path, argv: list[str]) -> None:
    """Record where the run is made; each resumption is added to a list of its own."""
    now = provenance(argv)
    if path.exists():
        first = json.loads(path.read_text())
        write_json(path, first | {"resumed": [*first.get("resumed", []), now]})
    else:
        write_json(path, now)
