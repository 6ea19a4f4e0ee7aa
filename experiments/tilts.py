"""`tilts`: what a linear tilt by each feature would change, one agent at a time."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.environments import held_out_split, open_environment
from experiments.figures import COLOURS, save
from experiments.names import UsageError, unknown
from experiments.record import provenance, write_json
from jaxrl5g.agents import ControllerConfig, deciding, feature_names
from jaxrl5g.evaluation import Metrics, evaluate_stack
from jaxrl5g.evaluation.statistics import Interval, geometric_mean, mean, paired_bootstrap
from jaxrl5g.mac import Scheduler


@dataclass(frozen=True)
class Tilts:
    """Ask what linear policies of a single feature would gain, without training any.

    Every feature of either agent times every coefficient becomes that agent's latent, the other
    agent staying at 0 (or, with --pf, at proportional fair's PRBs); each is compared with both at
    rest on the same drops. Says where a gradient would lead, and how far there is to go.

    Examples:
      python -m experiments tilts --parametrisation paper --out runs/tilts
      python -m experiments tilts --parametrisation paper --pf --out runs/power-tilts
      python -m experiments tilts --features joint_latent --coefficients 0.5 1 2 4
    """

    parametrisation: Literal["residual", "weighted", "paper"] = "residual"
    """What latents mean."""
    pf: bool = False
    """Leave PRBs to proportional fair and tilt power alone."""
    env: str = "MunichDownlink-v0"
    """Environment id."""
    split: str = "train"
    """Tracks, "none" for an analytic channel; the held-out split is refused."""
    drops: int = 16
    """Episodes for each tilt."""
    slots: int = 400
    """Slots per episode."""
    period: int = 1
    """Slots for which a decision holds."""
    window: float = 100.0
    """Slots of the controller's own average of throughput."""
    coefficients: tuple[float, ...] = (-1.0, -0.3, 0.3, 1.0)
    """Latent per unit of a feature."""
    features: tuple[str, ...] = ()
    """Features to try, of either agent; all by default."""
    seed: int = 5
    """Of the drops."""
    out: Path = Path("runs/tilts")
    """Folder for tilts.json and tilts.png."""


def run(options: Tilts, argv: list[str]) -> dict[str, Any]:
    """Evaluate every tilt and return what tilts.json holds.

    Raises:
        UsageError: an option names something unknown, out of range or held out.
    """
    if not options.coefficients or 0 in options.coefficients:
        raise UsageError("--coefficients must name numbers other than 0.")
    if options.split == held_out_split(options.env):
        raise UsageError(f"split {options.split!r} is held out; look at another.")
    try:
        config = ControllerConfig(options.parametrisation, options.period, options.window)
    except ValueError as error:
        raise UsageError(str(error)) from error
    known = feature_names(options.parametrisation)["second"]  # the first agent's are among them
    for name in options.features:
        if name not in known:
            raise unknown("feature", name, known)
    split = None if options.split == "none" else options.split
    env, params = open_environment(options.env, split, options.drops, options.slots)
    names, weights = _tilts(options)
    console = Console() if Console().is_terminal else Console(width=110)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        progress.add_task(f"{len(names)} tilts x {options.drops} drops", total=None)
        found = evaluate_stack(
            env,
            params,
            partial(_linear, config=config, pf=options.pf),
            weights,
            len(names) + 1,
            jax.random.key(options.seed),
            options.drops,
        )
    rows = [
        {"agent": agent, "feature": feature, "coefficient": coefficient, **_gains(one, found[0])}
        for (agent, feature, coefficient), one in zip(names, found[1:], strict=True)
    ]
    results = {
        **provenance(argv),
        "config": dataclasses.asdict(options),
        "environment": dataclasses.asdict(params.config),
        "tilts": rows,
    }
    write_json(options.out / "tilts.json", results)
    _draw(options.out / "tilts.png", rows, options)
    console.print(_table(rows))
    console.print(f"tilts.json and tilts.png in {options.out}")
    return results


def _linear(first: jax.Array, second: jax.Array, config: ControllerConfig, pf: bool) -> Scheduler:
    """A scheduler whose latents are features times weights."""
    weights = {"first": first, "second": second}

    def decide(name: str, seen: Any, key: jax.Array) -> jax.Array:
        del key
        return seen.features @ weights[name]

    return deciding(decide, config, rest_first=pf)


def _tilts(options: Tilts) -> tuple[list[tuple[str, str, float]], tuple[jax.Array, jax.Array]]:
    """(agent, feature, coefficient) of every tilt, and weights [1 + tilts, F], rest first."""
    seen = feature_names(options.parametrisation)
    names = [
        (agent, feature, coefficient)
        for agent, features in (("PRB", seen["first"]), ("power", seen["second"]))
        for feature in features
        for coefficient in options.coefficients
        if (agent == "power" or not options.pf) and feature in (options.features or features)
    ]
    first, second = (
        np.zeros((len(names) + 1, len(features)), np.float32) for features in seen.values()
    )
    for row, (agent, feature, coefficient) in enumerate(names, start=1):
        if agent == "PRB":
            first[row, seen["first"].index(feature)] = coefficient
        else:
            second[row, seen["second"].index(feature)] = coefficient
    return names, (jnp.asarray(first), jnp.asarray(second))


def _gains(one: Metrics, rest: Metrics) -> dict[str, Interval]:
    users = one.user_throughput, rest.user_throughput
    return {
        "geometric_mean": paired_bootstrap(*users, geometric_mean, relative=True),
        "cell_throughput": paired_bootstrap(
            one.cell_throughput, rest.cell_throughput, mean, relative=True
        ),
        "jain": paired_bootstrap(one.jain, rest.jain),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="against both agents at rest, 95 % intervals over drops")
    for column in ("agent", "feature", "coefficient", "geo. mean [%]", "cell [%]", "Jain"):
        table.add_column(column, justify="left" if column in ("agent", "feature") else "right")
    for row in sorted(rows, key=lambda row: -row["geometric_mean"].value):
        table.add_row(
            row["agent"],
            row["feature"],
            f"{row['coefficient']:g}",
            *(
                f"{100 * g.value:+.1f} ({100 * g.low:+.1f}, {100 * g.high:+.1f})"
                for g in (row["geometric_mean"], row["cell_throughput"])
            ),
            f"{row['jain'].value:+.3f}",
        )
    return table


def _draw(path: Path, rows: list[dict[str, Any]], options: Tilts) -> None:
    """Draw geometric-mean gains by feature, a panel an agent, a colour a coefficient."""
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    figure = Figure(figsize=(5.2 * len(agents), 6.0), layout="constrained")
    panels = figure.subplots(1, len(agents), sharex=True, squeeze=False)[0]
    for axes, agent in zip(panels, agents, strict=True):
        features = list(dict.fromkeys(row["feature"] for row in rows if row["agent"] == agent))
        for index, coefficient in enumerate(options.coefficients):
            chosen = [
                row["geometric_mean"]
                for row in rows
                if row["agent"] == agent and row["coefficient"] == coefficient
            ]
            bars = np.array([[g.value - g.low, g.high - g.value] for g in chosen]).T
            bars = np.where(np.isfinite(bars), bars, 0.0)  # too few drops for an interval
            offset = 0.16 * (index - (len(options.coefficients) - 1) / 2)
            axes.errorbar(
                [100 * gain.value for gain in chosen],
                np.arange(len(features)) + offset,
                xerr=100 * bars,
                fmt="o",
                ms=4,
                lw=0.8,
                color=COLOURS[index % len(COLOURS)],
                label=f"{coefficient:g}",
            )
        axes.axvline(0, color="0.6", lw=0.8, zorder=0)
        axes.set_xlim(-12, 12)
        axes.set_yticks(np.arange(len(features)), features)
        axes.invert_yaxis()
        axes.set_title(f"{agent} agent, {options.parametrisation}", loc="left", fontsize=9)
        axes.set_xlabel("geometric mean against rest [%]")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(frameon=False, fontsize=8, title="coefficient")
    save(figure, path)
