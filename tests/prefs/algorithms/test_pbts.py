"""Posterior sampling: what it knows, what it asks, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.algorithms import dueling_posterior_sampling, pbts
from prefs.algorithms.links import Logistic, Probit
from prefs.mdps.linear_mdp import random_episodic

LANES, EPISODES = 12, 200
JUDGE = Logistic(8.0)
KEYS = jax.random.split(jax.random.key(11), LANES)
MDPS = jax.jit(jax.vmap(random_episodic))(KEYS)


def _run(module, config, eps):
    def train(eps, mdp, key):
        return module.make_train(config.replace(eps=eps), mdp, JUDGE)(key)

    return jax.jit(jax.vmap(train))(jnp.asarray(eps, jnp.float32), MDPS, KEYS)


def _learns(result):
    steps = np.diff(np.asarray(result.metrics["regret"], float), axis=1, prepend=0.0)
    assert (steps > -1e-4).all()
    gain = steps[:, :40].mean(1) - steps[:, -40:].mean(1)
    assert gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(LANES)


@pytest.mark.parametrize(("posterior", "refit_every"), [("laplace", 10), ("polya_gamma", 1)])
def test_pbts(posterior, refit_every):
    config = pbts.PbTSConfig(posterior=posterior, refit_every=refit_every, episodes=EPISODES)
    eps = np.repeat([0.0, 0.1, 0.3, 2.0], 3)
    result = _run(pbts, config, eps)
    _learns(result)
    m = {name: np.asarray(value) for name, value in result.metrics.items()}
    assert m["bound_held"].all() and np.isfinite(m["query_bound"][eps > 0]).all()
    by_eps = m["queries"].reshape(4, 3).sum(1)
    assert (np.diff(by_eps) < 0).all() and by_eps[0] > 2 * by_eps[2] and by_eps[3] == 0
    # both trajectories of every episode were counted, one transition a step
    np.testing.assert_array_equal(result.params.counts.sum((2, 3, 4)), 2 * EPISODES)
    assert not result.params.counts[MDPS.transition == 0].any()
    # nothing asked: the prior of the reward stands
    root = result.params.reward.root[-1]
    np.testing.assert_allclose(root @ root.T, 0.3**2 * np.eye(36), atol=1e-6)
    np.testing.assert_allclose(m["log_det_growth"][-1], 0, atol=1e-3)
    if posterior == "laplace":
        np.testing.assert_array_equal(result.params.sample, result.params.mode)
    else:
        assert np.abs(result.params.sample - result.params.mode).max() > 1e-3


def test_dueling_posterior_sampling_always_asks_and_learns():
    config = dueling_posterior_sampling.DPSConfig(episodes=EPISODES)
    result = _run(dueling_posterior_sampling, config, np.full(LANES, 5.0))
    _learns(result)
    assert (result.metrics["queries"] > EPISODES // 2).all()  # all that differ, whatever eps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"posterior": "exact"}, "posterior must be one of laplace, polya_gamma"),
        ({"posterior": "polya_gamma", "link": Probit()}, "needs a Logistic link, got Probit"),
        ({"prior_scale": 0.0}, "prior_scale must be positive"),
        ({"prior_count": -1.0}, "prior_count must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    mdp = jax.tree.map(lambda x: x[0], MDPS)
    with pytest.raises(ValueError, match=message):
        pbts.make_train(pbts.PbTSConfig(**settings), mdp, JUDGE)
