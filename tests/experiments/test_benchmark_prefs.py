"""The benchmark of learners from preferences: its rivals agree with ours, and its file."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_prefs as benchmark
from experiments import benchmark_prefs_runs as runs
from experiments import cpl_torch, pr_lsvi_numpy
from experiments.benchmark_prefs import BenchmarkPrefs
from experiments.benchmark_prefs_runs import Setting
from experiments.cli import main
from experiments.names import UsageError
from prefs.algorithms import cpl
from prefs.algorithms.result import Result
from prefs.mdps import random_episodic

EPISODES, LANES = 200, 4
SHORT = Setting(bc_updates=10, updates=30, episodes=20, repeats=1)


def test_pytorch_learns_the_same_policy():
    pytest.importorskip("torch")
    config = SHORT.cpl_config

    @jax.jit
    def ours(key):
        return runs.cpl_task(jax.random.split(key)[0])[1], runs.cpl_run(SHORT, key)

    data, result = ours(jax.random.key(3))
    theirs = cpl_torch.train(data, (49, 4), config)
    np.testing.assert_allclose(theirs.policy, result.policy, atol=2e-4)
    assert np.abs(theirs.policy - 0.25).max() > 0.3  # and it has moved
    # the loss of the last update is the one before it; ours is looked at after it
    longer = cpl_torch.train(data, (49, 4), config.replace(steps=31))
    np.testing.assert_allclose(longer.loss, result.metrics["loss"][-1], rtol=1e-4)
    assert longer.loss < theirs.loss


def test_numpy_executes_the_same_policies_with_the_same_luck():
    setting = Setting("pr-lsvi", episodes=EPISODES)
    config = setting.lsvi_config
    shape = (EPISODES // config.refit_every, config.refit_every)

    @jax.jit
    @jax.vmap
    def ours(key):
        of_problem, of_run = jax.random.split(key)
        # the random numbers of `dueling_loop` and `pr_lsvi`, drawn as they draw them
        each = jax.random.split(jax.random.split(of_run)[1], shape).reshape(-1)
        to_propose, to_happen = jax.vmap(jax.random.split, out_axes=1)(each)
        draws = jax.vmap(lambda k: jax.random.uniform(k, (2 * 3 + 4,)))(to_happen)
        noise = jax.vmap(lambda k: jax.random.normal(k, (2, 3, 12)))(to_propose)
        return random_episodic(of_problem), draws, noise, runs.lsvi_run(setting, key)

    mdps, draws, noise, results = ours(jax.random.split(jax.random.key(5), LANES))
    for lane in range(LANES):
        mdp = jax.tree.map(lambda leaf: np.asarray(leaf[lane]), mdps)  # noqa: B023
        luck = pr_lsvi_numpy.Luck(np.asarray(draws[lane]), np.asarray(noise[lane]))
        found = pr_lsvi_numpy.train(config, mdp, luck, runs.JUDGE_SCALE)
        # a policy's exact value in every episode says which policy it was, up to ties
        np.testing.assert_allclose(found.regret, results.metrics["regret"][lane], atol=2e-3)
        np.testing.assert_array_equal(found.queried, results.metrics["queried"][lane])
        np.testing.assert_array_equal(found.policies[-1], results.policy[lane])
        assert len(np.unique(found.policies.reshape(EPISODES, -1), axis=0)) > 10
        assert found.queried.sum() > 5


@pytest.fixture(scope="module")
def stand_in():
    """A learner that compiles quickly in the place of PR-LSVI."""

    def run(setting, key):
        regret = jnp.cumsum(jax.random.uniform(key, (setting.episodes,)))
        return Result(None, None, {"regret": regret, "queries": jax.random.randint(key, (), 1, 9)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runs._RUNS, "pr-lsvi", run)
        yield


@pytest.mark.usefixtures("stand_in")
def test_runs_are_the_same_in_chunks_and_among_more():
    keys = runs.keys_of(Setting(runs=4))
    found = [
        jax.jit(runs.program(Setting("pr-lsvi", runs=4, chunk=chunk, episodes=20)))(keys)
        for chunk in (0, 2)
    ]
    for name, value in found[0].items():
        assert value.shape == (4,) and len(set(np.asarray(value).tolist())) > 1
        np.testing.assert_allclose(found[1][name], value, rtol=1e-6, err_msg=name)
    more = runs.keys_of(Setting(runs=6))[:4]
    np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(more))


@pytest.fixture(scope="module")
def row(stand_in):
    """A measurement, of the stand-in."""
    return runs.measure(Setting("pr-lsvi", runs=2, episodes=20, repeats=2))


def test_a_row_says_what_was_measured(row):
    low, high = row["spread"]
    assert low <= row["runs_per_s"] <= high and row["cpu_ms_per_run"] > 0
    assert row["compile_s"] > 0 and row["program_bytes"] > 0
    assert row["peak_rss_bytes"] >= row["rss_before_bytes"] > 0
    assert row["regret"] > 0 and row["queries"] >= 0
    json.dumps(row)


def test_rivals_are_timed_on_the_problems_of_our_first_runs():
    pytest.importorskip("torch")
    short = Setting(rival=True, runs=2, bc_updates=10, updates=10, episodes=20, repeats=1)
    for learner, metric in (("cpl", "greedy_return"), ("pr-lsvi", "regret")):
        row = runs.measure_rival(Setting(**{**vars(short), "learner": learner}))
        assert row["rival"] and row["runs_per_s"] > 0 and np.isfinite(row[metric])
    tasks = [jax.random.split(key)[0] for key in runs.keys_of(short)]
    assert (jax.random.key_data(tasks[0]) != jax.random.key_data(tasks[1])).any()


def test_without_pytorch_the_rivals_are_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="need PyTorch, which is not installed.*--no-rivals"):
        benchmark.run(BenchmarkPrefs(), [])


def test_settings_are_every_combination_that_divides():
    found = benchmark.settings(BenchmarkPrefs(cpl_runs="1,16", lsvi_runs="4", devices="1,2"))
    ours = [(s.learner, s.runs, s.devices) for s in found if not s.rival]
    assert ours == [
        ("cpl", 1, 1), ("cpl", 16, 1), ("cpl", 16, 2), ("pr-lsvi", 4, 1), ("pr-lsvi", 4, 2)
    ]  # fmt: skip
    rivals = [(s.learner, s.threads) for s in found if s.rival]
    assert rivals == [("cpl", 1), ("cpl", 0), ("pr-lsvi", 0)]
    assert all((s.bc_updates, s.updates, s.episodes) == (300, 1500, 1500) for s in found)
    quick = benchmark.settings(BenchmarkPrefs(quick=True, rivals=False, devices="1"))
    assert [(s.learner, s.runs, s.repeats) for s in quick] == [("cpl", 1, 2), ("pr-lsvi", 1, 2)]
    in_chunks = benchmark.settings(BenchmarkPrefs(cpl_runs="1,64", chunk=8, devices="1"))
    assert [(s.runs, s.chunk, s.width) for s in in_chunks[:2]] == [(1, 0, 1), (64, 8, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpl_runs": "1,x"}, "--cpl-runs must list positive integers"),
        ({"lsvi_runs": ""}, "--lsvi-runs must list positive integers"),
        ({"devices": "0"}, "--devices must list positive integers"),
        ({"devices": "7"}, "--devices 7 divide no number of runs"),
        ({"repeats": 0}, "--repeats must be at least 1"),
        ({"chunk": -1}, "--chunk must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        benchmark.settings(BenchmarkPrefs(**options))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting(devices=9999), "9999 devices asked for"),
        (Setting(runs=6, chunk=4), "6 runs do not divide over 1 devices in chunks of 4"),
    ],
)
def test_what_cannot_be_shared_out_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        runs.measure(setting)


def test_work_grows_with_updates_and_episodes():
    cost = benchmark.work(Setting("cpl"))
    assert cost["look_ups"] == cost["additions"] == 1500 * 500 * 2 * 8
    assert cost["exponentials"] == 1500 * 500 * 2
    assert benchmark.work(Setting("cpl", updates=150))["bytes"] == cost["bytes"] / 10
    lsvi = benchmark.work(Setting("pr-lsvi"))
    assert benchmark.work(Setting("pr-lsvi", episodes=3000))["flop"] == 2 * lsvi["flop"]
    assert lsvi["flop"] > 1500 * 6 * 36**2


def test_memory_on_a_line_is_told_from_memory_off_it(row):
    def rows(sizes):
        own = {**row, "learner": "cpl", "chunk": 0, "devices": 1}
        return [{**own, "runs": n, "program_bytes": size} for n, size in sizes.items()]

    straight = benchmark.summary(rows({1: 1100, 10: 2000, 100: 11000}))["cpl"]
    assert straight["bytes_per_run"] == pytest.approx(100)
    assert straight["bytes_off_line"] == pytest.approx(0, abs=1e-6)
    bent = benchmark.summary(rows({1: 1000, 10: 2000, 100: 200000}))["cpl"]
    assert bent["bytes_off_line"] > 0.2
    assert benchmark.summary(rows({1: 1100}))["cpl"]["bytes_per_run"] is None


def test_the_benchmark_writes_its_file(row, tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("torch")
    asked = []

    def apart(module, setting, devices):
        asked.append((module, devices))
        pace = 2.0 if setting.rival else 30.0
        return {**row, **vars(setting), "runs_per_s": pace, "cpu_ms_per_run": 1000 / pace}

    monkeypatch.setattr(benchmark, "run_apart", apart)
    out = tmp_path / "prefs.json"
    argv = ["benchmark", "prefs", "--cpl-runs", "2,4", "--lsvi-runs", "2", "--devices", "2"]
    assert main([*argv, "--out", str(out)]) == 0
    assert {module for module, _ in asked} == {runs.__name__}
    assert [devices for _, devices in asked] == [2, 2, 2, 1, 1, 1]
    written = json.loads(out.read_text())
    assert [r["runs"] for r in written["rows"]] == [2, 4, 2, 3, 3, 3]
    assert written["summary"]["cpl"]["times_rival"] == pytest.approx(15)
    assert written["summary"]["cpl"]["seconds_per_1024"] == pytest.approx(1024 / 30)
    assert written["rows"][0]["work"]["look_ups"] == 12_000_000
    assert written["config"]["cpl_runs"] == "2,4" and written["versions"]["jax"]
    shown = capsys.readouterr().out
    assert "runs/s" in shown and "NumPy PR-LSVI" in shown and "15.0 times the rival" in shown


def test_every_update_counts_on_both_sides():
    # 300 + 1500 of each: the defaults of CPL itself
    assert (Setting().bc_updates, Setting().updates) == (300, 1500)
    assert Setting().cpl_config == cpl.CPLConfig()
    assert jnp.isclose(Setting().lsvi_config.eps, 0.1)
