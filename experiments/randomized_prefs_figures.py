"""Figures of the `randomized-prefs` experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from experiments.claims import Section
from experiments.figures import COLOURS, MARKERS, error_bars, new_figure, new_panels, save
from experiments.randomized_prefs_config import RandomizedPrefs
from experiments.randomized_prefs_runs import (
    DPS,
    GREEDY,
    PBTS,
    PR_LSVI,
    PROBLEMS,
    THEORY,
    Measured,
    Part,
)
from jaxrl5g.evaluation.statistics import bootstrap_interval

_BAND_RESAMPLES = 999  # of each point of a band

Found = Mapping[Part, Measured]


def section(config: RandomizedPrefs, problem: str, found: Found, folder: Path) -> Section:
    """Draw the figures of one kind of problem; return the section that shows them."""
    name = PROBLEMS[problem]
    paths = [
        folder / f"{problem}-{kind}.png" for kind in ("regret", "trade-off", "queries", "bound")
    ]
    _regret(paths[0], config, found, f"cumulative regret, {name}")
    _trade_off(paths[1], config, found, f"regret against queries, {name}")
    _queries(paths[2], config, found, f"queries made, {name}")
    _bound(paths[3], config, found, f"queries by threshold, {name}")
    captions = (
        "Cumulative regret of both executed policies, mean over seeds.",
        "Regret of the whole run against its queries, a point per threshold; at the left, below "
        "10, the axis is linear.",
        "Queries made so far, mean over seeds; below 1 the axis is linear.",
        "Queries of the whole run against the threshold, beside the bound that no run of PR-LSVI "
        "can exceed.",
    )
    shaded = " Bands and bars: 95 % bootstrap intervals."
    return Section(
        f"Figures, {name}",
        figures={path: text + shaded for path, text in zip(paths, captions, strict=True)},
    )


def _regret(path: Path, config: RandomizedPrefs, found: Found, title: str) -> None:
    learners = _learners(found)
    figure, panels = new_panels(len(learners), title)
    for axes, learner in zip(panels, learners, strict=True):
        for eps, colour in _ramp(config).items():
            curve = found[Part(learner, "active", eps)].regret
            _curve(axes, config, curve, f"threshold {eps:g}", color=colour)
        rival = found.get(Part(learner, "random", config.compared))
        if rival is not None:
            label = f"random queries, as many as {config.compared:g}"
            _curve(axes, config, rival.regret, label, color=COLOURS[1], ls="--")
        others = (GREEDY, THEORY) if learner == PR_LSVI else (GREEDY, DPS)
        for other, colour, line in zip(others, (COLOURS[6], COLOURS[3]), (":", "-."), strict=True):
            _curve(axes, config, _always(found, other).regret, other, color=colour, ls=line)
        axes.set_title(learner, loc="left", fontsize=10)
        axes.set(xlabel="episode", ylabel="cumulative regret", ylim=(0, None))
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    save(figure, path)


def _trade_off(path: Path, config: RandomizedPrefs, found: Found, title: str) -> None:
    figure, axes = new_figure(title, (8.2, 4.8))
    series = [(learner, query) for learner in _learners(found) for query in ("active", "random")]
    for index, (learner, query) in enumerate(series):
        points = [m for p, m in found.items() if p[:2] == (learner, query) and p.eps is not None]
        style = {"color": COLOURS[index], "marker": MARKERS[index]}
        if not points:
            continue
        label = learner if query == "active" else f"{learner}, random queries"
        _cross(axes, points, label, ls="-" if query == "active" else "--", **style)
    for index, other in enumerate((GREEDY, DPS), start=len(series)):
        if any(part.learner == other for part in found):
            style = {"color": COLOURS[index], "marker": MARKERS[index]}
            _cross(axes, [_always(found, other)], other, ls="none", **style)
    axes.set_xscale("symlog", linthresh=10)
    axes.set(xlabel="queries", ylabel=f"regret of {config.episodes} episodes", ylim=(0, None))
    axes.set_xlim(left=-1)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def _queries(path: Path, config: RandomizedPrefs, found: Found, title: str) -> None:
    learners = _learners(found)
    figure, panels = new_panels(len(learners), title)
    for axes, learner in zip(panels, learners, strict=True):
        for eps, colour in _ramp(config).items():
            curve = found[Part(learner, "active", eps)].asked
            _curve(axes, config, curve, f"threshold {eps:g}", color=colour)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_title(learner, loc="left", fontsize=10)
        axes.set(xlabel="episode", ylabel="queries so far", ylim=(0, None))
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    save(figure, path)


def _bound(path: Path, config: RandomizedPrefs, found: Found, title: str) -> None:
    figure, axes = new_figure(title)
    thresholds = config.thresholds[1:]
    for index, learner in enumerate(_learners(found)):
        for eps in thresholds:
            asked = bootstrap_interval(found[Part(learner, "active", eps)].queries)
            axes.errorbar(
                eps,
                asked.value,
                yerr=error_bars(asked),
                capsize=3,
                ls="none",
                marker=MARKERS[index],
                color=COLOURS[index],
                label=learner if eps == thresholds[0] else None,
            )
    bounds = [found[Part(PR_LSVI, "active", eps)].bound.mean() for eps in thresholds]
    axes.plot(thresholds, bounds, color=COLOURS[0], ls="--", lw=1.2, label=f"bound of {PR_LSVI}")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="query threshold", ylabel=f"queries in {config.episodes} episodes")
    axes.set_ylim(bottom=-0.1)
    axes.legend(frameon=False, loc="upper right")
    save(figure, path)


def _learners(found: Found) -> list[str]:
    return [name for name in (PR_LSVI, PBTS) if any(part.learner == name for part in found)]


def _always(found: Found, learner: str) -> Measured:
    return next(measured for part, measured in found.items() if part.learner == learner)


def _ramp(config: RandomizedPrefs) -> dict[float, Any]:
    """A colour per threshold, from dark to light."""
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(config.thresholds)))
    return dict(zip(config.thresholds, shades, strict=True))


def _curve(
    axes: Axes, config: RandomizedPrefs, values: np.ndarray, label: str, **style: Any
) -> None:
    """Draw the mean of [S, P] over seeds with its interval at each point."""
    episodes = np.linspace(0, config.episodes, config.points + 1)[1:]
    found = np.array([bootstrap_interval(v, num_resamples=_BAND_RESAMPLES) for v in values.T])
    axes.plot(episodes, found[:, 0], label=label, lw=1.5, **style)
    axes.fill_between(episodes, found[:, 1], found[:, 2], color=style["color"], alpha=0.15, lw=0)


def _cross(axes: Axes, points: list[Measured], label: str, **style: Any) -> None:
    """Draw regret against queries with intervals of both."""
    both = [[bootstrap_interval(v) for v in (m.queries, m.total)] for m in points]
    x, y = ([pair[axis].value for pair in both] for axis in (0, 1))
    bars = [np.array([error_bars(pair[axis]) for pair in both])[..., 0].T for axis in (0, 1)]
    axes.errorbar(x, y, xerr=bars[0], yerr=bars[1], capsize=2, lw=1.2, ms=5, label=label, **style)
