"""The offline learners whole: claims with wide margins, equalities between them, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.algorithms import (
    GaussianMLP,
    bc,
    cpl,
    cpl_bc,
    cpl_kl,
    cpl_rank,
    percent_bc,
    preference_iql,
    reward_planning,
    reward_soft_policy,
    sft,
)
from prefs.algorithms.planning import estimated_transition
from prefs.feedback import (
    TEACHERS,
    PreferenceData,
    partial_return,
    preference_matrix,
    regret,
    sample_segments,
    soft_labels,
    sparse_pairs,
    take,
    teacher,
)
from prefs.mdps import (
    evaluate,
    fixed_grid,
    grid_world,
    hard_optimal,
    point_maze,
    soft_optimal,
    tabular_problem,
)

SEEDS = 8
SHORT = {"num_segments": 40, "segment_length": 4, "bc_steps": 10, "steps": 20, "points": 2}
EVERY = {
    "bc": (bc, bc.BCConfig()),
    "sft": (sft, sft.SFTConfig()),
    "percent_bc": (percent_bc, percent_bc.PercentBCConfig()),
    "cpl": (cpl, cpl.CPLConfig()),
    "cpl_bc": (cpl_bc, cpl_bc.CPLBCConfig()),
    "cpl_kl": (cpl_kl, cpl_kl.CPLKLConfig()),
    "cpl_rank": (cpl_rank, cpl_rank.CPLRankConfig()),
    "preference_iql": (preference_iql, preference_iql.PIQLConfig()),
}


def _grid(key):
    """A grid and who judges it: the exact argmax of the discounted regret."""
    mdp = grid_world(key)
    judge = TEACHERS["oracle"](regret(soft_optimal(mdp, 0.1).advantage, 0.95))
    return mdp, judge


@pytest.fixture(scope="module")
def outcomes():
    """Metrics [SEEDS] by learner, each on 500 pairs of 8-step segments of its 7 x 7 grid."""

    def run(key):
        of_grid, of_data, of_run = jax.random.split(key, 3)
        mdp, judge = _grid(of_grid)
        behaviour = (soft_optimal(mdp, 0.1).policy + 1 / 4) / 2
        segments = sample_segments(of_data, mdp, behaviour, 1000, 8)
        data = PreferenceData(segments, soft_labels(judge, segments, sparse_pairs(1000)))
        return {
            name: module.make_train(config, tabular_problem(mdp), judge, data=data)(of_run).metrics
            for name, (module, config) in EVERY.items()
        }

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(11), SEEDS))


def test_cpl_beats_cloning_of_winners_beats_cloning(outcomes):
    cloned, winners = outcomes["bc"]["return"], outcomes["sft"]["return"]
    greedy = outcomes["cpl"]["greedy_return"]
    for better, worse in ((greedy, winners), (winners, cloned)):
        gain = np.asarray(better - worse)
        assert gain.mean() > 5 * gain.std(ddof=1) / SEEDS**0.5
        assert gain.mean() > 0.1


def test_every_learner_learns(outcomes):
    for name, metrics in outcomes.items():
        values = {key: np.asarray(value) for key, value in metrics.items()}
        assert (values["greedy_return"] <= 1 + 1e-3).all() and (values["return"] <= 1 + 1e-3).all()
        assert values["greedy_return"].mean() > 0.7, name
        assert (values["accuracy"] > 0.75).all(), name
        assert (values["pairs"] == 500).all()
        for curve in ("loss", "bc_loss", "reward_loss"):
            if curve in values and name != "preference_iql" and not np.isnan(values[curve]).any():
                assert (values[curve][:, -1] <= values[curve][:, 0] + 1e-5).all(), (name, curve)
    # those that fit the answers fit them better than the clone does
    for name in ("cpl", "cpl_kl", "preference_iql"):
        assert (outcomes[name]["accuracy"] > outcomes["bc"]["accuracy"]).all()


def test_alone_as_among_others():
    def run(key, mdp, bias, alpha, rate):
        config = cpl.CPLConfig(
            conservative_bias=bias, alpha=alpha, learning_rate=rate, start="initial", **SHORT
        )
        result = cpl.make_train(config, tabular_problem(mdp), partial_return(), behaviour=uniform)(
            key
        )
        return result.policy, result.metrics

    uniform = jnp.full((9, 4), 0.25)
    keys = jax.random.split(jax.random.key(2), 4)
    mdps = jax.vmap(partial(grid_world, size=3, num_hazards=1))(keys)
    lanes = keys, mdps, jnp.array([0.3, 0.5, 1, 1.5]), jnp.full(4, 0.1), jnp.full(4, 0.05)
    together = jax.jit(jax.vmap(run))(*lanes)
    alone = jax.jit(run)(*jax.tree.map(lambda leaf: leaf[1], lanes))
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(one, many[1], rtol=1e-4, atol=1e-4)
    # the last lane's bias is out of range: its metrics say so, and nobody else's
    for value in jax.tree.leaves({**together[1], "pairs": jnp.array([0.0, 0, 0, jnp.nan])}):
        assert np.isnan(value[3]).all() and np.isfinite(value[:3]).all()


@pytest.fixture(scope="module")
def small():
    """The fixed grid, a judge, 40 segments of 4 steps and 20 answers."""
    mdp = fixed_grid()
    judge = teacher(partial_return(), rationality=5.0)
    segments = jax.jit(sample_segments, static_argnums=(3, 4))(
        jax.random.key(4), mdp, jnp.full((25, 4), 0.25), 40, 4
    )
    data = PreferenceData(segments, soft_labels(judge, segments, sparse_pairs(40)))
    return tabular_problem(mdp), judge, data


def test_fine_tuning_is_cloning_of_winners(small):
    problem, _, data = small
    chosen = data.pairs.replace(label=jnp.round(data.pairs.label))
    winners = jnp.where(chosen.label > 0.5, chosen.first, chosen.second)
    short = {"steps": 20, "bc_steps": 0, "points": 2}
    tuned = sft.make_train(sft.SFTConfig(**short), problem, None, data=data.replace(pairs=chosen))
    only = PreferenceData(take(data.segments, winners), sparse_pairs(20))
    cloned = bc.make_train(bc.BCConfig(**short), problem, None, data=only)
    found, expected = (jax.jit(train)(jax.random.key(0)) for train in (tuned, cloned))
    np.testing.assert_allclose(found.policy, expected.policy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.metrics["loss"], expected.metrics["loss"], rtol=1e-5)


def test_a_soft_label_is_so_much_of_a_win(small):
    data = small[2]
    won = sft.wins(data)
    label = np.asarray(data.pairs.label)
    np.testing.assert_allclose(won, np.concatenate([label, 1 - label]), rtol=1e-6)
    half = sft.wins(data.replace(pairs=data.pairs.replace(mask=jnp.arange(20) < 10)))
    np.testing.assert_allclose(half, np.where(np.arange(40) % 20 < 10, won, 0))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.3, 1.0])
def test_the_best_share(share):
    scores = jnp.asarray([3.0, 1, 2, 3, 0, 5, 4, 2])
    chosen = np.asarray(percent_bc.best(scores, share))
    number = int(np.ceil(np.float32(share) * 8))
    order = np.argsort(-np.asarray(scores), kind="stable")
    assert set(np.flatnonzero(chosen)) == set(order[:number])


def test_planning_with_much_data_is_optimal():
    config = {"reward_steps": 300, "reward_ridge": 0.0}

    def run(key, mdp):
        segments = sample_segments(key, mdp, jnp.full((25, 4), 0.25), 4000, 4)
        labelled = soft_labels(partial_return(), segments, sparse_pairs(4000))
        data, problem = PreferenceData(segments, labelled), tabular_problem(mdp)
        hard = reward_planning.RewardPlanningConfig(**config)
        soft = reward_soft_policy.RewardSoftPolicyConfig(**config)
        greedy = reward_planning.make_train(hard, problem, None, data=data)(key)
        mixed = reward_soft_policy.make_train(soft, problem, None, data=data)(key)
        return greedy, mixed.policy

    mdp = fixed_grid()
    greedy, mixed = jax.jit(run)(jax.random.key(0), mdp)
    q, _ = evaluate(mdp, greedy.policy)
    np.testing.assert_allclose(q, hard_optimal(mdp).q, atol=1e-3)
    np.testing.assert_allclose(greedy.metrics["return"], 1, atol=1e-3)
    # rewards are only known up to what no segment of four steps tells apart, and so is the policy
    assert np.abs(mixed - soft_optimal(mdp, 0.1).policy).max() < 0.02


def test_estimated_transitions(small):
    problem, _, data = small
    mdp = problem.params.mdp
    found = np.asarray(estimated_transition(data.segments, mdp, 0.5))
    counts = np.full((25, 4, 25), 0.5 / 25)
    here = (data.segments.observations, data.segments.actions, data.segments.next_observations)
    np.add.at(counts, tuple(np.asarray(x)[np.asarray(data.segments.mask)] for x in here), 1)
    np.testing.assert_allclose(found, counts / counts.sum(-1, keepdims=True), rtol=1e-5)


def test_expectiles_of_a_sample():
    # at tau = 1/2 the mean; at tau the root of tau E(x - m)+ = (1 - tau) E(m - x)+
    x = np.random.default_rng(0).normal(size=200)
    grid = np.linspace(-1, 2, 3001)
    for tau in (0.5, 0.7, 0.9):
        losses = [np.sum(preference_iql.expectile_loss(x - m, tau)) for m in grid[::10]]
        m = grid[::10][np.argmin(losses)]
        balance = tau * np.maximum(x - m, 0).mean() - (1 - tau) * np.maximum(m - x, 0).mean()
        assert abs(balance) < 0.01


def test_networks_on_the_maze():
    # everywhere the same action is best, and at alpha = 1 the judge is of the policy's own form
    problem, best = point_maze(), jnp.array([0.5, -0.3])

    def off(observations, actions):
        return -jnp.sum(jnp.square(actions - best), -1)

    def act(key, observation):
        return jax.random.uniform(key, (2,), minval=-1, maxval=1)

    config = cpl.CPLConfig(
        num_segments=1000, segment_length=4, answers="soft", bc_steps=20, steps=200, points=2,
        batch_size=64, learning_rate=1e-2, alpha=1.0, conservative_bias=1.0,
        evaluation_episodes=2, evaluation_steps=5,
    )  # fmt: skip
    policy = GaussianMLP(2, 2, (16,))
    train = cpl.make_train(config, problem, regret(off), behaviour=act, policy=policy)
    result = jax.jit(train)(jax.random.key(0))
    assert np.isfinite(result.metrics["loss"]).all()
    assert np.isfinite(result.metrics["episode_return"])
    assert result.metrics["accuracy"] > 0.9
    seen = jax.random.uniform(jax.random.key(1), (50, 2), minval=-0.6, maxval=0.6)
    assert np.abs(policy.mode(result.params, seen) - best).mean() < 0.15


def _learn(config=None, judge=None, problem=None, **given):
    problem = tabular_problem(fixed_grid()) if problem is None else problem
    return cpl.make_train(config or cpl.CPLConfig(**SHORT), problem, judge, **given)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"conservative_bias": 0.0}, r"conservative_bias must be in \(0, 1\], got 0.0"),
        ({"conservative_bias": 1.1}, r"conservative_bias must be in \(0, 1\]"),
        ({"alpha": -1.0}, "alpha must be positive"),
        ({"alpha": float("nan")}, "alpha must be positive"),
        ({"discount": -0.1}, "discount must be at least 0"),
        ({"learning_rate": -0.1}, "learning_rate must be at least 0"),
        ({"behaviour_uniform": 2.0}, r"behaviour_uniform must be in \[0, 1\]"),
        ({"steps": 25, "points": 10}, "steps must be a multiple of points = 10, got 25"),
        ({"bc_steps": -10}, "bc_steps must be an integer of at least 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"pairing": "all"}, "pairing must be one of sparse, dense, got 'all'"),
        ({"answers": "hard"}, "answers must be one of"),
        ({"num_segments": 41}, "even number of segments"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        _learn(cpl.CPLConfig(**{**SHORT, **settings}), partial_return())


def test_bad_data(small):
    problem, judge, data = small
    pairs = data.pairs
    for wrong, message in (
        (pairs.replace(label=pairs.label + 1), "must be a probability"),
        (pairs.replace(mask=jnp.zeros(20, bool)), "no pair to learn from"),
        (jax.tree.map(lambda leaf: leaf[:0], pairs), "no pair to learn from"),
        (pairs.replace(first=pairs.first + 30), "segments are numbered"),
        (pairs.replace(first=pairs.second), "with itself"),
    ):
        with pytest.raises(ValueError, match=message):
            _learn(data=data.replace(pairs=wrong))
    with pytest.raises(ValueError, match="a labeller is needed"):
        _learn()
    with pytest.raises(ValueError, match="no discounted tables"):
        _learn(judge=judge, problem=point_maze())
    with pytest.raises(ValueError, match="planning needs discounted tables"):
        reward_planning.make_train(
            reward_planning.RewardPlanningConfig(), point_maze(), judge, data=data
        )
    with pytest.raises(ValueError, match="group_size must divide 40"):
        config = cpl_rank.CPLRankConfig(group_size=3, **SHORT)
        cpl_rank.make_train(config, problem, judge)
    with pytest.raises(ValueError, match="share must be in"):
        percent_bc.make_train(percent_bc.PercentBCConfig(share=0.0), problem, judge)


def test_cyclic_preferences_are_warned_of():
    cycle = preference_matrix([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])
    planning = reward_planning, reward_planning.RewardPlanningConfig()
    for module, config in (EVERY["cpl"], EVERY["preference_iql"], planning):
        with pytest.warns(UserWarning, match="no Bradley-Terry model fits") as caught:
            module.make_train(config, tabular_problem(fixed_grid()), cycle)
        assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="no utilities to sort segments by"):
        percent_bc.make_train(percent_bc.PercentBCConfig(), tabular_problem(fixed_grid()), cycle)
    bc.make_train(bc.BCConfig(), tabular_problem(fixed_grid()), cycle)  # models no preferences
