"""The loop alone, with learners that learn nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs import feedback, mdps
from prefs.algorithms import dueling_posterior_sampling, pbts, pr_lsvi
from prefs.algorithms.dueling_loop import (
    Confidence,
    DuelConfig,
    DuelLearner,
    check_config,
    make_train,
)
from prefs.algorithms.episodes import largest_difference
from prefs.algorithms.links import Logistic
from prefs.mdps.episodic import backward_induction, episodic_value
from prefs.mdps.linear_mdp import linear_mdp, random_episodic

MDP = jax.jit(random_episodic)(jax.random.key(3))
EPISODES, RUNS = 60, 40
SCALE = 8.0


def _fixed(policies, expected=0.0):
    """Executes the same two policies for ever and sums how answers miss their expectation."""

    def observe(state, duel):
        gap = jnp.sum(duel.x * MDP.reward.reshape(-1))
        return state + duel.sign - (2 * jax.nn.sigmoid(SCALE * gap) - 1)

    one = jnp.ones(())
    return DuelLearner(
        initial=jnp.zeros(()),
        refit=lambda key, state, comparisons: state,
        propose=lambda key, state, previous: policies,
        expected=lambda state, x: expected * jnp.sum(jnp.abs(x)),
        observe=observe,
        confidence=lambda state: Confidence(one, one, one, one),
        sound=jnp.asarray(True),
    )


@functools.cache
def _compiled(**settings):
    config = DuelConfig(episodes=EPISODES, refit_every=20, **settings)

    @jax.jit
    def runs(keys, policies):
        train = make_train(config, MDP, Logistic(SCALE), _fixed(policies, 1.0))
        return jax.vmap(train)(keys)

    return runs


def _run(policies, **settings):
    return _compiled(**settings)(jax.random.split(jax.random.key(0), RUNS), policies)


BEST = backward_induction(MDP)[2]
WORST = backward_induction(MDP.replace(reward=-MDP.reward))[2]


def test_optimal_policies_have_no_regret_and_others_theirs():
    gap = episodic_value(MDP, BEST) - episodic_value(MDP, WORST)
    assert gap > 0.05
    same = _run(jnp.stack([BEST, BEST]), query="always")
    np.testing.assert_allclose(same.metrics["regret"], 0, atol=1e-5)
    np.testing.assert_array_equal(same.policy[0], BEST)
    result = _run(jnp.stack([BEST, WORST]), query="always")
    expected = np.tile(gap * np.arange(1, EPISODES + 1), (RUNS, 1))
    np.testing.assert_allclose(result.metrics["regret"], expected, rtol=1e-4)
    # answers come with the judge's probability: 2400 of standard deviation at most 1
    assert abs(np.sum(result.params)) < 4 * np.sqrt(EPISODES * RUNS)
    # one-hot features: asked where the trajectories differ, so never more than T
    queried = np.asarray(result.metrics["queried"])
    np.testing.assert_array_equal(queried.sum(1), result.metrics["queries"])
    assert np.isinf(result.metrics["query_bound"]).all() and result.metrics["bound_held"].all()


def test_random_queries_spend_exactly_their_budget_anywhere():
    result = _run(jnp.stack([BEST, WORST]), query="random", budget=12)
    queried = np.asarray(result.metrics["queried"])
    np.testing.assert_array_equal(queried.sum(1), 12)
    # every episode alike: each count is binomial (40 runs, 1 in 5), 60 of them
    assert np.abs(queried.sum(0) - RUNS * 0.2).max() < 4.5 * np.sqrt(RUNS * 0.2 * 0.8)
    halves = queried[:, :30].sum() / queried.sum()
    assert abs(halves - 0.5) < 4 * 0.5 / np.sqrt(queried.sum())


def _learned(problem, labeller, **settings):
    config = pr_lsvi.practical(episodes=40, eps=0.05, **settings)
    train = pr_lsvi.make_train(config, problem, labeller)
    return jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(5), 3))


def test_a_labeller_of_segments_judges_like_the_link_that_it_follows():
    by_link = _learned(MDP, Logistic(SCALE))
    teacher = feedback.teacher(feedback.partial_return(), rationality=SCALE)
    by_teacher = _learned(mdps.episodic_problem(MDP), teacher)
    jax.tree.map(np.testing.assert_array_equal, by_link.metrics, by_teacher.metrics)
    backwards = feedback.teacher(feedback.partial_return(), rationality=SCALE, mistake=1.0)
    turned = _learned(MDP, backwards).metrics
    assert np.mean(turned["regret"][:, -1]) > np.mean(by_link.metrics["regret"][:, -1])
    assert (by_link.metrics["queries"] > 0).all()


def test_what_a_labeller_skips_was_not_asked():
    silent = feedback.teacher(feedback.partial_return(), skip=1e9)
    assert (_learned(MDP, silent).metrics["queries"] == 0).all()


def test_a_cyclic_preference_is_warned_of():
    table = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    config = pr_lsvi.practical(episodes=40)
    with pytest.warns(UserWarning, match="no Bradley-Terry model fits") as caught:
        pr_lsvi.make_train(config, MDP, feedback.preference_matrix(table))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("module", [pr_lsvi, pbts, dueling_posterior_sampling])
def test_problems_without_finite_horizon_are_refused(module):
    grid = mdps.fixed_grid()
    config = {
        pr_lsvi: pr_lsvi.practical(),
        pbts: pbts.PbTSConfig(),
        dueling_posterior_sampling: dueling_posterior_sampling.DPSConfig(),
    }[module]
    for problem in (grid, mdps.tabular_problem(grid)):
        with pytest.raises(ValueError, match="finite-horizon problem .* got TabularMDP"):
            module.make_train(config, problem, Logistic(SCALE))


def test_a_full_buffer_ends_the_questions():
    result = _run(jnp.stack([BEST, WORST]), query="active", eps=0.0, max_queries=7)
    np.testing.assert_array_equal(result.metrics["queries"], 7)
    assert result.metrics["exhausted"].all()
    # asking stopped in the midst of a block of 20 episodes
    assert (np.asarray(result.metrics["queried"])[:, 20:].sum(1) == 0).any()


def test_largest_difference_is_the_largest():
    assert largest_difference(MDP.features) == pytest.approx(6)
    features = np.asarray(
        jax.jit(linear_mdp, static_argnums=(1, 2, 3, 4))(jax.random.key(0), 5, 3, 2, 4).features,
        float,
    )
    flat = features.reshape(2, -1, 4)
    squares = ((flat[:, :, None] - flat[:, None]) ** 2).sum(-1)
    expected = squares.max((1, 2)).sum()
    got = largest_difference(jnp.asarray(features, jnp.float32))
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"episodes": 25, "refit_every": 10}, "multiple of refit_every = 10"),
        ({"max_queries": 0}, "max_queries must be at least 1"),
        ({"query": "sometimes"}, "query must be one of active, always, random"),
        ({"eps": -0.1}, "eps must be at least 0, got -0.1"),
        ({"eps": float("nan")}, "eps must be at least 0, got nan"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_config(DuelConfig(**settings))
