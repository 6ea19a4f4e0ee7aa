"""The downlink experiment on a tiny environment: what it trains, measures, keeps and refuses."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments import downlink
from experiments.cli import main
from experiments.comparison_report import Bound
from experiments.downlink_config import VARIANTS, Decisions, Downlink, Training
from experiments.downlink_training import Variant, at_rest, curriculum, hypers, log_power_mean
from experiments.schedulers import parse_scheduler
from experiments.sweeps import Group, expand
from jaxrl5g import make
from jaxrl5g.evaluation import evaluate
from jaxrl5g.mac import held_on_off

ROOT = Path(__file__).parents[2]
DROPS, SEEDS = 3, 2
OPTIONS = {
    "parametrisations": ["residual"],
    "variants": ["full"],
    "scenario.train-env": ["TinyDownlink-v0"],
    "scenario.test-env": ["TinyDownlink-v0"],
    "scenario.train-split": ["None"],
    "scenario.validation-split": ["None"],
    "scenario.validation-drops": [str(DROPS)],
    "scenario.test-drops": [str(DROPS)],
    "scenario.slots": ["120"],
    "training.seeds": [str(SEEDS)],
    "training.num-envs": ["4"],
    "training.rollout-steps": ["4"],
    "training.minibatches": ["2"],
    "training.phase-updates": ["2", "2", "2"],
    "training.updates-per-chunk": ["2"],
    "training.warm-up": ["0"],
    "training.devices": ["1"],
    "rivals.alphas": ["1.0"],
    "rivals.bound-drops": ["0"],
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A whole run in a process of its own, as a user starts it."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    options = [word for name, values in OPTIONS.items() for word in (f"--{name}", *values)]
    command = [sys.executable, "-m", "experiments", "run", "downlink-quick", *options]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": os.environ["JAXRL5G_TEST_CACHE"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    done = subprocess.run(
        [*command, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env=os.environ | cache,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_run_folder_holds_what_was_asked_and_found(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    names = {claim["name"] for claim in results["claims"]}
    assert {"residual full > pf + knapsack", "residual full > residual at z = 0"} <= names
    matched = "cell throughput at matched Jain", "mean cell throughput at matched mean Jain"
    assert {f"residual full: {what}" for what in matched} <= names
    policies = results["tables"]["policies"]
    assert np.shape(policies["residual full"]["cell_throughput"]) == (SEEDS, DROPS)
    assert np.shape(policies["pf + equal"]["cell_throughput"]) == (1, DROPS)
    report = (run_folder / "report.md").read_text()
    for figure in ("plane", "users", "learning", "drop-0"):
        assert (run_folder / "figures" / f"{figure}.png").stat().st_size > 1000
        assert f"figures/{figure}.png" in report
    log = (run_folder / "training" / "residual-full" / "metrics.jsonl").read_text()
    phases = [json.loads(line)["phase"] for line in log.splitlines()]
    assert phases == ["PRB agent", "power agent", "joint"]


def test_a_saved_controller_is_the_policy_that_was_tested(run_folder):
    env, params = make("TinyDownlink-v0", max_steps_in_episode=120)
    results = json.loads((run_folder / "results.json").read_text())
    tested = results["tables"]["policies"]["residual full"]["cell_throughput"]
    path = run_folder / "training" / "residual-full" / "controllers" / "seed-1"
    scheduler = parse_scheduler(f"controller:{path}")
    alone = evaluate(env, params, scheduler, jax.random.key(2), DROPS)
    np.testing.assert_allclose(alone.cell_throughput, tested[1], rtol=1e-6)


def test_every_variant_gets_the_same_updates():
    config = Downlink()
    total = sum(config.training.phase_updates)
    for name in VARIANTS:
        assert sum(part[1] for part in curriculum(config, Variant("paper", name))) == total


def test_what_a_variant_leaves_out_neither_learns_nor_acts():
    config = Downlink()
    (_, _, prb), (_, _, power), (_, _, joint) = curriculum(config, Variant("residual", "full"))
    assert (prb.train_first, prb.train_second, prb.rest_second) == (True, False, True)
    assert (power.train_first, power.explore_first, power.rest_first) == (False, False, False)
    assert joint.train_first and joint.train_second and joint.leash > 0
    ((_, _, only),) = curriculum(config, Variant("residual", "power_only"))
    assert only.rest_first and not only.train_first and only.train_second


def test_ten_per_cent_is_asked_of_the_best_rule():
    users = np.random.default_rng(0).uniform(1e5, 1e6, (4, 3, 2))

    def policy(gain, learned=False):
        metrics: Any = SimpleNamespace(user_throughput=gain * users)
        return downlink.Policy([metrics], learned)

    policies = {
        "pf + equal": policy(1.0),
        "on-off (centralised CSI)": policy(1.5),
        "held on-off (centralised CSI)": policy(1.6),
        "coordinated full": policy(1.7, learned=True),
    }
    nothing = Bound(np.zeros(0), np.zeros(0))
    known, every = downlink._cells_claims(Downlink(), downlink.Tested(policies, (), nothing))
    assert known.value is not None and every.value is not None
    np.testing.assert_allclose(known.value, 100 * (1.7 / 1.5 - 1), rtol=1e-6)
    np.testing.assert_allclose(every.value, 100 * (1.7 / 1.6 - 1), rtol=1e-6)
    assert known.held and not every.held
    assert "against on-off" in known.statement and "held on-off" in every.statement


def test_cells_that_decide_together_see_all_gains_and_start_at_held_on_off():
    variant = Variant("coordinated", "full")
    config = dataclasses.replace(Downlink(), parametrisations=("coordinated",))
    options = {"num_cells": 2, "num_users": 2, "max_steps_in_episode": 120}
    env, params = make("TinyDownlink-v0", **options, **variant.sees)
    rest = evaluate(env, params, at_rest(config, variant), jax.random.key(0), 2)
    own = held_on_off(config.decisions.window, config.decisions.period)
    same = evaluate(env, params, own, jax.random.key(0), 2)
    np.testing.assert_array_equal(rest.cell_throughput, same.cell_throughput)
    assert (rest.cell_throughput > 0).all() and not Variant("paper", "full").sees


def test_a_sweep_stacks_seeds_under_every_point():
    config = dataclasses.replace(Downlink(), training=Training(seeds=2))
    (group,) = expand(config, {"training.learning_rate": (1e-3, 1e-4)}, ("training.learning_rate",))
    assert isinstance(group, Group)
    stacked = hypers(group)
    np.testing.assert_allclose(stacked.learning_rate, [1e-3, 1e-3, 1e-4, 1e-4])
    assert {leaf.shape for leaf in jax.tree.leaves(stacked)} == {(4,)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": ("prb_only",)}, "full"),
        ({"decisions": Decisions(period=7)}, "multiple of decisions.period"),
        ({"training": Training(updates_per_chunk=7)}, "updates_per_chunk"),
        ({"parametrisations": ()}, "parametrisations"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(Downlink(), **change)


def test_a_bad_option_is_one_sentence(capsys):
    assert main(["run", "downlink-quick", "--training.seeds", "0"]) == 2
    assert "training.seeds must be at least 1, got 0" in capsys.readouterr().err


def test_a_path_without_a_controller_is_refused(tmp_path, capsys):
    argv = ["evaluate", "--env", "TinyDownlink-v0", "--schedulers", f"pf,controller:{tmp_path}"]
    assert main(argv) == 2
    assert "no complete checkpoint" in capsys.readouterr().err


def test_the_objective_of_a_training_is_a_power_mean_of_its_users():
    users = np.array([[[1e6, 4e6], [np.nan, 16e6]], [[3e6, 3e6], [3e6, np.nan]]])
    for alpha, expected in ((0.0, 7e6), (1.0, 4e6), (2.0, 3 / (1 + 1 / 4 + 1 / 16) * 1e6)):
        found = np.exp(log_power_mean(users, alpha))
        np.testing.assert_allclose(found, [expected, 3e6], rtol=1e-9)
    silent = np.zeros((1, 1, 2))
    assert log_power_mean(silent, 1.0) == log_power_mean(silent, 2.0) == 0.0
