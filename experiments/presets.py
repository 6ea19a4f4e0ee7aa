"""Presets: named options of an experiment, and the file that holds them."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.configs import is_own, load_config
from experiments.kinds import load_experiment
from experiments.names import UsageError
from experiments.settings import flatten, from_plain, plain_value, to_plain
from experiments.sweeps import Sweep, read_sweep


class Preset(NamedTuple):
    """An experiment with all its options.

    Attributes:
        name: in configs/, or the stem of one's own file.
        kind: of experiment.
        description: in one line.
        config: the kind's dataclass.
        sweep: values by dotted option; empty for a single point.
    """

    name: str
    kind: str
    description: str
    config: Any
    sweep: Sweep


def load_preset(name: str) -> Preset:
    """Return the preset called `name`, or that of a YAML file of your own.

    Raises:
        UsageError: no such preset or file, or one with options that the experiment does not have
            or cannot take.
    """
    found = load_config(name)
    if not found.experiment:
        raise UsageError(
            f"{name!r} is for {found.command!r}: python -m experiments {found.command} "
            f"--config {name}."
        )
    experiment = load_experiment(found.experiment)
    return Preset(
        Path(name).stem if is_own(name) else name,
        found.experiment,
        found.description,
        from_plain(experiment.config, found.options, name),
        read_sweep(found.sweep, experiment.config, f"{name}: sweep"),
    )


def dump_preset(preset: Preset) -> str:
    """Return the YAML file that `load_preset` reads `preset` from."""
    content: dict[str, Any] = {
        "experiment": preset.kind,
        "description": preset.description,
        "options": to_plain(preset.config),
    }
    if preset.sweep:
        content["sweep"] = {
            name: [plain_value(value) for value in values] for name, values in preset.sweep.items()
        }
    return yaml.safe_dump(content, sort_keys=False, width=100)


def differences(old: Preset, new: Preset) -> list[str]:
    """Return what differs between two presets apart from their names, as "OPTION was X, now Y"."""
    before, after = _settings(old), _settings(new)
    return [
        f"{name} was {before.get(name, 'absent')}, now {after.get(name, 'absent')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _settings(preset: Preset) -> dict[str, str]:
    # as text, in which NaN is equal to itself
    settings = {"experiment": preset.kind}
    settings |= {name: str(plain_value(v)) for name, v in flatten(preset.config).items()}
    return settings | {f"sweep.{name}": str(plain_value(v)) for name, v in preset.sweep.items()}
