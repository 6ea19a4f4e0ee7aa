"""Preferences of the `cpl` experiment on grids: one pool of segments a seed, asked in many ways."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from experiments.cpl_config import Cpl
from prefs import feedback, mdps
from prefs.algorithms.offline_data import mixed_behaviour
from prefs.feedback import PreferenceData, Segments


class Asked(NamedTuple):
    """What is asked about, and how it is answered.

    Attributes:
        pairs: sparse comparisons, of two segments each; where `dense`, those whose segments are
            all compared with each other.
        dense: whether they are.
        labels: what answers follow: "regret" or "return".
        length: steps that they are about, from a segment's first.
        mistake: probability of a flipped answer.
        rationality: infinite for the exact argmax.
        soft: whether the label is the probability instead of an answer.
    """

    pairs: int
    dense: bool = False
    labels: str = "regret"
    length: int = 8
    mistake: float = 0.0
    rationality: float = math.inf
    soft: bool = False

    @property
    def slug(self) -> str:
        """As part of a file's name."""
        parts = [f"{self.pairs}-{'dense' if self.dense else 'sparse'}", self.labels]
        parts.append(f"length{self.length}")
        if self.mistake:
            parts.append(f"mistake{self.mistake!r}")
        if self.rationality < math.inf:
            parts.append(f"rationality{self.rationality!r}")
        return "-".join([*parts, "soft"] if self.soft else parts)


class World(struct.PyTreeNode):
    """The grids of S seeds, their soft optima, and the segments that all data are made of.

    Attributes:
        mdps: [S] grids of n states.
        advantage: [S, n, 4], of the maximum-entropy optimum.
        policy: [S, n, 4], its probabilities.
        pool: segments [S, 2 M, k]; comparison i is of segments 2 i and 2 i + 1.
        answers: [S] keys.
    """

    mdps: mdps.TabularMDP
    advantage: jax.Array
    policy: jax.Array
    pool: Segments
    answers: jax.Array


def make_world(config: Cpl) -> tuple[World, jax.Array]:
    """Return the world and the keys [S] of the learners."""
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    grids = config.grids
    numbers = grids.temperature, grids.uniform
    return _world(keys, *numbers, grids.size, 2 * config.pairs[-1], grids.length)


@partial(jax.jit, static_argnames=("size", "num", "length"))
def _world(keys, temperature, uniform, size, num, length):
    def one(key):
        of_grid, of_segments, of_answers, of_learner = jax.random.split(key, 4)
        mdp = mdps.grid_world(of_grid, size=size)
        best = mdps.soft_optimal(mdp, temperature)
        behaviour = mixed_behaviour(mdp, temperature, uniform)
        pool = feedback.sample_segments(of_segments, mdp, behaviour, num, length)
        return World(mdp, best.advantage, best.policy, pool, of_answers), of_learner

    return jax.vmap(one)(keys)


def ask(world: World, asked: Asked, capacity: int) -> PreferenceData:
    """Return the preferences of every seed, leaves [S, ...].

    Args:
        world: whose pool is asked about.
        asked: what and how.
        capacity: pairs that there is room for, at least `asked.pairs`; what is not asked about is
            masked, pairs and segments alike. Dense comparisons fill theirs.
    """
    static = asked.dense, asked.labels, asked.soft, capacity
    return _ask(
        world, asked.pairs, asked.length, asked.mistake, jnp.float32(asked.rationality), *static
    )


@partial(jax.jit, static_argnames=("dense", "labels", "soft", "capacity"))
def _ask(world, pairs, length, mistake, rationality, dense, labels, soft, capacity):
    def one(mdp, advantage, pool, key):
        segments = jax.tree.map(lambda leaf: leaf[: 2 * capacity], pool)
        index = jnp.arange(2 * capacity)
        some = segments.mask & (index < 2 * pairs)[:, None]
        segments = segments.replace(mask=some & (jnp.arange(some.shape[1]) < length))
        utility = {
            "regret": feedback.regret(advantage, mdp.discount),
            "return": feedback.partial_return(mdp.discount),
        }[labels]
        judge = feedback.teacher(utility, rationality=rationality, mistake=mistake)
        if dense:
            chosen = feedback.dense_pairs(2 * capacity)
        else:
            chosen = feedback.unlabelled(index[::2], index[1::2])
            chosen = chosen.replace(mask=jnp.arange(capacity) < pairs)
        if soft:
            labelled = feedback.soft_labels(judge, segments, chosen)
        else:
            labelled = feedback.sampled_labels(key, judge, segments, chosen)
        return PreferenceData(segments, labelled)

    return jax.vmap(one)(world.mdps, world.advantage, world.pool, world.answers)
