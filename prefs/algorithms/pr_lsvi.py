"""PR-LSVI: preference-based, randomised least-squares value iteration for linear MDPs.

Wu and Sun, Making RL with Preference-based Feedback Efficient via Randomization (2023), algorithm
1. The paper has no experiments and no code, so this is its reference here; what is ours: both
trajectories of an episode enter the transition regressions, the ridge in place of the ball in the
maximum likelihood step, the closed form of the query rule, r_max in place of 1 in the truncation,
and the practical constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.dueling_loop import (
    Confidence,
    Duel,
    DuelConfig,
    DuelLearner,
    check_config,
)
from prefs.algorithms.dueling_loop import make_train as make_duels
from prefs.algorithms.episodes import along, episodic_tables
from prefs.algorithms.gaussian_root import GaussianRoot, absorb, isotropic, perturbation, width
from prefs.algorithms.links import Judge, Number
from prefs.algorithms.preference_mle import fit_preferences
from prefs.algorithms.query_rule import disagreement
from prefs.algorithms.result import Result
from prefs.mdps.environment import Problem
from prefs.mdps.tables import EpisodicMDP


class PRLSVIConfig(DuelConfig):
    """Settings of PR-LSVI on top of the loop's; the defaults are the practical ones.

    Attributes:
      sigma_r: scale of the reward's perturbation, at least 0.
      sigma_P: scale of the transition term's perturbation, at least 0.
      alpha_L, alpha_U: widths ||phi||_{Sigma^-1} up to which the transition term is believed, and
        beyond which it is replaced by the most that can follow; 0 <= alpha_L <= alpha_U.
      ridge: lambda of V and Sigma, above 0.
      mle_ridge: of the maximum likelihood step, above 0.
      r_max: most reward of one step, at least 0; 1 is the paper's.
    """

    sigma_r: Number = 0.1
    sigma_P: Number = 0.05
    alpha_L: Number = 0.2
    alpha_U: Number = 0.6
    ridge: Number = 1.0
    mle_ridge: Number = 1.0
    r_max: Number = 1.0


class PRLSVIState(struct.PyTreeNode):
    """What PR-LSVI knows; D = H d.

    Attributes:
      theta: [D], the reward's estimate.
      reward: V, over D.
      transition: Sigma_h, a stack of H over d.
      followed: [H, d, S], sum of phi e_s'^T over all steps h to a state s'.
    """

    theta: jax.Array
    reward: GaussianRoot
    transition: GaussianRoot
    followed: jax.Array


def practical(**settings) -> PRLSVIConfig:
    """Constants that learn toy problems within a thousand episodes; ours, without guarantee.

    They suit episodes whose return is in [0, 1]. Then r_max = 1 / H would be true too, but a
    ceiling that high explores more and regrets less.

    Args:
      settings: fields of `PRLSVIConfig`, which take precedence.
    """
    return PRLSVIConfig(**settings)


def theory(
    dimension: int, horizon: int, episodes: int, kappa: float, radius: float, **settings
) -> PRLSVIConfig:
    """Constants at the scale of the analysis, with sqrt(T) regret: eps = T^(-1/2).

    Orders only: every absolute constant is 1 and every polylogarithm a power of
    L = log(2 d H T). The reward's draws cover the maximum likelihood's error, of order
    gamma sqrt(d H L) with gamma = sqrt(kappa + B^2); the transition's that of regressing values of
    size gamma d H L; alpha_U is where a draw moves the transition term by 1. Such draws never stop
    exploring on toy problems: use `practical` there.

    Args:
      dimension: d, of a step's features, ||phi|| <= 1.
      horizon: H.
      episodes: T.
      kappa: 1 / kappa is the least slope of the link on the range of return differences.
      radius: B, most norm of the reward's parameter.
      settings: fields of `PRLSVIConfig`, which take precedence.

    Raises:
      ValueError: a size below 1, or a kappa or radius that is not positive.
    """
    for name, size in (("dimension", dimension), ("horizon", horizon), ("episodes", episodes)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    for name, number in (("kappa", kappa), ("radius", radius)):
        if not number > 0:
            raise ValueError(f"{name} must be positive, got {number}.")
    log = math.log(2 * dimension * horizon * episodes)
    gamma = math.sqrt(kappa + radius**2)
    sigma_transition = gamma * dimension**2 * (horizon * log) ** 1.5
    alpha = 1 / (sigma_transition * math.sqrt(dimension * log))
    scale = {
        "episodes": episodes,
        "eps": episodes**-0.5,
        "sigma_r": gamma * math.sqrt(dimension * horizon * log),
        "sigma_P": sigma_transition,
        "alpha_L": alpha / 2,
        "alpha_U": alpha,
    }
    return PRLSVIConfig(**{**scale, **settings})


def greedy(config: PRLSVIConfig) -> PRLSVIConfig:
    """The same learner without randomisation and optimism, asking about all that differ."""
    return config.replace(
        sigma_r=0.0, sigma_P=0.0, alpha_L=math.inf, alpha_U=math.inf, query="always"
    )


def transition_bonus(
    mean: jax.Array, width: jax.Array, ceiling: Number, low: Number, high: Number
) -> jax.Array:
    """The truncated transition term omega (Zanette et al., 2020; Wu and Sun, 2023, line 9).

    Args:
      mean: [...], <phi, theta_P>, believed where width <= low.
      width: [...], ||phi||_{Sigma^-1}; between low and high the term goes over linearly to
      ceiling: [...], the most that can follow.
      low, high: [], low <= high.
    """
    span = jnp.where(high > low, jnp.asarray(high) - low, 1)
    share = jnp.where(width <= low, 1, jnp.where(width <= high, (high - width) / span, 0))
    return share * mean + (1 - share) * ceiling


def make_train(
    config: PRLSVIConfig, problem: Problem | EpisodicMDP, labeller: Judge
) -> Callable[[jax.Array], Result]:
    """PR-LSVI on a problem: train(key) -> Result, see `dueling_loop.make_train`.

    `params` is the final `PRLSVIState`.

    Raises:
      ValueError: a problem without finite-horizon tables, or a setting out of range. Traced, it
        makes the regret NaN.
    """
    mdp = episodic_tables(problem)
    return make_duels(config, mdp, labeller, _learner(config, mdp))


def _learner(config: PRLSVIConfig, mdp: EpisodicMDP) -> DuelLearner:
    features, dtype = mdp.features, mdp.features.dtype
    horizon, _, _, size = features.shape
    dimension = horizon * size
    sound = check_config(
        config,
        at_least_zero=("sigma_r", "sigma_P", "alpha_L", "alpha_U", "r_max"),
        positive=("ridge", "mle_ridge"),
    )
    initial = PRLSVIState(
        theta=jnp.zeros(dimension, dtype),
        reward=isotropic(dimension, config.ridge, dtype),
        transition=jax.vmap(lambda _: isotropic(size, config.ridge, dtype))(jnp.arange(horizon)),
        followed=jnp.zeros((horizon, size, mdp.num_states), dtype),
    )

    def refit(key, state, comparisons):
        del key
        fit = fit_preferences(
            comparisons, config.link, config.mle_ridge, state.theta, config.newton_steps
        )
        return state.replace(theta=fit.theta)

    def propose(key, state, previous):
        to_reward, to_transition = jax.random.normal(key, (2, horizon, size), dtype)
        draw = state.theta + config.sigma_r * perturbation(state.reward, to_reward.reshape(-1))
        reward = jnp.einsum("hsad,hd->hsa", features, draw.reshape(horizon, size))
        noise = config.sigma_P * jax.vmap(perturbation)(state.transition, to_transition)
        widths = jax.vmap(width)(state.transition, features)
        ceiling = config.r_max * jnp.arange(horizon - 1, -1, -1, dtype=dtype)

        def back(v, step):
            phi, reward, followed, root, noise, widths, ceiling = step
            theta = root @ ((followed @ v) @ root)  # Sigma^-1 sum_i phi_i v(s_i')
            term = transition_bonus(
                phi @ (theta + noise), widths, ceiling, config.alpha_L, config.alpha_U
            )
            q = reward + term
            return jnp.max(q, -1), jnp.argmax(q, -1).astype(jnp.int32)

        tables = (features, reward, state.followed, state.transition.root, noise, widths, ceiling)
        end = jnp.zeros(mdp.num_states, dtype)
        _, policy = jax.lax.scan(back, end, tables, reverse=True)
        return jnp.stack([policy, previous])

    def expected(state, x):
        return disagreement(config.sigma_r, width(state.reward, x))

    def observe(state, duel: Duel):
        phi = jax.vmap(along, (None, 0))(features, duel.trajectories)
        reached = duel.trajectories.states[:, 1:, None] == jnp.arange(mdp.num_states)
        followed = state.followed + jnp.einsum("ihd,ihs->hds", phi, reached.astype(dtype))
        transition = jax.vmap(absorb)(state.transition, phi[0])
        transition = jax.vmap(absorb)(transition, phi[1])
        reward = absorb(state.reward, duel.x, duel.queried.astype(dtype))
        return state.replace(reward=reward, transition=transition, followed=followed)

    def confidence(state):
        return Confidence(
            jnp.asarray(config.sigma_r),
            jnp.asarray(config.ridge),
            state.reward.log_det,
            state.reward.log_det - initial.reward.log_det,
        )

    return DuelLearner(initial, refit, propose, expected, observe, confidence, sound)
