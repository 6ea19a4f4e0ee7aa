"""The posterior over whole problems that posterior sampling draws from.

Transitions: independent Dirichlet for every step and pair, exact. Reward: linear in the features
with prior N(0, prior_scale^2 I) and the link's likelihood, by one of

- "laplace": N(mode, Lambda^-1), Lambda minus the log posterior's Hessian at the mode; the mode is
  renewed at refits, and between them every answer adds its information at the last mode;
- "polya_gamma": the exact posterior by Gibbs sampling (Polson, Scott and Windle, 2013), for the
  logistic link; the chain moves by one sweep at every refit, so refit_every = 1 gives every episode
  a draw of its own.

The paper leaves posterior sampling to an oracle; both instances are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from prefs.algorithms.comparisons import Comparisons, fold
from prefs.algorithms.dueling_loop import (
    Confidence,
    Duel,
    DuelConfig,
    DuelLearner,
    check_config,
)
from prefs.algorithms.gaussian_root import (
    GaussianRoot,
    absorb,
    from_precision,
    isotropic,
    perturbation,
    width,
)
from prefs.algorithms.links import Logistic, Number
from prefs.algorithms.polya_gamma import polya_gamma
from prefs.algorithms.preference_mle import fit_preferences
from prefs.algorithms.query_rule import disagreement
from prefs.mdps.episodic import backward_induction
from prefs.mdps.tables import EpisodicMDP

POSTERIORS = ("laplace", "polya_gamma")


class PosteriorConfig(DuelConfig):
    """Settings of the posterior on top of the loop's.

    Attributes:
      posterior: "laplace" or "polya_gamma". Static.
      prior_scale: standard deviation of each reward parameter, above 0.
      prior_count: concentration of every transition's Dirichlet prior, above 0.
    """

    posterior: str = struct.field(pytree_node=False, default="laplace")
    prior_scale: Number = 0.3
    prior_count: Number = 1.0


class ModelPosterior(struct.PyTreeNode):
    """What is known of the problem; D = H d.

    Attributes:
      counts: [H, S, A, S], transitions seen.
      mode: [D], of the reward.
      reward: Lambda.
      sample: [D], where the Gibbs chain is; the mode for Laplace.
      least: [], the least information that any answer has ever added to Lambda.
    """

    counts: jax.Array
    mode: jax.Array
    reward: GaussianRoot
    sample: jax.Array
    least: jax.Array


Plan = Callable[[jax.Array], jax.Array]
"""key -> optimal policy int32[H, S] of a problem drawn from the posterior."""


def posterior_learner(
    config: PosteriorConfig,
    mdp: EpisodicMDP,
    pair: Callable[[jax.Array, Plan, jax.Array], jax.Array],
) -> DuelLearner:
    """A learner that knows the posterior, and executes what `pair` makes of draws from it.

    The query statistic is Laplace's closed form for both posteriors.

    Args:
      config: see there.
      mdp: only shapes and features are read.
      pair: (key, plan, previous first policy) -> both policies, int32[2, H, S].

    Raises:
      ValueError: a setting out of range, or "polya_gamma" with another link than the logistic.
    """
    sound = check_config(config, positive=("prior_scale", "prior_count"))
    if config.posterior not in POSTERIORS:
        raise ValueError(
            f"posterior must be one of {', '.join(POSTERIORS)}, got {config.posterior!r}."
        )
    gibbs = config.posterior == "polya_gamma"
    if gibbs and not isinstance(config.link, Logistic):
        raise ValueError(
            f"posterior 'polya_gamma' needs a Logistic link, got {type(config.link).__name__}."
        )
    features, dtype = mdp.features, mdp.features.dtype
    horizon, num_states, num_actions, size = features.shape
    dimension = horizon * size
    prior_precision = 1 / jnp.square(jnp.asarray(config.prior_scale, dtype))

    initial = ModelPosterior(
        counts=jnp.zeros((horizon, num_states, num_actions, num_states), dtype),
        mode=jnp.zeros(dimension, dtype),
        reward=isotropic(dimension, prior_precision, dtype),
        sample=jnp.zeros(dimension, dtype),
        least=jnp.asarray(jnp.inf, dtype),
    )

    def refit(key, state, comparisons):
        fit = fit_preferences(
            comparisons, config.link, prior_precision, state.mode, config.newton_steps
        )
        sample = fit.theta
        if gibbs:
            sample = gibbs_sweep(key, comparisons, config.link.scale, prior_precision, state.sample)
        return state.replace(
            mode=fit.theta,
            reward=from_precision(fit.precision),
            sample=sample,
            least=jnp.minimum(state.least, fit.least),
        )

    def propose(key, state, previous):
        def plan(key):
            to_transition, to_reward = jax.random.split(key)
            transition = jax.random.dirichlet(to_transition, state.counts + config.prior_count)
            theta = state.sample
            if not gibbs:
                noise = jax.random.normal(to_reward, (dimension,), dtype)
                theta = theta + perturbation(state.reward, noise)
            reward = jnp.einsum("hsad,hd->hsa", features, theta.reshape(horizon, size))
            drawn = mdp.replace(transition=transition, reward=reward)
            return backward_induction(drawn)[2]

        return pair(key, plan, previous)

    def expected(state, x):
        return disagreement(1.0, width(state.reward, x))

    def observe(state, duel: Duel):
        states, actions = duel.trajectories
        steps = jnp.arange(horizon)
        counts = state.counts.at[steps, states[:, :-1], actions, states[:, 1:]].add(1)
        weight = config.link.information(duel.sign * (duel.x @ state.mode))
        return state.replace(
            counts=counts,
            reward=absorb(state.reward, duel.x, jnp.where(duel.queried, weight, 0)),
            least=jnp.minimum(state.least, jnp.where(duel.queried, weight, jnp.inf)),
        )

    def confidence(state):
        # Lambda is at least I / s^2 + w sum x x^T with w the least weight ever used, so the rule is
        # that of V = I / (w s^2) + sum x x^T and sigma = 1 / sqrt(w), or asks less often
        return Confidence(
            1 / jnp.sqrt(state.least),
            prior_precision / state.least,
            state.reward.log_det,
            state.reward.log_det - initial.reward.log_det,
        )

    return DuelLearner(initial, refit, propose, expected, observe, confidence, sound)


def gibbs_sweep(
    key: jax.Array,
    comparisons: Comparisons,
    scale: Number,
    prior_precision: Number,
    theta: jax.Array,
) -> jax.Array:
    """One step of the chain whose law is the logistic reward posterior.

    omega_i ~ PG(1, scale <x_i, theta>), then theta ~ N(m, L^-1) with L = prior_precision I +
    scale^2 sum omega_i x_i x_i^T and L m = scale sum sign_i x_i / 2.

    Args:
      key: one per sweep.
      comparisons: of features [D].
      scale: [], of the logistic link.
      prior_precision: [], above 0.
      theta: [D], where the chain is.

    Returns:
      [D], where it goes.
    """
    to_latent, to_theta = jax.random.split(key)

    def add(carry, index, x, sign, valid):
        linear, precision = carry
        omega = polya_gamma(jax.random.fold_in(to_latent, index), scale * (x @ theta))
        weight = jnp.where(valid, jnp.square(scale) * omega, 0)
        pull = jnp.where(valid, scale * sign / 2, 0)
        return linear + pull @ x, precision + (x * weight[:, None]).T @ x

    none = (jnp.zeros_like(theta), prior_precision * jnp.eye(theta.shape[0], dtype=theta.dtype))
    linear, precision = fold(comparisons, none, add)
    gaussian = from_precision(precision)
    noise = jax.random.normal(to_theta, theta.shape, theta.dtype)
    # m + R z = R (R^T linear + z)
    return perturbation(gaussian, linear @ gaussian.root + noise)
