"""The benchmark measures what it says, on a tiny environment."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest

from experiments import benchmark_env
from experiments.benchmark_env import BenchmarkEnv, best_rows, cost_exponent, settings
from experiments.benchmark_rollout import (
    Setting,
    cost_of_slot,
    make_env,
    measure,
    rollout,
    tree_bytes,
)
from experiments.machine_floor import exponential_rate, floor_seconds, memory_bandwidth
from jaxrl5g.mac import proportional_fair

TINY = Setting("TinyDownlink-v0", "shannon", batch=4, users=4, prbs=12, slots=20, repeats=1)


def test_chunks_do_not_change_the_result():
    env, params = make_env(TINY)
    keys = jax.random.split(jax.random.key(0), 4)
    scheduler = proportional_fair()
    in_chunks = dataclasses.replace(TINY, chunk=2)
    whole = jax.jit(partial(rollout, env, scheduler, TINY))(params, keys)
    chunked = jax.jit(partial(rollout, env, scheduler, in_chunks))(params, keys)
    np.testing.assert_allclose(whole, chunked)
    assert whole.shape == (4,) and (whole > 0).all()


def test_a_measurement_has_everything_the_table_needs():
    row = measure(TINY)
    assert row["slots_per_s"] > 0 and row["compile_s"] > 0 and row["bits_per_slot"] > 0
    assert row["spread"][0] <= row["slots_per_s"] <= row["spread"][1]
    assert row["state_bytes"] > 0 and row["peak_rss_bytes"] > 1e6
    json.dumps(row)


def test_a_batch_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="batch 4 does not divide over 1 devices in chunks of 3"):
        measure(dataclasses.replace(TINY, chunk=3))


def test_cost_counts_state_and_transcendentals():
    cost = cost_of_slot(TINY)
    assert cost["state_bytes"] > 0 and cost["transcendentals"] > 0 and cost["gain_bytes"] == 0
    assert floor_seconds(cost, bandwidth=1e9, exponentials=1e30) == cost["state_bytes"] / 1e9


def test_typed_keys_have_bytes():
    assert tree_bytes((jax.random.key(0), np.zeros(3, np.float32))) == 8 + 12


def test_the_machine_can_do_something():
    assert memory_bandwidth(1 << 20) > 1e8
    assert exponential_rate(1 << 14) > 1e6


def test_settings_cover_chunks_and_devices_on_a_cpu_only():
    options = BenchmarkEnv(devices=2, chunk=128)
    on_cpu = settings(options, Setting(), (1, 1024), ("nr",), on_cpu=True)
    assert [(s.batch, s.chunk, s.devices) for s in on_cpu] == [
        (1, 0, 1),
        (1024, 0, 1),
        (1024, 128, 1),
        (1024, 128, 2),
    ]
    on_gpu = settings(options, Setting(), (1, 1024), ("nr",), on_cpu=False)
    assert [(s.batch, s.devices) for s in on_gpu] == [(1, 1), (1024, 1)]


def test_linear_cost_has_exponent_one():
    sizes = [
        {"users": users, "prbs": prbs, "slots_per_s": 1e6 / (users * prbs)}
        for users, prbs in ((4, 12), (16, 51), (32, 106))
    ]
    assert cost_exponent(sizes) == pytest.approx(1.0)
    assert cost_exponent(sizes[:1]) is None


def test_best_is_per_fidelity():
    rows = [
        {"fidelity": "nr", "slots_per_s": 1.0},
        {"fidelity": "nr", "slots_per_s": 3.0},
        {"fidelity": "shannon", "slots_per_s": 2.0},
    ]
    assert best_rows(rows) == {"nr": rows[1], "shannon": rows[2]}


def test_the_whole_benchmark_writes_its_file(tmp_path):
    options = BenchmarkEnv(
        out=tmp_path / "benchmark.json",
        env="TinyDownlink-v0",
        batches="4",
        fidelities="shannon",
        users=4,
        prbs=12,
        sionna=False,
        quick=True,
    )
    results = benchmark_env.run(options, ["benchmark", "env"])
    written = json.loads(options.out.read_text())
    assert written["best"]["shannon"]["slots_per_s"] == results["best"]["shannon"]["slots_per_s"]
    assert written["sionna"] == {"skipped": "--no-sionna"}
    assert written["floor"]["exponentials_per_s"] > 0
