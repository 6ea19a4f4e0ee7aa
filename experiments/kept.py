"""Measurements that an interrupted run keeps: read where they are, else made and written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.comparison_report import Bound
from experiments.record import write_json
from jaxrl5g.evaluation import Metrics, episode_bound


def kept_metrics(path: Path, measure: Callable[[], list[Metrics]]) -> list[Metrics]:
    """Return what `measure` finds, or what it found before the run was interrupted."""
    if path.exists():
        return [
            Metrics(**{name: np.asarray(values, float) for name, values in row.items()})
            for row in json.loads(path.read_text())
        ]
    measured = measure()
    write_json(path, [metrics._asdict() for metrics in measured])
    return measured


def kept_bound(
    path: Path,
    env: Any,
    params: Any,
    key: jax.Array,
    drops: int,
    steps: int,
    reference: Metrics,
    advance: Callable[[int], None] = lambda drop: None,
) -> Bound:
    """Return the certified bounds of the first drops, starting from what `reference` reached.

    Args:
        path: of the file that keeps them.
        env, params, key: as given to `evaluate`.
        drops: how many.
        steps: Frank-Wolfe steps.
        reference: metrics of the same drops.
        advance: hears of each drop done.
    """
    if path.exists():
        return Bound(**{k: np.asarray(v, float) for k, v in json.loads(path.read_text()).items()})
    columns: dict[str, list[float]] = {"geometric_mean": [], "cell_throughput": []}
    for drop in range(drops):
        for column, alpha in zip(columns.values(), (1.0, 0.0), strict=True):
            found = episode_bound(
                env,
                params,
                key,
                [drop],
                alpha=alpha,
                # without concave utility there is nothing to iterate
                steps=steps if alpha else 0,
                reference_throughput=reference.user_throughput[drop : drop + 1],
            )
            column.append(float((found.value if alpha else found.cell_throughput)[0]))
        advance(drop)
    write_json(path, columns)
    return Bound(**{name: np.asarray(column) for name, column in columns.items()})
