"""`run`: an experiment by name, with its options, sweeps, run folder and report."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape

from experiments.claims import Report, merge
from experiments.configs import config_names, load_config
from experiments.devices import one_cpu_device_per_core
from experiments.kinds import Experiment, load_experiment
from experiments.names import UsageError, unknown
from experiments.presets import Preset, load_preset
from experiments.report import render, write_report
from experiments.run_folder import RunFolder, new_run_path, open_run_folder
from experiments.settings import option_types
from experiments.sweeps import Group, expand, parse_sweep

_PROG = "python -m experiments run"

Config = TypeVar("Config")


@dataclass(frozen=True)
class Run(Generic[Config]):
    """The options of `run`, those of the experiment among them."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path | None = None
    """Folder of the run; runs/NAME-1 and so on where not given."""
    resume: bool = False
    """Go on with the interrupted run in --out, which must have had the same options."""
    sweep: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """FIELD=VALUE,VALUE: run every combination of the values listed, as in
    training.learning_rate=1e-4,3e-4; a value that is a list stands in brackets."""


def run(argv: list[str]) -> Report | None:
    """Run `run NAME [OPTIONS]`; return the report, or None where only help was asked.

    Raises:
        UsageError: an unknown name or option, a value that it cannot have, a folder that cannot be
            used, or a training run that cannot go on.
        KeyboardInterrupt: interrupted; the message says how to go on.
    """
    if argv[1:2] in (["-h"], ["--help"]):
        print(_help())
        return None
    if len(argv) < 2 or argv[1].startswith("-"):
        raise UsageError(f"run needs an experiment's name first: {', '.join(_presets())}.")
    one_cpu_device_per_core()  # before an experiment's imports use a device
    preset = load_preset(argv[1])
    experiment = load_experiment(preset.kind)
    options = _parse(preset, argv[2:])
    sweep = preset.sweep | parse_sweep(options.sweep, experiment.config)
    _refuse_swept(argv[2:], list(sweep))
    groups = expand(options.config, sweep, experiment.traced)
    if options.resume and options.out is None:
        raise UsageError("--resume needs --out, the folder to go on with.")
    out = options.out or new_run_path(preset.name)
    preset = preset._replace(config=options.config, sweep=sweep)
    folder = open_run_folder(out, preset, tuple(argv), resume=options.resume)
    console = Console() if Console().is_terminal else Console(width=110)
    if options.resume and not folder.resuming:
        console.print(f"{escape(str(out))} holds no run yet: starting one")
    try:
        report = _run_groups(experiment, groups, folder)
    except KeyboardInterrupt as stop:
        command = ["python", "-m", "experiments", *argv]
        command += [] if options.out else ["--out", str(out)]
        command += [] if options.resume else ["--resume"]
        said = str(stop) or "interrupted"
        raise KeyboardInterrupt(f"{said}\ngo on with: {shlex.join(command)}") from None
    except RuntimeError as error:
        from jaxrl5g.rl.faults import RunError  # the toolbox is slow to import

        if not isinstance(error, RunError):
            raise
        raise UsageError(f"{error}.") from error
    if report.claims:
        console.print(render(report.claims, f"{preset.name}: {preset.description}"))
    console.print(f"report.md and results.json in {escape(str(out))}")
    return report


def _run_groups(experiment: Experiment, groups: list[Group], folder: RunFolder) -> Report:
    """Run all groups; several get a folder and a report each, inside the run's."""
    if len(groups) == 1:
        report = experiment.run(groups[0], folder)
        write_report(folder, report)
        return report
    reports = {}
    for number, group in enumerate(groups, start=1):
        slug = re.sub(r"[^\w.=-]+", "_", re.sub(r"[][]", "", group.label))[:80]
        part = folder.preset._replace(
            name=f"{folder.preset.name}: {group.label}", config=group.config, sweep=group.sweep
        )
        path = folder.path / "groups" / f"{number}-{slug}"
        inner = open_run_folder(path, part, folder.argv, resume=folder.resuming)
        reports[group.label] = experiment.run(group, inner)
        write_report(inner, reports[group.label])
    report = merge(reports)
    write_report(folder, report)
    return report


def _parse(preset: Preset, argv: list[str]) -> Run[Any]:
    """Parse the options, with the preset's values as defaults."""
    kind: Any = type(preset.config)
    try:
        options, rest = tyro.cli(
            Run[kind],
            prog=f"{_PROG} {preset.name}",
            description=preset.description,
            default=Run(config=preset.config),
            args=argv,
            return_unknown_args=True,
        )
    except ValueError as error:  # options that do not fit each other
        raise UsageError(str(error)) from error
    if rest:
        wrong = rest[0].partition("=")[0]
        names = [*option_types(kind), "out", "resume", "sweep"]
        raise unknown("option", wrong, [f"--{name.replace('_', '-')}" for name in names])
    return options


def _refuse_swept(argv: list[str], swept: list[str]) -> None:
    """Refuse an option that a sweep would overrule."""
    for argument in argv:
        if argument.startswith("--"):
            name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
            for known in (name, re.sub(r"(^|\.)no_", r"\1", name)):
                if known in swept:
                    raise UsageError(
                        f"{known} is swept, so {argument.partition('=')[0]} would change nothing; "
                        f"use --sweep {known}=VALUE."
                    )


def _presets() -> list[str]:
    return [name for name in config_names() if load_config(name).experiment]


def _help() -> str:
    width = max(map(len, _presets()), default=0)
    listed = [f"  {name:{width}}  {load_config(name).description}" for name in _presets()]
    return "\n".join(
        [
            f"usage: {_PROG} NAME [OPTIONS]",
            "",
            "NAME is a preset or a YAML file of your own, such as a run's config.yaml:",
            *(listed or ["  (none)"]),
            "",
            f"`{_PROG} NAME --help` explains the options. --sweep FIELD=VALUE,VALUE runs every",
            "combination of the values; --out FOLDER --resume goes on after an interruption.",
        ]
    )
