"""Figures of the `downlink` experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import COLOURS, MARKERS, error_bars, new_figure, save
from jaxrl5g.evaluation.frontier import concave_majorant
from jaxrl5g.evaluation.statistics import hierarchical_bootstrap

if TYPE_CHECKING:
    from experiments.downlink import Tested


def plane(path: Path, found: Tested, title: str) -> None:
    """Draw cell throughput against Jain's index: frontier, its upper hull, every other policy."""
    figure, axes = new_figure(title, (8.6, 5.4))
    points = [found.policies[name] for name in found.frontier]
    x = np.array([np.mean(p.column("jain")) for p in points])
    y = np.array([np.mean(p.column("cell_throughput")) for p in points]) * 1e-6
    equal = np.array([name.endswith("equal") for name in found.frontier])
    for chosen, label, marker in ((equal, "equal power", "o"), (~equal, "knapsack power", "s")):
        style = {"color": "0.55", "mfc": "white", "ms": 5, "ls": "none"}
        axes.plot(x[chosen], y[chosen], marker, label=f"alpha-fair, {label}", **style)
    grid = np.linspace(x.min(), x.max(), 200)
    hull = concave_majorant(grid, x[:, None], y[:, None])
    axes.plot(grid, hull, color="0.55", lw=1.2, label="their upper hull")
    others = [name for name in found.policies if name not in found.frontier]
    for index, name in enumerate(others):
        policy = found.policies[name]
        across = hierarchical_bootstrap(policy.column("jain"))
        up = hierarchical_bootstrap(policy.column("cell_throughput") * 1e-6)
        axes.errorbar(
            across.value,
            up.value,
            xerr=error_bars(across),
            yerr=error_bars(up),
            capsize=2,
            lw=0.8,
            ms=7,
            ls="none",
            marker=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            mfc=COLOURS[index % len(COLOURS)] if policy.learned else "white",
            label=name,
        )
    if len(found.bound.cell_throughput):
        top = float(np.mean(found.bound.cell_throughput)) * 1e-6
        axes.axhline(top, color="black", lw=1.0, ls=":", label="bound on cell throughput")
    axes.set(xlabel="Jain's index of user throughput", ylabel="cell throughput [Mbit/s]")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def user_cdf(path: Path, found: Tested) -> None:
    """Draw the distribution of user throughput of the main policies."""
    figure, axes = new_figure("user throughput on the test drops", (7.4, 4.6))
    shown = [
        name
        for name, policy in found.policies.items()
        if name not in found.frontier or name.startswith("pf + ")
    ]
    for index, name in enumerate(shown):
        rates = np.sort(found.policies[name].column("user_throughput").ravel()) * 1e-6
        rates = np.maximum(rates[~np.isnan(rates)], 1e-3)
        share = np.arange(1, rates.size + 1) / rates.size
        style = "-" if found.policies[name].learned else "--"
        axes.step(
            rates,
            share,
            where="post",
            label=name,
            color=COLOURS[index % len(COLOURS)],
            ls=style,
            lw=1.4,
        )
    axes.set_xscale("log")
    axes.set(xlabel="user throughput [Mbit/s]", ylabel="share of users at or below", ylim=(0, 1))
    axes.set_xlim(left=0.01)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def learning_curves(path: Path, logs: Mapping[str, Path]) -> None:
    """Draw validation gain against training, one panel a variant, phases marked.

    Args:
        path: of the PNG file.
        logs: `metrics.jsonl` by variant.
    """
    columns = min(len(logs), 3)
    rows = -(-len(logs) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.6 + 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, log) in zip(panels, logs.items(), strict=False):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        marks = [(line["total"], line["metrics"].get("evaluation/gains")) for line in lines]
        marks = [(total, gains) for total, gains in marks if gains is not None]
        x = [total for total, _ in marks]
        gains = 100 * np.array([np.atleast_1d(g) for _, g in marks])
        axes.plot(x, gains, color=COLOURS[0], alpha=0.35, lw=0.8)
        axes.plot(x, gains.mean(axis=1), color=COLOURS[0], lw=1.8)
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
        for earlier, later in zip(lines, lines[1:], strict=False):
            if earlier["phase"] != later["phase"]:
                axes.axvline(earlier["total"] + 0.5, color=COLOURS[1], lw=1.0, ls="--")
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_xlabel("chunks of updates")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(logs) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("gain over rest [0.01]")
    save(figure, path)


def prb_and_power_maps(path: Path, recorded: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw who holds each PRB of cell 0 and with what power, a row per policy.

    Args:
        path: of the PNG file.
        recorded: `record_episode` by policy.
    """
    first = next(iter(recorded.values()))
    users = first["bits"].shape[-1]
    figure = Figure(figsize=(11.0, 0.8 + 2.1 * len(recorded)), layout="constrained")
    panels = figure.subplots(len(recorded), 2, sharex=True, sharey=True, squeeze=False)
    largest = max(float(np.max(slots["power"][:, 0])) for slots in recorded.values())
    for (left, right), (name, slots) in zip(panels, recorded.items(), strict=True):
        owner = np.ma.masked_less(slots["owner"][:, 0].T, 0)
        options = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
        held = left.imshow(owner, cmap="turbo", vmin=0, vmax=users - 1, **options)
        power = 1e3 * slots["power"][:, 0].T
        watts = right.imshow(power, cmap="viridis", vmin=0, vmax=1e3 * largest, **options)
        left.set_title(f"{name}: user", loc="left", fontsize=9)
        right.set_title("power [mW]", loc="left", fontsize=9)
        left.set_ylabel("PRB")
        figure.colorbar(held, ax=left, fraction=0.04, pad=0.01)
        figure.colorbar(watts, ax=right, fraction=0.04, pad=0.01)
    for axes in panels[-1]:
        axes.set_xlabel("slot")
    save(figure, path)
