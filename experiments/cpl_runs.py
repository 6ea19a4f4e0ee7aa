"""Runs of the `cpl` experiment on grids: which there are, how they are made and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cpl_config import Cpl
from experiments.cpl_data import Asked, World, ask, make_world
from experiments.record import write_json
from prefs import algorithms, feedback, mdps
from prefs.algorithms import (
    bc,
    cpl,
    cpl_bc,
    cpl_kl,
    cpl_rank,
    percent_bc,
    preference_iql,
    reward_planning,
    reward_soft_policy,
    sft,
)
from prefs.feedback import PreferenceData

BIASES = (1.0, 0.75, 0.5, 0.25)
PLAIN, CPL = "CPL(1)", "CPL(0.5)"
CPL_BC, CPL_KL = "CPL-BC", "CPL-KL"
PAIRWISE, PLACKETT = "CPL, rankings of 4 by pairs", "CPL, rankings of 4 by Plackett-Luce"
BC, SFT, TOP_BC = "BC", "SFT", "top-10% BC"
PLANNING, ESTIMATED = "reward + planning", "reward + planning, estimated model"
SOFT_POLICY, PIQL = "reward + soft policy iteration", "P-IQL"

CLONES = (BC, SFT, TOP_BC)
OTHERS = (
    *(f"CPL({bias:g})" for bias in BIASES if bias not in (1.0, 0.5)),
    CPL_BC,
    CPL_KL,
    ESTIMATED,
    SOFT_POLICY,
)
"""Learners that run up to `ablated` pairs."""
DENSE = (PLAIN, CPL, SFT, PLANNING, PIQL)
"""Learners that also get dense comparisons."""
RANKERS = (PAIRWISE, PLACKETT)
"""Learners from rankings, at `ablated` pairs."""
NOISY = (PLAIN, CPL, SFT, PIQL)
"""Learners whose answers are noisy too."""
MISLED = (PLAIN, CPL, SFT, PLANNING)
"""Learners whose answers follow the return, and are about fewer steps, too."""


class Part(NamedTuple):
    """A learner with one kind of data, on all seeds."""

    learner: str
    asked: Asked

    @property
    def slug(self) -> str:
        """Stem of its file."""
        name = "".join(c if c.isalnum() or c == "." else " " for c in self.learner.lower())
        return "-".join([*name.split(), self.asked.slug])


class Measured(NamedTuple):
    """What a part reached, [S] each.

    Attributes:
        value: return of the policy as a distribution; 0 is the uniform policy's, 1 the optimal's.
        greedy: of its likeliest actions, likewise.
        accuracy: share of the decided answers that the learner agrees with.
        divergence: mean over states of KL(maximum-entropy optimum || policy) in nats; of the
            policy, what is below the smallest normal number counts as that.
    """

    value: np.ndarray
    greedy: np.ndarray
    accuracy: np.ndarray
    divergence: np.ndarray


def plan(config: Cpl) -> list[Part]:
    """Return the parts, none twice."""
    length = config.grids.length
    base = Asked(config.ablated, length=length)
    parts = []
    for number in config.pairs:
        learners = [PLAIN, CPL, *CLONES, PLANNING]
        learners += [PIQL] if number <= config.compared else []  # by far the slowest
        learners += OTHERS if number <= config.ablated else ()
        parts += [Part(learner, base._replace(pairs=number)) for learner in learners]
    dense = base._replace(pairs=config.dense, dense=True)
    soft = base._replace(soft=True, rationality=1.0)
    parts += [Part(learner, base) for learner in RANKERS]
    parts += [Part(learner, dense) for learner in DENSE]
    few = [number for number in config.pairs if number <= config.compared]
    parts += [Part(PLAIN, soft._replace(pairs=number)) for number in few]
    noisy = [base._replace(mistake=mistake) for mistake in config.mistakes]
    noisy += [base._replace(rationality=beta) for beta in config.rationalities]
    parts += [Part(learner, asked) for asked in noisy for learner in NOISY]
    misled = [
        base._replace(labels=labels, length=steps)
        for steps in (*config.lengths, length)
        for labels in ("regret", "return")
    ]
    parts += [Part(learner, asked) for asked in misled for learner in MISLED]
    return list(dict.fromkeys(parts))


class Lanes:
    """Measures parts; all learners meet the same grids, segments and keys, so that seeds pair.

    Numbers of pairs up to `ablated` share their shapes, so that a learner is compiled once for
    them and once for each larger number.
    """

    def __init__(self, config: Cpl, folder: Path):
        self._config, self._folder = config, folder
        self._world: tuple[World, jax.Array] | None = None
        self._data: dict[Asked, PreferenceData] = {}
        self._making = Lock()  # parts run side by side and share both

    def kept(self, part: Part) -> Measured:
        """Return what a part reached, from its file where an earlier run left one."""
        path = self._folder / f"{part.slug}.json"
        if not path.exists():
            write_json(path, self._measure(part))
        kept = json.loads(path.read_text())
        return Measured(**{name: np.asarray(v, float) for name, v in kept.items()})

    def _measure(self, part: Part) -> Measured:
        asked = part.asked
        with self._making:
            self._world = self._world or make_world(self._config)
            world, keys = self._world
            if asked not in self._data:
                room = asked.pairs if asked.dense else max(asked.pairs, self._config.ablated)
                self._data[asked] = ask(world, asked, room)
        make, settings = learner(self._config, part.learner)
        truth = world.mdps, world.advantage, world.policy
        found = _run(make, settings, truth, self._data[asked], keys)
        return Measured(*map(np.asarray, found))


def learner(config: Cpl, name: str) -> tuple[Callable[..., Any], Any]:
    """Return what makes a learner's training, and its settings."""
    grids = config.grids
    discount = 0.95  # of `grid_world`, as in the regret
    frame: dict[str, Any] = {"bc_steps": grids.bc_steps, "steps": grids.steps}
    contrast = {**frame, "discount": discount}
    reward: dict[str, Any] = {"reward_steps": grids.steps, "reward_discount": discount}
    if name in (f"CPL({bias:g})" for bias in BIASES):
        bias = float(name[4:-1])
        settings = algorithms.CPLConfig(**contrast, alpha=grids.temperature, conservative_bias=bias)
        return cpl.make_train, settings
    if name in RANKERS:
        rule = "pairwise" if name == PAIRWISE else "plackett-luce"
        return cpl_rank.make_train, algorithms.CPLRankConfig(**contrast, rule=rule)
    made = {
        CPL_BC: (cpl_bc.make_train, algorithms.CPLBCConfig(**contrast)),
        CPL_KL: (cpl_kl.make_train, algorithms.CPLKLConfig(**contrast)),
        BC: (bc.make_train, algorithms.BCConfig(steps=grids.steps)),
        SFT: (sft.make_train, algorithms.SFTConfig(**frame)),
        TOP_BC: (_top_bc, algorithms.PercentBCConfig(**frame)),
        PLANNING: (reward_planning.make_train, algorithms.RewardPlanningConfig(**reward)),
        ESTIMATED: (
            reward_planning.make_train,
            algorithms.RewardPlanningConfig(**reward, model="estimated"),
        ),
        SOFT_POLICY: (
            reward_soft_policy.make_train,
            algorithms.RewardSoftPolicyConfig(**reward),
        ),
        PIQL: (
            preference_iql.make_train,
            algorithms.PIQLConfig(**reward, steps=grids.steps, discount=discount),
        ),
    }
    return made[name]


