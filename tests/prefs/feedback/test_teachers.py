"""Each knob of a teacher alone and together, against B-Pref's recipe written as a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.feedback import (
    TEACHERS,
    Segments,
    partial_return,
    preference_matrix,
    random_pairs,
    regret,
    sampled_labels,
    sampled_rankings,
    soft_labels,
    teacher,
    unlabelled,
)

N, K, M = 10, 4, 24
ask = jax.jit(soft_labels)
draw = jax.jit(sampled_labels)


@pytest.fixture(scope="module")
def segments():
    rng = np.random.default_rng(0)
    mask = np.arange(K) < rng.integers(1, K + 1, N)[:, None]
    zeros = jnp.zeros((N, K), jnp.int32)
    rewards = np.round(rng.normal(size=(N, K)), 1)  # some returns are equal
    return Segments(zeros, zeros, jnp.asarray(rewards, jnp.float32), jnp.asarray(mask), zeros)


@pytest.fixture(scope="module")
def pairs():
    return random_pairs(jax.random.key(0), N, M)


def _recipe(rewards, mask, first, second, beta, gamma, mistake, skip, equal):
    """B-Pref's label of one pair as a probability of "first", and whether there is one."""
    one, two = rewards[first][mask[first]], rewards[second][mask[second]]
    if not max(one.sum(), two.sum()) > skip:
        return 0.5, False
    if abs(one.sum() - two.sum()) < equal:
        return 0.5, True
    seen = [part @ gamma ** np.arange(len(part) - 1, -1, -1.0) for part in (one, two)]
    if np.isinf(beta):
        chance = float(seen[0] > seen[1]) + 0.5 * (seen[0] == seen[1])
    else:
        chance = 1 / (1 + np.exp(-beta * (seen[0] - seen[1])))
    return (1 - mistake) * chance + mistake * (1 - chance), True


@settings(max_examples=25, deadline=None)
@given(
    beta=st.sampled_from([0.0, 0.5, 1.0, 7.0, np.inf]),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    mistake=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    skip=st.sampled_from([-np.inf, -0.45, 0.55]),
    equal=st.sampled_from([0.0, 0.35, 5.0]),
)
def test_all_knobs_together_are_the_recipe(segments, pairs, beta, gamma, mistake, skip, equal):
    labels = ask(teacher(partial_return(), beta, gamma, mistake, skip, equal), segments, pairs)
    rewards, mask = np.asarray(segments.rewards, float), np.asarray(segments.mask)
    for row, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        expected, answered = _recipe(
            rewards, mask, int(first), int(second), beta, gamma, mistake, skip, equal
        )
        assert bool(labels.mask[row]) == answered
        if answered:
            assert float(labels.label[row]) == pytest.approx(expected, abs=2e-5)


def test_a_neutral_teacher_is_its_labeller(segments, pairs):
    plain = ask(partial_return(0.8), segments, pairs)
    taught = ask(teacher(partial_return(0.8)), segments, pairs)
    np.testing.assert_allclose(plain.label, taught.label, rtol=1e-6)
    np.testing.assert_array_equal(plain.mask, taught.mask)


def test_the_last_step_counts_in_full(segments):
    scores = teacher(partial_return(), myopia=0.0).score(segments)
    last = np.asarray(segments.mask).sum(1) - 1
    np.testing.assert_array_equal(scores[:, 1], np.asarray(segments.rewards)[np.arange(N), last])


def test_argmax_ties_are_ties_and_never_flipped():
    zeros = jnp.zeros((3, 1), jnp.int32)
    games = Segments(
        zeros, jnp.array([[0], [0], [1]]), zeros.astype(float), jnp.ones((3, 1), bool), zeros
    )
    judge = teacher(regret(jnp.array([[0.25, 1.0]])), rationality=jnp.inf, mistake=1.0)
    drawn = draw(jax.random.key(0), judge, games, unlabelled([0, 0, 2], [1, 2, 0]))
    np.testing.assert_array_equal(drawn.label, [0.5, 1.0, 0.0])


def test_drawn_answers_average_to_the_soft_ones(segments):
    few = random_pairs(jax.random.key(3), N, 6)
    judge = teacher(partial_return(), 2.0, 0.9, mistake=0.2, skip=-0.5, equal=0.35)
    soft = ask(judge, segments, few)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4000), few)
    drawn = draw(jax.random.key(4), judge, segments, many)
    chance = np.asarray(soft.label)
    mean = np.asarray(drawn.label).reshape(6, -1).mean(1)
    np.testing.assert_array_less(
        abs(mean - chance), 5 * np.sqrt(chance * (1 - chance) / 4000) + 1e-6
    )
    np.testing.assert_array_equal(np.asarray(drawn.mask).reshape(6, -1).all(1), soft.mask)


