"""Bootstrap intervals: coverage, independent loops, pairing, seeds, degenerate inputs."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    crossed,
    geometric_mean,
    hierarchical_bootstrap,
    mean,
    paired_bootstrap,
    paired_hierarchical_bootstrap,
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


def by_seed_and_drop(rng, seeds, drops, seed_sd, drop_sd, own_sd):
    """Gaussian values [seeds, drops] around 0: a part per seed, one per drop, and one of both."""
    return (
        seed_sd * rng.normal(size=(seeds, 1))
        + drop_sd * rng.normal(size=(1, drops))
        + own_sd * rng.normal(size=(seeds, drops))
    )


def loop_statistic(values, name):
    """The endpoint of values [S, D, U] in plain NumPy."""
    if name == "mean":
        return np.nanmean(values)
    if name == "p5":
        return np.nanpercentile(values, 5)
    per_drop = np.nanprod(values, axis=2) ** (1 / np.sum(~np.isnan(values), axis=2))
    return np.prod(per_drop) ** (1 / per_drop.size)


STATISTICS = {"mean": mean, "p5": pooled_percentile(5), "geometric": geometric_mean}


@pytest.mark.parametrize("name", STATISTICS)
def test_same_indices_same_numbers_as_a_double_loop(name):
    rng = np.random.default_rng(8)
    values = rng.lognormal(size=(3, 7, 4))
    values[:, 2, 3] = np.nan  # a masked user
    seeds, drops = rng.integers(3, size=(20, 3)), rng.integers(7, size=(20, 7))
    expected = []
    for chosen_seeds, chosen_drops in zip(seeds, drops, strict=True):
        picked = [[values[s, d] for d in chosen_drops] for s in chosen_seeds]
        expected.append(loop_statistic(np.array(picked), name))
    got = crossed(values, STATISTICS[name], seeds, drops)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("name", STATISTICS)
def test_hierarchical_interval_agrees_with_a_double_loop(name):
    rng = np.random.default_rng(9)
    reference = np.exp(by_seed_and_drop(rng, 5, 20, 0.1, 0.6, 0.1))[..., None]
    reference = reference * rng.lognormal(sigma=0.3, size=(1, 20, 6))
    values = reference * np.exp(0.1 + by_seed_and_drop(rng, 5, 20, 0.1, 0.1, 0.1))[..., None]
    estimates = []
    for _ in range(2000):
        picked = np.ix_(rng.integers(5, size=5), rng.integers(20, size=20))
        ours, theirs = (loop_statistic(side[picked], name) for side in (values, reference))
        estimates.append(ours / theirs - 1)
    low, high = np.percentile(estimates, [2.5, 97.5])
    got = paired_hierarchical_bootstrap(values, reference, STATISTICS[name], relative=True)
    whole = loop_statistic(values, name) / loop_statistic(reference, name) - 1
    assert got.value == pytest.approx(whole)
    assert got.low == pytest.approx(low, abs=0.1 * (high - low))
    assert got.high == pytest.approx(high, abs=0.1 * (high - low))


def coverage(interval_of, seeds=12, trials=300):
    rng = np.random.default_rng(10)
    inside = 0
    for trial in range(trials):
        values = by_seed_and_drop(rng, seeds, 30, 1.0, 1.0, 0.5)
        low_high = interval_of(values, trial)
        inside += low_high.low <= 0 <= low_high.high
    return inside / trials


# a little short with 12 seeds and 30 drops, as documented with 3; the spread is 1.3 and 2.3 points
@pytest.mark.parametrize(("seeds", "least", "most"), [(12, 0.88, 0.985), (3, 0.72, 0.87)])
def test_hierarchical_interval_covers_as_often_as_it_says_and_drops_alone_do_not(
    seeds, least, most
):
    def both(values, trial):
        return hierarchical_bootstrap(values, num_resamples=400, seed=trial)

    def drops_alone(values, trial):
        return bootstrap_interval(values.mean(axis=0), num_resamples=400, seed=trial)

    covered = coverage(both, seeds)
    assert least <= covered <= most
    assert coverage(drops_alone, seeds) < covered - 0.15


def test_paired_hierarchical_difference_covers_the_true_difference():
    def paired(values, trial):
        rng = np.random.default_rng(1000 + trial)
        scheduler = 5.0 * rng.normal(size=(1, 30))  # one seed; its drops are the policy's
        return paired_hierarchical_bootstrap(
            values + scheduler, scheduler, num_resamples=400, seed=trial
        )

    assert 0.88 <= coverage(paired) <= 0.985


def test_one_seed_is_the_bootstrap_over_drops():
    rng = np.random.default_rng(11)
    values, reference = rng.lognormal(size=(2, 12, 5))
    p5 = pooled_percentile(5)
    assert hierarchical_bootstrap(values[None], p5) == bootstrap_interval(values, p5)
    assert paired_hierarchical_bootstrap(
        values[None], reference[None], p5, relative=True
    ) == paired_bootstrap(values, reference, p5, relative=True)


def test_equal_seeds_change_nothing_but_the_draw():
    drops = np.random.default_rng(12).normal(size=20)
    repeated = hierarchical_bootstrap(np.tile(drops, (4, 1)), num_resamples=20000)
    once = bootstrap_interval(drops, num_resamples=20000)
    assert repeated.value == pytest.approx(once.value)
    assert repeated.low == pytest.approx(once.low, abs=0.03 * (once.high - once.low))
    assert repeated.high == pytest.approx(once.high, abs=0.03 * (once.high - once.low))


def test_a_single_seed_meets_every_seed_of_the_other_side():
    rng = np.random.default_rng(13)
    values, reference = rng.normal(size=(4, 9)), rng.normal(size=(1, 9))
    one = paired_hierarchical_bootstrap(values, reference, seed=3)
    assert one == paired_hierarchical_bootstrap(values, np.tile(reference, (4, 1)), seed=3)
    other = paired_hierarchical_bootstrap(reference, values, seed=3)
    assert other == pytest.approx((-one.value, -one.high, -one.low))


def test_one_drop_of_many_seeds_says_nothing_about_spread():
    assert hierarchical_bootstrap(np.array([[1.0], [3.0]])) == Interval(2.0, -np.inf, np.inf)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_geometric_mean_is_scipys_and_its_ratios_multiply(seed, scale):
    rng = np.random.default_rng(seed)
    samples = rng.lognormal(size=(3, 5, 4))
    got = geometric_mean(samples)
    np.testing.assert_allclose(got, scipy.stats.gmean(samples.reshape(3, -1), axis=1), rtol=1e-9)
    np.testing.assert_allclose(geometric_mean(scale * samples), scale * got, rtol=1e-9)
    factors = rng.lognormal(size=(1, 5, 1))
    ratio = geometric_mean(samples * factors) / got
    np.testing.assert_allclose(ratio, scipy.stats.gmean(factors, axis=None), rtol=1e-9)
    # drops count alike, whatever their number of users
    samples[:, 0, 1:] = np.nan
    per_drop = scipy.stats.gmean(samples, axis=2, nan_policy="omit")
    np.testing.assert_allclose(
        geometric_mean(samples), scipy.stats.gmean(per_drop, axis=1), rtol=1e-9
    )


def test_a_starved_user_makes_the_geometric_mean_zero():
    samples = np.array([[[1.0, 0.0], [2.0, 8.0]], [[1.0, np.nan], [2.0, 8.0]]])
    np.testing.assert_allclose(geometric_mean(samples), [0.0, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.zeros(0)), "at least one drop"),
        (lambda: bootstrap_interval(np.float64(1)), "at least one drop"),
        (lambda: bootstrap_interval(np.ones(3), confidence=1.0), "confidence"),
        (lambda: bootstrap_interval(np.ones(3), num_resamples=0), "num_resamples"),
        (lambda: paired_bootstrap(np.ones(3), np.ones(4)), r"\(3,\) and \(4,\)"),
        (lambda: pooled_percentile(101), "percent"),
        (lambda: hierarchical_bootstrap(np.ones(3)), r"one seed and one drop .* \(3,\)"),
        (lambda: hierarchical_bootstrap(np.ones((0, 3))), "at least one seed"),
        (lambda: hierarchical_bootstrap(np.full((2, 3), np.nan)), "only NaN"),
        (lambda: hierarchical_bootstrap(np.ones((2, 3)), confidence=0), "confidence"),
        (
            lambda: paired_hierarchical_bootstrap(np.ones((2, 3)), np.ones((3, 3))),
            r"\(2, 3\) and \(3, 3\)",
        ),
        (
            lambda: paired_hierarchical_bootstrap(np.ones((2, 3)), np.ones((1, 4))),
            r"\(2, 3\) and \(1, 4\)",
        ),
        (
            lambda: paired_hierarchical_bootstrap(np.ones((2, 3)), np.full((2, 3), np.nan)),
            "only NaN",
        ),
        (lambda: geometric_mean(-np.ones((1, 2))), "at least 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
