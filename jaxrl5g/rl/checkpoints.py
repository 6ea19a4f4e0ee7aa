"""Checkpoints of a learner's whole state: orbax arrays beside a JSON description of them.

A checkpoint is a folder that orbax writes elsewhere and renames, so that it is whole or absent.
`CheckpointFolder` keeps the latest and the best one of a run behind a small index, itself replaced
in one step: whatever the index does not name is not a checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

import jaxrl5g
from jaxrl5g.rl.faults import CheckpointError
from jaxrl5g.rl.leaves import describe, empty, from_stored, summary, to_nested, to_stored

FORMAT = 1
_INDEX = "index.json"
_NAMED = 3  # differences named in one message


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` as JSON gives it back: string keys, lists for tuples.

    Raises:
        ValueError: a value is not JSON, or is NaN or infinite.
    """
    try:
        return json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must be a dict of finite JSON values: {error}") from None


def write_checkpoint(path: str | Path, state: Any, metadata: Mapping[str, Any]) -> None:
    """Write `state` and its description to the folder `path`, whole or not at all.

    A folder of that name is replaced.

    Args:
        path: the folder of this one checkpoint.
        state: pytree of arrays, typed keys and Python numbers.
        metadata: JSON-able; `config` is what `load_checkpoint` compares. Added to it are `format`,
            `jaxrl5g` (version), `jax`, `device` and `leaves`.

    Raises:
        ValueError: the state has another kind of leaf, or no leaf that has an element.
    """
    leaves = describe(state)
    stored = to_stored(state)
    if not stored:
        raise ValueError("a state to save needs at least one array with elements, got none")
    entry = {
        **metadata,
        "format": FORMAT,
        "jaxrl5g": jaxrl5g.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "leaves": leaves,
    }
    items = ocp.args.Composite(state=ocp.args.PyTreeSave(stored), metadata=ocp.args.JsonSave(entry))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(Path(path).absolute(), args=items, force=True)