def test_knobs_are_leaves_that_vmap(segments, pairs):
    chances = jnp.array([0.0, 0.2, 0.5])
    betas = jnp.array([1.0, jnp.inf, 3.0])
    make = jax.vmap(lambda chance, beta: teacher(partial_return(), beta, mistake=chance))
    stack = make(chances, betas)
    together = jax.jit(jax.vmap(lambda judge: soft_labels(judge, segments, pairs).label))(stack)
    for row in range(3):
        alone = ask(teacher(partial_return(), betas[row], mistake=chances[row]), segments, pairs)
        np.testing.assert_allclose(together[row], alone.label, rtol=1e-6)


def test_named_teachers(segments, pairs):
    judge = partial_return()
    u = np.asarray(judge.score(segments), float)
    one, two = u[np.asarray(pairs.first)], u[np.asarray(pairs.second)]
    sure = np.where(abs(one - two) < 1e-6, 0.5, one > two)
    scale = 4.5  # no two returns are exactly a tenth of it apart
    answers = {
        name: ask(make(judge, scale) if name in ("skip", "equal") else make(judge), segments, pairs)
        for name, make in TEACHERS.items()
    }
    assert set(answers) == {"oracle", "mistake", "noisy", "skip", "myopic", "equal"}
    np.testing.assert_allclose(answers["oracle"].label, sure, atol=1e-6)
    np.testing.assert_allclose(answers["mistake"].label, 0.9 * sure + 0.1 * (1 - sure), atol=1e-6)
    np.testing.assert_allclose(answers["noisy"].label, 1 / (1 + np.exp(two - one)), rtol=2e-5)
    np.testing.assert_array_equal(answers["skip"].mask, np.maximum(one, two) > 0.1 * scale)
    close = abs(one - two) < 0.1 * scale
    np.testing.assert_array_equal(np.asarray(answers["equal"].label)[close], 0.5)
    np.testing.assert_allclose(np.asarray(answers["equal"].label)[~close], sure[~close])
    assert close.any() and not close.all()
    near = ask(teacher(judge, rationality=jnp.inf, myopia=0.9), segments, pairs)
    np.testing.assert_array_equal(answers["myopic"].label, near.label)


def test_a_matrix_can_have_a_teacher_too():
    matrix = jnp.array([[0.5, 0.8, 0.0], [0.2, 0.5, 0.55], [1.0, 0.45, 0.5]])
    zeros = jnp.zeros((3, 1), jnp.int32)
    items = jnp.arange(3)[:, None]
    games = Segments(zeros, items, zeros.astype(float), jnp.ones((3, 1), bool), zeros)
    pairs = unlabelled([0, 0, 1], [1, 2, 2])

    def labels(**knobs):
        return ask(teacher(preference_matrix(matrix), **knobs), games, pairs)

    np.testing.assert_allclose(labels().label, [0.8, 0.0, 0.55], atol=1e-6)
    np.testing.assert_allclose(labels(rationality=0.0).label, 0.5)
    doubled = 0.8**2 / (0.8**2 + 0.2**2)
    np.testing.assert_allclose(labels(rationality=2.0).label[0], doubled, rtol=1e-6)
    np.testing.assert_allclose(labels(rationality=jnp.inf).label, [1, 0, 1])
    np.testing.assert_allclose(labels(equal=0.3, mistake=0.1).label, [0.74, 0.1, 0.5], atol=1e-6)
    assert labels().mask.all()
    with pytest.raises(ValueError, match="no utility that `skip`"):
        labels(skip=0.0)


def test_rankings_of_a_teacher(segments):
    groups = jnp.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    u = np.asarray(partial_return().score(segments))
    rank = jax.jit(sampled_rankings)
    oracle = rank(jax.random.key(0), TEACHERS["oracle"](partial_return()), segments, groups)
    for row, order in zip(np.asarray(groups), np.asarray(oracle.order), strict=True):
        np.testing.assert_array_equal(order, row[np.argsort(-u[row], kind="stable")])
    wrong = teacher(partial_return(), rationality=jnp.inf, mistake=1.0)
    reverse = rank(jax.random.key(0), wrong, segments, groups)
    np.testing.assert_array_equal(u[reverse.order], u[oracle.order][:, ::-1])
    silent = teacher(partial_return(), skip=float(u[np.asarray(groups[1])].max()))
    answered = rank(jax.random.key(0), silent, segments, groups).mask
    np.testing.assert_array_equal(answered, [u[:4].max() > u[4:8].max(), False])
    spread = float(np.ptp(u[:4]))
    bored = teacher(partial_return(), equal=spread * 1.01)
    assert not rank(jax.random.key(0), bored, segments, groups).mask[0]


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"rationality": -1.0}, "rationality must be at least 0, got -1"),
        ({"myopia": 1.1}, r"myopia must be a probability in \[0, 1\], got 1.1"),
        ({"mistake": -0.2}, r"mistake must be a probability in \[0, 1\], got -0.2"),
        ({"equal": -1.0}, "equal must be at least 0, got -1"),
        ({"skip": float("nan")}, "skip must be a utility, got NaN"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, says):
    with pytest.raises(ValueError, match=says):
        teacher(partial_return(), **knobs)


def test_a_teacher_has_no_teacher():
    with pytest.raises(ValueError, match="not of another teacher"):
        teacher(teacher(partial_return()))
