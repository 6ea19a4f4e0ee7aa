"""Seeds of a measured part: split over the devices, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def seed_mesh(seeds: int) -> Mesh:
    """Return a mesh of as many devices as divide the seeds."""
    devices = jax.devices()
    split = max(n for n in range(1, len(devices) + 1) if seeds % n == 0)
    return Mesh(np.array(devices[:split]), ("seeds",))


def over_seeds(function: Callable[..., Any], mesh: Mesh, shared: int) -> Callable[..., Any]:
    """Return `function` with its seeds split over the devices, which need not wait for each other.

    Args:
        function: its first `shared` arguments are every device's, the leaves of the others and of
            the result have the seeds as their first axis.
        mesh: of `seed_mesh`.
        shared: how many.
    """

    def split(*arguments: Any) -> Any:
        specs = (jax.P(),) * shared + (jax.P("seeds"),) * (len(arguments) - shared)
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=jax.P("seeds"), check_vma=False
        )
        return mapped(*arguments)

    return split


def part_progress() -> Progress:
    """Return a progress bar over parts, with a description of the present one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console() if Console().is_terminal else Console(width=110))
