"""`tune`: the averaging window of every alpha-fair rule, chosen on training drops."""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.environments import held_out_split, open_environment
from experiments.names import UsageError, split_list
from experiments.record import provenance, write_json
from jaxrl5g.evaluation import evaluate_family
from jaxrl5g.mac import POWER_RULES, alpha_fair

ALPHAS = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.25, 2.0, 4.0)
"""Exponents of the frontier."""

WINDOWS_FILE = Path(__file__).parent / "configs" / "windows.json"
"""The windows that `compare` uses where it is given no others."""


@dataclass(frozen=True)
class Tune:
    """Choose the averaging window of the alpha-fair rules on training drops.

    For every exponent and power rule the window of largest alpha-fair utility of whole-episode
    user throughput wins: the geometric mean for alpha = 1, cell throughput for alpha = 0. Held-out
    drops are never looked at. `compare` reads the file written.

    Examples:
      python -m experiments tune
      python -m experiments tune --alphas 1 --powers equal --windows 50,100,200 --drops 8
    """

    env: str = "MunichDownlink-v0"
    """Environment id."""
    split: str = "train"
    """Tracks to tune on, "none" for an analytic channel; the held-out split is refused."""
    drops: int = 16
    """Episodes per window."""
    windows: str = "10,20,50,100,200,400,1000"
    """Windows to try, in slots."""
    alphas: str = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    """Fairness exponents."""
    powers: str = "equal,knapsack"
    """Power rules."""
    out: Path = WINDOWS_FILE
    """JSON file to write."""
    seed: int = 1
    """Of the drops."""
    slots: int | None = None
    """Slots per episode; the environment's where not given."""


def fair_utility(throughput: np.ndarray, alpha: float) -> np.ndarray:
    """Return the alpha-fair mean of users' throughput, in its unit: larger is better.

    (mean x^(1 - alpha))^(1 / (1 - alpha)), the geometric mean at alpha = 1 (Mo and Walrand 2000).

    Args:
        throughput: [D, ...] at least 0, NaN for absent users; a user that got nothing counts
            with a millionth of the mean, so that alpha >= 1 can still tell two policies apart.
        alpha: at least 0.

    Returns:
        [D].
    """
    users = np.asarray(throughput, float).reshape(len(throughput), -1)
    least = 1e-6 * np.nanmean(users, axis=1, keepdims=True)
    log = np.log(np.maximum(users, least))
    if alpha == 1:
        return np.exp(np.nanmean(log, axis=1))
    # in units of the most influential user, so that no power overflows
    exponent = 1.0 - alpha
    scale = np.nanmax(exponent * log, axis=1, keepdims=True)
    power = np.nanmean(np.exp(exponent * log - scale), axis=1)
    return np.exp((np.log(power) + scale[:, 0]) / exponent)


def load_windows(path: Path) -> dict[tuple[float, str], float]:
    """Return the windows that `tune` chose, by exponent and power rule.

    Raises:
        UsageError: the file is missing or not one that `tune` wrote.
    """
    try:
        rows = json.loads(path.read_text())["chosen"]
        return {(float(r["alpha"]), str(r["power"])): float(r["window"]) for r in rows}
    except FileNotFoundError:
        raise UsageError(f"--windows {path} does not exist; `tune` writes it.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--windows {path} is not a file that `tune` wrote ({error!r}).") from None


def run(options: Tune, argv: list[str]) -> dict[str, Any]:
    """Tune, write the file and return its content.

    Raises:
        UsageError: an option names something unknown, out of range or held out.
    """
    windows, alphas = (
        _numbers("--windows", options.windows, 1),
        _numbers("--alphas", options.alphas, 0),
    )
    powers = split_list(options.powers)
    if not powers or not set(powers) <= set(POWER_RULES):
        raise UsageError(
            f"--powers must be among {', '.join(POWER_RULES)}, got {options.powers!r}."
        )
    if options.split == held_out_split(options.env):
        raise UsageError(f"split {options.split!r} is held out; tune on another.")
    split = None if options.split == "none" else options.split
    env, params = open_environment(options.env, split, options.drops, options.slots)
    console = Console() if Console().is_terminal else Console(width=110)
    key = jax.random.key(options.seed)
    settings = [(alpha, window) for alpha in alphas for window in windows]
    chosen, tried = [], []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for power in powers:
            task = progress.add_task(f"{power} power: {len(settings)} settings", total=1)
            make = partial(alpha_fair, power=power)
            found = evaluate_family(env, params, make, settings, key, options.drops)
            for alpha in alphas:
                rows = []
                for (setting_alpha, window), metrics in zip(settings, found, strict=True):
                    if setting_alpha == alpha:
                        # drops weigh alike: relative to their own scale, not by their throughput
                        utility = np.mean(np.log(fair_utility(metrics.user_throughput, alpha)))
                        rows.append(
                            {
                                "alpha": alpha,
                                "power": power,
                                "window": window,
                                "utility_bit_s": float(np.exp(utility)),
                                "cell_throughput": float(np.mean(metrics.cell_throughput)),
                                "jain": float(np.mean(metrics.jain)),
                            }
                        )
                tried += rows
                chosen.append(max(rows, key=lambda row: row["utility_bit_s"]))
            progress.update(task, completed=1)
    results = {
        **provenance(argv),
        "config": dataclasses.asdict(options) | {"out": options.out.name},
        "chosen": chosen,
        "tried": tried,
    }
    write_json(options.out, results)
    _print(console, chosen, options)
    return results


def _numbers(option: str, text: str, least: float) -> tuple[float, ...]:
    try:
        numbers = tuple(float(item) for item in split_list(text))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < least:
        raise UsageError(f"{option} must list numbers of at least {least}, got {text!r}.")
    return numbers


def _print(console: Console, chosen: list[dict[str, Any]], options: Tune) -> None:
    table = Table(
        title=f"windows chosen on {options.drops} drops of {options.env}, split {options.split}",
        title_justify="left",
    )
    for column in ("alpha", "power", "window [slots]", "alpha-fair mean [Mbit/s]", "Jain's index"):
        table.add_column(column, justify="right")
    for row in chosen:
        table.add_row(
            f"{row['alpha']:g}",
            row["power"],
            f"{row['window']:g}",
            f"{row['utility_bit_s'] * 1e-6:.3f}",
            f"{row['jain']:.3f}",
        )
    console.print(table)
    console.print(f"written to {options.out}")
