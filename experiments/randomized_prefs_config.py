"""Options of the `randomized-prefs` experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from experiments.option_rules import require, require_counts, require_least, require_positive


@dataclass(frozen=True)
class Tables:
    """Random tables with one-hot features."""

    num_states: int = 4
    """States, the first of which every episode starts in."""
    num_actions: int = 3
    """Actions in each."""
    horizon: int = 3
    """Steps of an episode."""

    def __post_init__(self):
        require_counts(self, "num_states", "num_actions", "horizon")


@dataclass(frozen=True)
class LowRank:
    """Random linear MDPs whose transitions have a rank below the number of states."""

    num_states: int = 12
    """States, the first of which every episode starts in."""
    num_actions: int = 4
    """Actions in each."""
    horizon: int = 4
    """Steps of an episode."""
    rank: int = 3
    """Features of a step."""

    def __post_init__(self):
        require_counts(self, "num_states", "num_actions", "horizon", "rank")
        require(
            self.rank < self.num_states,
            f"rank must be below num_states = {self.num_states}",
            self.rank,
        )


@dataclass(frozen=True)
class RandomisedLSVI:
    """Practical constants of PR-LSVI."""

    sigma_r: float = 0.1
    """Scale of the reward's perturbation."""
    sigma_P: float = 0.05
    """Scale of the transition term's perturbation."""
    alpha_L: float = 0.2
    """Width up to which the transition term is believed."""
    alpha_U: float = 0.6
    """Width beyond which it is the most that can follow."""
    ridge: float = 1.0
    """Of both regressions."""
    mle_ridge: float = 1.0
    """Of the maximum likelihood step."""
    r_max: float = 1.0
    """Most reward of one step that the truncation assumes."""

    def __post_init__(self):
        require_least(self, 0, "sigma_P", "alpha_L", "r_max")
        # without spread in the reward nothing is ever asked
        require_positive(self, "sigma_r", "ridge", "mle_ridge")
        require(
            self.alpha_U >= self.alpha_L,
            f"alpha_U must be at least alpha_L = {self.alpha_L:g}",
            self.alpha_U,
        )


@dataclass(frozen=True)
class PosteriorSampling:
    """Priors of PbTS and of dueling posterior sampling."""

    prior_scale: float = 0.3
    """Standard deviation of each reward parameter."""
    prior_count: float = 1.0
    """Concentration of the transitions' Dirichlet prior."""

    def __post_init__(self):
        require_positive(self, "prior_scale", "prior_count")


@dataclass(frozen=True)
class RandomizedPrefs:
    """PR-LSVI and PbTS against what Wu and Sun (2023) say of them."""

    problems: tuple[Literal["random", "low_rank"], ...] = ("random", "low_rank")
    """Kinds of problem; every seed draws one of its own of each."""
    posterior_sampling: tuple[Literal["random", "low_rank"], ...] = ("random",)
    """Those of them on which PbTS and dueling posterior sampling run too."""
    seeds: int = 64
    """Runs of each learner at each threshold."""
    episodes: int = 1500
    """Episodes of a run, T."""
    thresholds: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    """Query thresholds from 0 upwards."""
    compared: float = 0.1
    """The threshold whose active queries are claimed to beat random ones."""
    scale: float = 8.0
    """P(first preferred) is the logistic function of so many times the difference of returns."""
    refit_every: int = 10
    """Episodes between refits of the reward."""
    points: int = 50
    """Episodes at which a run is recorded, evenly spread; even, so that T / 2 is among them."""
    seed: int = 0
    """Of everything that is random."""
    random: Tables = field(default_factory=Tables)
    low_rank: LowRank = field(default_factory=LowRank)
    pr_lsvi: RandomisedLSVI = field(default_factory=RandomisedLSVI)
    posterior: PosteriorSampling = field(default_factory=PosteriorSampling)

    def __post_init__(self):
        require(bool(self.problems), "problems must name one", self.problems)
        for name in ("problems", "posterior_sampling"):
            names = getattr(self, name)
            require(len(set(names)) == len(names), f"{name} must differ", names)
        require(self.seeds >= 2, "seeds must be at least 2, for intervals", self.seeds)
        require_counts(self, "refit_every", "points")
        require(self.points % 2 == 0, "points must be even", self.points)
        for name in ("refit_every", "points"):
            size = getattr(self, name)
            require(
                self.episodes > 0 and self.episodes % size == 0,
                f"episodes must be a positive multiple of {name} = {size}",
                self.episodes,
            )
        eps = self.thresholds
        require(
            len(eps) >= 2 and eps[0] == 0 and all(a < b < math.inf for a, b in pairwise(eps)),
            "thresholds must be at least two finite numbers that rise from 0",
            eps,
        )
        require(
            self.compared in eps[1:],
            "compared must be one of the thresholds above 0",
            self.compared,
        )
        require(0 < self.scale <= 100, "scale must be above 0 and at most 100", self.scale)