def load_checkpoint(
    path: str | Path,
    like: Any,
    *,
    config: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> tuple[Any, dict[str, Any]]:
    """Return a checkpoint's state with the structure of `like`, and its metadata.

    Args:
        path: a checkpoint, or a run's `checkpoints/latest` or `checkpoints/best`.
        like: a state of the same structure, dtypes and shapes. A leaf comes back as the kind it
            is there: jax.Array (with its sharding, where committed), NumPy array, Python number.
        config: what the checkpoint's configuration must equal; None: anything.
        ignore: dotted names of configuration values that may differ; `schedule` covers
            `schedule.steps`.

    Raises:
        CheckpointError: no complete checkpoint, or one of another format, version, configuration
            or structure; the message names the first differences.
    """
    path = locate(path)
    metadata = read_metadata(path)
    check_origin(metadata, path, config, ignore)
    leaves = metadata["leaves"]
    wanted = summary(describe(like))
    _refuse_differences("state", differences(summary(leaves), wanted), path)
    stored = _read(path, leaves, range(len(leaves)))
    # by path: an ordered dict has an order of its own
    places = {entry["path"]: place for place, entry in enumerate(leaves)}
    flat = [
        from_stored(stored.get(places[name]), leaves[places[name]], leaf)
        for name, leaf in zip(wanted, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), flat), metadata


def check_origin(
    metadata: Mapping[str, Any],
    path: Path,
    config: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint of another version or configuration; see `load_checkpoint`.

    Raises:
        CheckpointError: naming the first differences.
    """
    _refuse("jaxrl5g version", metadata["jaxrl5g"], jaxrl5g.__version__, path)
    if config is not None:
        saved, now = _flat(metadata.get("config", {})), _flat(plain_config(config))
        _refuse_differences("configuration", differences(saved, now, ignore), path)


def read_checkpoint(path: str | Path, part: str = "") -> tuple[dict[str, Any], Any]:
    """Return a checkpoint's metadata, and its state as nested dicts of NumPy arrays.

    Needs no program that made it, and so compares no version or configuration: the metadata has
    them. Dict keys are the names of dict entries, fields and list places; keys come back typed.

    Args:
        path: a checkpoint, or a run's `checkpoints/latest` or `checkpoints/best`.
        part: names joined by `/`, such as `learner/parameters`: return, and read, only what is
            below them.

    Raises:
        CheckpointError: no complete checkpoint, one of another format, or no such part in it.
    """
    path = locate(path)
    metadata = read_metadata(path)
    leaves = metadata["leaves"]
    names = [name for name in part.split("/") if name]
    places = [place for place, entry in enumerate(leaves) if entry["names"][: len(names)] == names]
    if not places:
        top = sorted({"/".join(entry["names"][: max(1, len(names))]) for entry in leaves})
        raise CheckpointError(
            f"the checkpoint {path} has no part {part!r}; it has {', '.join(top)}"
        )
    stored = _read(path, leaves, places)
    below = [{**leaves[place], "names": leaves[place]["names"][len(names) :]} for place in places]
    return metadata, to_nested(below, {at: stored[p] for at, p in enumerate(places) if p in stored})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's metadata; `path` as for `load_checkpoint`.

    Raises:
        CheckpointError: no complete checkpoint there, or one of another format.
    """
    path = locate(path)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            items = ocp.args.Composite(metadata=ocp.args.JsonRestore())
            metadata = checkpointer.restore(path.absolute(), args=items)["metadata"]
        found = metadata["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no complete checkpoint") from error
    _refuse("checkpoint format", found, FORMAT, path)
    return metadata


def _read(path: Path, leaves: list[dict], places: Sequence[int]) -> dict[int, np.ndarray]:
    """The stored arrays at `places`, on the host; orbax leaves the others on the disk."""
    wanted = set(places)
    kept = [place for place, entry in enumerate(leaves) if not empty(entry)]
    if not wanted & set(kept):
        return {}
    item = {str(place): 0 if place in wanted else ocp.PLACEHOLDER for place in kept}
    how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in item}
    arguments = ocp.args.Composite(state=ocp.args.PyTreeRestore(item=item, restore_args=how))
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            state = checkpointer.restore(path.absolute(), args=arguments)["state"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {_first_line(error)}") from error
    return {place: state[str(place)] for place in kept if place in wanted}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def differences(
    saved: Mapping[str, str], now: Mapping[str, str], ignore: Sequence[str] = ()
) -> list[str]:
    """Return `name: 0.0003 in the checkpoint, 0.001 now` for each name that differs.

    Args:
        saved: values, as text, by dotted name; likewise `now`.
        ignore: names that may differ, with everything below them.
    """
    found = []
    for name in [*saved, *(name for name in now if name not in saved)]:
        if any(name == free or name.startswith(f"{free}.") for free in ignore):
            continue
        before, after = saved.get(name, "absent"), now.get(name, "absent")
        if before != after:
            found.append(f"{name}: {before} in the checkpoint, {after} now")
    return found


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Values as JSON by dotted name."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = json.dumps(value)
    return flat


def _refuse(what: str, saved: Any, now: Any, path: Path) -> None:
    if saved != now:
        raise CheckpointError(f"{path} has {what} {saved}, and this program has {now}")


def _refuse_differences(what: str, found: list[str], path: Path) -> None:
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise CheckpointError(
            f"{path} has another {what} than this program: {'; '.join(found[:_NAMED])}{more}"
        )


def locate(path: str | Path) -> Path:
    """Return the checkpoint that `.../checkpoints/latest` or `best` stands for, or `path`.

    Raises:
        CheckpointError: the folder's index names no such checkpoint.
    """
    path = Path(path)
    index = _read_index(path.parent)
    if path.exists() or index is None:
        return path
    if path.name not in index:
        has = ", ".join(sorted(index))
        raise CheckpointError(f"{path.parent} has no checkpoint {path.name!r}; it has {has}")
    return path.parent / index[path.name]


def _read_index(folder: Path) -> dict[str, str] | None:
    try:
        return json.loads((folder / _INDEX).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


class CheckpointFolder:
    """The `checkpoints` folder of a run: the latest checkpoint, and the best.

    Checkpoints are folders named by the number of chunks done, `index.json` says which is which,
    and what it does not name is deleted after the next save. `folder/latest` and `folder/best`
    are accepted as paths by `load_checkpoint` and `read_checkpoint`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, name: str) -> Path | None:
        """Return the checkpoint called `name` (`latest` or `best`), None where there is none."""
        index = _read_index(self.folder) or {}
        return self.folder / index[name] if name in index else None

    def save(self, total: int, state: Any, metadata: Mapping[str, Any], *, best: bool) -> Path:
        """Write a state as the latest checkpoint, and where `best` as the best one too.

        Args:
            total: chunks done, which names the checkpoint.
            state: see `write_checkpoint`.
            metadata: see `write_checkpoint`.
            best: whether this state is the best so far.

        Raises:
            ValueError: a checkpoint after so many chunks is kept already.
        """
        path = self.folder / f"{total:08d}"
        index = _read_index(self.folder) or {}
        if path.name in index.values():
            raise ValueError(f"a kept checkpoint is never overwritten, got {path} again")
        write_checkpoint(path, state, metadata)
        index["latest"] = path.name
        if best:
            index["best"] = path.name
        self._write_index(index)
        self._delete_others(set(index.values()))
        return path

    def _write_index(self, index: dict[str, str]) -> None:
        partial = self.folder / f"{_INDEX}.partial"
        with partial.open("w") as file:
            file.write(json.dumps(index) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / _INDEX)

    def _delete_others(self, kept: set[str]) -> None:
        """Delete unnamed checkpoints and what killed saves left, and nothing of another name."""
        for entry in self.folder.iterdir():
            if entry.name not in kept and re.fullmatch(r"\d{8,}(\.orbax.*)?", entry.name):
                shutil.rmtree(entry, ignore_errors=True)
