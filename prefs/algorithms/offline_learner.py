"""The frame of all learners that fit a policy to data: cloning first, then their own loss.

As in the public code of CPL (Hejna et al., 2023), all segments are cloned first, winners and losers
alike; then the optimiser and its schedule start anew for the learner's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import jax
from flax import struct

from prefs.algorithms.evaluation import closing_metrics, policy_returns
from prefs.algorithms.imitation import imitation_loss
from prefs.algorithms.links import Number
from prefs.algorithms.offline_data import (
    DATA_RANGES,
    Behaviour,
    DataConfig,
    check_data_config,
    check_steps,
    data_source,
    discounted_tables,
    warn_of_cycles,
)
from prefs.algorithms.optimisation import Loss, optimise
from prefs.algorithms.pair_scores import accuracy, pair_scores
from prefs.algorithms.policies import Policy, policy_for
from prefs.algorithms.result import Result
from prefs.algorithms.settings import NOT_NEGATIVE, Range, check_ranges
from prefs.feedback.labellers import Labeller
from prefs.feedback.segments import PreferenceData
from prefs.mdps.environment import Problem


class PolicyConfig(DataConfig):
    """Settings of the frame on top of the data's.

    Attributes:
      bc_steps: updates of cloning before the learner's own. Static.
      steps: updates of the learner's loss. Static.
      bc_learning_rate: of Adam while cloning, at least 0.
      learning_rate: of Adam afterwards, at least 0.
      warmup_steps: updates over which the latter rises linearly, at least 0.
    """

    bc_steps: int = struct.field(pytree_node=False, default=300)
    steps: int = struct.field(pytree_node=False, default=1500)
    bc_learning_rate: Number = 0.05
    learning_rate: Number = 0.05
    warmup_steps: Number = 0.0


POLICY_RANGES: dict[str, Range] = {
    **DATA_RANGES,
    "bc_learning_rate": NOT_NEGATIVE,
    "learning_rate": NOT_NEGATIVE,
    "warmup_steps": NOT_NEGATIVE,
}
"""Ranges of the numbers of `PolicyConfig`."""


class Given(TypedDict, total=False):
    """What may be given to a learner in place of its choice.

    Attributes:
      policy: what is learned; `policy_for` the problem by default.
      behaviour: whose segments are compared: [S, A] or (key, observation) -> action; a mixture of
        soft-optimal and uniform by default, where there are tables.
      data: preferences to learn from instead of making them, the same for every key.
    """

    policy: Policy | None
    behaviour: Behaviour | None
    data: PreferenceData | None


class Setting(NamedTuple):
    """What a learner's loss is made from.

    Attributes:
      key: for what the learner draws itself.
      data: segments and comparisons.
      policy: the description.
      reference: the policy's parameters after cloning.
    """

    key: jax.Array
    data: PreferenceData
    policy: Policy
    reference: Any


def make_policy_train(
    config: PolicyConfig,
    problem: Problem,
    labeller: Labeller | None,
    objective: Callable[[Setting], Loss],
    ranges: Mapping[str, Range],
    given: Given,
    bradley_terry: bool = True,
) -> Callable[[jax.Array], Result]:
    """A whole run as one pure function of a key; jit and vmap it.

    Args:
      config: settings.
      problem: what is learned on; also tells how good the learned policy is.
      labeller: who answers; may be None where data are given.
      objective: the learner's loss, of (parameters, key).
      ranges: of the learner's own numbers.
      given: see `Given`.
      bradley_terry: whether the learner models answers by utilities.

    Returns:
      train(key) -> Result with the policy's parameters as `params`, as `policy` its probabilities
      [S, A] where there are such (else the parameters), and metrics:
        bc_loss [points], loss [points]: along either phase, see `optimise`.
        accuracy []: share of the answers that sum_t log pi agrees with.
        pairs []: comparisons that count.
        return, greedy_return []: on discounted tables; else episode_return []. See `evaluation`.
      Where a traced setting is out of range all float metrics are NaN.

    Raises:
      ValueError: a setting out of range, or see `data_source`.

    Warns:
      UserWarning: a Bradley-Terry learner is given a preference that no such model fits.
    """
    if bradley_terry:
        warn_of_cycles(labeller)
    check_data_config(config)
    check_steps(config, "bc_steps", "steps")
    sound = check_ranges(config, {**POLICY_RANGES, **ranges})
    generate = data_source(config, problem, labeller, given.get("behaviour"), given.get("data"))
    policy = given.get("policy") or policy_for(problem)

    def train(key: jax.Array) -> Result:
        of_data, of_init, of_bc, of_objective, of_steps, of_look = jax.random.split(key, 6)
        data = generate(of_data)
        cloning = imitation_loss(policy, data.segments, None, config.batch_size)
        params, bc_loss = optimise(
            of_bc,
            policy.init(of_init),
            cloning,
            config.bc_steps,
            config.points,
            config.bc_learning_rate,
        )
        loss = objective(Setting(of_objective, data, policy, params))
        params, losses = optimise(
            of_steps,
            params,
            loss,
            config.steps,
            config.points,
            config.learning_rate,
            config.warmup_steps,
        )
        table = _table(problem, policy, params)
        scores = pair_scores(data, policy.log_prob, policy.segment_log_probs, 1.0, None)
        metrics = {
            "bc_loss": bc_loss,
            "loss": losses,
            "accuracy": accuracy(scores(params, of_look)),
            **policy_returns(
                of_look, config, problem, table, lambda seen: policy.mode(params, seen)
            ),
        }
        metrics = closing_metrics(metrics, sound, data)
        return Result(params, params if table is None else table, metrics)

    return train


def _table(problem: Problem, policy: Policy, params: Any) -> jax.Array | None:
    return None if discounted_tables(problem) is None else policy.table(params)
