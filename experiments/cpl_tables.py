"""Tables of the `cpl` experiment's report."""

from __future__ import annotations

import math

from experiments.claims import Section
from experiments.cpl_claims import Found, MazeFound, maze_share, sparse
from experiments.cpl_config import Cpl
from experiments.cpl_data import Asked
from experiments.interval_claims import interval_text
from jaxrl5g.evaluation.statistics import bootstrap_interval

_INTERVALS = "In brackets: 95 % bootstrap intervals over seeds."


def answers(asked: Asked) -> str:
    """Return in words how comparisons are answered."""
    if asked.soft:
        return f"probabilities, rationality {asked.rationality:g}"
    said = f"by {asked.labels}"
    if asked.mistake:
        said += f", {asked.mistake:.0%} mistakes"
    return said if math.isinf(asked.rationality) else f"{said}, rationality {asked.rationality:g}"


def grid_tables(config: Cpl, found: Found) -> list[Section]:
    """Return the sections with all that was measured on grids."""
    grids = config.grids
    setting = (
        f"Grids of {grids.size} x {grids.size} cells, one a seed, {config.seeds} seeds; segments "
        f"of {grids.length} steps; returns on the scale 0 = uniform policy, 1 = optimal policy, "
        f"exact. {_INTERVALS}"
    )
    plain = [sparse(config, n) for n in config.pairs]
    plain.append(sparse(config, config.dense)._replace(dense=True))
    heads = [
        f"all pairs of {2 * asked.pairs} segments" if asked.dense else f"{asked.pairs} pairs"
        for asked in plain
    ]
    learners = list(dict.fromkeys(part.learner for part in found if part.asked in plain))
    sections = []
    for title, field, of_what in (
        ("Return", "value", "Of the policy as a distribution"),
        ("Greedy return", "greedy", "Of the policy's likeliest actions"),
    ):
        rows = []
        for name in learners:
            by_data = {part.asked: m for part, m in found.items() if part.learner == name}
            rows.append(
                (
                    name,
                    *(
                        interval_text(bootstrap_interval(getattr(by_data[asked], field)), ".3f")
                        if asked in by_data
                        else ""
                        for asked in plain
                    ),
                )
            )
        text = f"{of_what}, with exact answers by regret. {setting}"
        sections.append(Section(f"Grids: {title.lower()}", text, ("learner", *heads), rows))
    rows = [
        (
            part.learner,
            answers(part.asked),
            f"{part.asked.length}",
            f"{part.asked.pairs}",
            *(interval_text(bootstrap_interval(v), ".3f") for v in (m.value, m.greedy)),
            f"{m.accuracy.mean():.2f}",
            interval_text(bootstrap_interval(m.divergence), ".3g") if part.asked.soft else "",
        )
        for part, m in found.items()
        if part.asked not in plain
    ]
    columns = ("learner", "answers", "steps", "pairs", "return", "greedy return", "accuracy", "KL")
    text = f"KL in nats from the maximum-entropy optimum, mean over states. {setting}"
    return [*sections, Section("Grids: noise, labels and consistency", text, columns, rows)]


def maze_table(config: Cpl, found: MazeFound) -> Section:
    """Return the section with all that was measured in the maze."""
    maze = config.maze
    rows = [
        (
            name,
            interval_text(bootstrap_interval(maze_share(found, name)), ".3f"),
            interval_text(bootstrap_interval(m.value), ".1f"),
            interval_text(bootstrap_interval(m.success), ".2f"),
        )
        for name, m in found.items()
    ]
    text = (
        f"{maze.pairs} sparse comparisons of segments of {maze.length} steps, exact answers by "
        f"regret; networks of 2 x {maze.width}. Rollouts of the likeliest actions, "
        f"{maze.episodes} a seed from random places, {maze.episode_steps} steps; {maze.seeds} "
        "seeds. Share: 0 = uniform actions, 1 = greedy in the dense-grid values. Success: the "
        f"episode ends at the goal. {_INTERVALS}"
    )
    return Section("Maze", text, ("policy", "share", "reward of an episode", "success"), rows)
