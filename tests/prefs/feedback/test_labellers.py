"""Labellers against loops in float64, their own theory, and each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs import mdps
from prefs.feedback import (
    Segments,
    first_action,
    partial_return,
    plackett_luce,
    preference_matrix,
    random_pairs,
    ranking_pairs,
    regret,
    sampled_labels,
    sampled_rankings,
    segment_number,
    soft_labels,
    telescoped_regret,
    unlabelled,
)
from prefs.feedback.checks import check_pairs

N, K, S, A = 12, 5, 6, 3
RPS = jnp.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])

ask = jax.jit(soft_labels)
rank = jax.jit(sampled_rankings)
score = jax.jit(lambda labeller, segments: labeller.score(segments))


@pytest.fixture(scope="module")
def segments():
    rng = np.random.default_rng(0)
    lengths = np.r_[K, 1, rng.integers(1, K + 1, N - 2)]
    mask = np.arange(K) < lengths[:, None]
    return Segments(
        observations=jnp.asarray(rng.integers(0, S, (N, K)), jnp.int32),
        actions=jnp.asarray(rng.integers(0, A, (N, K)), jnp.int32),
        rewards=jnp.asarray(np.where(mask, rng.normal(size=(N, K)), np.nan), jnp.float32),
        mask=jnp.asarray(mask),
        next_observations=jnp.asarray(rng.integers(0, S, (N, K)), jnp.int32),
    )


def _loop(segments, term):
    """Sum of term(n, t, T) over each segment's own steps, in float64."""
    lengths = np.asarray(segments.mask).sum(1)
    return np.array([sum(term(n, t, int(T)) for t in range(T)) for n, T in enumerate(lengths)])


@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_return_and_regret_are_discounted_sums(segments, discount):
    rng = np.random.default_rng(1)
    rewards = np.asarray(segments.rewards, float)
    states, actions = np.asarray(segments.observations), np.asarray(segments.actions)
    table, stepped = rng.normal(size=(S, A)), rng.normal(size=(K, S, A))
    weighed = {
        "return": (partial_return(discount), lambda n, t, _: rewards[n, t]),
        "regret": (
            regret(jnp.asarray(table), discount),
            lambda n, t, _: table[states[n, t], actions[n, t]],
        ),
        "regret by step": (
            regret(jnp.asarray(stepped), discount),
            lambda n, t, _: stepped[t, states[n, t], actions[n, t]],
        ),
    }
    for name, (labeller, term) in weighed.items():
        expected = _loop(segments, lambda n, t, T, term=term: discount**t * term(n, t, T))
        np.testing.assert_allclose(score(labeller, segments), expected, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("discount", [0.6, 1.0])
def test_telescoped_regret_is_what_its_formula_says(segments, discount):
    value = np.random.default_rng(2).normal(size=S)
    rewards, states = np.asarray(segments.rewards, float), np.asarray(segments.observations)
    lengths = np.asarray(segments.mask).sum(1)
    expected = [
        sum(discount**t * rewards[n, t] for t in range(T - 1))
        + discount ** (T - 1) * value[states[n, T - 1]]
        - value[states[n, 0]]
        for n, T in enumerate(lengths)
    ]
    labeller = telescoped_regret(jnp.asarray(value), discount)
    np.testing.assert_allclose(score(labeller, segments), expected, atol=3e-6)


def test_the_mean_of_a_telescoped_regret_is_the_advantage():
    # one step from state 0 under action 1: E[r + gamma V(s') - V(s)] = A(0, 1)
    mdp = mdps.fixed_grid()
    solution = jax.jit(mdps.hard_optimal)(mdp)
    after = jnp.arange(mdp.num_states)
    rows = mdp.num_states
    segments = Segments(
        observations=jnp.stack([jnp.zeros(rows, int), after], -1),
        actions=jnp.ones((rows, 2), int),
        rewards=jnp.full((rows, 2), mdp.reward[0, 1]),
        mask=jnp.ones((rows, 2), bool),
        next_observations=jnp.stack([after, after], -1),
    )
    scores = score(telescoped_regret(solution.v, mdp.discount), segments)
    mean = float(mdp.transition[0, 1] @ scores)
    assert mean == pytest.approx(float(solution.advantage[0, 1]), abs=2e-6)


def test_tables_may_be_functions_with_numbers_of_their_own(segments):
    table = jnp.asarray(np.random.default_rng(3).normal(size=(S, A)), jnp.float32)
    lookup = jax.tree_util.Partial(lambda table, o, a: table[o, a], table)
    np.testing.assert_array_equal(score(regret(lookup), segments), score(regret(table), segments))
    values = jax.tree_util.Partial(lambda v, o: v[o], table[:, 0])
    np.testing.assert_array_equal(
        score(telescoped_regret(values), segments),
        score(telescoped_regret(table[:, 0]), segments),
    )


def test_stacked_labellers_judge_as_alone(segments):
    tables = jnp.asarray(np.random.default_rng(4).normal(size=(3, S, A)), jnp.float32)
    discounts = jnp.array([0.5, 0.9, 1.0])
    stack = jax.vmap(regret)(tables, discounts)
    together = jax.jit(jax.vmap(lambda labeller: labeller.score(segments)))(stack)
    for row in range(3):
        alone = score(regret(tables[row], discounts[row]), segments)
        np.testing.assert_allclose(together[row], alone, rtol=1e-6)


def test_soft_labels_are_bradley_terry_and_complement(segments):
    pairs = random_pairs(jax.random.key(0), N, 40)
    labeller = partial_return(0.9)
    there = ask(labeller, segments, pairs)
    back = ask(labeller, segments, pairs.replace(first=pairs.second, second=pairs.first))
    u = np.asarray(score(labeller, segments), float)
    expected = 1 / (1 + np.exp(u[np.asarray(pairs.second)] - u[np.asarray(pairs.first)]))
    np.testing.assert_allclose(there.label, expected, rtol=2e-6)
    np.testing.assert_allclose(there.label + back.label, 1, rtol=1e-6)
    assert there.mask.all()


def test_drawn_labels_average_to_the_soft_ones(segments):
    pairs = random_pairs(jax.random.key(1), N, 6)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4000), pairs)
    labeller = partial_return()
    drawn = jax.jit(sampled_labels)(jax.random.key(2), labeller, segments, many)
    assert set(np.unique(drawn.label)) <= {0.0, 1.0}
    soft = np.asarray(ask(labeller, segments, pairs).label)
    mean = np.asarray(drawn.label).reshape(6, 4000).mean(1)
    np.testing.assert_array_less(abs(mean - soft), 5 * np.sqrt(soft * (1 - soft) / 4000) + 1e-9)


