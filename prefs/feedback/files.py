"""Preference data on disk: HDF5 with provenance and checksums, never pickled, written atomically.

The layout is in docs/prefs-data.md.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from jax import Array

from prefs.feedback.checks import check_data
from prefs.feedback.segments import Pairs, PreferenceData, Segments

FORMAT = "preference-data"
VERSION = 1
_GROUPS = {"segments": Segments, "pairs": Pairs}
_KINDS = "biuf"


class PreferenceFileError(ValueError):
    """A file that cannot be used; the message names it and says why."""


def provenance(
    *, seed: int | None = None, labeller: str = "", problem: str = "", **more: Any
) -> dict[str, Any]:
    """What `save` keeps beside the data: when, with which versions, and what the caller knows.

    Args:
      seed: of the random keys.
      labeller: who judged, in words or by name.
      problem: id of the problem, as `prefs.mdps` registers it.
      more: anything else that JSON can hold; `view` tells the labelling page how to draw.
    """
    versions = {"python": platform.python_version()}
    for package in ("jaxrl5g", "jax", "numpy", "h5py"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    created = datetime.now(UTC).isoformat(timespec="seconds")
    known = {"seed": seed, "labeller": labeller, "problem": problem}
    return {"created": created, "versions": versions, **known, **more}


def save(path: str | os.PathLike, data: PreferenceData, about: dict[str, Any]) -> None:
    """Write a data set; `path` holds either the whole new file or what it held before.

    Args:
      path: the file, whose folder exists.
      data: a sound data set.
      about: its provenance, JSON-compatible; see `provenance`.

    Raises:
      ValueError: data that `check_data` refuses, or a provenance that JSON cannot hold.
      OSError: the folder cannot be written.
    """
    check_data(data)
    with written_atomically(path) as file:
        file.attrs.update(format=FORMAT, version=VERSION, provenance=_json(about))
        for group in _GROUPS:
            for name, values in vars(getattr(data, group)).items():
                write_array(file, f"{group}/{name}", values)


def load(path: str | os.PathLike) -> tuple[PreferenceData, dict[str, Any]]:
    """Read a data set and its provenance; numbers take JAX's present precision.

    Raises:
      PreferenceFileError: missing, not such a file, newer, truncated, corrupted, incomplete, or
        data that `check_data` refuses; one sentence naming the file and the reason.
    """
    with opened(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise PreferenceFileError(
                f"{path}: not a preference data set: its attribute 'format' is not {FORMAT!r}."
            )
        version = file.attrs.get("version")
        if not isinstance(version, int | np.integer) or not 1 <= version <= VERSION:
            raise PreferenceFileError(
                f"{path}: version {version} is not one this package reads (1 to {VERSION})."
            )
        try:
            about = json.loads(str(file.attrs["provenance"]))
        except (KeyError, TypeError, ValueError):
            about = None
        if not isinstance(about, dict):
            raise PreferenceFileError(f"{path}: its attribute 'provenance' is not a JSON object.")
        parts = {
            group: kind(
                **{
                    name: to_jax(path, name, read_array(path, file, f"{group}/{name}"))
                    for name in kind.__dataclass_fields__
                }
            )
            for group, kind in _GROUPS.items()
        }
    return checked(path, PreferenceData(**parts)), about


def checked(path: str | os.PathLike, data: PreferenceData) -> PreferenceData:
    """`data`, which `check_data` has found sound.

    Raises:
      PreferenceFileError: it is not; the message names the file.
    """
    try:
        check_data(data)
    except ValueError as error:
        raise PreferenceFileError(f"{path}: {error}") from None
    return data


def to_jax(path: str | os.PathLike, name: str, values: np.ndarray) -> Array:
    """Values in JAX's present precision.

    Raises:
      PreferenceFileError: integers that do not fit.
    """
    result = jnp.asarray(values)
    if result.dtype.kind in "iu" and not np.array_equal(np.asarray(result), values):
        raise PreferenceFileError(f"{path}: {name} holds integers that {result.dtype} cannot.")
    return result


@contextmanager
def written_atomically(path: str | os.PathLike) -> Iterator[h5py.File]:
    """A new HDF5 file under a temporary name, which takes `path`'s once it is whole and on disk.

    Raises:
      OSError: the folder cannot be written.
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(descriptor)
    try:
        with h5py.File(name, "w") as file:
            yield file
        os.chmod(name, 0o644)
        _sync(name)
        os.replace(name, path)
        _sync(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """An HDF5 file to read.

    Raises:
      PreferenceFileError: missing, not HDF5, truncated, or unreadable further in.
    """
    if not Path(path).is_file():
        raise PreferenceFileError(f"{path}: no such file.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PreferenceFileError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise PreferenceFileError(f"{path}: not HDF5, truncated or corrupted: {reason}.") from None


def write_array(file: h5py.Group, name: str, values: Any) -> None:
    """Write one array of at least one element, compressed and with a checksum a chunk."""
    array = np.asarray(values)
    file.create_dataset(name, data=array, compression="gzip", shuffle=True, fletcher32=True)


def read_array(path: str | os.PathLike, file: h5py.Group, name: str) -> np.ndarray:
    """Read one numeric array.

    Raises:
      PreferenceFileError: absent, a link elsewhere, a group, not numbers, empty or never written.
      OSError: corrupted.
    """
    where = f"{str(file.name).rstrip('/')}/{name}"
    here: Any = file
    for part in name.split("/"):
        is_group = isinstance(here, h5py.Group)
        link = here.get(part, getlink=True) if is_group and part in here else None
        if not isinstance(link, h5py.HardLink):
            raise PreferenceFileError(f"{path}: {where} is missing.")
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise PreferenceFileError(f"{path}: {where} must be an array, not a group of them.")
    if here.dtype.kind not in _KINDS and here.dtype != bool:
        raise PreferenceFileError(f"{path}: {where} must hold numbers, got type {here.dtype}.")
    if here.size is None or here.external or here.is_virtual:
        raise PreferenceFileError(f"{path}: {where} must be an array kept in the file itself.")
    if here.size and here.id.get_storage_size() == 0:
        raise PreferenceFileError(f"{path}: {where} was declared but never written.")
    return here[()]


def _json(about: dict[str, Any]) -> str:
    try:
        return json.dumps(about, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the provenance must be JSON: {error}.") from None


def _sync(path: str | os.PathLike) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
