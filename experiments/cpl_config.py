"""Options of the `cpl` experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from experiments.option_rules import require, require_counts, require_least, require_positive


@dataclass(frozen=True)
class Grids:
    """Grid worlds, a random one a seed, and how tables are learned on them."""

    size: int = 7
    """Cells a side."""
    length: int = 8
    """Steps of a segment."""
    temperature: float = 0.1
    """Of the soft-optimal behaviour and of the regret that answers follow; CPL's alpha."""
    uniform: float = 0.5
    """Share of uniform actions in the behaviour."""
    bc_steps: int = 300
    """Updates of cloning before a learner's own."""
    steps: int = 1500
    """Updates of every learner."""

    def __post_init__(self):
        require(3 <= self.size <= 20, "size must be from 3 to 20", self.size)
        require_counts(self, "length")
        require_positive(self, "temperature")
        require(0 <= self.uniform <= 1, "uniform must be in [0, 1]", self.uniform)
        _tens(self, "bc_steps", "steps")


@dataclass(frozen=True)
class Maze:
    """The continuous maze and the networks that are trained on it."""

    seeds: int = 8
    """Runs of each learner."""
    pairs: int = 300
    """Comparisons."""
    length: int = 10
    """Steps of a segment."""
    temperature: float = 0.1
    """Of the soft-optimal behaviour and of the regret that answers follow; CPL's alpha."""
    uniform: float = 0.5
    """Share of uniform actions in the behaviour."""
    nodes: int = 8
    """Grid nodes a cell of the reference."""
    actions: int = 7
    """Actions an axis of the reference, odd."""
    width: int = 32
    """Of both hidden layers."""
    batch_size: int = 24
    """Comparisons an update."""
    bc_steps: int = 300
    """Updates of cloning before a learner's own."""
    steps: int = 3000
    """Updates of every learner."""
    learning_rate: float = 1e-3
    """Of every learner's Adam, but for that of P-IQL."""
    piql_learning_rate: float = 3e-3
    """Of P-IQL's Adam."""
    piql_beta: float = 3.0
    """Temperature of P-IQL's weights."""
    episodes: int = 64
    """Rollouts of a learned policy."""
    episode_steps: int = 60
    """Steps of each."""

    def __post_init__(self):
        require(self.seeds >= 2, "maze.seeds must be at least 2, for intervals", self.seeds)
        require_counts(
            self, "pairs", "length", "nodes", "actions", "width", "batch_size", "episodes"
        )
        require_counts(self, "episode_steps")
        require(self.actions % 2 == 1, "actions must be odd", self.actions)
        require_positive(self, "temperature")
        require(0 <= self.uniform <= 1, "uniform must be in [0, 1]", self.uniform)
        _tens(self, "bc_steps", "steps")
        require_least(self, 0, "learning_rate", "piql_learning_rate")
        require_positive(self, "piql_beta")


@dataclass(frozen=True)
class Cpl:
    """CPL and its baselines against what Hejna et al. (2023) say of them."""

    problems: tuple[Literal["grids", "maze"], ...] = ("grids", "maze")
    """Where to learn."""
    seeds: int = 64
    """Grids, on each of which every learner meets the same segments and answers."""
    pairs: tuple[int, ...] = (50, 100, 200, 500, 2000)
    """Numbers of sparse comparisons, rising."""
    few: int = 100
    """The one of them that is few."""
    dense: int = 50
    """The one of them whose segments, twice as many, are also compared all with each other."""
    ablated: int = 200
    """The one of them at which noise, labels and rankings vary; up to it every learner runs."""
    compared: int = 500
    """The one of them at which CPL is claimed to beat the other learners."""
    mistakes: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Probabilities of a flipped answer."""
    rationalities: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Of teachers who answer by chance, in units of the regret."""
    lengths: tuple[int, ...] = (1, 2)
    """Steps, besides grids.length, that answers are about."""
    seed: int = 0
    """Of everything that is random."""
    grids: Grids = field(default_factory=Grids)
    maze: Maze = field(default_factory=Maze)

    def __post_init__(self):
        require(bool(self.problems), "problems must name one", self.problems)
        names = self.problems
        require(len(set(names)) == len(names), "problems must differ", names)
        require(self.seeds >= 2, "seeds must be at least 2, for intervals", self.seeds)
        rising = len(self.pairs) >= 2 and all(a < b for a, b in pairwise((0, *self.pairs)))
        require(rising, "pairs must be at least two numbers that rise from 1", self.pairs)
        for name in ("few", "dense", "ablated", "compared"):
            number = getattr(self, name)
            require(number in self.pairs, f"{name} must be one of pairs = {self.pairs}", number)
        for name in ("few", "dense"):
            number = getattr(self, name)
            require(number <= self.ablated, f"{name} must be at most ablated", number)
        require(self.ablated % 2 == 0, "ablated must be even, for rankings of four", self.ablated)
        for name in ("mistakes", "rationalities", "lengths"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name} must differ", values)
        inside = all(0 < value < 0.5 for value in self.mistakes)
        require(inside, "mistakes must be above 0 and below 0.5", self.mistakes)
        finite = all(0 < value < math.inf for value in self.rationalities)
        require(finite, "rationalities must be positive and finite", self.rationalities)
        longest = self.grids.length
        shorter = bool(self.lengths) and all(1 <= length < longest for length in self.lengths)
        require(
            shorter,
            f"lengths must name one or more from 1 to below grids.length = {longest}",
            self.lengths,
        )


def _tens(section: Grids | Maze, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(value >= 10 and value % 10 == 0, f"{name} must be a positive multiple of 10", value)