def _games(actions):
    """One-step segments with these actions."""
    actions = jnp.asarray(actions, jnp.int32)[:, None]
    zeros = jnp.zeros_like(actions)
    return Segments(zeros, actions, zeros.astype(float), jnp.ones(actions.shape, bool), zeros)


def test_a_matrix_gives_its_own_entries():
    games = _games([2, 0, 1, 1])
    pairs = unlabelled([0, 1, 2, 0, 2], [1, 2, 0, 3, 3])
    labels = ask(preference_matrix(RPS), games, pairs).label
    np.testing.assert_array_equal(labels, [1.0, 1.0, 1.0, 0.0, 0.5])
    own = preference_matrix(jnp.array([[0.5, 0.3], [0.7, 0.5]]), segment_number)
    two = jax.tree.map(lambda leaf: leaf[:2], games)
    assert float(ask(own, two, unlabelled([0], [1])).label[0]) == pytest.approx(0.3)
    np.testing.assert_array_equal(first_action(games), [2, 0, 1, 1])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4))
def test_plackett_luce_is_a_distribution_over_orders(utilities):
    orders = np.array(list(itertools.permutations(utilities)), np.float32)
    log_prob = _plackett_luce(orders)
    assert float(jnp.sum(jnp.exp(log_prob))) == pytest.approx(1, abs=1e-5)
    best = np.exp(utilities[0]) / np.sum(np.exp(utilities))
    first = np.exp(np.asarray(log_prob)[:6]).sum()  # permutations that begin with the first
    assert first == pytest.approx(best, rel=1e-4, abs=1e-6)


_plackett_luce = jax.jit(plackett_luce)


def test_plackett_luce_of_two_is_bradley_terry():
    pairs = np.random.default_rng(5).normal(size=(9, 2)).astype(np.float32) * 3
    expected = -np.log1p(np.exp(pairs[:, 1] - pairs[:, 0]))
    np.testing.assert_allclose(_plackett_luce(pairs), expected, rtol=1e-5, atol=1e-6)
    slopes = jax.jit(jax.grad(lambda u: plackett_luce(u).sum()))(
        jnp.asarray([[60.0, 0.0], [-60.0, 0.0]])
    )
    np.testing.assert_allclose(slopes, [[0, 0], [1, -1]], atol=1e-6)


