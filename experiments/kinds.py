"""Kinds of experiment that `run` knows, each a module of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.names import unknown
from experiments.settings import describe, option_types

if TYPE_CHECKING:
    from experiments.claims import Report
    from experiments.run_folder import RunFolder
    from experiments.sweeps import Group

EXPERIMENTS: dict[str, str] = {
    "cpl": "experiments.cpl",
    "downlink": "experiments.downlink",
    "randomized-prefs": "experiments.randomized_prefs",
}
"""Module of each kind; its `EXPERIMENT` is imported when a preset of the kind is."""

_TAKEN = ("out", "resume", "sweep", "help")  # the options of `run` itself


class Experiment(NamedTuple):
    """What a kind of experiment is.

    Attributes:
        config: frozen dataclass of its options; dataclasses in it are sections.
        run: measures one group of sweep points, into its folder. In a folder with `resuming` it
            goes on where it was interrupted.
        traced: dotted names of options, all floats, that `run` takes from `Group.values`, so that
            a sweep over them is one compiled program.
    """

    config: type
    run: Callable[[Group, RunFolder], Report]
    traced: tuple[str, ...] = ()


def load_experiment(kind: str) -> Experiment:
    """Import a kind of experiment.

    Raises:
        UsageError: unknown kind.
        ValueError: its options are not such as `run` can offer.
    """
    if kind not in EXPERIMENTS:
        raise unknown("kind of experiment", kind, EXPERIMENTS)
    found: Experiment = import_module(EXPERIMENTS[kind]).EXPERIMENT
    _check(kind, found)
    return found


def _check(kind: str, experiment: Experiment) -> None:
    config: Any = experiment.config
    for field in dataclasses.fields(config):
        if field.name in _TAKEN:
            raise ValueError(f"experiment {kind!r}: `run` has an option --{field.name} of its own")
    options = option_types(config)
    for name, annotation in options.items():
        try:
            describe(annotation)
        except ValueError as error:
            raise ValueError(f"experiment {kind!r}: {name}: {error}") from None
    for name in experiment.traced:
        if options.get(name) is not float:
            raise ValueError(f"experiment {kind!r}: traced {name!r} is not a float option")
