"""Figures of the `cpl` experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.claims import Section
from experiments.cpl_claims import Found, MazeFound, maze_share, sparse
from experiments.cpl_config import Cpl
from experiments.cpl_data import Asked
from experiments.cpl_maze import LEARNERS, REFERENCES
from experiments.cpl_runs import (
    BC,
    BIASES,
    CPL,
    MISLED,
    NOISY,
    PIQL,
    PLAIN,
    PLANNING,
    SFT,
    TOP_BC,
    Part,
)
from experiments.figures import COLOURS, MARKERS, error_bars, new_figure, new_panels, save
from jaxrl5g.evaluation.statistics import bootstrap_interval
from prefs.mdps.point_maze import MAZE

_ORDER = (CPL, PLAIN, SFT, PIQL, PLANNING, BC, TOP_BC)
_BARS = " Bars: 95 % bootstrap intervals over seeds."


def grid_figures(config: Cpl, found: Found, folder: Path) -> Section:
    """Draw the figures of the grids; return the section that shows them."""
    drawn = {
        "pairs": (_pairs, "Returns against the number of sparse pairs; hollow: all pairs of as "
                  "many segments."),
        "bias": (_bias, "Greedy return of CPL against the number of pairs, by conservative bias."),
        "noise": (_noise, f"Greedy return with noisy answers to {config.ablated} pairs."),
        "labels": (_labels, "Greedy return with answers that follow the return instead of the "
                   "regret, against the steps that they are about."),
    }  # fmt: skip
    figures = {}
    for name, (draw, caption) in drawn.items():
        path = folder / f"grids-{name}.png"
        save(draw(config, found), path)
        figures[path] = caption + _BARS
    return Section("Figures, grids", figures=figures)


def maze_figures(config: Cpl, found: MazeFound, folder: Path) -> Section:
    """Draw the figures of the maze; return the section that shows them."""
    figure, axes = new_figure("returns in the maze", (7.2, 4.0))
    names = (*LEARNERS, *REFERENCES[:2])
    for place, name in enumerate(names):
        _bar(axes, place, maze_share(found, name), place)
    axes.set_xticks(range(len(names)), labels=names, fontsize=8, rotation=20)
    axes.set_ylabel("return, 0 uniform, 1 dense-grid values")
    returns, paths = folder / "maze-returns.png", folder / "maze-paths.png"
    save(figure, returns)
    figure, panels = new_panels(3, "rollouts of the first seed")
    for axes, name in zip(panels, (CPL, BC, SFT), strict=True):
        _paths(axes, found[name].paths)
        axes.set_title(name, loc="left", fontsize=10)
    save(figure, paths)
    captions = {
        returns: "Returns of rollouts, their mean over seeds." + _BARS,
        paths: "Rollouts of the likeliest actions: dots are where they begin, the disc is the "
        "goal.",
    }
    return Section("Figures, maze", figures=captions)


def _pairs(config: Cpl, found: Found) -> Figure:
    figure, panels = new_panels(2, "return against pairs")
    for axes, field in zip(panels, ("value", "greedy"), strict=True):
        for index, name in enumerate(_ORDER):
            asked = [sparse(config, n) for n in config.pairs]
            _line(axes, found, name, field, asked, config.pairs, index, name)
            dense = sparse(config, config.dense)._replace(dense=True)
            if Part(name, dense) in found:
                values = getattr(found[Part(name, dense)], field)
                _bar(axes, config.dense * 1.06, values, index, mfc="white")
        axes.set_xscale("log")
        axes.set(xlabel="pairs", ylabel="return" if field == "value" else "greedy return")
    panels[1].legend(frameon=False, fontsize=7)
    return figure


def _bias(config: Cpl, found: Found) -> Figure:
    figure, axes = new_figure("conservative bias")
    for index, bias in enumerate(BIASES):
        name = f"CPL({bias:g})"
        asked = [sparse(config, n) for n in config.pairs]
        _line(axes, found, name, "greedy", asked, config.pairs, index, f"bias {bias:g}")
    axes.set_xscale("log")
    axes.set(xlabel="pairs", ylabel="greedy return")
    axes.legend(frameon=False)
    return figure


def _noise(config: Cpl, found: Found) -> Figure:
    figure, panels = new_panels(2, "noisy answers")
    exact = sparse(config, config.ablated)
    mistaken = [exact, *(exact._replace(mistake=m) for m in config.mistakes)]
    rational = [*(exact._replace(rationality=b) for b in config.rationalities), exact]
    labels = [*(f"{b:g}" for b in config.rationalities), "exact"]
    for index, name in enumerate(NOISY):
        _line(panels[0], found, name, "greedy", mistaken, (0, *config.mistakes), index, name)
        _line(panels[1], found, name, "greedy", rational, range(len(rational)), index, name)
    panels[0].set(xlabel="share of mistakes", ylabel="greedy return")
    panels[1].set(xlabel="rationality", ylabel="greedy return")
    panels[1].set_xticks(range(len(labels)), labels=labels)
    panels[0].legend(frameon=False, fontsize=7)
    return figure


def _labels(config: Cpl, found: Found) -> Figure:
    figure, panels = new_panels(2, "labels by regret and by return")
    lengths = sorted({*config.lengths, config.grids.length})
    exact = sparse(config, config.ablated)
    for axes, labels in zip(panels, ("regret", "return"), strict=True):
        asked = [exact._replace(length=length, labels=labels) for length in lengths]
        for index, name in enumerate(MISLED):
            _line(axes, found, name, "greedy", asked, range(len(lengths)), index, name)
        axes.set_title(f"by {labels}", loc="left", fontsize=10)
        axes.set_xticks(range(len(lengths)), labels=[str(length) for length in lengths])
        axes.set(xlabel="steps", ylabel="greedy return")
    panels[0].legend(frameon=False, fontsize=7)
    return figure


def _line(
    axes: Axes,
    found: Found,
    name: str,
    field: str,
    asked: Sequence[Asked],
    places: Sequence[float],
    index: int,
    label: str,
) -> None:
    """Draw a learner's means with their intervals where it was measured."""
    known = [
        (x, bootstrap_interval(getattr(found[Part(name, a)], field)))
        for x, a in zip(places, asked, strict=True)
        if Part(name, a) in found
    ]
    if not known:
        return
    bars = np.hstack([error_bars(point) or [[0], [0]] for _, point in known])
    axes.errorbar(
        [x for x, _ in known],
        [point.value for _, point in known],
        yerr=bars,
        label=label,
        capsize=2,
        lw=1.4,
        ms=5,
        **_style(index),
    )


def _bar(axes: Axes, place: float, values: np.ndarray, index: int, **style: Any) -> None:
    found = bootstrap_interval(values)
    axes.errorbar(
        place, found.value, yerr=error_bars(found), capsize=3, ls="none", **_style(index) | style
    )


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _paths(axes: Axes, paths: np.ndarray) -> None:
    """Draw positions [episodes, T, 2] in the maze, rows counted downwards."""
    walls = np.array([[letter == "#" for letter in row] for row in MAZE])
    rows, columns = walls.shape
    axes.imshow(walls, cmap="Greys", vmax=2, extent=(0, columns, rows, 0))
    (goal,) = np.argwhere([[letter == "G" for letter in row] for row in MAZE]) + 0.5
    axes.scatter(goal[1], goal[0], s=260, color=COLOURS[2], alpha=0.5, lw=0)
    for path in paths:
        axes.plot(path[:, 1], path[:, 0], color=COLOURS[0], lw=1, alpha=0.8)
        axes.plot(path[0, 1], path[0, 0], "o", color=COLOURS[1], ms=4)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
