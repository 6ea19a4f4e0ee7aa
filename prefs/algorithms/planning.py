"""The frame of learners that plan with a learned reward, in a known model or one from the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.evaluation import closing_metrics, table_returns
from prefs.algorithms.links import Number
from prefs.algorithms.offline_data import (
    check_data_config,
    check_steps,
    data_source,
    discounted_tables,
    warn_of_cycles,
)
from prefs.algorithms.offline_learner import Given
from prefs.algorithms.result import Result
from prefs.algorithms.reward_model import REWARD_RANGES, RewardConfig, fit_reward
from prefs.algorithms.settings import POSITIVE, Range, check_choice, check_ranges
from prefs.algorithms.step_functions import StepTable
from prefs.feedback.labellers import Labeller
from prefs.feedback.segments import Segments
from prefs.mdps.environment import Problem
from prefs.mdps.tables import TabularMDP


class PlanningConfig(RewardConfig):
    """Settings of planning on top of the reward model's.

    Attributes:
      model: "known" (the true transitions) or "estimated" (counted in the segments). Static.
      pseudocount: of an estimated model, positive: this many transitions of every pair, spread over
        all states, are added to what was seen.
    """

    model: str = struct.field(pytree_node=False, default="known")
    pseudocount: Number = 0.1


def estimated_transition(segments: Segments, mdp: TabularMDP, pseudocount: Number) -> jax.Array:
    """[S, A, S], the mean of Dirichlet(pseudocount / S) given the segments' transitions."""
    here = segments.observations, segments.actions, segments.next_observations
    seen = jnp.zeros_like(mdp.transition).at[here].add(segments.mask.astype(mdp.transition.dtype))
    counts = seen + pseudocount / mdp.num_states
    return counts / jnp.sum(counts, -1, keepdims=True)


def make_planner_train(
    config: PlanningConfig,
    problem: Problem,
    labeller: Labeller | None,
    plan: Callable[[TabularMDP], jax.Array],
    ranges: Mapping[str, Range],
    given: Given,
) -> Callable[[jax.Array], Result]:
    """A whole run as one pure function of a key; jit and vmap it.

    Args:
      config: settings.
      problem: with discounted tables; its rewards serve the labeller and the metrics only.
      labeller: who answers; may be None where data are given.
      plan: a problem with the learned reward -> probabilities [S, A].
      ranges: of the learner's own numbers.
      given: `behaviour` and `data`, see `offline_learner.Given`.

    Returns:
      train(key) -> Result with the reward [S, A] as `params`, the policy [S, A], and metrics
      reward_loss [points], accuracy [], return and greedy_return [] (see `table_returns`); all NaN
      where a traced setting is out of range; and pairs [].

    Raises:
      ValueError: a setting out of range, a problem without discounted tables, a policy given, or
        see `data_source`.

    Warns:
      UserWarning: no Bradley-Terry model fits the labeller's preference.
    """
    warn_of_cycles(labeller)
    check_data_config(config)
    check_steps(config, "reward_steps")
    check_choice(config, "model", ("known", "estimated"))
    sound = check_ranges(config, {**REWARD_RANGES, "pseudocount": POSITIVE, **ranges})
    mdp = discounted_tables(problem)
    if mdp is None:
        raise ValueError(f"planning needs discounted tables, which {problem.env.name} has not.")
    if given.get("policy") is not None:
        raise ValueError("a planner's policy is a table: none can be given.")
    generate = data_source(config, problem, labeller, given.get("behaviour"), given.get("data"))
    model = StepTable((mdp.num_states, mdp.num_actions))

    def train(key: jax.Array) -> Result:
        of_data, of_reward = jax.random.split(key)
        data = generate(of_data)
        fit = fit_reward(of_reward, config, data, model)
        believed = mdp.replace(reward=fit.params)
        if config.model == "estimated":
            transition = estimated_transition(data.segments, mdp, config.pseudocount)
            believed = believed.replace(transition=transition)
        policy = plan(believed)
        metrics = {**fit.metrics, **table_returns(mdp, policy)}
        metrics = closing_metrics(metrics, sound, data)
        return Result(fit.params, policy, metrics)

    return train
