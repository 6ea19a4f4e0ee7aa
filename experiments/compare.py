"""`compare`: the whole classical field on the same drops, against its frontier and a bound."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.comparison_report import (
    draw,
    power_gains,
    render,
    render_power,
    summarise,
)
from experiments.environments import held_out_split, open_environment
from experiments.kept import kept_bound, kept_metrics
from experiments.names import UsageError, split_list
from experiments.record import provenance, to_json, write_json
from experiments.schedulers import CONTROLLER, parse_scheduler
from experiments.tune import ALPHAS, WINDOWS_FILE, load_windows
from jaxrl5g import mac
from jaxrl5g.evaluation import Always, Metrics, evaluate_family


@dataclass(frozen=True)
class Compare:
    """Compare the whole classical field on the same drops.

    Alpha-fair rules over the exponents, with equal and with MCS-aware power, at tuned windows;
    the other power rules; round robin, max rate, blind equal throughput; under perfect CSI the
    joint PRB and power optimum of each slot; with several cells frequency reuse, on-off power and
    WMMSE; and the certified bound above them all. Prints a table, writes results.json and
    figures. A run that was interrupted goes on where it stopped.

    Examples:
      python -m experiments compare --out runs/munich
      python -m experiments compare --env EtoileDownlink-v0 --drops 32 --out runs/etoile
      python -m experiments compare --env MunichDownlink3Cell-v0 --drops 8 --out runs/three-cells
    """

    env: str = "MunichDownlink-v0"
    """Environment id."""
    drops: int = 32
    """Episodes, each with its own users and channel realisation."""
    out: Path | None = None
    """Folder for the results; runs/compare-ENV where not given."""
    split: str | None = None
    """Tracks to draw from; the held-out ones where not given."""
    windows: Path = WINDOWS_FILE
    """Averaging windows, as `tune` writes them."""
    controllers: str = ""
    """Folders of trained controllers to compare too, comma-separated."""
    bound_steps: int = 20
    """Frank-Wolfe steps that tighten the bound; 0 = none."""
    seed: int = 0
    """Of the drops, and of the bootstrap."""
    slots: int | None = None
    """Slots per episode; the environment's where not given."""


class Part(NamedTuple):
    """Schedulers of one kind, evaluated by one compiled program.

    Attributes:
        slug: file name of its results.
        csi: what they know.
        make: scheduler of a setting.
        settings: numbers of each.
        names: of each, as reported.
    """

    slug: str
    csi: str
    make: Callable[..., mac.Scheduler]
    settings: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]


def field(num_cells: int, windows: dict[tuple[float, str], float]) -> list[Part]:
    """Return the classical field for a number of cells; the first name is the reference's.

    Raises:
        UsageError: `windows` lacks an exponent or power rule of the frontier.
    """
    try:
        frontier = {
            power: tuple((alpha, windows[alpha, power]) for alpha in ALPHAS)
            for power in ("equal", "knapsack")
        }
    except KeyError as error:
        raise UsageError(f"--windows has no window for (alpha, power) = {error.args[0]}.") from None
    pf = {power: dict(rows)[1.0] for power, rows in frontier.items()}

    def alphas(power: str, csi: str, chosen: tuple[tuple[float, float], ...]) -> Part:
        names = tuple(policy_name(alpha, power) for alpha, _ in chosen)
        make = partial(mac.alpha_fair, power=power)
        return Part(f"alpha-{power}-{csi}", csi, make, chosen, names)

    def one(name: str, csi: str, make: Callable[..., mac.Scheduler], *numbers: float) -> Part:
        return Part(f"{name.replace(' ', '-')}-{csi}", csi, make, (numbers,), (name,))

    water_filled = partial(mac.proportional_fair, power="water_filling")
    parts = [
        alphas("equal", "reported", frontier["equal"]),
        alphas("knapsack", "reported", frontier["knapsack"]),
        one("pf + water_filling", "reported", water_filled, pf["equal"]),
        one("pf + fair", "reported", partial(mac.proportional_fair, power="fair"), pf["equal"]),
        one("dual optimum", "reported", mac.dual_optimum, 1.0, pf["knapsack"]),
        one("round robin", "reported", mac.round_robin),
        one("max rate", "reported", mac.max_rate),
        one("blind equal throughput", "reported", mac.blind_equal_throughput, pf["equal"]),
        alphas("equal", "perfect", ((1.0, pf["equal"]),)),
        alphas("knapsack", "perfect", ((1.0, pf["knapsack"]),)),
        one("pf + water_filling", "perfect", water_filled, pf["equal"]),
        one("dual optimum", "perfect", mac.dual_optimum, 1.0, pf["knapsack"]),
    ]
    if num_cells > 1:
        parts += [
            one("reuse 3", "reported", mac.reuse_three, pf["equal"]),
            one("fractional reuse", "reported", mac.fractional_reuse, pf["equal"]),
            one("on-off", "centralised", mac.on_off, pf["equal"]),
            one("held on-off", "centralised", mac.held_on_off, pf["equal"], 10.0),
            one("wmmse", "centralised", mac.wmmse, pf["equal"]),
        ]
    return parts