def _top_bc(settings, problem, judge, data):
    """Top-percent BC of the segments that are there; padding is neither best nor counted."""
    there = jnp.any(data.segments.mask, -1)

    def score(segments):
        return jnp.where(there, percent_bc.utility(judge)(segments), -jnp.inf)

    settings = settings.replace(share=settings.share * jnp.mean(there))
    return percent_bc.make_train(settings, problem, judge, score=score, data=data)


@partial(jax.jit, static_argnames="make")
def _run(
    make: Callable[..., Any],
    settings: Any,
    truth: tuple[mdps.TabularMDP, jax.Array, jax.Array],
    data: PreferenceData,
    keys: jax.Array,
) -> tuple[jax.Array, ...]:
    """Fields of `Measured`."""

    def one(mdp, advantage, best, data, key):
        utility = feedback.regret(advantage, mdp.discount)
        judge = feedback.TEACHERS["oracle"](utility)  # of rankings and of what is best
        found = make(settings, mdps.tabular_problem(mdp), judge, data=data)(key)
        metrics = found.metrics
        least = jnp.finfo(best.dtype).tiny
        behind = jnp.log(best) - jnp.log(jnp.maximum(found.policy, least))
        excess = jnp.sum(best * behind, -1)
        returns = metrics["return"], metrics["greedy_return"]
        return *returns, metrics["accuracy"], jnp.mean(excess)

    return jax.vmap(one)(*truth, data, keys)
