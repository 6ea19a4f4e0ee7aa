"""Runs of the `randomized-prefs` experiment: which there are, how they are made and kept."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.randomized_prefs_config import RandomizedPrefs
from experiments.record import write_json
from prefs.algorithms import dueling_posterior_sampling, pbts, pr_lsvi
from prefs.algorithms.links import Logistic
from prefs.mdps import EpisodicMDP, linear_mdp, random_episodic

PR_LSVI, PBTS = "PR-LSVI", "PbTS"
GREEDY, THEORY = "greedy MLE", "PR-LSVI, theory-scale constants"
DPS = "dueling posterior sampling"
PROBLEMS = {"random": "random MDPs", "low_rank": "low-rank MDPs"}
"""Kinds of problem as they are reported."""

_MAKERS: dict[str, Callable[..., Any]] = {
    PR_LSVI: pr_lsvi.make_train,
    THEORY: pr_lsvi.make_train,
    GREEDY: pr_lsvi.make_train,
    PBTS: pbts.make_train,
    DPS: dueling_posterior_sampling.make_train,
}


class Part(NamedTuple):
    """A learner at one setting on one kind of problem, with all seeds.

    Attributes:
        learner: one of the names above.
        query: "active", "random" (as often as the active run of the same seed and threshold) or
            "always".
        eps: query threshold; None where the learner has none or its own.
    """

    learner: str
    query: str
    eps: float | None

    @property
    def label(self) -> str:
        """As it is reported."""
        asks = {"active": "", "random": ", random queries", "always": ""}[self.query]
        return self.learner + asks + ("" if self.eps is None else f", threshold {self.eps:g}")

    @property
    def slug(self) -> str:
        """Stem of its file."""
        name = self.learner.lower().replace(",", "").replace(" ", "-")
        return f"{name}-{self.query}" + ("" if self.eps is None else f"-{self.eps!r}")


class Measured(NamedTuple):
    """What all seeds of a part did, recorded at P episodes.

    Attributes:
        regret: [S, P], cumulative, of both executed policies.
        asked: [S, P], queries so far.
        bound: [S], most queries that each run could have made; NaN where there is no bound.
        held: bool[S], whether it was respected.
    """

    regret: np.ndarray
    asked: np.ndarray
    bound: np.ndarray
    held: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """[S], regret of the whole run."""
        return self.regret[:, -1]

    @property
    def queries(self) -> np.ndarray:
        """[S], of the whole run."""
        return self.asked[:, -1]


def plan(config: RandomizedPrefs, problem: str) -> list[Part]:
    """Return the parts of a problem; those with random queries after the active ones."""
    posterior = problem in config.posterior_sampling
    parts = []
    for learner in (PR_LSVI, PBTS) if posterior else (PR_LSVI,):
        parts += [Part(learner, "active", eps) for eps in config.thresholds]
        parts += [Part(learner, "random", eps) for eps in config.thresholds[1:]]
    parts += [Part(GREEDY, "always", None), Part(THEORY, "active", None)]
    return [*parts, Part(DPS, "always", None)] if posterior else parts


class Lanes:
    """Measures parts on one kind of problem, each seed on a problem of its own.

    All learners meet the same problems with the same keys, so that seeds pair. Parts that differ
    in numbers only share a compiled program. Thresholds follow one another instead of being
    batched: a batch would refit all of them from as many comparisons as the most curious asks for.
    """

    def __init__(self, config: RandomizedPrefs, problem: str, folder: Path):
        self._config, self._folder = config, folder
        root = jax.random.fold_in(jax.random.key(config.seed), list(PROBLEMS).index(problem))
        to_problem, self._keys = jax.vmap(jax.random.split, out_axes=1)(
            jax.random.split(root, config.seeds)
        )
        sizes = dataclasses.asdict(getattr(config, problem))
        draw = {"random": random_episodic, "low_rank": linear_mdp}[problem]
        self._mdps: EpisodicMDP = jax.jit(jax.vmap(partial(draw, **sizes)))(to_problem)

    def kept(self, part: Part, budget: np.ndarray | None = None) -> Measured:
        """Return what a part did, from its file where an earlier run left one.

        Args:
            part: what to run.
            budget: [S], queries of each run with random ones.
        """
        path = self._folder / f"{part.slug}.json"
        if not path.exists():
            write_json(path, self._measure(part, budget))
        kept = json.loads(path.read_text())
        held = np.asarray(kept.pop("held"), bool)
        return Measured(held=held, **{k: np.asarray(v, float) for k, v in kept.items()})

    def _measure(self, part: Part, budget: np.ndarray | None) -> Measured:
        config = self._config
        budgets = np.zeros(config.seeds) if budget is None else budget
        found = _run(
            _MAKERS[part.learner],
            self._settings(part),
            Logistic(config.scale),
            self._mdps,
            self._keys,
            jnp.asarray(budgets, float),
            config.points,
        )
        return Measured(*map(np.asarray, found))

    def _settings(self, part: Part) -> Any:
        config = self._config
        loop = {
            "episodes": config.episodes,
            "refit_every": config.refit_every,
            "link": Logistic(config.scale),
            "query": part.query,
            "eps": part.eps or 0.0,
        }
        if part.learner == PBTS:
            return pbts.PbTSConfig(**loop, **dataclasses.asdict(config.posterior))
        if part.learner == DPS:
            prior = dataclasses.asdict(config.posterior)
            return dueling_posterior_sampling.DPSConfig(**loop, **prior)
        if part.learner == THEORY:
            del loop["episodes"], loop["eps"]
            horizon, size = self._mdps.horizon, self._mdps.features.shape[-1]
            # returns are in [0, 1]: the link is flattest at a difference of 1, and a parameter is
            # at most 1 / H
            tail = 1 / (1 + math.exp(config.scale))
            kappa, radius = 1 / (config.scale * tail * (1 - tail)), math.sqrt(size / horizon)
            return pr_lsvi.theory(size, horizon, config.episodes, kappa, radius, **loop)
        practical = pr_lsvi.practical(**loop, **dataclasses.asdict(config.pr_lsvi))
        return pr_lsvi.greedy(practical) if part.learner == GREEDY else practical


@partial(jax.jit, static_argnames=("make", "points"))
def _run(
    make: Callable[..., Any],
    settings: Any,
    judge: Logistic,
    mdps: EpisodicMDP,
    keys: jax.Array,
    budgets: jax.Array,
    points: int,
) -> tuple[jax.Array, ...]:
    """Fields of `Measured`."""

    def one(mdp, key, budget):
        metrics = make(settings.replace(budget=budget), mdp, judge)(key).metrics
        every = settings.episodes // points
        asked = jnp.cumsum(metrics["queried"], dtype=jnp.int32)
        curves = (x[every - 1 :: every] for x in (metrics["regret"], asked))
        return *curves, metrics["query_bound"], metrics["bound_held"]

    return jax.vmap(one)(mdps, keys, budgets)
