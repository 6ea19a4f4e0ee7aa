"""Named configurations: configs/NAME.yaml holds what to run and its options."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.names import UsageError, unknown

_FOLDER = Path(__file__).parent / "configs"
_KEYS = ("command", "experiment", "description", "options", "sweep")


class NamedConfig(NamedTuple):
    """What a configuration file says, its options unchecked.

    Attributes:
        command: the command it is for; "run" where it names an experiment.
        description: in one line.
        options: of the command, or nested ones of the experiment.
        experiment: kind of experiment; empty where the file names a command.
        sweep: lists of values by dotted option, for an experiment.
    """

    command: str
    description: str
    options: dict[str, Any]
    experiment: str
    sweep: dict[str, Any]


def config_names() -> tuple[str, ...]:
    """Return the names of the configurations in configs/."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def is_own(name: str) -> bool:
    """Return whether `name` is the path of a file, not a name in configs/."""
    return name.endswith((".yaml", ".yml"))


def load_config(name: str) -> NamedConfig:
    """Read the configuration called `name`, or a YAML file of your own.

    Raises:
        UsageError: no such configuration or file, or a file that is not one.
    """
    if not is_own(name) and name not in config_names():
        raise unknown("experiment", name, config_names())
    path = Path(name) if is_own(name) else _FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold the keys {', '.join(_KEYS)}.")
    for key in content:
        if key not in _KEYS:
            raise unknown(f"key in {path}:", str(key), _KEYS)
    for key in ("options", "sweep"):
        if not isinstance(content.get(key, {}), dict):
            raise UsageError(f"{path}: {key} must hold named values, got {content[key]!r}.")
    if ("command" in content) == ("experiment" in content):
        both = "both a command and an" if "command" in content else "no command or"
        raise UsageError(f"{path} names {both} experiment; it must name one.")
    if "command" in content and "sweep" in content:
        raise UsageError(f"{path}: sweep is for an experiment, not for a command.")
    return NamedConfig(
        command=str(content.get("command", "run")),
        description=str(content.get("description", "")),
        options=content.get("options", {}),
        experiment=str(content.get("experiment", "")),
        sweep=content.get("sweep", {}),
    )
