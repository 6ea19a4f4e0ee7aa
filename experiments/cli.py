"""The command line: `python -m experiments <command>`."""

import dataclasses
import inspect
import sys
from importlib import import_module
from typing import Any, NamedTuple

import tyro

from experiments.configs import load_config
from experiments.names import UsageError, unknown

_PROG = "python -m experiments"


class _Command(NamedTuple):
    """A command; its module is imported only when it is run, since JAX takes seconds to import.

    Attributes:
        module: has `run`.
        options: the dataclass there of its options.
        about: one line for the help.
        records: whether `run` takes the arguments too, to write them beside the results.
    """

    module: str
    options: str
    about: str
    records: bool = True


_COMMANDS = {
    "evaluate": _Command(
        "experiments.evaluate",
        "Evaluate",
        "classical schedulers on the same drops: table, JSON, figures",
    ),
    "compare": _Command(
        "experiments.compare",
        "Compare",
        "the whole classical field against its frontier and a certified bound",
    ),
    "tune": _Command(
        "experiments.tune",
        "Tune",
        "averaging windows of the alpha-fair rules, on training drops",
    ),
    "tilts": _Command(
        "experiments.tilts",
        "Tilts",
        "what linear policies of one feature would gain, without training",
    ),
    "list": _Command(
        "experiments.listing",
        "List",
        "environments, channel caches, schedulers and experiments",
        records=False,
    ),
    "trace": _Command(
        "experiments.trace", "Trace", "fill a channel cache with Sionna RT", records=False
    ),
    "label": _Command(
        "experiments.label",
        "Label",
        "two segments side by side: which is better, asked of a person",
        records=False,
    ),
}
_BENCHMARKS = {
    "env": _Command(
        "experiments.benchmark_env",
        "BenchmarkEnv",
        "speed of the environment beside Sionna SYS and the machine's floor",
    ),
    "resolver": _Command(
        "experiments.benchmark_resolver",
        "BenchmarkResolver",
        "speed and exactness of the PRB quota resolver beside its rivals",
    ),
    "train": _Command(
        "experiments.benchmark_train",
        "BenchmarkTrain",
        "environment slots per second while the controller learns, and where they go",
    ),
    "prefs": _Command(
        "experiments.benchmark_prefs",
        "BenchmarkPrefs",
        "complete runs of learners from preferences per second, beside PyTorch and NumPy",
    ),
}


def main(argv: list[str]) -> int:
    """Run one command; return the process's exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    try:
        _dispatch(argv)
    except UsageError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    return 0


def _help() -> str:
    abouts = {"run": "an experiment by name: run folder, claims, report"}
    abouts |= {name: command.about for name, command in _COMMANDS.items()}
    abouts |= {f"benchmark {name}": command.about for name, command in _BENCHMARKS.items()}
    listed = "\n".join(f"  {name:20}{about}" for name, about in abouts.items())
    return f"""usage: {_PROG} COMMAND [OPTIONS]

commands:
{listed}

`{_PROG} COMMAND --help` explains a command's options.
`--config NAME` takes the options of a named configuration (`{_PROG} list` shows them);
options beside it have the last word. `run NAME` takes the name itself.
"""


def _dispatch(argv: list[str]) -> None:
    name, rest = argv[0], argv[1:]
    if name == "run":
        import_module("experiments.run").run(argv)
        return
    if name == "benchmark":
        command, options = _parse(_BENCHMARKS, rest, f"{_PROG} benchmark")
    elif name in _COMMANDS:
        command, options = _parse(_COMMANDS, argv, _PROG)
    else:
        raise unknown("command", name, ["run", *_COMMANDS, "benchmark"])
    run = import_module(command.module).run
    run(options, argv) if command.records else run(options)


def _parse(commands: dict[str, _Command], argv: list[str], prog: str) -> tuple[_Command, Any]:
    """Parse `COMMAND [OPTIONS]` into the command and its dataclass."""
    if not argv or argv[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name}" for name in commands)
        if argv:
            print(f"usage: {prog} COMMAND [OPTIONS]\n\ncommands:\n{listed}")
            raise SystemExit(0)
        raise UsageError(f"{prog} needs a command: {', '.join(commands)}.")
    name, rest = argv[0], argv[1:]
    if name not in commands:
        raise unknown("command", f"{prog.removeprefix(_PROG).strip()} {name}".strip(), commands)
    command = commands[name]
    kind = getattr(import_module(command.module), command.options)
    options = tyro.cli(
        kind,
        prog=f"{prog} {name}",
        description=inspect.cleandoc(kind.__doc__ or ""),
        args=_with_config(name, kind, rest),
    )
    return command, options


def _with_config(command: str, kind: Any, argv: list[str]) -> list[str]:
    """Put the options of `--config NAME` before the others, which have the last word."""
    name, rest = None, []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            name = value if equals else next(arguments, None)
            if not name:
                raise UsageError("--config needs a name.")
        else:
            rest.append(argument)
    if name is None:
        return rest
    config = load_config(name)
    if config.command != command:
        raise UsageError(f"experiment {name!r} is for {config.command!r}, not {command!r}.")
    fields = [field.name for field in dataclasses.fields(kind)]
    for key in config.options:
        if key not in fields:
            raise unknown(f"option in {name}:", str(key), fields)
    return [*(f"--{key}={value}" for key, value in config.options.items()), *rest]
