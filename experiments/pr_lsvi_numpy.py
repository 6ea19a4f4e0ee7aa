"""PR-LSVI in NumPy, one run after the other (Wu and Sun, 2023, algorithm 1), in float64.

The straightforward loop that `benchmark prefs` times beside `prefs.algorithms.pr_lsvi`, and the
reference of the tests. It makes the same choices as that learner and takes its random numbers from
outside, so that both can be given the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from prefs.algorithms.pr_lsvi import PRLSVIConfig
from prefs.mdps.tables import EpisodicMDP

_MAX_STEP = 0.5  # norm of a Newton step


class Luck(NamedTuple):
    """The random numbers of T episodes.

    Attributes:
        draws: [T, 2 H + 4], uniform in [0, 1): one unused here, the judge's, two trajectories'.
        noise: [T, 2, H, d], standard normal: the reward's and the transition terms'.
    """

    draws: np.ndarray
    noise: np.ndarray


class Learned(NamedTuple):
    """A run.

    Attributes:
        policies: int[T, H, S], what each episode's first trajectory followed.
        regret: [T], cumulative, of both executed policies.
        queried: bool[T].
    """

    policies: np.ndarray
    regret: np.ndarray
    queried: np.ndarray


def draw_luck(rng: np.random.Generator, episodes: int, horizon: int, size: int) -> Luck:
    """Random numbers for `episodes` episodes of `horizon` steps with `size` features a step."""
    draws = rng.random((episodes, 2 * horizon + 4))
    return Luck(draws, rng.standard_normal((episodes, 2, horizon, size)))


def plan(
    features: np.ndarray,
    theta: np.ndarray,
    roots: np.ndarray,
    followed: np.ndarray,
    noise: np.ndarray,
    config: PRLSVIConfig,
) -> np.ndarray:
    """Lines 5 to 10: the greedy policy int[H, S] of randomised, truncated value iteration.

    Args:
        features: [H, S, A, d].
        theta: [H, d], the reward's (already drawn).
        roots: [H, d, d], R with R R^T = Sigma_h^-1.
        followed: [H, d, S], sum over past steps h of phi e_s'^T.
        noise: [H, d], standard normal.
        config: `sigma_P`, `alpha_L`, `alpha_U` and `r_max` are heeded.
    """
    horizon, num_states = features.shape[:2]
    low, high = float(config.alpha_L), float(config.alpha_U)
    policy = np.zeros((horizon, num_states), int)
    value = np.zeros(num_states)
    for h in reversed(range(horizon)):
        phi, root = features[h], roots[h]
        fitted = root @ (root.T @ (followed[h] @ value))
        mean = phi @ (fitted + float(config.sigma_P) * (root @ noise[h]))
        width = np.linalg.norm(phi @ root, axis=-1)
        between = (high - width) / (high - low) if low < high < np.inf else np.zeros_like(width)
        share = np.where(width <= low, 1, np.where(width <= high, between, 0))
        most = float(config.r_max) * (horizon - 1 - h)
        q = phi @ theta[h] + share * mean + (1 - share) * most
        policy[h], value = q.argmax(1), q.max(1)
    return policy


def train(config: PRLSVIConfig, mdp: EpisodicMDP, luck: Luck, judge_scale: float) -> Learned:
    """A whole run with active queries and logistic links.

    Args:
        config: practical or other constants; `max_queries` and `budget` are not heeded.
        mdp: the problem.
        luck: of `config.episodes` episodes.
        judge_scale: of the logistic judge, who sees the true returns.
    """
    features, transition = np.asarray(mdp.features, float), np.asarray(mdp.transition, float)
    reward, initial = np.asarray(mdp.reward, float), np.asarray(mdp.initial, float)
    horizon, num_states, _, size = features.shape
    steps, dimension = np.arange(horizon), horizon * size
    starts, follows = np.cumsum(initial)[:-1], np.cumsum(transition, -1)[..., :-1]

    def best_value():
        value = np.zeros(num_states)
        for h in reversed(range(horizon)):
            value = (reward[h] + transition[h] @ value).max(1)
        return initial @ value

    def true_value(policy):
        value, every = np.zeros(num_states), np.arange(num_states)
        for h in reversed(range(horizon)):
            chosen = policy[h]
            value = reward[h, every, chosen] + transition[h, every, chosen] @ value
        return initial @ value

    def rollout(draws, policy):
        states, actions = [int(np.sum(draws[0] >= starts))], []
        for h in range(horizon):
            actions.append(policy[h, states[-1]])
            states.append(int(np.sum(draws[h + 1] >= follows[h, states[-1], actions[-1]])))
        return np.array(states), np.array(actions)

    def absorb(root, x):
        """Potter's update of R for V + x x^T."""
        y = x @ root
        s = y @ y
        return root - np.outer(root @ y, y) / (1 + s + np.sqrt(1 + s))

    root = np.eye(dimension) / np.sqrt(config.ridge)
    roots = np.stack([np.eye(size) / np.sqrt(config.ridge)] * horizon)
    followed = np.zeros((horizon, size, num_states))
    theta, previous = np.zeros(dimension), np.zeros((horizon, num_states), int)
    best, previous_value = best_value(), true_value(previous)
    asked, answers = [], []
    policies, regret, queried = [], [], []
    for episode in range(config.episodes):
        draws, noise = luck.draws[episode], luck.noise[episode]
        if episode % config.refit_every == 0 and asked:
            theta = _fit(np.array(asked), np.array(answers), theta, config)
        drawn = theta + float(config.sigma_r) * (root @ noise[0].reshape(-1))
        policy = plan(features, drawn.reshape(horizon, size), roots, followed, noise[1], config)
        value = true_value(policy)
        phis, utilities = [], []
        for number, executed in enumerate((policy, previous)):
            own = draws[2 + number * (horizon + 1) : 2 + (number + 1) * (horizon + 1)]
            states, actions = rollout(own, executed)
            phi = features[steps, states[:-1], actions]
            utilities.append(reward[steps, states[:-1], actions].sum())
            phis.append((phi, states[1:]))
        x = (phis[0][0] - phis[1][0]).reshape(-1)
        ask = 2 * float(config.sigma_r) / np.sqrt(np.pi) * np.linalg.norm(x @ root) > config.eps
        for phi, reached in phis:
            for h in range(horizon):
                roots[h] = absorb(roots[h], phi[h])
                followed[h, :, reached[h]] += phi[h]
        if ask:
            chance = expit(judge_scale * (utilities[0] - utilities[1]))
            asked.append(x)
            answers.append(1.0 if draws[1] < chance else -1.0)
            root = absorb(root, x)
        policies.append(policy)
        regret.append(2 * best - value - previous_value)
        queried.append(ask)
        previous, previous_value = policy, value
    return Learned(np.array(policies), np.cumsum(regret), np.array(queried))


def _fit(x: np.ndarray, sign: np.ndarray, theta: np.ndarray, config: PRLSVIConfig) -> np.ndarray:
    """Line 3 with a ridge, by damped Newton from the last fit, until steps are small."""
    scale, ridge = float(config.link.scale), float(config.mle_ridge)
    tolerance = np.sqrt(np.finfo(np.float32).eps)
    for _ in range(config.newton_steps):
        wrong = expit(-scale * sign * (x @ theta))
        gradient = x.T @ (scale * sign * wrong) - ridge * theta
        curvature = (x * (scale**2 * wrong * (1 - wrong))[:, None]).T @ x
        step = np.linalg.solve(curvature + ridge * np.eye(theta.size), gradient)
        step *= min(1, _MAX_STEP / max(np.linalg.norm(step), _MAX_STEP))
        if np.linalg.norm(step) <= tolerance:
            break
        theta = theta + step
    return theta
