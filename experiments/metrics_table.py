"""The metrics of an evaluation with their intervals: which, how pooled, and how printed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from jaxrl5g.evaluation.statistics import (
    Interval,
    Statistic,
    bootstrap_interval,
    mean,
    paired_bootstrap,
    pooled_percentile,
)


class Metric(NamedTuple):
    """One row of the table.

    Attributes:
        label: as printed, with the unit.
        field: of `jaxrl5g.evaluation.Metrics`; [drops, ...].
        scale: from the field's unit to the printed one.
        statistic: over drops (and users).
        relative: whether differences are given relative to the reference scheduler.
        digits: decimals printed.
    """

    label: str
    field: str
    scale: float
    statistic: Statistic
    relative: bool
    digits: int


METRICS = (
    Metric("cell throughput [Mbit/s]", "cell_throughput", 1e-6, mean, True, 2),
    Metric("spectral eff. [bit/s/Hz]", "spectral_efficiency", 1.0, mean, True, 3),
    Metric("5 %-ile user [Mbit/s]", "user_throughput", 1e-6, pooled_percentile(5), True, 3),
    Metric("mean user [Mbit/s]", "mean_throughput", 1e-6, mean, True, 3),
    Metric("geo. mean user [Mbit/s]", "geometric_mean", 1e-6, mean, True, 3),
    Metric("minimum user [Mbit/s]", "min_throughput", 1e-6, mean, True, 3),
    Metric("Jain's index", "jain", 1.0, mean, False, 3),
    Metric("first-attempt BLER [%]", "first_bler", 100.0, mean, False, 2),
    Metric("residual BLER [%]", "residual_bler", 100.0, mean, False, 3),
    Metric("energy eff. [Mbit/J]", "energy_efficiency", 1e-6, mean, True, 0),
    Metric("PRBs used [%]", "prb_use", 100.0, mean, False, 1),
    Metric("blocks at top MCS [%]", "top_mcs_share", 100.0, mean, False, 1),
)


class Result(NamedTuple):
    """A metric of one scheduler, in the printed unit, and its difference to the first one's."""

    interval: Interval
    difference: Interval | None  # None for the first scheduler; a fraction where relative


def summarise(metrics: Mapping[str, Any], seed: int = 0) -> dict[str, dict[str, Result]]:
    """Return every metric of every scheduler with 95 % intervals.

    Args:
        metrics: `jaxrl5g.evaluation.Metrics` by scheduler; differences are to the first.
        seed: of the bootstrap.

    Returns:
        Results by metric label and scheduler.
    """
    reference = next(iter(metrics))
    table: dict[str, dict[str, Result]] = {}
    for metric in METRICS:
        values = {
            name: np.asarray(getattr(found, metric.field)) * metric.scale
            for name, found in metrics.items()
        }
        table[metric.label] = {
            name: Result(
                bootstrap_interval(value, metric.statistic, seed=seed),
                None
                if name == reference
                else paired_bootstrap(
                    value,
                    values[reference],
                    metric.statistic,
                    relative=metric.relative,
                    seed=seed,
                ),
            )
            for name, value in values.items()
        }
    return table


def render(summary: dict[str, dict[str, Result]], title: str) -> Table:
    """Return the table of `summarise` for the screen."""
    reference = next(iter(next(iter(summary.values()))))
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"95 % bootstrap intervals over drops; differences to {reference} are paired by drop."
    )
    table.add_column("metric")
    table.add_column("scheduler")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column(f"against {escape(reference)}", justify="right")
    table.add_column("95 % interval", justify="right")
    for metric in METRICS:
        for row, (name, result) in enumerate(summary[metric.label].items()):
            label = escape(metric.label) if row == 0 else ""
            table.add_row(label, escape(name), *_cells(result, metric))
        table.add_section()
    return table


def _cells(result: Result, metric: Metric) -> tuple[str, str, str, str]:
    number = f".{metric.digits}f"
    value = _number(result.interval.value, number)
    bounds = _bounds(result.interval, number)
    if result.difference is None:
        return value, bounds, "", ""
    signed = "+.1f" if metric.relative else f"+{number}"
    scale, unit = (100.0, " %") if metric.relative else (1.0, "")
    difference = Interval(*(scale * bound for bound in result.difference))
    style = ""
    if difference.low > 0 or difference.high < 0:  # zero is outside the interval
        style = "[bold]"
    text = _number(difference.value, signed) + (unit if np.isfinite(difference.value) else "")
    return value, bounds, f"{style}{text}", _bounds(difference, signed)


def _bounds(interval: Interval, number: str) -> str:
    if not np.isfinite(interval.low) or not np.isfinite(interval.high):
        return "unknown" if np.isfinite(interval.value) else ""
    return f"{interval.low:{number}} to {interval.high:{number}}"


def _number(value: float, number: str) -> str:
    return f"{value:{number}}" if np.isfinite(value) else "-"
