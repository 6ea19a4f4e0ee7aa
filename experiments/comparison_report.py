"""What `compare` reports: summary, table and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from experiments.figures import COLOURS, MARKERS, error_bars, mark_policy, new_figure, save
from jaxrl5g.evaluation import Metrics
from jaxrl5g.evaluation.comparisons import Comparison, compare
from jaxrl5g.evaluation.frontier import MatchedGain, concave_majorant, matched_jain_gain
from jaxrl5g.evaluation.statistics import Interval, bootstrap_interval

Policy = tuple[str, str]  # name and CSI
Found = Mapping[Policy, Metrics]


class Bound(NamedTuple):
    """Certified bounds of each drop, bit/s.

    Attributes:
        geometric_mean: [D], no policy's geometric mean over users exceeds it.
        cell_throughput: [D], no policy's cell throughput exceeds it.
    """

    geometric_mean: np.ndarray
    cell_throughput: np.ndarray


class Row(NamedTuple):
    """One policy in the comparison; intervals are at 95 %.

    Attributes:
        cell_throughput, geometric_mean: bit/s, mean over drops; jain: mean over drops.
        against_reference: endpoints paired with the reference; None for itself.
        at_matched_jain: against the hull of the alpha-fair rules; None for one of them.
        below_bound: how far the geometric mean could still rise: bound / achieved - 1, mean over
            drops; NaN where a user got nothing.
    """

    cell_throughput: Interval
    geometric_mean: Interval
    jain: Interval
    against_reference: dict[str, Comparison] | None
    at_matched_jain: MatchedGain | None
    below_bound: Interval


def summarise(found: Found, reference: str, bound: Bound, seed: int) -> dict[str, Row]:
    """Return a `Row` for every policy, named "NAME (CSI)".

    Args:
        found: metrics by policy; all on the same drops.
        reference: name of the policy to compare with, under reported CSI.
        bound: of the same drops.
        seed: of the resampling.
    """
    frontier = [metrics for policy, metrics in found.items() if on_frontier(policy)]
    points_x = np.stack([metrics.jain for metrics in frontier])
    points_y = np.stack([metrics.cell_throughput for metrics in frontier])
    summary = {}
    for (name, csi), metrics in found.items():
        itself = (name, csi) == (reference, "reported")
        with np.errstate(divide="ignore"):
            slack = bound.geometric_mean / metrics.geometric_mean - 1
        slack = np.where(np.isfinite(slack), slack, np.nan)
        summary[f"{name} ({csi})"] = Row(
            cell_throughput=bootstrap_interval(metrics.cell_throughput, seed=seed),
            geometric_mean=bootstrap_interval(metrics.geometric_mean, seed=seed),
            jain=bootstrap_interval(metrics.jain, seed=seed),
            against_reference=None
            if itself
            else compare([metrics], [found[reference, "reported"]], seed=seed),
            at_matched_jain=None
            if on_frontier((name, csi))
            else matched_jain_gain(
                metrics.jain, metrics.cell_throughput, points_x, points_y, seed=seed
            ),
            below_bound=bootstrap_interval(slack, seed=seed)
            if np.isfinite(slack).any()
            else Interval(np.nan, np.nan, np.nan),
        )
    return summary


def power_gains(found: Found, reference: str, seed: int) -> dict[str, dict[str, Comparison]]:
    """Return what deciding on power adds: rules with PF's weights against PF with equal power.

    Each is compared under its own CSI, so that nothing but power (and for the dual optimum the
    PRBs chosen with it) differs.

    Returns:
        Comparisons by endpoint for every policy, named "NAME (CSI)".
    """
    gains = {}
    for (name, csi), metrics in found.items():
        base = found.get((reference, csi))
        rival = name.startswith("pf + ") or name == "dual optimum"
        if base is not None and rival and name != reference:
            gains[f"{name} ({csi})"] = compare([metrics], [base], seed=seed)
    return gains


def render_power(gains: Mapping[str, Mapping[str, Comparison]], reference: str) -> Table:
    """Return the table of `power_gains` for the screen."""
    table = Table(title=f"against {reference} under the same CSI", title_justify="left")
    table.add_column("policy (CSI)", no_wrap=True)
    for column in ("geo. mean [%]", "cell [%]", "5 %-ile user [%]", "Jain"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, against in gains.items():
        jain = against["jain"].difference
        relative = ("geometric_mean", "cell_throughput", "p5_user_throughput")
        table.add_row(
            escape(name),
            *(_difference(against, endpoint) for endpoint in relative),
            f"{jain.value:+.3f} ({jain.low:+.3f}, {jain.high:+.3f})",
        )
    return table


def on_frontier(policy: Policy) -> bool:
    """Return whether a policy is one of the alpha-fair rules that span the frontier."""
    name, csi = policy
    return csi == "reported" and name.partition(" + ")[2] in ("equal", "knapsack")


def render(summary: Mapping[str, Row], bound: Bound, reference: str, title: str) -> Table:
    """Return the table for the screen."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"95 % bootstrap intervals over drops, paired with {reference} (reported); bold where "
        "Holm's p < 0.05. Matched Jain: cell throughput against the alpha-fair hull at the same "
        "Jain, drops compared in square brackets. To bound: how much the geometric mean could "
        "still rise."
    )
    table.add_column("policy (CSI)", no_wrap=True)
    for column in ("cell\n[Mbit/s]", "Jain", "geo. mean\nagainst ref. [%]"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("5 %-ile user\nagainst ref. [%]", "cell at matched\nJain [%]", "to bound\n[%]"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in summary.items():
        table.add_row(
            escape(name),
            f"{row.cell_throughput.value * 1e-6:.1f}",
            f"{row.jain.value:.3f}",
            _difference(row.against_reference, "geometric_mean"),
            _difference(row.against_reference, "p5_user_throughput"),
            _matched(row.at_matched_jain),
            _percent(row.below_bound),
        )
    table.add_section()
    cell = f"{np.mean(bound.cell_throughput) * 1e-6:.1f}"
    table.add_row("bound on cell throughput", cell, "", "", "", "", "")
    best = f"{np.mean(bound.geometric_mean) * 1e-6:.3f} Mbit/s"
    table.add_row("bound on geometric mean", "", "", best, "", "", "0")
    return table


def _difference(against: Mapping[str, Comparison] | None, endpoint: str) -> str:
    if against is None:
        return ""
    found = against[endpoint]
    style = "[bold]" if found.adjusted < 0.05 else ""
    return f"{style}{_percent(found.difference)}"


def _matched(gain: MatchedGain | None) -> str:
    if gain is None:
        return "on it"
    if gain.comparable == 0:
        return "not comparable"
    return f"{_percent(gain.relative)} [{gain.comparable}]".replace("[", "\\[")


def _percent(interval: Interval) -> str:
    if not np.isfinite(interval.value):
        return "-"
    if not np.isfinite([interval.low, interval.high]).all():
        return f"{100 * interval.value:+.1f} (unknown)"
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.value:+.1f} ({low:+.1f}, {high:+.1f})"


def draw(out: Path, found: Found, bound: Bound, title: str) -> None:
    """Draw frontier.png (cell throughput against Jain) and geometric_mean.png."""
    _draw_plane(out / "frontier.png", found, bound, title)
    _draw_geometric_mean(out / "geometric_mean.png", found, bound, title)


def _draw_plane(path: Path, found: Found, bound: Bound, title: str) -> None:
    figure, axes = new_figure(title, (8.2, 5.4))
    for index, power in enumerate(("equal", "knapsack")):
        points = [
            metrics
            for (name, csi), metrics in found.items()
            if csi == "reported" and name.endswith(f"+ {power}")
        ]
        jain = [float(np.mean(metrics.jain)) for metrics in points]
        cell = [float(np.mean(metrics.cell_throughput)) * 1e-6 for metrics in points]
        label = f"alpha-fair, {power} power"
        axes.plot(jain, cell, "-", color=COLOURS[index], marker=".", lw=1.2, label=label)
    frontier = [metrics for policy, metrics in found.items() if on_frontier(policy)]
    x = np.array([np.mean(metrics.jain) for metrics in frontier])
    y = np.array([np.mean(metrics.cell_throughput) for metrics in frontier]) * 1e-6
    grid = np.linspace(x.min(), x.max(), 200)
    hull = concave_majorant(grid, x[:, None], y[:, None])
    axes.plot(grid, hull, "--", color="0.5", lw=1.0, label="their upper hull")
    others = [policy for policy in found if not on_frontier(policy)]
    rules = list(dict.fromkeys(name for name, _ in others))
    for name, csi in others:
        index = rules.index(name)
        colour = COLOURS[(index + 2) % len(COLOURS)]
        mark_policy(
            axes,
            found[name, csi],
            f"{name} ({csi} CSI)",
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            ms=8,
            mfc=colour if csi == "reported" else "white",
        )
    top = float(np.mean(bound.cell_throughput)) * 1e-6
    axes.axhline(top, color="black", lw=1.0, ls=":", label="bound on cell throughput")
    axes.set(xlabel="Jain's index of user throughput", ylabel="cell throughput [Mbit/s]")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def _draw_geometric_mean(path: Path, found: Found, bound: Bound, title: str) -> None:
    """Each policy's geometric mean as a share of the bound, drop by drop and with its interval."""
    figure, axes = new_figure(title, (7.4, 1.2 + 0.28 * len(found)))
    for row, ((name, csi), metrics) in enumerate(found.items()):
        share = 100 * np.asarray(metrics.geometric_mean) / bound.geometric_mean
        middle = bootstrap_interval(share)
        colour = COLOURS[0] if on_frontier((name, csi)) else COLOURS[1]
        axes.scatter(share, np.full(share.shape, row), s=8, color=colour, alpha=0.3, lw=0)
        axes.errorbar(
            middle.value, row, xerr=error_bars(middle), color=colour, marker="o", ms=5, capsize=3
        )
    axes.axvline(100, color="black", lw=1.0, ls=":")
    axes.set_yticks(range(len(found)), [f"{name} ({csi})" for name, csi in found], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="geometric mean of user throughput [% of the certified bound]")
    save(figure, path)
