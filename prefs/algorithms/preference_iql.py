"""Preference IQL: a reward from preferences, then implicit Q-learning on the same segments.

Kostrikov, Nair and Levine, Offline reinforcement learning with implicit Q-learning (2021), with a
learned reward (Hejna et al., 2023, P-IQL): V is an expectile of Q over the data's actions, Q
regresses on r + discount V(s'), and the policy is cloned with weights exp(advantage / beta). Ours:
all three are updated at once, and learned rewards are divided by
their standard deviation over the data's steps, as their scale is that of the answers' noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.evaluation import closing_metrics, policy_returns
from prefs.algorithms.links import Number
from prefs.algorithms.offline_data import (
    check_data_config,
    check_steps,
    data_source,
    discounted_tables,
    warn_of_cycles,
)
from prefs.algorithms.offline_learner import Given
from prefs.algorithms.optimisation import optimise
from prefs.algorithms.pair_scores import drawer
from prefs.algorithms.policies import Policy, policy_for
from prefs.algorithms.result import Result
from prefs.algorithms.reward_model import REWARD_RANGES, RewardConfig, fit_reward
from prefs.algorithms.settings import (
    INSIDE_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_SHARE,
    SHARE,
    check_ranges,
)
from prefs.algorithms.step_functions import StepFunction, of_observations, of_pairs
from prefs.feedback.labellers import Labeller
from prefs.feedback.segments import Segments, take
from prefs.mdps.environment import Problem


class PIQLConfig(RewardConfig):
    """Settings of preference IQL on top of the reward model's.

    Attributes:
      steps: updates after the reward's. Static.
      learning_rate: of Adam, at least 0.
      expectile: tau in (0, 1) of V; towards 1 it nears the best of the data's actions.
      beta: of the weights exp(advantage / beta), positive.
      clip: largest weight, positive.
      polyak: share in (0, 1] by which the target of Q follows Q in an update.
      discount: in [0, 1].
    """

    steps: int = struct.field(pytree_node=False, default=1500)
    learning_rate: Number = 0.05
    expectile: Number = 0.7
    beta: Number = 1 / 3
    clip: Number = 100.0
    polyak: Number = 0.05
    discount: Number = 0.95


class IQLParams(NamedTuple):
    """Parameters of the policy, of Q and its slowly following target, and of V."""

    policy: Any
    q: Any
    target: Any
    v: Any


def expectile_loss(error: jax.Array, expectile: Number) -> jax.Array:
    """|tau - 1(error < 0)| error^2, [...]; its minimiser in location is the tau-expectile."""
    return jnp.abs(expectile - (error < 0)) * jnp.square(error)


def make_train(
    config: PIQLConfig, problem: Problem, labeller: Labeller | None, **given: Unpack[Given]
) -> Callable[[jax.Array], Result]:
    """Preference IQL as one pure function of a key; jit and vmap it.

    Returns:
      train(key) -> Result with the policy's parameters as `params`, as `policy` its probabilities
      [S, A] on discounted tables (else the parameters), and metrics reward_loss, loss [points] (of
      the policy, V and Q summed), accuracy [] of the reward, and the returns of `evaluation`; all
      NaN where a traced setting is out of range; and pairs [].

    Raises:
      ValueError: a setting out of range, or see `data_source`.

    Warns:
      UserWarning: no Bradley-Terry model fits the labeller's preference.
    """
    warn_of_cycles(labeller, depth=1)
    check_data_config(config)
    check_steps(config, "reward_steps", "steps")
    sound = check_ranges(
        config,
        {
            **REWARD_RANGES,
            "learning_rate": NOT_NEGATIVE,
            "expectile": INSIDE_SHARE,
            "beta": POSITIVE,
            "clip": POSITIVE,
            "polyak": POSITIVE_SHARE,
            "discount": SHARE,
        },
    )
    generate = data_source(config, problem, labeller, given.get("behaviour"), given.get("data"))
    policy = given.get("policy") or policy_for(problem)
    q, v = of_pairs(problem), of_observations(problem)

    def train(key: jax.Array) -> Result:
        of_data, of_reward, of_policy, of_q, of_v, of_steps, of_look = jax.random.split(key, 7)
        data = generate(of_data)
        fit = fit_reward(of_reward, config, data, q)
        segments = data.segments
        rewards = q(fit.params, segments.observations, segments.actions)
        rewards = rewards / jnp.maximum(jnp.std(rewards, where=segments.mask), 1e-6)
        first_q = q.init(of_q)
        start = IQLParams(policy.init(of_policy), first_q, first_q, v.init(of_v))

        def follow(params: IQLParams) -> IQLParams:
            return params._replace(
                target=jax.tree.map(
                    lambda old, new: old + config.polyak * (new - old), params.target, params.q
                )
            )

        params, losses = optimise(
            of_steps,
            start,
            iql_loss(config, segments.replace(rewards=rewards), policy, q, v),
            config.steps,
            config.points,
            config.learning_rate,
            after=follow,
        )
        has_table = discounted_tables(problem) is not None
        table = policy.table(params.policy) if has_table else None
        metrics = {
            **fit.metrics,
            "loss": losses,
            **policy_returns(
                of_look, config, problem, table, lambda seen: policy.mode(params.policy, seen)
            ),
        }
        metrics = closing_metrics(metrics, sound, data)
        return Result(params.policy, params.policy if table is None else table, metrics)

    return train


def iql_loss(
    config: PIQLConfig, segments: Segments, policy: Policy, q: StepFunction, v: StepFunction
) -> Callable[[IQLParams, jax.Array], jax.Array]:
    """The sum of the losses of V, Q and the policy over the steps of segments with learned rewards.

    Of `IQLParams` and a key that draws 2 batch_size segments, if there is a batch size.
    """
    number = None if config.batch_size is None else 2 * config.batch_size
    drawn = drawer(jnp.ones(segments.mask.shape[0]), number or 1)
    stop = jax.lax.stop_gradient

    def loss(params: IQLParams, key: jax.Array) -> jax.Array:
        some = segments if number is None else take(segments, drawn(key))
        here = some.observations, some.actions
        value, after = v(params.v, some.observations), v(params.v, some.next_observations)
        believed = stop(q(params.target, *here))
        advantage = stop(believed - value)
        weight = jnp.minimum(jnp.exp(advantage / config.beta), config.clip)
        steps = (
            expectile_loss(believed - value, config.expectile)
            + jnp.square(some.rewards + config.discount * stop(after) - q(params.q, *here))
            - weight * policy.log_prob(params.policy, *here)
        )
        return jnp.sum(jnp.where(some.mask, steps, 0)) / jnp.maximum(jnp.sum(some.mask), 1)

    return loss
