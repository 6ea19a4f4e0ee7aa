"""`run randomized-prefs`: randomised learners from preferences, regret against queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import randomized_prefs_figures as figures
from experiments.claims import Claim, Report, Section
from experiments.kinds import Experiment
from experiments.randomized_prefs_claims import problem_claims, table
from experiments.randomized_prefs_config import RandomizedPrefs
from experiments.randomized_prefs_runs import PROBLEMS, Lanes, Measured, Part, plan
from experiments.record import to_json, write_text
from experiments.run_folder import RunFolder
from experiments.seed_lanes import part_progress
from experiments.sweeps import Group


def run(group: Group, folder: RunFolder) -> Report:
    """Measure every part, each kept in a file of its own, and say what holds."""
    config: RandomizedPrefs = group.config
    plans = {problem: plan(config, problem) for problem in config.problems}
    found: dict[str, dict[Part, Measured]] = {}
    with part_progress() as progress:
        task = progress.add_task("", total=sum(map(len, plans.values())))
        for problem, parts in plans.items():
            lanes = Lanes(config, problem, folder.path / "parts" / problem)
            measured = found[problem] = {}
            for part in parts:
                progress.update(task, description=f"{PROBLEMS[problem]}: {part.label}")
                budget = None
                if part.query == "random":
                    budget = measured[part._replace(query="active")].queries
                if budget is None or budget.any():  # without queries it is the active run again
                    measured[part] = lanes.kept(part, budget)
                    _log(config, folder, found)
                progress.advance(task)
        progress.update(task, description="figures and intervals")
        claims: list[Claim] = []
        sections: list[Section] = []
        for problem, measured in found.items():
            claims += problem_claims(config, problem, measured)
            sections += [
                table(config, problem, measured),
                figures.section(config, problem, measured, folder.figures),
            ]
    return Report(claims, sections, {problem: _table(m) for problem, m in found.items()})


EXPERIMENT = Experiment(RandomizedPrefs, run)


def _table(measured: Mapping[Part, Measured]) -> dict[str, Any]:
    return {
        part.slug: {
            "learner": part.learner,
            "asks": part.query,
            "threshold": part.eps,
            "regret": m.total,
            "queries": m.queries,
            "query_bound": m.bound,
        }
        for part, m in measured.items()
    }


def _log(config: RandomizedPrefs, folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Write metrics.jsonl anew from all parts so far, so that no interruption repeats a line."""
    every = config.episodes // config.points
    lines = [
        {
            "problem": problem,
            "learner": part.learner,
            "asks": part.query,
            "threshold": part.eps,
            "episode": (point + 1) * every,
            "regret": float(np.mean(m.regret[:, point])),
            "queries": float(np.mean(m.asked[:, point])),
        }
        for problem, measured in found.items()
        for part, m in measured.items()
        for point in range(config.points)
    ]
    text = "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines)
    write_text(folder.metrics, text)
