"""Trained controllers on disk: saved by training, loaded as schedulers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl5g.agents.controller import ControllerConfig, controller
from jaxrl5g.mac import Scheduler
from jaxrl5g.rl.checkpoints import read_checkpoint, write_checkpoint
from jaxrl5g.rl.faults import CheckpointError
from jaxrl5g.rl.mappo import MappoConfig

_KIND = "controller"


def save_controller(
    path: str | Path,
    actors: Mapping[str, Any],
    config: ControllerConfig,
    networks: MappoConfig,
    about: Mapping[str, Any] | None = None,
    *,
    rest_first: bool = False,
    rest_second: bool = False,
) -> None:
    """Write a controller to the folder `path`, whole or not at all.

    Args:
      path: a folder; one of that name is replaced.
      actors: "first" and "second" of `LearnerState.params`.
      config, networks: what they were trained as.
      about: JSON-able provenance to keep beside it.
      rest_first, rest_second: agents that the controller goes without.
    """
    metadata = {
        "kind": _KIND,
        "config": {
            "controller": dataclasses.asdict(config),
            "actor_features": list(networks.actor_features),
            "actor_linear": networks.actor_linear,
            "rest_first": rest_first,
            "rest_second": rest_second,
        },
        "about": dict(about or {}),
    }
    write_checkpoint(path, {name: actors[name] for name in ("first", "second")}, metadata)


def load_controller(path: str | Path, *, sample: bool = False) -> Scheduler:
    """A trained controller as a scheduler, for `evaluate` or your own loop.

    Args:
      path: a folder that `save_controller` wrote.
      sample: draw decisions from the policies instead of taking their modes.

    Raises:
      CheckpointError: no complete checkpoint there, or not one of a controller.
    """
    saved, actors = _read(path)
    return controller(
        actors,
        ControllerConfig(**saved["controller"]),
        MappoConfig(
            actor_features=tuple(saved["actor_features"]), actor_linear=saved["actor_linear"]
        ),
        sample=sample,
        rest_first=saved["rest_first"],
        rest_second=saved["rest_second"],
    )


def load_config(path: str | Path) -> ControllerConfig:
    """What a saved controller decides, and how often.

    Raises:
      CheckpointError: as `load_controller`.
    """
    return ControllerConfig(**_read(path)[0]["controller"])


def _read(path: str | Path) -> tuple[dict[str, Any], Any]:
    metadata, actors = read_checkpoint(path)
    if metadata.get("kind") != _KIND:
        raise CheckpointError(f"{path} is a checkpoint, but not of a controller")
    return metadata["config"], actors
