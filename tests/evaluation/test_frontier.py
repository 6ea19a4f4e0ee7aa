"""Gain at matched Jain: the hull against SciPy's, what no rival can gain, what is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from jaxrl5g.evaluation.frontier import concave_majorant, matched_jain_gain, mean_jain_gain

SEEDS = st.integers(0, 2**31)


def points(rng, number, drops):
    """Rivals' Jain and throughput [P, D]: less of one for more of the other, with noise."""
    jain = rng.uniform(0.3, 1.0, size=(number, drops))
    return jain, 5.0 - 2.0 * jain**2 + 0.2 * rng.normal(size=(number, drops))


def upper_hull(jain, throughput):
    """Vertices of the upper side of SciPy's hull, left to right."""
    corners = np.stack([jain, throughput], axis=1)
    hull = ConvexHull(corners)
    above = hull.equations[:, 1] > 0  # facets whose outward normal points up
    vertices = corners[np.unique(hull.simplices[above])]
    return vertices[np.argsort(vertices[:, 0])].T


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, number=st.integers(3, 12))
def test_majorant_is_scipys_convex_hull(seed, number):
    rng = np.random.default_rng(seed)
    jain, throughput = points(rng, number, 1)
    corner_x, corner_y = upper_hull(jain[:, 0], throughput[:, 0])
    x = np.concatenate([rng.uniform(corner_x[0], corner_x[-1], 20), corner_x])
    got = concave_majorant(x, jain, throughput)
    np.testing.assert_allclose(got, np.interp(x, corner_x, corner_y), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, number=st.integers(2, 8))
def test_majorant_is_concave_above_all_points_and_ends_with_them(seed, number):
    rng = np.random.default_rng(seed)
    jain, throughput = points(rng, number, 1)
    jain[-1] = jain[0]  # two rivals of one Jain
    assert (concave_majorant(jain[:, 0], jain, throughput) >= throughput[:, 0] - 1e-9).all()
    x = np.linspace(jain.min(), jain.max(), 41)
    bends = np.diff(concave_majorant(x[:-1], jain, throughput), 2)
    assert (bends <= 1e-9).all()
    beyond = np.array([jain.min() - 1e-6, jain.max() + 1e-6, np.nan])
    assert np.isnan(concave_majorant(beyond, jain, throughput)).all()


def test_one_rival_is_a_frontier_of_one_point():
    one = np.array([[0.8]]), np.array([[3.0]])
    got = concave_majorant(np.array([0.8, 0.7, 0.9]), *one)
    np.testing.assert_array_equal(got, [3.0, np.nan, np.nan])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, number=st.integers(1, 6))
