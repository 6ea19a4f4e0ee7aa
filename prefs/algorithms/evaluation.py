"""What a learned policy is worth: exactly in discounted tables, else by rollouts."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prefs.algorithms.offline_data import DataConfig, discounted_tables
from prefs.feedback.segments import PreferenceData, rollout_segments
from prefs.mdps.environment import Problem
from prefs.mdps.solvers import hard_optimal, value
from prefs.mdps.tables import TabularMDP


def table_returns(mdp: TabularMDP, policy: jax.Array) -> dict[str, jax.Array]:
    """Exact returns of a policy [S, A] on the scale 0 = uniform policy, 1 = optimal policy.

    `return` [] is that of the policy itself, `greedy_return` [] that of its likeliest actions (of
    equal ones the lowest). Where the uniform policy is optimal both are 1.
    """
    greedy = jax.nn.one_hot(jnp.argmax(policy, -1), policy.shape[-1], dtype=policy.dtype)
    uniform = jnp.full_like(policy, 1 / policy.shape[-1])
    base, *values = jax.vmap(value, (None, 0))(mdp, jnp.stack([uniform, policy, greedy]))
    gap = mdp.initial @ hard_optimal(mdp).v - base
    flat = gap <= 16 * jnp.finfo(gap.dtype).eps * jnp.abs(base)
    shares = [jnp.where(flat, 1.0, (v - base) / jnp.where(flat, 1.0, gap)) for v in values]
    return {"return": shares[0], "greedy_return": shares[1]}


def closing_metrics(
    metrics: dict[str, jax.Array], sound: jax.Array | bool, data: PreferenceData
) -> dict[str, jax.Array]:
    """The metrics of a run, NaN where its settings are not sound, and `pairs` [] that counted."""
    told = {name: jnp.where(sound, value, jnp.nan) for name, value in metrics.items()}
    return {**told, "pairs": jnp.sum(data.pairs.mask, dtype=jnp.int32)}


def policy_returns(
    key: jax.Array,
    config: DataConfig,
    problem: Problem,
    table: jax.Array | None,
    act: Callable[[jax.Array], jax.Array],
) -> dict[str, jax.Array]:
    """Returns of a learned policy as metrics.

    Args:
      key: of the rollouts.
      config: how many and how long.
      problem: with its true rewards.
      table: probabilities [S, A], for a problem with discounted tables: see `table_returns`.
      act: observation -> likeliest action, for others: `episode_return` [] is the mean undiscounted
        reward of an episode, cut off after `evaluation_steps`.
    """
    mdp = discounted_tables(problem)
    if mdp is not None and table is not None:
        return table_returns(mdp, table)
    episodes = rollout_segments(
        key,
        problem,
        lambda _, observation: act(observation),
        config.evaluation_episodes,
        config.evaluation_steps,
    )
    total = jnp.sum(jnp.where(episodes.mask, episodes.rewards, 0.0))
    return {"episode_return": total / config.evaluation_episodes}
