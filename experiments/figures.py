"""Figures of an evaluation; colours are told apart by colour-blind readers too."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl5g.evaluation.statistics import bootstrap_interval

# Okabe and Ito's palette without its yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "h", "*")
_LINES = ("-", "--", "-.", ":")
_MUTED = "#E8E8E8"
_LEAST_MBITS = 0.01  # left end of the throughput axis, Mbit/s


def throughput_cdf(metrics: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw the distribution of whole-episode user throughput, users of all drops pooled.

    The axis is logarithmic; users below its left end show as the height a curve starts from.

    Args:
        metrics: `jaxrl5g.evaluation.Metrics` by scheduler; `user_throughput` [D, C, U] in bit/s.
        path: of the PNG file.
        title: above the axes.
    """
    figure, axes = new_figure(title)
    for index, (name, found) in enumerate(metrics.items()):
        rates = np.sort(np.asarray(found.user_throughput, float).ravel()) * 1e-6
        rates = rates[~np.isnan(rates)]
        share = np.arange(1, rates.size + 1) / rates.size
        rates = np.maximum(rates, _LEAST_MBITS / 10)  # a log axis has no zero
        axes.step(rates, share, where="post", label=name, lw=1.8, **_style(index))
    axes.axhline(0.05, color="0.6", lw=0.8, zorder=0)
    axes.annotate("5 %", (1.0, 0.05), xycoords=axes.get_yaxis_transform(), fontsize=8, color="0.4")
    axes.set(xlabel="user throughput [Mbit/s]", ylabel="share of users at or below", ylim=(0, 1))
    axes.set_xscale("log")
    axes.set_xlim(left=_LEAST_MBITS)
    axes.legend(frameon=False)
    save(figure, path)


def throughput_jain(metrics: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw cell throughput against Jain's index: drops as dots, means with 95 % intervals.

    Args:
        metrics: `jaxrl5g.evaluation.Metrics` by scheduler; `cell_throughput` [D] in bit/s.
        path: of the PNG file.
        title: above the axes.
    """
    figure, axes = new_figure(title)
    for index, (name, found) in enumerate(metrics.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        jain, cell = np.asarray(found.jain), np.asarray(found.cell_throughput) * 1e-6
        axes.scatter(jain, cell, s=14, color=colour, marker=marker, alpha=0.35, lw=0)
        mark_policy(axes, found, name, color=colour, marker=marker, ms=9, mec="white")
    axes.set(xlabel="Jain's index of user throughput", ylabel="cell throughput [Mbit/s]")
    axes.legend(frameon=False)
    save(figure, path)


def mark_policy(axes: Axes, found: Any, label: str, **style: Any) -> None:
    """Mark a policy's mean Jain and cell throughput in Mbit/s, with 95 % intervals over drops."""
    across = bootstrap_interval(np.asarray(found.jain))
    up = bootstrap_interval(np.asarray(found.cell_throughput) * 1e-6)
    axes.errorbar(
        across.value,
        up.value,
        xerr=error_bars(across),
        yerr=error_bars(up),
        capsize=3,
        label=label,
        ls="none",
        **style,
    )


def prb_map(owners: Mapping[str, np.ndarray], rank: np.ndarray, path: Path, title: str) -> None:
    """Draw who holds each PRB in each slot of one drop, a panel per scheduler.

    Args:
        owners: [T, N] user of each PRB by scheduler, -1 where muted.
        rank: [U] a user's place from the weakest channel (0) up; sets its colour.
        path: of the PNG file.
        title: above the panels.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    users = len(rank)
    ramp = colormaps["cividis"](np.linspace(0, 1, users))
    colours = ListedColormap([_MUTED, *ramp])
    figure = Figure(figsize=(8.5, 1.0 + 1.9 * len(owners)), layout="constrained")
    panels = figure.subplots(len(owners), 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for axes, (name, owner) in zip(panels, owners.items(), strict=True):
        shade = np.where(owner < 0, -1, rank[np.maximum(owner, 0)])
        image = axes.imshow(
            shade.T,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            cmap=colours,
            vmin=-1.5,
            vmax=users - 0.5,
        )
        axes.set_ylabel("PRB")
        axes.set_title(name, loc="left", fontsize=10)
    panels[-1].set_xlabel("slot")
    figure.suptitle(title, fontsize=11)
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), fraction=0.03, pad=0.02)
        bar.set_ticks([-1, 0, users - 1], labels=["muted", "weakest user", "strongest user"])
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=150)
    os.replace(partial, path)


def new_figure(title: str, size: tuple[float, float] = (6.4, 4.4)) -> tuple[Figure, Axes]:
    """Return a figure of `size` in inches with one set of axes in the house style."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    return figure, axes


def new_panels(
    count: int, title: str, size: tuple[float, float] = (5.6, 4.4)
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels side by side, of `size` in inches each, in the house style."""
    figure = Figure(figsize=(size[0] * count, size[1]), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    figure.suptitle(title, fontsize=11)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.6)
    return figure, panels


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "ls": _LINES[index % len(_LINES)]}


def error_bars(interval) -> list[list[float]] | None:
    """Return an interval as matplotlib wants it; None where it is unbounded."""
    low, high = interval.value - interval.low, interval.high - interval.value
    return [[low], [high]] if np.isfinite(low) and np.isfinite(high) else None
