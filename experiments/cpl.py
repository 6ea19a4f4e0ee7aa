"""`run cpl`: contrastive preference learning against its baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from experiments import cpl_figures as figures
from experiments.claims import Claim, Report, Section
from experiments.cpl_claims import grid_claims, maze_claims
from experiments.cpl_config import Cpl
from experiments.cpl_maze import LEARNERS, REFERENCES, MazeLanes, MazeMeasured
from experiments.cpl_runs import Lanes, Measured, Part, plan
from experiments.cpl_tables import answers, grid_tables, maze_table
from experiments.kinds import Experiment
from experiments.record import to_json, write_text
from experiments.run_folder import RunFolder
from experiments.side_by_side import Bar, Job, side_by_side
from experiments.sweeps import Group

_DIGITS = 5  # of results.json; the parts' files have all


def run(group: Group, folder: RunFolder) -> Report:
    """Measure every part, each kept in a file of its own, and say what holds."""
    config: Cpl = group.config
    parts = plan(config) if "grids" in config.problems else []
    names = (*REFERENCES, *LEARNERS) if "maze" in config.problems else ()
    lanes = Lanes(config, folder.path / "parts" / "grids")
    rolled = MazeLanes(config, folder.path / "parts" / "maze")
    jobs: list[Job] = [
        Job(part, f"grids: {part.learner}, {answers(part.asked)}", partial(lanes.kept, part))
        for part in parts
    ]
    walks = [Job(name, f"maze: {name}", partial(rolled.kept, name)) for name in names]
    # the first makes the maze that the others wait for; networks, which take longest, not last
    jobs = [*walks[:1], *jobs[: len(jobs) // 2], *walks[1:], *jobs[len(jobs) // 2 :]]
    found: dict[Part, Measured] = {}
    went: dict[str, MazeMeasured] = {}
    with Bar(len(jobs)) as bar:
        for key, measured in side_by_side(jobs, bar):
            if isinstance(key, Part):
                found[key] = measured
            else:
                went[key] = measured
            found = {part: found[part] for part in parts if part in found}
            went = {name: went[name] for name in names if name in went}
            _log(folder, found, went)
        bar.say("figures and intervals")
        claims: list[Claim] = []
        sections: list[Section] = []
        if parts:
            claims += grid_claims(config, found)
            sections += grid_tables(config, found)
            sections.append(figures.grid_figures(config, found, folder.figures))
        if names:
            claims += maze_claims(config, went)
            sections.append(maze_table(config, went))
            sections.append(figures.maze_figures(config, went, folder.figures))
    return Report(claims, sections, _tables(found, went))


EXPERIMENT = Experiment(Cpl, run)


def _tables(found: Mapping[Part, Measured], went: Mapping[str, MazeMeasured]) -> dict[str, Any]:
    """Every seed's returns."""
    grids = {
        part.slug: {
            "learner": part.learner,
            **part.asked._asdict(),
            "return": np.round(m.value, _DIGITS),
            "greedy_return": np.round(m.greedy, _DIGITS),
        }
        for part, m in found.items()
    }
    maze = {
        name: {
            "return": np.round(m.value, _DIGITS),
            "success": np.round(m.success, _DIGITS),
        }
        for name, m in went.items()
    }
    return {"grids": grids, "maze": maze}


def _log(
    folder: RunFolder, found: Mapping[Part, Measured], went: Mapping[str, MazeMeasured]
) -> None:
    """Write metrics.jsonl anew from all parts so far, so that no interruption repeats a line."""
    lines: list[dict[str, Any]] = [
        {
            "problem": "grids",
            "learner": part.learner,
            **part.asked._asdict(),
            "return": float(np.mean(m.value)),
            "greedy_return": float(np.mean(m.greedy)),
            "accuracy": float(np.mean(m.accuracy)),
            "divergence": float(np.mean(m.divergence)),
        }
        for part, m in found.items()
    ]
    lines += [
        {
            "problem": "maze",
            "learner": name,
            "return": float(np.mean(m.value)),
            "success": float(np.mean(m.success)),
            "accuracy": float(np.mean(m.accuracy)),
        }
        for name, m in went.items()
    ]
    text = "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines)
    write_text(folder.metrics, text)