def trained(paths: str) -> list[Part]:
    """Return a part for each controller in a comma-separated list of folders.

    Raises:
        UsageError: a folder holds no controller.
    """
    from jaxrl5g.agents import load_config  # the toolbox is slow to import

    parts = []
    for number, path in enumerate(split_list(paths)):
        scheduler = parse_scheduler(CONTROLLER + path)
        csi = load_config(path).csi
        parts.append(Part(f"controller-{number}-{csi}", csi, Always(scheduler), ((),), (path,)))
    return parts


def policy_name(alpha: float, power: str) -> str:
    """Return how an alpha-fair rule is reported, such as "alpha 0.5 + knapsack"."""
    rule = "pf" if alpha == 1 else f"alpha {alpha:g}"
    return f"{rule} + {power}"


REFERENCE = policy_name(1.0, "equal")
"""What the others are compared with."""


def run(options: Compare, argv: list[str]) -> dict[str, Any]:
    """Evaluate the field and return what results.json holds.

    Raises:
        UsageError: the options name something unknown or out of range, or `out` holds a run with
            other options.
    """
    if options.bound_steps < 0:
        raise UsageError(f"--bound-steps must be at least 0, got {options.bound_steps}.")
    split = options.split or held_out_split(options.env)
    make_env = partial(
        open_environment, options.env, split, options.drops, options.slots, fidelity="nr"
    )
    out = options.out or Path("runs") / f"compare-{options.env}"
    env, params = make_env(csi="reported")
    windows = load_windows(options.windows)
    parts = [*field(params.config.num_cells, windows), *trained(options.controllers)]
    resolved = dataclasses.replace(options, out=out, split=split)
    _claim(out, resolved, windows)
    console = Console() if Console().is_terminal else Console(width=170)
    key = jax.random.key(options.seed)

    found: dict[tuple[str, str], Metrics] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("field", total=len(parts) + 2)
        for part in parts:
            progress.update(task, description=", ".join(part.names[:2]) + f" ({part.csi} CSI)")

            def measure(part: Part = part) -> list[Metrics]:
                made = (env, params) if part.csi == "reported" else make_env(csi=part.csi)
                return evaluate_family(*made, part.make, part.settings, key, options.drops)

            measured = kept_metrics(out / "parts" / f"{part.slug}.json", measure)
            found.update(
                {(name, part.csi): m for name, m in zip(part.names, measured, strict=True)}
            )
            progress.advance(task)
        bound = kept_bound(
            out / "parts" / f"bound-{options.bound_steps}.json",
            env,
            params,
            key,
            options.drops,
            options.bound_steps,
            found[REFERENCE, "reported"],
            lambda drop: progress.update(task, description=f"certified bound, drop {drop}"),
        )
        progress.advance(task)
        progress.update(task, description="bootstrap and figures")
        summary = summarise(found, REFERENCE, bound, seed=options.seed)
        gains = power_gains(found, REFERENCE, seed=options.seed)
        draw(out, found, bound, f"{options.env}, {split or 'analytic'}, {options.drops} drops")
        progress.advance(task)

    results = {
        **provenance(argv),
        "config": dataclasses.asdict(resolved) | {"windows": options.windows.name},
        "environment": dataclasses.asdict(params.config),
        "reference": REFERENCE,
        "policies": summary,
        "power_gains": gains,
        "settings": {
            f"{name} ({part.csi})": setting
            for part in parts
            for name, setting in zip(part.names, part.settings, strict=True)
        },
        "bound": bound,
        "drops": {f"{name} ({csi})": metrics._asdict() for (name, csi), metrics in found.items()},
    }
    write_json(out / "results.json", results)
    title = f"{options.env} ({split or 'analytic'}), {options.drops} drops"
    console.print(render(summary, bound, REFERENCE, title))
    console.print(render_power(gains, REFERENCE))
    console.print(f"results.json and figures in {out}")
    return results


def _claim(out: Path, options: Compare, windows: dict[tuple[float, str], float]) -> None:
    """Mark the folder as this run's, or refuse it if it is another's."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a folder.")
    mine = to_json(dataclasses.asdict(options)) | {"windows": to_json(sorted(windows.items()))}
    mine.pop("bound_steps")  # the parts do not depend on it
    path = out / "parts" / "options.json"
    if not path.exists():
        write_json(path, mine)
    elif json.loads(path.read_text()) != mine:
        raise UsageError(f"{out} holds a comparison with other options; choose another --out.")
