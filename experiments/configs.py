"""Named experiments: configs/NAME.yaml holds a command and its options."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.names import UsageError, unknown

_FOLDER = Path(__file__).parent / "configs"
_KEYS = ("command", "description", "options")


class NamedConfig(NamedTuple):
    """An experiment with a name."""

    command: str
    description: str
    options: dict[str, Any]


def config_names() -> tuple[str, ...]:
    """Return the names of the experiments in configs/."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_config(name: str) -> NamedConfig:
    """Read the experiment called `name`, or a YAML file of your own.

    Raises:
        UsageError: no such experiment or file, or a file that is not one.
    """
    own = name.endswith((".yaml", ".yml"))
    if not own and name not in config_names():
        raise unknown("experiment", name, config_names())
    path = Path(name) if own else _FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("options", {}), dict):
        raise UsageError(f"{path} must hold the keys {', '.join(_KEYS)}.")
    for key in content:
        if key not in _KEYS:
            raise unknown(f"key in {path}:", str(key), _KEYS)
    if "command" not in content:
        raise UsageError(f"{path} names no command.")
    return NamedConfig(
        str(content["command"]), str(content.get("description", "")), content.get("options", {})
    )
