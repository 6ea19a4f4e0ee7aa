"""`run randomized-prefs`: randomised learners from preferences, regret against queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
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
from experiments.side_by_side import Bar, Job, side_by_side
from experiments.sweeps import Group


def run(group: Group, folder: RunFolder) -> Report:
    """Measure every part, each kept in a file of its own, and say what holds."""
    config: RandomizedPrefs = group.config
    plans = {problem: plan(config, problem) for problem in config.problems}
    lanes = {name: Lanes(config, name, folder.path / "parts" / name) for name in plans}
    found: dict[str, dict[Part, Measured]] = {problem: {} for problem in plans}
    parts = [(problem, part) for problem, planned in plans.items() for part in planned]
    with Bar(len(parts)) as bar:
        for last in (False, True):  # random queries, as many as the active run made
            jobs = []
            for problem, part in parts:
                if last != (part.query == "random"):
                    continue
                active = part._replace(query="active")
                budget = found[problem][active].queries if last else None
                if budget is not None and not budget.any():  # it is the active run again
                    bar.advance()
                    continue
                label = f"{PROBLEMS[problem]}: {part.label}"
                measure = partial(lanes[problem].kept, part, budget)
                jobs.append(Job((problem, part), label, measure))
            for (problem, part), measured in side_by_side(jobs, bar):
                known = {**found[problem], part: measured}
                found[problem] = {part: known[part] for part in plans[problem] if part in known}
                _log(config, folder, found)
        bar.say("figures and intervals")
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