def test_rankings_of_three_follow_plackett_and_luce():
    total = 12000
    games = _games([0, 1, 2])
    utility = jnp.array([[0.0, 1.0, -0.5]])
    groups = jnp.tile(jnp.array([[2, 0, 1]]), (total, 1))
    drawn = rank(jax.random.key(3), regret(utility), games, groups)
    counts = {order: 0 for order in itertools.permutations(range(3))}
    for order in np.asarray(drawn.order):
        counts[tuple(order.tolist())] += 1
    for order, count in counts.items():
        chance = float(jnp.exp(plackett_luce(utility[0, jnp.array(order)])))
        assert abs(count - total * chance) < 5 * np.sqrt(total * chance)
    assert drawn.mask.all()


def test_rankings_by_a_matrix_are_a_round_robin():
    total = 6000
    games = _games([0, 1, 2])
    matrix = preference_matrix(jnp.array([[0.5, 0.8, 1.0], [0.2, 0.5, 1.0], [0.0, 0.0, 0.5]]))
    pairs = rank(jax.random.key(4), matrix, games, jnp.tile(jnp.array([[1, 0]]), (total, 1)))
    won = float((pairs.order[:, 0] == 0).mean())
    assert abs(won - 0.8) < 5 * np.sqrt(0.16 / total)
    three = rank(jax.random.key(5), matrix, games, jnp.tile(jnp.array([[2, 1, 0]]), (total, 1)))
    assert (three.order[:, 2] == 2).all()  # loses both games for certain
    assert abs(float((three.order[:, 0] == 0).mean()) - 0.8) < 5 * np.sqrt(0.16 / total)
    # each of rock, paper and scissors wins once: the lot decides
    cycle = rank(
        jax.random.key(6),
        preference_matrix(RPS),
        games,
        jnp.tile(jnp.array([[0, 1, 2]]), (total, 1)),
    )
    best = np.bincount(np.asarray(cycle.order[:, 0]), minlength=3)
    np.testing.assert_array_less(abs(best - total / 3), 5 * np.sqrt(total * 2 / 9))


def test_a_ranking_is_all_its_pairs():
    rankings = rank(
        jax.random.key(7),
        regret(jnp.array([[0.0, 2.0, 1.0]])),
        _games([0, 1, 2, 0]),
        jnp.array([[0, 1, 2], [3, 2, 1]]),
    )
    rankings = rankings.replace(mask=jnp.array([True, False]))
    pairs = ranking_pairs(rankings)
    check_pairs(pairs, 4)
    order = np.asarray(rankings.order)
    expected = [(r[i], r[j]) for r in order for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_array_equal(np.stack([pairs.first, pairs.second], -1), expected)
    np.testing.assert_array_equal(pairs.mask, [True] * 3 + [False] * 3)
    assert (pairs.label == 1).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: partial_return(-0.1), "discount must be at least 0, got -0.1"),
        (lambda: partial_return(float("nan")), "discount must be at least 0, got nan"),
        (lambda: regret(jnp.zeros(3)), r"advantage must be \[S, A\] or \[H, S, A\], got \(3,\)"),
        (lambda: telescoped_regret(jnp.zeros((3, 2))), r"value must be \[S\], got \(3, 2\)"),
        (lambda: preference_matrix(jnp.zeros((2, 3))), r"must be \[n, n\], got \(2, 3\)"),
        (
            lambda: preference_matrix(jnp.array([[0.5, 1.4], [-0.4, 0.5]])),
            r"matrix\[0, 1\] must be a probability in \[0, 1\], got 1.4",
        ),
        (
            lambda: preference_matrix(jnp.array([[0.5, 0.6], [0.6, 0.5]])),
            "must be 1, got 1.2 for items 0 and 1",
        ),
        (
            lambda: preference_matrix(jnp.array([[0.9, 0.5], [0.5, 0.5]])),
            "must be 1, got 1.8 for items 0 and 0",
        ),
        (
            lambda: sampled_rankings(
                jax.random.key(0), partial_return(), _games([0, 1]), jnp.array([0, 1])
            ),
            r"groups must be \[M, K\] of at least two segments, got \(2,\)",
        ),
        (
            lambda: sampled_rankings(
                jax.random.key(0), partial_return(), _games([0, 1]), jnp.array([[0, 2]])
            ),
            "indices from 0 to 1",
        ),
    ],
)
def test_bad_judges_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
