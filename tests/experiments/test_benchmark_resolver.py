"""The resolver's benchmark: its instances, its rivals, its floor and its file."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_resolver as benchmark
from experiments import quota_rivals
from experiments.benchmark_resolver import BenchmarkResolver, Setting
from experiments.names import UsageError

USERS, PRBS, DROPS, SLOTS = 3, 7, 4, 5


@pytest.fixture(scope="module")
def slots():
    return tuple(np.asarray(a) for a in benchmark.drop_slots(USERS, PRBS, DROPS, SLOTS))


def test_instances_are_consecutive_slots_of_drops(slots):
    quotas, weights = slots
    assert quotas.shape == (SLOTS, DROPS, USERS) and weights.shape == (*quotas.shape, PRBS)
    assert (quotas >= 0).all() and (quotas.sum(-1) == PRBS).all()
    assert np.isfinite(weights).all() and (weights > 0).all()
    # a slot resembles the next one more than another drop's
    change = np.abs(np.diff(weights, axis=0)).mean()
    assert change < 0.5 * np.abs(weights - weights[:, ::-1]).mean()


def test_rivals_meet_the_quotas(slots):
    quotas, weights = slots[0][-1], slots[1][-1]
    for solver in (
        quota_rivals.scipy_assignment,
        quota_rivals.optax_assignment,
        quota_rivals.greedy,
        quota_rivals.sinkhorn,
    ):
        convert = np.asarray if solver is quota_rivals.scipy_assignment else jnp.asarray
        owner = np.asarray(solver(convert(quotas[0]), convert(weights[0])))
        assert np.bincount(owner, minlength=USERS).tolist() == quotas[0].tolist()


def test_exact_rivals_reach_the_optimum_and_the_others_do_not_pass_it():
    rows = benchmark.measure_rivals(USERS, PRBS, 8)
    loss = {row["solver"]: (row["loss_mean"], row["loss_max"]) for row in rows}
    for name in ("scipy", "optax"):
        assert loss[name] == pytest.approx((0, 0), abs=1e-3)
    assert loss["greedy"][1] >= loss["greedy"][0] > 0.01
    assert loss["sinkhorn"][0] > -1e-3
    assert all(row["us_per_solve"] > 0 for row in rows)


def test_settings_split_the_largest_batch_on_a_cpu_only():
    options = BenchmarkResolver(threads=2)
    on_cpu = benchmark.settings(options, [(4, 13)], (1, 64), on_cpu=True)
    assert [(s.batch, s.threads) for s in on_cpu] == [(1, 1), (64, 1), (64, 2)]
    assert len(benchmark.settings(options, [(4, 13)], (1, 64), on_cpu=False)) == 2


def test_floor_is_a_pass_over_users_and_prbs():
    rate = benchmark.integer_rate(1 << 8, rounds=4)
    assert rate > 1e6
    floor = benchmark.floor_us(16, 51, rate)
    assert floor == pytest.approx(2 * benchmark.floor_us(8, 51, rate))
    assert floor == pytest.approx(4 * 16 * 51 / rate * 1e6)


@pytest.mark.parametrize("sizes", ["", "4", "4x", "0x13", "4x13,65x51", "4x300"])
def test_malformed_sizes_are_named(sizes):
    with pytest.raises(UsageError, match="--sizes"):
        benchmark.parse_sizes(sizes)


def test_a_batch_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="batch 3 does not divide over 2 threads"):
        benchmark.measure(Setting(2, 4, batch=3, threads=2))


def test_the_benchmark_writes_its_file(tmp_path: Path):
    options = BenchmarkResolver(
        out=tmp_path / "resolver.json", sizes="2x4", batches="2", threads=1, rivals=0, quick=True
    )
    results = benchmark.run(options, ["benchmark", "resolver"])
    written = json.loads(options.out.read_text())
    assert written["rows"] == json.loads(json.dumps(results["rows"]))
    assert [row["start"] for row in written["rows"]] == ["cold", "warm"]
    for row in written["rows"]:
        assert row["spread"][0] <= row["solves_per_s"] <= row["spread"][1]
        assert row["compile_s"] > 0 and row["cpu_us_per_solve"] > 0
    assert written["gaps_above_0"] == written["not_met"] == 0 and written["solved"] > 0
    assert written["rivals"] == []
    assert written["floor"]["us_per_solve"]["2x4"] > 0