def test_no_rival_gains_anything_on_any_drop(seed, number):
    jain, throughput = points(np.random.default_rng(seed), number, 7)
    for rival in range(number):
        got = matched_jain_gain(jain[rival], throughput[rival], jain, throughput, num_resamples=9)
        assert (got.comparable, got.fairer, got.less_fair) == (7, 0, 0)
        assert (got.gains <= 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_another_rival_never_raises_the_gain(seed):
    rng = np.random.default_rng(seed)
    jain, throughput = points(rng, 6, 9)
    own = points(rng, 2, 9)
    few = matched_jain_gain(*own, jain[:-1], throughput[:-1], num_resamples=9)
    more = matched_jain_gain(*own, jain, throughput, num_resamples=9)
    known = ~np.isnan(few.gains)
    assert (more.gains[known] <= few.gains[known] + 1e-9).all()
    assert more.comparable >= few.comparable


def test_gain_is_the_height_above_the_line_between_two_rivals():
    frontier_jain = np.array([[0.6, 0.5], [0.8, 0.9]])
    frontier = np.array([[4.0, 8.0], [2.0, 4.0]])
    # at a quarter and at half of the way: 3.5 and 6
    got = matched_jain_gain(np.array([0.65, 0.7]), np.array([4.2, 6.3]), frontier_jain, frontier)
    np.testing.assert_allclose(got.gains, [[0.7, 0.3]])
    assert got.gain.value == pytest.approx(0.5)
    assert got.relative.value == pytest.approx((0.7 / 3.5 + 0.3 / 6.0) / 2)


def test_what_is_beyond_the_frontier_is_counted_and_left_out():
    frontier_jain = np.tile([[0.5], [0.9]], 5)
    frontier = np.tile([[4.0], [2.0]], 5)
    frontier[:, 4] = np.nan  # a drop without rivals
    jain = np.array([[0.7, 0.4, 0.95, np.nan, 0.7], [0.95, 0.7, 0.96, 0.5, 0.99]])
    got = matched_jain_gain(jain, np.full((2, 5), 3.5), frontier_jain, frontier)
    expected = [[0.5, np.nan, np.nan, np.nan, np.nan], [np.nan, 0.5, np.nan, -0.5, np.nan]]
    np.testing.assert_allclose(got.gains, expected)
    assert (got.comparable, got.fairer, got.less_fair) == (3, 3, 1)
    assert got.gain.value == pytest.approx(0.5 / 3)
    none = matched_jain_gain(np.full(5, 0.99), np.ones(5), frontier_jain, frontier)
    assert np.isnan([*none.gain, *none.relative]).all()
    assert (none.comparable, none.fairer, none.less_fair) == (0, 4, 0)


def test_interval_covers_a_true_gain_and_luck_shared_by_all_cancels():
    rng = np.random.default_rng(1)
    inside, widths = 0, []
    for trial in range(200):
        shared = rng.normal(scale=2.0, size=30)  # the drop's own throughput
        jain = np.linspace(0.4, 0.95, 8)[:, None] + 0.0 * shared
        frontier = 10.0 - 5.0 * jain + shared
        own = rng.uniform(0.5, 0.9, size=30)
        noise = 0.1 * rng.normal(size=30)
        got = matched_jain_gain(
            own,
            10.0 - 5.0 * own + shared + 0.3 + noise,
            jain,
            frontier,
            num_resamples=400,
            seed=trial,
        )
        inside += got.gain.low <= 0.3 <= got.gain.high
        widths.append(got.gain.high - got.gain.low)
    assert 0.90 <= inside / 200 <= 0.99
    assert np.mean(widths) < 0.1  # unpaired drops would give 1.4


def test_noise_of_the_rivals_biases_the_gain_downwards():
    rng = np.random.default_rng(2)
    own = rng.uniform(0.5, 0.9, size=400)

    def gain(number):
        jain = np.linspace(0.4, 0.95, number)[:, None] + np.zeros(400)
        frontier = 10.0 - 5.0 * jain + 0.2 * rng.normal(size=jain.shape)
        throughput = 10.0 - 5.0 * own + 0.2 * rng.normal(size=400)
        return matched_jain_gain(own, throughput, jain, frontier, num_resamples=9).gain.value

    assert gain(16) < gain(4) < -0.05


EIGHT = np.full(8, 0.7)
FRONT = np.full((2, 8), 0.7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EIGHT, EIGHT[:-1], FRONT, FRONT), r"\(8,\) and \(7,\)"),
        ((EIGHT[None, None], EIGHT[None, None], FRONT, FRONT), "seeds, drops"),
        ((EIGHT, EIGHT, FRONT[:, :-1], FRONT[:, :-1]), r"\[points, 8 drops\]"),
        ((EIGHT, EIGHT, FRONT, FRONT[:1]), r"\(2, 8\) and \(1, 8\)"),
        ((EIGHT, EIGHT, EIGHT, EIGHT), "points, 8 drops"),
        ((EIGHT * np.nan, EIGHT, FRONT, FRONT), "known point is needed of the policy"),
        ((EIGHT, EIGHT, FRONT, FRONT * np.nan), "known point is needed of the frontier"),
        ((EIGHT, EIGHT, FRONT[:0], FRONT[:0]), "known point is needed of the frontier"),
        ((EIGHT[:0], EIGHT[:0], FRONT[:, :0], FRONT[:, :0]), "known point is needed of the policy"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        matched_jain_gain(*arguments)


def test_bad_confidence_is_named():
    with pytest.raises(ValueError, match="confidence"):
        matched_jain_gain(EIGHT, EIGHT, FRONT, FRONT, confidence=1.0)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, number=st.integers(2, 6))
def test_a_rival_gains_nothing_over_the_frontier_of_means(seed, number):
    jain, throughput = points(np.random.default_rng(seed), number, 8)
    for rival in range(number):
        got = mean_jain_gain(jain[rival], throughput[rival], jain, throughput, num_resamples=99)
        assert max(got) <= 1e-9
    best = np.argmax(throughput.mean(axis=1))
    assert abs(mean_jain_gain(jain[best], throughput[best], jain, throughput).value) < 1e-9


def test_gain_over_the_frontier_of_means_is_read_between_its_points():
    """Means (0.6, 5) and (0.8, 3) of two seeds' rivals; the policy's (0.7, 4.4) is 10 % above."""
    jain = np.array([[0.68, 0.7, 0.7], [0.7, 0.7, 0.72]])
    throughput = np.array([[4.0, 4.4, 4.8], [4.3, 4.4, 4.5]])
    front_jain = np.array([[0.55, 0.6, 0.65], [0.85, 0.8, 0.75]])
    front = np.array([[5.5, 5.0, 4.5], [2.0, 3.0, 4.0]])
    got = mean_jain_gain(jain, throughput, front_jain, front)
    np.testing.assert_allclose(got.value, 0.1, rtol=1e-9)
    assert got.low < 0.1 < got.high
    beyond = mean_jain_gain(np.full(3, 0.95), np.ones(3), front_jain, front)
    assert np.isnan(beyond.value)


def test_the_frontier_of_means_is_less_biased_than_that_of_each_drop():
    """A policy on the true frontier, all of them with luck of their own."""
    rng = np.random.default_rng(0)
    level = np.linspace(0.5, 0.9, 7)
    by_drop, by_means = [], []
    for _ in range(40):
        luck = 0.15 * rng.normal(size=(8, 32))
        everyone = np.append(level, 0.7)[:, None] + np.zeros(32)
        carried = 5.0 - 2.0 * everyone**2 + luck
        arguments = everyone[-1], carried[-1], everyone[:-1], carried[:-1]
        by_drop.append(matched_jain_gain(*arguments, num_resamples=9).relative.value)
        by_means.append(mean_jain_gain(*arguments, num_resamples=9).value)
    assert np.mean(by_drop) < -0.02
    assert abs(np.mean(by_means)) < 0.01
