"""Where offline learners' data come from: a behaviour, pairs of its segments, a judge's answers."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.links import Number
from prefs.algorithms.settings import POSITIVE, SHARE, Range, check_choice, check_count
from prefs.feedback.bradley_terry import warn_if_intransitive
from prefs.feedback.checks import check_data
from prefs.feedback.labellers import Labeller
from prefs.feedback.labels import sampled_labels, soft_labels
from prefs.feedback.segments import (
    PreferenceData,
    Segments,
    dense_pairs,
    rollout_segments,
    sample_segments,
    sparse_pairs,
)
from prefs.mdps.environment import Problem
from prefs.mdps.solvers import soft_optimal
from prefs.mdps.tables import TabularMDP

Behaviour = jax.Array | Callable[[jax.Array, jax.Array], jax.Array]
"""Probabilities [S, A], or (key, observation) -> action."""


class DataConfig(struct.PyTreeNode):
    """Settings of the data, of its use and of the closing look; learners add their own.

    Numbers may be traced and vmapped over; what is called static sets a shape.

    Attributes:
      num_segments: N, even for sparse pairs. Static.
      segment_length: k. Static.
      pairing: "sparse" (i against i + N/2) or "dense" (all N(N-1)/2). Static.
      answers: "sampled" (0, 1 or 1/2) or "soft" (the judge's probability). Static.
      start: where segments of a table begin, "occupancy" or "initial". Static.
      behaviour_temperature: alpha of the soft-optimal policy that a table's behaviour mixes with
        the uniform one, positive.
      behaviour_uniform: share of uniform actions in it, in [0, 1].
      batch_size: comparisons (and twice as many segments) an update, drawn with replacement; None
        for all of them. Static.
      points: how often the loss is looked at; every number of updates is a multiple. Static.
      evaluation_episodes, evaluation_steps: rollouts of the learned policy, where there are no
        tables to evaluate it in. Static.
    """

    num_segments: int = struct.field(pytree_node=False, default=1000)
    segment_length: int = struct.field(pytree_node=False, default=8)
    pairing: str = struct.field(pytree_node=False, default="sparse")
    answers: str = struct.field(pytree_node=False, default="sampled")
    start: str = struct.field(pytree_node=False, default="occupancy")
    behaviour_temperature: Number = 0.1
    behaviour_uniform: Number = 0.5
    batch_size: int | None = struct.field(pytree_node=False, default=None)
    points: int = struct.field(pytree_node=False, default=10)
    evaluation_episodes: int = struct.field(pytree_node=False, default=64)
    evaluation_steps: int = struct.field(pytree_node=False, default=100)


DATA_RANGES: dict[str, Range] = {"behaviour_temperature": POSITIVE, "behaviour_uniform": SHARE}
"""Ranges of the numbers of `DataConfig`."""


def check_data_config(config: DataConfig) -> None:
    """Refuse static settings.

    Raises:
      ValueError: one is out of range.
    """
    least = {"num_segments": 2, "segment_length": 1, "points": 1}
    least |= {"evaluation_episodes": 1, "evaluation_steps": 1}
    for name, number in least.items():
        check_count(config, name, number)
    if config.batch_size is not None:
        check_count(config, "batch_size", 1)
    check_choice(config, "pairing", ("sparse", "dense"))
    check_choice(config, "answers", ("sampled", "soft"))
    check_choice(config, "start", ("occupancy", "initial"))


def check_steps(config: DataConfig, *names: str) -> None:
    """Refuse numbers of updates.

    Raises:
      ValueError: a named field is negative or no multiple of `points`.
    """
    for name in names:
        check_count(config, name, 0)
        if getattr(config, name) % config.points:
            raise ValueError(
                f"{name} must be a multiple of points = {config.points}, "
                f"got {getattr(config, name)}."
            )


def data_source(
    config: DataConfig,
    problem: Problem,
    labeller: Labeller | None,
    behaviour: Behaviour | None,
    data: PreferenceData | None,
) -> Callable[[jax.Array], PreferenceData]:
    """What makes a run's data from its key; given data are every run's.

    What does not count is made harmless, whatever it was: such comparisons are now a tie of segment
    0 with itself, and the padding of segments is 0.

    Raises:
      ValueError: neither data nor a labeller, data that `check_data` refuses, or no behaviour for a
        problem without discounted tables.
    """
    if data is not None:
        check_data(data)
        given = _harmless(data)
        return lambda key: given
    if labeller is None:
        raise ValueError("a labeller is needed to make preferences: pass one, or data.")
    collect = _collector(config, problem, behaviour)
    pairs = {"sparse": sparse_pairs, "dense": dense_pairs}[config.pairing](config.num_segments)

    def generate(key: jax.Array) -> PreferenceData:
        of_segments, of_labels = jax.random.split(key)
        segments = collect(of_segments)
        if config.answers == "soft":
            labelled = soft_labels(labeller, segments, pairs)
        else:
            labelled = sampled_labels(of_labels, labeller, segments, pairs)
        return _harmless(PreferenceData(segments, labelled))

    return generate


def warn_of_cycles(labeller: Labeller | None, depth: int = 2) -> None:
    """Warn of a preference that no Bradley-Terry model fits.

    Args:
      labeller: who answers, if anybody.
      depth: calls between this one and the user's line, in whose name the warning is.
    """
    if labeller is not None:
        warn_if_intransitive(labeller, stacklevel=3 + depth)


def mixed_behaviour(mdp: TabularMDP, temperature: Number, uniform: Number) -> jax.Array:
    """[S, A] of a policy that acts uniformly in a share of steps and soft-optimally otherwise."""
    return (1 - uniform) * soft_optimal(mdp, temperature).policy + uniform / mdp.num_actions


def discounted_tables(problem: Problem) -> TabularMDP | None:
    """The tables of a discounted problem, or None where there are none."""
    mdp = getattr(problem.params, "mdp", None)
    return mdp if isinstance(mdp, TabularMDP) else None


def _collector(
    config: DataConfig, problem: Problem, behaviour: Behaviour | None
) -> Callable[[jax.Array], Segments]:
    number, length = config.num_segments, config.segment_length
    mdp = discounted_tables(problem)
    if callable(behaviour):
        return lambda key: rollout_segments(key, problem, behaviour, number, length)
    if mdp is None:
        raise ValueError(
            f"{problem.env.name} has no discounted tables: pass a behaviour, (key, observation) "
            "-> action, or data."
        )
    if behaviour is None:
        policy = mixed_behaviour(mdp, config.behaviour_temperature, config.behaviour_uniform)
    else:
        policy = behaviour
    return lambda key: sample_segments(key, mdp, policy, number, length, config.start)


def _harmless(data: PreferenceData) -> PreferenceData:
    pairs, mask = data.pairs, data.segments.mask

    def without_padding(leaf: jax.Array) -> jax.Array:
        return jnp.where(
            mask.reshape(mask.shape + (1,) * (leaf.ndim - 2)), leaf, jnp.zeros_like(leaf)
        )

    return data.replace(
        segments=jax.tree.map(without_padding, data.segments),
        pairs=pairs.replace(
            first=jnp.where(pairs.mask, pairs.first, 0),
            second=jnp.where(pairs.mask, pairs.second, 0),
            label=jnp.where(pairs.mask, pairs.label, 0.5),
        ),
    )
