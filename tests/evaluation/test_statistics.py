"""Bootstrap intervals: coverage, an independent loop, pairing, degenerate inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    mean,
    paired_bootstrap,
    pooled_percentile,
)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        low_high = bootstrap_interval(rng.gamma(4.0, size=40), num_resamples=400, seed=trial)
        covered += low_high.low <= 4.0 <= low_high.high
    # The percentile interval is a little too short at 40 drops; binomial spread is 1.1 points.
    assert 0.90 <= covered / 400 <= 0.985


def test_paired_difference_covers_the_true_difference():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        drop = rng.normal(size=32)
        ours = drop + 0.3 + 0.1 * rng.normal(size=32)
        interval = paired_bootstrap(ours, drop, num_resamples=400, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.90 <= covered / 400 <= 0.985


@pytest.mark.parametrize("relative", [False, True])
def test_pooled_percentile_agrees_with_a_numpy_loop(relative):
    rng = np.random.default_rng(2)
    reference = rng.lognormal(size=(24, 1)) * rng.lognormal(size=(24, 16))
    values = reference * rng.uniform(0.9, 1.4, size=(24, 16))
    values[3, 10:] = reference[3, 10:] = np.nan  # masked users

    estimates = []
    for _ in range(4000):
        drops = rng.integers(24, size=24)
        ours = np.nanpercentile(values[drops], 5)
        theirs = np.nanpercentile(reference[drops], 5)
        estimates.append(ours / theirs - 1 if relative else ours - theirs)
    low, high = np.percentile(estimates, [2.5, 97.5])

    got = paired_bootstrap(values, reference, pooled_percentile(5), relative=relative)
    spread = high - low
    ours, theirs = np.nanpercentile(values, 5), np.nanpercentile(reference, 5)
    assert got.value == pytest.approx(ours / theirs - 1 if relative else ours - theirs)
    assert got.low == pytest.approx(low, abs=0.08 * spread)
    assert got.high == pytest.approx(high, abs=0.08 * spread)


@settings(max_examples=30, deadline=None)
@given(
    drops=st.integers(1, 6),
    users=st.integers(1, 5),
    percent=st.floats(0, 100),
    seed=st.integers(0, 2**31),
)
def test_pooled_percentile_is_numpys(drops, users, percent, seed):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(3, drops, users))
    samples[:, :, 1:][rng.random((3, drops, users - 1)) < 0.3] = np.nan
    expected = [np.nanpercentile(sample, percent) for sample in samples]
    np.testing.assert_allclose(pooled_percentile(percent)(samples), expected, rtol=1e-9, atol=1e-12)


def test_pairing_is_much_tighter_than_two_separate_intervals():
    rng = np.random.default_rng(3)
    drop = rng.normal(100.0, 16.0, size=32)
    ours = drop * 1.03 + rng.normal(size=32)
    paired = paired_bootstrap(ours, drop)
    alone = bootstrap_interval(ours)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_statistics_are_resampled_by_drop_not_by_user():
    rng = np.random.default_rng(4)
    by_drop = np.repeat(rng.normal(size=(20, 1)), 50, axis=1)  # users of a drop are one draw
    whole = bootstrap_interval(by_drop)
    rows = bootstrap_interval(by_drop[:, 0])
    assert whole == pytest.approx(rows)


def test_same_seed_same_interval():
    values = np.random.default_rng(5).normal(size=(10, 3))
    assert bootstrap_interval(values, seed=7) == bootstrap_interval(values, seed=7)
    assert bootstrap_interval(values, seed=7) != bootstrap_interval(values, seed=8)


def test_batches_do_not_change_the_interval(monkeypatch):
    values = np.random.default_rng(6).normal(size=(10, 3))
    whole = bootstrap_interval(values, num_resamples=500)
    monkeypatch.setattr("jaxrl5g.evaluation.statistics._BATCH_ELEMENTS", 100)
    assert bootstrap_interval(values, num_resamples=500) == whole


def test_one_drop_says_nothing_about_spread():
    assert bootstrap_interval(np.array([3.0])) == Interval(3.0, -np.inf, np.inf)
    assert paired_bootstrap(np.array([3.0]), np.array([1.0])) == Interval(2.0, -np.inf, np.inf)


def test_no_variance_gives_a_point():
    assert bootstrap_interval(np.full(8, 2.0)) == Interval(2.0, 2.0, 2.0)
    same = np.arange(8.0)
    assert paired_bootstrap(same, same) == Interval(0.0, 0.0, 0.0)
    assert paired_bootstrap(same, same, mean, relative=True) == Interval(0.0, 0.0, 0.0)


def test_undefined_statistics_give_undefined_bounds_quietly():
    unknown = bootstrap_interval(np.full((5, 2), np.nan))
    assert np.isnan(unknown).all()
    to_zero = paired_bootstrap(np.arange(1.0, 6.0), np.zeros(5), relative=True)
    assert to_zero.value == np.inf and not np.isfinite(to_zero.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.zeros(0)), "at least one drop"),
        (lambda: bootstrap_interval(np.float64(1)), "at least one drop"),
        (lambda: bootstrap_interval(np.ones(3), confidence=1.0), "confidence"),
        (lambda: bootstrap_interval(np.ones(3), num_resamples=0), "num_resamples"),
        (lambda: paired_bootstrap(np.ones(3), np.ones(4)), r"\(3,\) and \(4,\)"),
        (lambda: pooled_percentile(101), "percent"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
