"""The command line: `python -m experiments <command>`."""

import dataclasses
import inspect
import sys
from typing import Any

import tyro

from experiments.benchmark_env import BenchmarkEnv
from experiments.benchmark_env import run as run_benchmark_env
from experiments.benchmark_resolver import BenchmarkResolver
from experiments.benchmark_resolver import run as run_benchmark_resolver
from experiments.compare import Compare
from experiments.compare import run as run_compare
from experiments.configs import load_config
from experiments.evaluate import Evaluate
from experiments.evaluate import run as run_evaluate
from experiments.listing import List
from experiments.listing import run as run_list
from experiments.names import UsageError, unknown
from experiments.trace import Trace
from experiments.trace import run as run_trace
from experiments.tune import Tune
from experiments.tune import run as run_tune

_PROG = "python -m experiments"
_COMMANDS: dict[str, Any] = {
    "evaluate": Evaluate,
    "compare": Compare,
    "tune": Tune,
    "list": List,
    "trace": Trace,
}
_BENCHMARKS: dict[str, Any] = {"env": BenchmarkEnv, "resolver": BenchmarkResolver}

_HELP = f"""usage: {_PROG} COMMAND [OPTIONS]

commands:
  evaluate        classical schedulers on the same drops: table, JSON, figures
  compare         the whole classical field against its frontier and a certified bound
  tune            averaging windows of the alpha-fair rules, on training drops
  list            environments, channel caches, schedulers and experiments
  trace           fill a channel cache with Sionna RT
  benchmark env   speed of the environment beside Sionna SYS and the machine's floor
  benchmark resolver  speed and exactness of the PRB quota resolver beside its rivals

`{_PROG} COMMAND --help` explains a command's options.
`--config NAME` takes the options of a named experiment (`{_PROG} list` shows them);
options beside it have the last word.
"""


def main(argv: list[str]) -> int:
    """Run one command; return the process's exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0 if argv else 2
    try:
        _dispatch(argv)
    except UsageError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _dispatch(argv: list[str]) -> None:
    command, rest = argv[0], argv[1:]
    if command == "benchmark":
        benchmark = _parse(_BENCHMARKS, rest, f"{_PROG} benchmark")
        if isinstance(benchmark, BenchmarkEnv):
            run_benchmark_env(benchmark, argv)
        else:
            run_benchmark_resolver(benchmark, argv)
        return
    if command not in _COMMANDS:
        raise unknown("command", command, [*_COMMANDS, "benchmark"])
    options = _parse(_COMMANDS, [command, *rest], _PROG)
    if isinstance(options, Evaluate):
        run_evaluate(options, argv)
    elif isinstance(options, Compare):
        run_compare(options, argv)
    elif isinstance(options, Tune):
        run_tune(options, argv)
    elif isinstance(options, Trace):
        run_trace(options)
    else:
        run_list(options)


def _parse(commands: dict[str, Any], argv: list[str], prog: str) -> Any:
    """Parse `COMMAND [OPTIONS]` into the command's dataclass."""
    if not argv or argv[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name}" for name in commands)
        if argv:
            print(f"usage: {prog} COMMAND [OPTIONS]\n\ncommands:\n{listed}")
            raise SystemExit(0)
        raise UsageError(f"{prog} needs a command: {', '.join(commands)}.")
    command, rest = argv[0], argv[1:]
    if command not in commands:
        raise unknown("command", f"{prog.removeprefix(_PROG).strip()} {command}".strip(), commands)
    kind = commands[command]
    return tyro.cli(
        kind,
        prog=f"{prog} {command}",
        description=inspect.cleandoc(kind.__doc__ or ""),
        args=_with_config(command, kind, rest),
    )


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
