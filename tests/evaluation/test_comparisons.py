"""IQM, probability of improvement, the exchange test and Holm against independent answers."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.env import DownlinkConfig
from jaxrl5g.evaluation.comparisons import (
    ENDPOINTS,
    compare,
    exchange_test,
    holm,
    interquartile_mean,
    probability_of_improvement,
)
from jaxrl5g.evaluation.metrics import Tally, summarise
from jaxrl5g.evaluation.statistics import (
    bootstrap_interval,
    geometric_mean,
    hierarchical_bootstrap,
    mean,
    paired_hierarchical_bootstrap,
    pooled_percentile,
)

SEEDS = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 30), absent=st.integers(0, 5))
def test_interquartile_mean_is_scipys_trimmed_mean(seed, count, absent):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, size=(4, count))
    expected = scipy.stats.trim_mean(values, 0.25, axis=1)
    padded = np.concatenate([values, np.full((4, absent), np.nan)], axis=1)
    got = interquartile_mean(rng.permuted(padded, axis=1))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_interquartile_mean_of_seeds_and_drops_pools_them():
    scores = np.random.default_rng(0).normal(size=(5, 8))
    scores[0, 0] = 1e6  # an outlier
    got = hierarchical_bootstrap(scores, interquartile_mean)
    assert got.value == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None))
    assert -1 < got.low < got.value < got.high < 1


def test_interquartile_mean_covers_the_median_of_a_symmetric_law():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(300):
        drops = rng.standard_t(2, size=40)
        got = bootstrap_interval(drops, interquartile_mean, num_resamples=400, seed=trial)
        inside += got.low <= 0 <= got.high
    assert 0.90 <= inside / 300 <= 0.985


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, ours=st.integers(1, 6), theirs=st.integers(1, 6), drops=st.integers(1, 5))
def test_probability_of_improvement_is_mann_whitneys(seed, ours, theirs, drops):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(4, size=(ours, drops)), rng.integers(4, size=(theirs, drops))  # ties
    u = scipy.stats.mannwhitneyu(x, y, axis=0, method="asymptotic").statistic
    got = probability_of_improvement(x, y, num_resamples=20)
    assert got.value == pytest.approx(np.mean(u / (ours * theirs)))
    back = probability_of_improvement(y, x, num_resamples=20)
    assert got.value + back.value == pytest.approx(1.0)


def test_probability_of_improvement_resamples_drops_and_each_sides_seeds():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6, 1)) + 0.5 * rng.normal(size=(6, 15)) + 0.4
    y = rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(4, 15))
    estimates = []
    for _ in range(2000):
        drops = rng.integers(15, size=15)
        a = x[np.ix_(rng.integers(6, size=6), drops)]
        b = y[np.ix_(rng.integers(4, size=4), drops)]
        wins = [(a[:, d][:, None] > b[:, d]).mean() for d in range(15)]
        estimates.append(np.mean(wins))
    low, high = np.percentile(estimates, [2.5, 97.5])
    got = probability_of_improvement(x, y)
    assert got.low == pytest.approx(low, abs=0.1 * (high - low))
    assert got.high == pytest.approx(high, abs=0.1 * (high - low))


def test_probability_of_improvement_leaves_out_what_is_unknown():
    x = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan]])
    y = np.array([[2.0, 5.0, 0.0]])
    assert probability_of_improvement(x, y).value == pytest.approx(0.5)
    # pairs known: drop 0 one of two, drop 1 two ties; weighted by pair
    x[0, 1] = np.nan
    assert probability_of_improvement(x, y).value == pytest.approx((0 + 1 + 0.5) / 3)


@pytest.mark.parametrize("statistic", [mean, pooled_percentile(5), geometric_mean])
def test_exchange_test_is_exact_on_few_drops(statistic):
    rng = np.random.default_rng(3)
    reference = rng.lognormal(size=(2, 6, 3))
    values = reference * rng.lognormal(0.2, 0.4, size=(2, 6, 3))

    def difference(swap):
        chosen = np.array(swap)[None, :, None]
        sides = np.where(chosen, reference, values), np.where(chosen, values, reference)
        ours, theirs = (statistic(side.reshape(1, -1, 3))[0] for side in sides)
        return ours - theirs

    seen = difference([False] * 6)
    null = np.array([difference(swap) for swap in itertools.product([False, True], repeat=6)])
    slack = 1e-9 * abs(seen)
    expected = 2 * min(np.mean(null >= seen - slack), np.mean(null <= seen + slack))
    assert exchange_test(values, reference, statistic) == pytest.approx(min(expected, 1.0))


def test_exchange_test_rejects_as_often_as_it_says():
    rng = np.random.default_rng(4)
    p_values = []
    for trial in range(300):
        drops = rng.normal(scale=3.0, size=(1, 20))
        sides = drops + rng.standard_t(3, size=(2, 1, 20))
        p_values.append(exchange_test(*sides, num_permutations=199, seed=trial))
    p_values = np.array(p_values)
    assert np.mean(p_values <= 0.05) <= 0.09  # 5 % and three standard errors
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    shifted = exchange_test(drops + 1.0 + 0.1 * rng.normal(size=(1, 20)), drops)
    assert shifted < 0.001


def test_exchange_test_of_a_policy_with_itself():
    values = np.random.default_rng(5).normal(size=(3, 15))
    assert exchange_test(values, values, num_permutations=200) == 1.0


def test_holms_textbook_example():
    # four tests: 0.005 * 4, then 0.01 * 3, then 0.03 * 2, and 0.04 held up by the one before
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@settings(max_examples=60, deadline=None)
@given(
    p=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 1.0]), min_size=1, max_size=7),
    level=st.floats(0.001, 0.999),
)
def test_holm_is_the_step_down_procedure(p, level):
    adjusted = holm(p)
    rejected = set()
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - rank) > level:
            break
        rejected.add(int(index))
    assert {i for i, a in enumerate(adjusted) if a <= level} == rejected
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * np.array(p))).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def run_metrics(bits):
    zero = np.zeros(len(bits))
    config = DownlinkConfig(num_users=bits.shape[-1], num_prbs=10)
    tally = Tally(bits, zero, zero, zero, zero, zero, zero, np.ones(bits.shape, bool))
    return summarise(tally, 100, config, 360e3)


def test_compare_brings_intervals_and_corrected_p_values_together():
    rng = np.random.default_rng(6)
    bits = rng.lognormal(sigma=0.5, size=(40, 1, 8)) * 1e5
    trained = [run_metrics(bits * 1.1 * rng.lognormal(sigma=0.02, size=(40, 1, 1))) for _ in "abc"]
    reference = [run_metrics(bits)]
    got = compare(trained, reference, num_resamples=999)
    assert list(got) == ["geometric_mean", "cell_throughput", "p5_user_throughput", "jain"]
    for name, endpoint in ENDPOINTS.items():
        ours, theirs = (
            np.stack([getattr(run, endpoint.field) for run in runs])
            for runs in (trained, reference)
        )
        assert got[name].difference == paired_hierarchical_bootstrap(
            ours, theirs, endpoint.statistic, relative=endpoint.relative, num_resamples=999
        )
        assert got[name].p_value == exchange_test(
            ours, theirs, endpoint.statistic, num_permutations=999
        )
    adjusted = [row.adjusted for row in got.values()]
    np.testing.assert_array_equal(adjusted, holm([row.p_value for row in got.values()]))
    for name in ("geometric_mean", "cell_throughput", "p5_user_throughput"):
        assert 0.05 < got[name].difference.low < got[name].difference.high < 0.15
        assert got[name].adjusted < 0.05
    # all users gained alike
    assert got["jain"].difference.value == pytest.approx(0, abs=1e-12)
    # the ratio of geometric means per drop, then its geometric mean
    ratios = [run.geometric_mean / reference[0].geometric_mean for run in trained]
    expected = scipy.stats.gmean(np.concatenate(ratios)) - 1
    assert got["geometric_mean"].difference.value == pytest.approx(expected)


ONES = np.ones((2, 3))
NANS = np.full((2, 3), np.nan)
METRICS = [run_metrics(np.ones((2, 1, 3)))]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: probability_of_improvement(ONES, np.ones((2, 4))), r"\(2, 3\) and \(2, 4\)"),
        (lambda: probability_of_improvement(np.ones((2, 3, 1)), ONES), "seeds, drops"),
        (lambda: probability_of_improvement(np.ones((0, 3)), ONES), "at least one seed"),
        (lambda: probability_of_improvement(NANS, ONES), "only NaN"),
        (lambda: exchange_test(ONES, np.ones((3, 3))), r"\(2, 3\) and \(3, 3\)"),
        (lambda: exchange_test(ONES, NANS), "only NaN"),
        (lambda: exchange_test(ONES, np.inf * ONES), "must be finite"),
        (lambda: exchange_test(ONES, ONES, num_permutations=0), "num_permutations"),
        (lambda: holm([]), "non-empty"),
        (lambda: holm([0.1, 1.2]), r"in \[0, 1\]"),
        (lambda: holm([0.1, np.nan]), r"in \[0, 1\]"),
        (lambda: compare([], METRICS), "got 0, 1 and 4"),
        (lambda: compare(METRICS, METRICS, {}), "got 1, 1 and 0"),
        (lambda: compare(METRICS, [run_metrics(np.ones((3, 1, 3)))]), "one shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
