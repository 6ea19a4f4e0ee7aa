"""PR-LSVI against its own definition in NumPy, its bound in every run, and its claims in few."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pr_lsvi_numpy
from prefs.algorithms import pr_lsvi
from prefs.algorithms.dueling_loop import Duel
from prefs.algorithms.episodes import Trajectory
from prefs.algorithms.links import Logistic
from prefs.mdps.linear_mdp import linear_mdp, random_episodic

EPISODES, LANES = 300, 24
JUDGE = Logistic(8.0)


def _settings():
    """Eight practical lanes, fifteen of settings all over the range, and one out of range."""
    rng = np.random.default_rng(0)
    wide = {
        "eps": rng.uniform(0.01, 0.5, 15),
        "sigma_r": rng.uniform(0.02, 1, 15),
        "sigma_P": rng.uniform(0, 0.5, 15),
        "alpha_L": rng.uniform(0, 0.5, 15),
        "alpha_U": rng.uniform(0.5, 1, 15),
        "ridge": rng.uniform(0.2, 3, 15),
    }
    usual = pr_lsvi.practical(eps=0.0)
    stack = {
        name: jnp.asarray([*[getattr(usual, name)] * 8, *values, values[0]], jnp.float32)
        for name, values in wide.items()
    }
    stack["sigma_r"] = stack["sigma_r"].at[-1].set(-0.1)
    return stack


SETTINGS = _settings()
KEYS = jax.random.split(jax.random.key(7), LANES)
MDPS = jax.jit(jax.vmap(random_episodic))(KEYS)


def _train(settings, mdp, key):
    config = pr_lsvi.practical(episodes=EPISODES, **settings)
    return pr_lsvi.make_train(config, mdp, JUDGE)(key)


@pytest.fixture(scope="module")
def results():
    return jax.jit(jax.vmap(_train))(SETTINGS, MDPS, KEYS)


def test_every_run_is_within_its_bound(results):
    m = {name: np.asarray(value, float)[:-1] for name, value in results.metrics.items()}
    assert m["bound_held"].all()
    assert (m["queries"] <= m["query_bound"]).all()
    eps, sigma = (np.asarray(SETTINGS[name], float)[:-1] for name in ("eps", "sigma_r"))
    gain = np.log1p(math.pi * eps**2 / (4 * sigma**2))
    ridge, size = np.asarray(SETTINGS["ridge"], float)[:-1], 36
    most = size * np.log1p(m["queries"] * 6 / (ridge * size))
    assert (m["queries"] * gain <= m["log_det_growth"] * (1 + 1e-4) + 1e-4).all()
    assert (m["log_det_growth"] <= most * (1 + 1e-4) + 1e-4).all()
    # the bound binds: some of these runs used a good part of it, and some asked nothing or little
    used = m["queries"][8:] / np.maximum(m["query_bound"][8:], 1)
    assert (used > 0.1).any()
    np.testing.assert_allclose(m["log_det"] - size * np.log(ridge), m["log_det_growth"], atol=1e-2)


def test_alone_as_among_others(results):
    train = jax.jit(_train)
    for lane in (0, 12):
        settings, mdp = jax.tree.map(lambda x: x[lane], (SETTINGS, MDPS))  # noqa: B023
        alone = train(settings, mdp, KEYS[lane]).metrics
        for name, value in alone.items():
            np.testing.assert_allclose(
                value, results.metrics[name][lane], rtol=1e-4, atol=1e-4, err_msg=name
            )


def test_regret_never_falls_and_its_slope_does(results):
    regret = np.asarray(results.metrics["regret"])[:-1]
    steps = np.diff(regret, axis=1, prepend=0)
    assert (steps > -1e-4).all()
    usual = steps[:8]
    early, late = usual[:, :60].mean(1), usual[:, -60:].mean(1)
    gain = early - late
    assert gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(8)
    assert late.mean() < 0.75 * early.mean()


def test_a_traced_number_out_of_range_is_seen(results):
    assert np.isnan(results.metrics["regret"][-1]).all()
    assert not np.isnan(results.metrics["regret"][:-1]).any()


def test_omega_has_three_regimes():
    widths = jnp.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    got = jax.jit(pr_lsvi.transition_bonus)(0.5, widths, 2.0, 0.2, 0.6)
    # believed to 0.2; at 0.3 three quarters of 0.5 and one of 2; at 0.5 the reverse; then 2
    np.testing.assert_allclose(got, [0.5, 0.5, 0.875, 1.625, 2, 2], rtol=1e-6)
    same = jax.jit(pr_lsvi.transition_bonus)(0.5, widths, 2.0, 0.3, 0.3)
    np.testing.assert_allclose(same, [0.5, 0.5, 0.5, 2, 2, 2])
    never = jax.jit(pr_lsvi.transition_bonus)(0.5, widths, 2.0, math.inf, math.inf)
    np.testing.assert_allclose(never, 0.5)


def test_value_iteration_is_that_of_the_definition():
    """Lines 5 to 10 without noise, against regressions on the listed transitions."""
    rng = np.random.default_rng(4)
    states, actions, horizon, rank, episodes = 5, 3, 4, 3, 30
    mdp = linear_mdp(jax.random.key(1), states, actions, horizon, rank)
    seen_s = rng.integers(0, states, (episodes, 2, horizon + 1))
    seen_a = rng.integers(0, actions, (episodes, 2, horizon))
    theta = rng.normal(size=(horizon, rank)) * 0.3
    low, high, ridge, r_max = 0.15, 0.2, 0.8, 0.7
    config = pr_lsvi.practical(
        sigma_r=0.0, sigma_P=0.0, alpha_L=low, alpha_U=high, ridge=ridge, r_max=r_max
    )

    @jax.jit
    def policies(s, a, theta):
        learner = pr_lsvi._learner(config, mdp)

        def observe(state, one):
            x = jnp.zeros(horizon * rank)
            duel = Duel(Trajectory(*one), x, jnp.ones(()), jnp.asarray(False))
            return learner.observe(state, duel), None

        state = jax.lax.scan(observe, learner.initial, (s, a))[0].replace(theta=theta)
        return learner.propose(jax.random.key(0), state, jnp.ones((horizon, states), jnp.int32))

    got = policies(
        jnp.asarray(seen_s, jnp.int32),
        jnp.asarray(seen_a, jnp.int32),
        jnp.asarray(theta.reshape(-1), jnp.float32),
    )
    features = np.asarray(mdp.features, float)
    visited = features[np.arange(horizon), seen_s[..., :-1], seen_a].reshape(-1, horizon, rank)
    gram = ridge * np.eye(rank) + np.einsum("ihd,ihe->hde", visited, visited)
    reached = np.eye(states)[seen_s[..., 1:]].reshape(-1, horizon, states)
    followed = np.einsum("ihd,ihs->hds", visited, reached)
    roots = np.linalg.cholesky(np.linalg.inv(gram))
    still = np.zeros((horizon, rank))
    expected = pr_lsvi_numpy.plan(features, theta, roots, followed, still, config)
    np.testing.assert_array_equal(got[0], expected)
    inverse = np.linalg.inv(gram)
    widths = np.sqrt(np.einsum("hsad,hde,hsae->hsa", features, inverse, features))
    regimes = set(np.digitize(widths, [low, high]).ravel().tolist())
    assert regimes == {0, 1, 2}  # every regime was met
    np.testing.assert_array_equal(got[1], 1)  # the comparator is the previous policy


def test_constants_of_both_kinds():
    theory = pr_lsvi.theory(12, 3, 1500, kappa=4.0, radius=2.0)
    log = math.log(2 * 12 * 3 * 1500)
    assert theory.sigma_r == pytest.approx(math.sqrt(8) * math.sqrt(36 * log))
    assert theory.sigma_P == pytest.approx(math.sqrt(8) * 144 * (3 * log) ** 1.5)
    assert theory.alpha_L < theory.alpha_U
    assert theory.episodes == 1500 and theory.eps == pytest.approx(1500**-0.5)
    practical = pr_lsvi.practical(eps=0.3)
    assert practical.eps == 0.3 and practical.sigma_r < theory.sigma_r / 100
    greedy = pr_lsvi.greedy(practical)
    assert greedy.sigma_r == greedy.sigma_P == 0 and greedy.query == "always"
    assert greedy.alpha_L == greedy.alpha_U == math.inf
    with pytest.raises(ValueError, match="kappa must be positive"):
        pr_lsvi.theory(12, 3, 1500, kappa=0.0, radius=2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_r": -1.0}, "sigma_r must be at least 0"),
        ({"ridge": 0.0}, "ridge must be positive"),
        ({"mle_ridge": -1.0}, "mle_ridge must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    mdp = jax.tree.map(lambda x: x[0], MDPS)
    with pytest.raises(ValueError, match=message):
        pr_lsvi.make_train(pr_lsvi.practical(**settings), mdp, JUDGE)
