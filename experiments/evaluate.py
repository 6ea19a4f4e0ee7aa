"""`evaluate`: schedulers on the same drops, with a table, a JSON file and three figures."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import figures
from experiments.environments import held_out_split, open_environment
from experiments.metrics_table import render, summarise
from experiments.names import UsageError
from experiments.record import provenance, write_json
from experiments.schedulers import parse_schedulers
from jaxrl5g.evaluation import evaluate, record_episode
from jaxrl5g.mac import Scheduler


@dataclass(frozen=True)
class Evaluate:
    """Evaluate schedulers on the same drops.

    Prints every metric with its interval, and writes results.json, throughput_cdf.png,
    throughput_jain.png and prb_map.png.

    Examples:
      python -m experiments evaluate
      python -m experiments evaluate --schedulers pf,pf:1000,alpha_fair:0.8 --drops 8
      python -m experiments evaluate --env MunichDownlink-v0 --fidelity sionna --out runs/munich
      python -m experiments evaluate --config munich3cell
    """

    env: str = "EtoileDownlink-v0"
    """Environment id; `python -m experiments list` shows them."""
    schedulers: str = "pf,rr,max_rate"
    """Comma-separated; a number after a colon is the window or alpha, as in pf:50 or
    alpha_fair:0.5. The first is the one the others are compared with."""
    drops: int = 32
    """Episodes, each with its own users and channel realisation."""
    out: Path | None = None
    """Folder for the results; runs/evaluate-ENV where not given."""
    fidelity: Literal["nr", "sionna", "shannon"] = "nr"
    """Link model: repaired tables with HARQ, what Sionna SYS does, or capacity."""
    csi: Literal["reported", "perfect", "centralised"] = "reported"
    """What schedulers know of the channel: quantised late reports, everything, or everything and
    what other cells send, which rules of several cells need."""
    split: str | None = None
    """Tracks of a ray-traced environment to draw from; the held-out ones where not given."""
    seed: int = 0
    """Of the drops, and of the bootstrap."""
    slots: int | None = None
    """Slots per episode; the environment's where not given."""


def run(options: Evaluate, argv: list[str]) -> dict[str, Any]:
    """Run the evaluation and return what results.json holds.

    Raises:
        UsageError: the options name something unknown or out of range.
    """
    schedulers = parse_schedulers(options.schedulers)
    split = options.split or held_out_split(options.env)
    env, params = open_environment(
        options.env,
        split,
        options.drops,
        options.slots,
        fidelity=options.fidelity,
        csi=options.csi,
    )
    out = options.out or Path("runs") / f"evaluate-{options.env}"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a folder.")
    # Away from a terminal Rich assumes 80 columns, too few for the table.
    console = Console() if Console().is_terminal else Console(width=110)
    key = jax.random.key(options.seed)

    metrics: dict[str, Any] = {}
    episodes: dict[str, dict[str, np.ndarray]] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name, scheduler in schedulers.items():
            task = progress.add_task(f"{name}: {options.drops} drops", total=1)
            metrics[name] = evaluate(env, params, scheduler, key, options.drops)
            episodes[name] = _first_drop(env, params, scheduler, key)
            progress.update(task, completed=1)
        task = progress.add_task("bootstrap and figures", total=1)
        summary = summarise(metrics, seed=options.seed)
        _draw(out, metrics, episodes, f"{options.env}, {options.fidelity}")
        progress.update(task, completed=1)

    resolved = dataclasses.replace(options, out=out, split=split)
    results = {
        **provenance(argv),
        "config": dataclasses.asdict(resolved),
        "environment": dataclasses.asdict(params.config),
        "intervals": summary,
        "drops": {name: found._asdict() for name, found in metrics.items()},
    }
    write_json(out / "results.json", results)
    title = f"{options.env} ({split or 'analytic'}), {options.fidelity}, {options.drops} drops"
    console.print(render(summary, title))
    console.print(f"results.json and figures in {out}")
    return results


def _first_drop(env: Any, params: Any, scheduler: Scheduler, key: Any) -> dict[str, np.ndarray]:
    episode = record_episode(env, params, scheduler, key, 0)
    return {name: np.asarray(episode[name]) for name in ("owner", "bits")}


def _draw(
    out: Path,
    metrics: dict[str, Any],
    episodes: dict[str, dict[str, np.ndarray]],
    title: str,
) -> None:
    figures.throughput_cdf(metrics, out / "throughput_cdf.png", title)
    figures.throughput_jain(metrics, out / "throughput_jain.png", title)
    owners = {name: episode["owner"][:, 0] for name, episode in episodes.items()}
    rank = channel_rank(
        np.concatenate(list(owners.values())),
        np.concatenate([episode["bits"][:, 0] for episode in episodes.values()]),
    )
    figures.prb_map(owners, rank, out / "prb_map.png", f"{title}: PRBs of cell 0 in drop 0")


def channel_rank(owner: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Rank users by delivered bits per PRB held, the weakest first.

    Args:
        owner: [T, N] user of each PRB, -1 where muted.
        bits: [T, U] delivered.

    Returns:
        int[U], 0 for the weakest; users that held nothing come first.
    """
    num_users = bits.shape[1]
    held = np.bincount(owner[owner >= 0].ravel(), minlength=num_users)
    per_prb = bits.sum(axis=0) / np.maximum(held, 1)
    rank = np.empty(num_users, int)
    rank[np.argsort(per_prb, kind="stable")] = np.arange(num_users)
    return rank
