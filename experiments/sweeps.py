"""Sweeps: options that list values, and the grid of points they span."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from experiments.names import UsageError, unknown
from experiments.settings import convert, option_types, plain_value, replace

Sweep = dict[str, tuple[Any, ...]]  # values by dotted option


@dataclass(frozen=True)
class Group:
    """Points of a sweep that share all that is static, to be run as one program.

    Attributes:
        config: the options; of the traced ones that are swept it holds the value before the sweep.
        settings: the swept traced options of each of the P points; one empty dict where none is.
        label: the static options that are swept, such as "network.hidden=64"; empty where none is.
    """

    config: Any
    settings: tuple[dict[str, float], ...]
    label: str

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The swept traced options, float32[P] each."""
        columns = {name: [point[name] for point in self.settings] for name in self.settings[0]}
        return {name: np.asarray(column, np.float32) for name, column in columns.items()}

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the P points among all of the sweep; empty where nothing is swept."""
        return tuple(
            ", ".join(part for part in (self.label, point_label(point)) if part)
            for point in self.settings
        )

    @property
    def sweep(self) -> Sweep:
        """The sweep that leads from `config` to these points alone."""
        return {
            name: tuple(dict.fromkeys(point[name] for point in self.settings))
            for name in self.settings[0]
        }

    def config_at(self, point: int) -> Any:
        """Return the options of one point, in [0, P)."""
        return replace(self.config, self.settings[point])


def point_label(values: Mapping[str, Any]) -> str:
    """Return the name of a point, such as "training.learning_rate=0.0003, network.hidden=64"."""
    return ", ".join(f"{name}={_text(value)}" for name, value in values.items())


def parse_sweep(texts: Sequence[str], kind: type) -> Sweep:
    """Return the sweep that `--sweep FIELD=VALUE,VALUE` options spell.

    A value that is itself a list stands in brackets: `network.widths=[32,32],[64]`.

    Args:
        texts: one per option.
        kind: the configuration class.

    Raises:
        UsageError: not of this form, an unknown option, or a value it cannot have.
    """
    lists: dict[str, Any] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--sweep must be FIELD=VALUE,VALUE, got {text!r}.")
        if name in lists:
            raise UsageError(f"--sweep names {name} twice.")
        try:
            lists[name] = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise UsageError(f"--sweep {name} must list values, got {values!r}.") from None
    return read_sweep(lists, kind, "--sweep")


def read_sweep(lists: Mapping[str, Any], kind: type, where: str) -> Sweep:
    """Return a sweep from lists of plain values by dotted option.

    Raises:
        UsageError: an unknown option, an empty list, a value twice or of the wrong type.
    """
    options = option_types(kind)
    sweep: Sweep = {}
    for name, values in lists.items():
        if name not in options:
            raise unknown(f"option in {where}:", str(name), options)
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: {name} must list values, got {values!r}.")
        found = tuple(convert(options[name], value, f"{where}: {name}") for value in values)
        if len({_text(value) for value in found}) < len(found):
            raise UsageError(f"{where}: {name} lists a value twice: {values!r}.")
        sweep[str(name)] = found
    return sweep


def expand(config: Any, sweep: Sweep, traced: Sequence[str] = ()) -> list[Group]:
    """Return the grid's points, grouped by what is static.

    Every combination of values is a point; the last option varies fastest. Without a sweep the
    one group holds `config`.

    Args:
        config: the options before the sweep.
        sweep: values by dotted option.
        traced: options that may differ within a group.

    Raises:
        UsageError: what the configuration class says about a point.
    """
    static = {name: values for name, values in sweep.items() if name not in traced}
    stacked = {name: values for name, values in sweep.items() if name in traced}
    settings = tuple(_grid(stacked))
    groups = []
    for chosen in _grid(static):
        label = point_label(chosen)
        try:
            group = Group(replace(config, chosen), settings, label)
            for point in range(len(settings)):
                group.config_at(point)  # is it one that can be run?
        except ValueError as error:
            raise UsageError(f"sweep over {', '.join(sweep)}: {error}") from error
        groups.append(group)
    return groups


def _grid(sweep: Sweep) -> list[dict[str, Any]]:
    return [dict(zip(sweep, point, strict=True)) for point in itertools.product(*sweep.values())]


def _text(value: Any) -> str:
    return str(plain_value(value))
