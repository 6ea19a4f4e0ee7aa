"""JSON Lines files of a run: one object a chunk, cut back to a checkpoint when it is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def to_host(metrics: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a flat dict of scalars and arrays as NumPy arrays, in one transfer.

    Raises:
        ValueError: a name is not a string, or a value not a number or an array of numbers.
    """
    host = {}
    for name, value in jax.device_get(dict(metrics)).items():
        if not isinstance(name, str):
            raise ValueError(f"metrics are named by strings, got {name!r}")
        if not isinstance(value, int | float | np.ndarray | np.generic):
            raise ValueError(
                f"metric {name!r} must be a number or an array, got a {type(value).__name__}"
            )
        host[name] = np.asarray(value)
    return host


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one object as a line, arrays as lists.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has no word for.
    """
    line = json.dumps(entry, default=lambda array: array.tolist(), allow_nan=False)
    with path.open("a") as file:
        file.write(line + "\n")


def cut_lines(path: Path, total: int) -> int:
    """Cut a log off after chunk `total`, or a line that a kill left unfinished.

    Returns:
        How many lines are left.
    """
    if not path.exists():
        return 0
    kept, size = 0, 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["total"] > total:
            break
        kept, size = kept + 1, size + len(line)
    os.truncate(path, size)
    return kept
