"""Segments follow the tables they are drawn from; pairs are what their names say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs import mdps
from prefs.feedback import (
    Pairs,
    PreferenceData,
    check_data,
    check_pairs,
    check_segments,
    dense_pairs,
    random_pairs,
    rollout_segments,
    sample_episodes,
    sample_segments,
    sparse_pairs,
    take,
)
from prefs.mdps.environment import tabular_problem

NUM, LENGTH = 4000, 3


@pytest.fixture(scope="module")
def mdp():
    key = jax.random.key(3)
    transition = jax.random.dirichlet(key, jnp.full(4, 0.4), (4, 2))
    transition = jnp.where(transition < 0.1, 0.0, transition)
    transition = transition / transition.sum(-1, keepdims=True)
    reward = jax.random.normal(key, (4, 2))
    return mdps.tabular_mdp(transition, reward, jnp.array([0.2, 0.0, 0.8, 0.0]), 0.8)


@pytest.fixture(scope="module")
def policy():
    return jnp.array([[0.9, 0.1], [0.0, 1.0], [0.5, 0.5], [0.3, 0.7]])


@pytest.fixture(scope="module", params=["initial", "occupancy"])
def drawn(request, mdp, policy):
    draw = partial(sample_segments, num=NUM, length=LENGTH, start=request.param)
    return request.param, jax.jit(draw)(jax.random.key(0), mdp, policy)


def _close(counts, probabilities, total):
    """Within five standard errors of a binomial count, everywhere."""
    spread = np.sqrt(np.maximum(total * probabilities * (1 - probabilities), 1.0))
    np.testing.assert_array_less(np.abs(counts - total * probabilities), 5 * spread + 1e-9)
    assert not counts[probabilities == 0].any()


def test_segments_follow_the_tables(drawn, mdp, policy):
    start, segments = drawn
    check_segments(segments)
    states, actions, after = (
        np.asarray(leaf)
        for leaf in (segments.observations, segments.actions, segments.next_observations)
    )
    assert states.shape == actions.shape == (NUM, LENGTH) and states.dtype == np.int32
    np.testing.assert_array_equal(states[:, 1:], after[:, :-1])
    np.testing.assert_array_equal(segments.rewards, np.asarray(mdp.reward)[states, actions])
    assert segments.mask.all()

    first = np.bincount(states[:, 0], minlength=4)
    if start == "initial":
        _close(first, np.asarray(mdp.initial, float), NUM)
    else:
        _close(first, np.asarray(mdps.occupancy(mdp, policy).sum(-1), float), NUM)
    for state in range(4):
        chosen = actions[states == state]
        _close(np.bincount(chosen, minlength=2), np.asarray(policy[state], float), len(chosen))
        for action in range(2):
            moved = after[(states == state) & (actions == action)]
            expected = np.asarray(mdp.transition[state, action], float)
            _close(np.bincount(moved, minlength=4), expected, len(moved))


def test_start_weights_and_keys(mdp, policy):
    draw = jax.jit(partial(sample_segments, num=16, length=2))
    weights = jnp.array([0.0, 1.0, 0.0, 0.0])
    one = draw(jax.random.key(1), mdp, policy, start=weights)
    assert (one.observations[:, 0] == 1).all()
    other = draw(jax.random.key(2), mdp, policy, start=weights)
    assert (one.actions == 1).all(where=one.observations == 1)
    assert not np.array_equal(one.next_observations, other.next_observations)


def test_stacked_problems_are_sampled_as_alone(mdp, policy):
    sample = partial(sample_segments, num=8, length=4, start="initial")
    draw = jax.jit(sample)
    keys = jax.random.split(jax.random.key(4), 2)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1] if leaf.ndim else leaf]), mdp)
    policies = jnp.stack([policy, policy[::-1]])
    together = jax.jit(jax.vmap(sample))(keys, stack, policies)
    for row in range(2):
        problem, of_both = (_row(tree, row) for tree in (stack, together))
        alone = draw(keys[row], problem, policies[row])
        jax.tree.map(np.testing.assert_array_equal, of_both, alone)


def _row(tree, row):
    return jax.tree.map(lambda leaf: leaf[row], tree)


def test_episodes_use_the_table_of_their_step():
    key = jax.random.key(5)
    horizon, states = 3, 3
    # step h moves from any state to state h, whatever is done
    transition = jnp.zeros((horizon, states, 2, states))
    transition = transition.at[jnp.arange(horizon), :, :, jnp.arange(horizon)].set(1.0)
    reward = jax.random.uniform(key, (horizon, states, 2))
    mdp = mdps.episodic_mdp(transition, reward, jnp.array([0.0, 0.0, 1.0]))
    policy = jnp.broadcast_to(jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])[:, None], (3, 3, 2))
    episodes = jax.jit(partial(sample_episodes, num=5))(key, mdp, policy)
    np.testing.assert_array_equal(episodes.observations, np.tile([2, 0, 1], (5, 1)))
    np.testing.assert_array_equal(episodes.next_observations, np.tile([0, 1, 2], (5, 1)))
    np.testing.assert_array_equal(episodes.actions, np.tile([1, 0, 0], (5, 1)))
    expected = np.asarray(reward)[np.arange(3), [2, 0, 1], [1, 0, 0]]
    np.testing.assert_array_equal(episodes.rewards, np.tile(expected, (5, 1)))


def test_rollouts_end_with_their_episode(mdp):
    problem = tabular_problem(mdp, 5)
    act = lambda key, observation: jax.random.bernoulli(key).astype(jnp.int32)  # noqa: E731
    roll = jax.jit(lambda key: rollout_segments(key, problem, act, num=32, length=8))
    segments = roll(jax.random.key(6))
    check_segments(segments)
    np.testing.assert_array_equal(segments.mask, np.tile(np.arange(8) < 5, (32, 1)))
    states, actions, after = (
        np.asarray(leaf)[:, :5]
        for leaf in (segments.observations, segments.actions, segments.next_observations)
    )
    np.testing.assert_array_equal(states[:, 1:], after[:, :-1])
    assert (np.asarray(mdp.transition)[states, actions, after] > 0).all()
    np.testing.assert_array_equal(segments.rewards[:, :5], np.asarray(mdp.reward)[states, actions])


def test_sparse_and_dense_pairs():
    sparse = sparse_pairs(6)
    np.testing.assert_array_equal(np.stack([sparse.first, sparse.second]), [[0, 1, 2], [3, 4, 5]])
    dense = dense_pairs(5)
    met = {tuple(pair) for pair in np.stack([dense.first, dense.second], -1).tolist()}
    assert met == {(i, j) for i in range(5) for j in range(i + 1, 5)} and len(dense.first) == 10
    for pairs, number in ((sparse, 6), (dense, 5)):
        check_pairs(pairs, number)
        assert pairs.mask.all() and (pairs.label == 0.5).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**31 - 1))
def test_random_pairs_never_meet_themselves(number, seed):
    pairs = random_pairs(jax.random.key(seed), number, 64)
    check_pairs(pairs, number)


def test_random_pairs_are_uniform_over_ordered_pairs():
    total = 12000
    pairs = random_pairs(jax.random.key(7), 4, total)
    counts = np.zeros((4, 4))
    np.add.at(counts, (np.asarray(pairs.first), np.asarray(pairs.second)), 1)
    _close(counts, (1 - np.eye(4)) / 12, total)
    fresh = random_pairs(jax.random.key(8), 4, total)
    assert not np.array_equal(pairs.first, fresh.first)


def test_take_keeps_a_segment_together(drawn):
    _, segments = drawn
    picked = take(segments, jnp.array([[3, 1], [0, 3]]))
    assert picked.rewards.shape == (2, 2, LENGTH)
    np.testing.assert_array_equal(picked.rewards[1, 1], segments.rewards[3])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda mdp, policy: sparse_pairs(5), "even number of segments, got 5"),
        (lambda mdp, policy: dense_pairs(1), "num_segments must be .* at least 2, got 1"),
        (lambda mdp, policy: random_pairs(jax.random.key(0), 1, 4), "at least 2, got 1"),
        (lambda mdp, policy: random_pairs(jax.random.key(0), 4, 0), "num_pairs .* got 0"),
        (
            lambda mdp, policy: sample_segments(jax.random.key(0), mdp, policy, 0, 2),
            "num must be .* got 0",
        ),
        (
            lambda mdp, policy: sample_segments(jax.random.key(0), mdp, policy, 2, 1.5),
            "length must be an integer .* got 1.5",
        ),
        (
            lambda mdp, policy: sample_segments(jax.random.key(0), mdp, policy[:2], 2, 2),
            r"policy must be \[S, A\] = \(4, 2\), got \(2, 2\)",
        ),
        (
            lambda mdp, policy: sample_segments(jax.random.key(0), mdp, policy, 2, 2, "end"),
            "start must be .* got 'end'",
        ),
        (
            lambda mdp, policy: sample_segments(jax.random.key(0), mdp, policy, 2, 2, jnp.ones(3)),
            r"start must be \[S\] = \(4,\), got \(3,\)",
        ),
    ],
)
def test_bad_requests_say_what_was_wrong(call, says, mdp, policy):
    with pytest.raises(ValueError, match=says):
        call(mdp, policy)


@pytest.fixture(scope="module")
def data(drawn):
    segments = jax.tree.map(lambda leaf: leaf[:4], drawn[1])
    return PreferenceData(segments, sparse_pairs(4))


def _pairs(**change):
    return lambda data: data.replace(pairs=data.pairs.replace(**change))


def _segments(**change):
    return lambda data: data.replace(segments=data.segments.replace(**change))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_pairs(label=jnp.array([0.5, 1.2])), r"pairs.label\[1\] must be a probability .* got 1.2"),
        (_pairs(label=jnp.array([jnp.nan, 0.5])), r"pairs.label\[0\] must be .* got nan"),
        (_pairs(label=jnp.array([-0.1, 0.5])), r"must be a probability in \[0, 1\], got -0.1"),
        (_pairs(label=jnp.ones(3)), r"of one \[M\], got .*\(3,\)"),
        (_pairs(first=jnp.array([0, 9])), r"pairs.first\[1\] is 9, .* from 0 to 3"),
        (_pairs(second=jnp.array([-1, 2])), r"pairs.second\[0\] is -1, .* from 0 to 3"),
        (_pairs(second=jnp.array([0, 3])), "pair 0 compares segment 0 with itself"),
        (_pairs(first=jnp.array([0.0, 1.0])), "pairs.first must be integers, got float32"),
        (_pairs(mask=jnp.zeros(2, bool)), "no pair to learn from: 2 pairs, none unmasked"),
        (_pairs(mask=jnp.ones(2)), "mask must be bool, got float32"),
        (
            lambda data: data.replace(pairs=jax.tree.map(lambda leaf: leaf[:0], data.pairs)),
            "no pair to learn from: 0 pairs",
        ),
        (_segments(rewards=jnp.zeros((4, 2))), r"rewards must be \(4, 3\) .* got \(4, 2\)"),
        (_segments(actions=jnp.zeros((3, 3), int)), r"actions must begin with \(4, 3\)"),
        (_segments(next_observations=jnp.zeros((4, 3, 1))), r"next_observations must be \(4, 3\)"),
        (_segments(rewards=jnp.full((4, 3), jnp.inf)), "rewards of segment 0, step 0, are not fin"),
        (_segments(mask=jnp.ones((4, 3))), "mask must be bool"),
        (_segments(mask=jnp.zeros((4, 3), bool)), "segment 0 has no step"),
        (
            _segments(mask=jnp.ones((4, 3), bool).at[2, 1].set(False)),
            "segment 2 has steps after its padding",
        ),
        (_segments(mask=jnp.ones((0, 3), bool)), r"a segment and a step at least, got \(0, 3\)"),
    ],
)
def test_unsound_data_is_refused(data, spoil, says):
    check_data(data)
    with pytest.raises(ValueError, match=says):
        check_data(spoil(data))


def test_padding_may_hold_anything_and_traced_values_pass(data):
    mask = jnp.ones((4, 3), bool).at[:, 2].set(False)
    rewards = jnp.where(mask, 1.0, jnp.nan)
    check_segments(data.segments.replace(mask=mask, rewards=rewards))

    @jax.jit
    def inside(pairs: Pairs):
        check_pairs(pairs, 4)
        return pairs.label

    inside(data.pairs.replace(label=jnp.full(2, 7.0)))
