"""Result files: where and with what a result was made, written whole or not at all."""

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrl5g
from experiments.devices import usable_cores

_PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "flax",
    "optax",
    "distrax",
    "orbax-checkpoint",
    "gymnax",
    "h5py",
    "sionna",
    "sionna-rt",
    "torch",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and what it stands on, where installed."""
    found = {"python": platform.python_version(), "jaxrl5g": jaxrl5g.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, usable cores, memory in GiB and JAX's devices."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def provenance(argv: list[str]) -> dict[str, Any]:
    """Return everything about a run that is not its settings or its results."""
    return {
        "command": shlex.join(["python", "-m", "experiments", *argv]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "versions": versions(),
        "hardware": hardware(),
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(to_json(content), indent=1, allow_nan=False) + "\n")


def to_json(content: Any) -> Any:
    """Return `content` with arrays as lists, named tuples as dicts, NaN and infinities as None."""
    if isinstance(content, dict):
        return {str(key): to_json(value) for key, value in content.items()}
    as_dict = getattr(content, "_asdict", None)  # a named tuple
    if as_dict is not None:
        return to_json(as_dict())
    if isinstance(content, list | tuple):
        return [to_json(item) for item in content]
    if isinstance(content, np.ndarray | jax.Array | np.generic):
        return to_json(np.asarray(content).tolist())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Path):
        return str(content)
    return content


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _revision() -> str | None:
    """The checkout's commit, with `+` where the tree has changes; None outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
