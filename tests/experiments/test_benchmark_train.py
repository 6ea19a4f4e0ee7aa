"""The training benchmark: what it times, what it adds up to, and its file."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments import benchmark_train as benchmark
from experiments.benchmark_train import BenchmarkTrain, Setting
from experiments.cli import main
from experiments.names import UsageError
from jaxrl5g.rl import mappo, probes

SMALL = {"rollout_steps": 4, "epochs": 2, "minibatches": 2, "actor_features": (4, 4)}
MARKS = 40
PARTS = ("environment", "knapsack", "resolver", "update", "rest")


def marked(latent):
    """Instructions to count: a chain that no compiler shortens."""
    for _ in range(MARKS):
        latent = jnp.sin(latent) + 0.1
    return latent


def stand_in(env, config):
    """A task that compiles quickly, with a resolver and a knapsack to leave out."""
    task = probes.cooperate()

    def second(plan, latent, at_rest, params):
        return task.second(plan, jnp.where(at_rest, latent, marked(latent)), at_rest, params)

    def step(key, state, plan, latent, at_rest, params):
        after, turn = task.step(key, state, plan, latent, at_rest, params)
        if config.parametrisation == "residual":
            turn = turn._replace(reward=turn.reward + marked(turn.reward))
        return after, turn

    return task._replace(second=second, step=step)


@pytest.fixture(scope="module")
def row():
    """A measurement of the real programs over another task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "downlink_task", stand_in)
        patch.setattr(mappo, "MappoConfig", partial(mappo.MappoConfig, **SMALL))
        return benchmark.measure(Setting("TinyDownlink-v0", envs=2, period=30, repeats=2))


def test_the_parts_add_up_to_the_whole(row):
    assert set(row["us_per_slot"]) == set(PARTS)
    assert sum(row["us_per_slot"].values()) == pytest.approx(1e6 / row["slots_per_s"])
    assert row["us_per_slot"]["environment"] > 0 and row["us_per_slot"]["update"] > 0
    low, high = row["spread"]
    assert low <= row["slots_per_s"] <= high
    assert row["compile_s"] > 0 and row["parts_compile_s"] > 0
    json.dumps(row)


def test_a_pass_has_an_episode_at_least(row):
    # 13 decisions of 30 slots make an episode of 390; four updates of 4 steps cover it
    assert Setting(period=30).horizon == 390
    assert row["slots"] == 2 * 4 * (4 * 30)
    assert row["learner"]["num_envs"] == 2 and row["learner"]["rollout_steps"] == 4


def test_a_pass_starts_where_the_last_one_did():
    seen = []

    def step(state):
        seen.append(int(state))
        return state + 1

    seconds = benchmark._pass_seconds(step, jnp.int32(5), count=3, repeats=2)
    assert seen == [5, 5, 6, 7, 5, 6, 7] and len(seconds) == 2 and min(seconds) > 0


def test_what_rests_is_left_out_of_the_program(row):
    # the difference of two rollouts is the resolver's cost only if the one at rest has none
    found = row["instructions"]
    assert found["acting"] >= found["resting"] + MARKS
    assert found["resting"] >= found["equal_power"] + MARKS
    assert found["train"] > found["acting"] and found["update"] > 0


def test_settings_are_every_combination():
    found = benchmark.settings(BenchmarkTrain(envs="64,256", devices="1,2", periods="10,1"))
    assert len(found) == len(set(found)) == 8
    assert found[0] == Setting(envs=64, devices=1, period=10)
    quick = benchmark.settings(BenchmarkTrain(quick=True))
    assert quick == [Setting(envs=64, devices=2, period=10, repeats=2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "MunichDownlnk-v0"}, "did you mean 'MunichDownlink-v0'"),
        ({"envs": "64,0"}, "--envs must list positive integers"),
        ({"envs": "64,9", "devices": "2"}, "--envs 9 does not divide over 2 devices"),
        ({"periods": "401"}, "--periods must be at most 400"),
        ({"repeats": 0}, "--repeats must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        benchmark.settings(BenchmarkTrain(**options))


def test_too_few_devices_are_named():
    with pytest.raises(ValueError, match="9999 devices asked for"):
        benchmark.measure(Setting(devices=9999))


def test_the_benchmark_writes_its_file(row, tmp_path: Path, monkeypatch, capsys):
    asked = []

    def apart(module, setting, devices):
        asked.append((module, setting, devices))
        return {**row, "envs": setting.envs, "devices": devices}

    monkeypatch.setattr(benchmark, "run_apart", apart)
    out = tmp_path / "train.json"
    argv = ["benchmark", "train", "--envs", "4,8", "--devices", "2", "--periods", "10"]
    assert main([*argv, "--out", str(out)]) == 0
    assert [(s.envs, s.devices, s.period) for _, s, _ in asked] == [(4, 2, 10), (8, 2, 10)]
    assert {(module, devices) for module, _, devices in asked} == {(benchmark.__name__, 2)}
    written = json.loads(out.read_text())
    assert [r["envs"] for r in written["rows"]] == [4, 8]
    assert written["config"]["envs"] == "4,8" and written["versions"]["jax"]
    shown = capsys.readouterr().out
    assert "slots/s" in shown and all(part in shown for part in PARTS)


def test_the_module_reads_a_setting():
    # what `run_apart` starts: one line that names what is wrong, or the row
    command = [sys.executable, "-m", benchmark.__name__, json.dumps({"devices": 9999})]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode and "9999 devices asked for" in done.stderr.splitlines()[-1]
