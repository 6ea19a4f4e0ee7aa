"""Windows are tuned on training drops, by the utility that each exponent stands for."""

import json

import numpy as np
import pytest

from experiments.cli import main
from experiments.names import UsageError
from experiments.tune import ALPHAS, WINDOWS_FILE, fair_utility, load_windows


def test_utility_is_the_alpha_fair_mean():
    rates = np.random.default_rng(0).uniform(0.5, 5e7, (3, 1, 6))
    users = rates.reshape(3, -1)
    np.testing.assert_allclose(fair_utility(rates, 0.0), users.mean(1))
    np.testing.assert_allclose(fair_utility(rates, 1.0), np.exp(np.log(users).mean(1)))
    np.testing.assert_allclose(fair_utility(rates, 2.0), 1 / (1 / users).mean(1))
    np.testing.assert_allclose(fair_utility(rates, 0.5), np.sqrt(users).mean(1) ** 2)
    near_one = fair_utility(rates, 1.0 + 1e-7)
    np.testing.assert_allclose(near_one, fair_utility(rates, 1.0), rtol=1e-4)


def test_utility_of_absent_and_starved_users():
    absent = np.array([[[2.0, 8.0, np.nan]]])
    np.testing.assert_allclose(fair_utility(absent, 1.0), 4.0)
    starved = np.array([[[0.0, 8.0]], [[0.0, 9.0]]])
    worse, better = fair_utility(starved, 4.0)
    assert 0 < worse < better < 1


def test_the_shipped_windows_cover_the_frontier():
    windows = load_windows(WINDOWS_FILE)
    assert {(alpha, power) for alpha in ALPHAS for power in ("equal", "knapsack")} <= set(windows)
    assert min(windows.values()) >= 1
    config = json.loads(WINDOWS_FILE.read_text())["config"]
    assert config["split"] == "train"


def test_a_tiny_tuning_writes_its_choice(tmp_path, capsys):
    out = tmp_path / "windows.json"
    argv = ["tune", "--env", "TinyDownlink-v0", "--split", "none", "--out", str(out)]
    argv += ["--drops", "2", "--slots", "130", "--alphas", "0.5,1", "--powers", "equal"]
    assert main([*argv, "--windows", "5,100"]) == 0
    written = json.loads(out.read_text())
    chosen = load_windows(out)
    assert set(chosen) == {(0.5, "equal"), (1.0, "equal")}
    for row in written["chosen"]:
        rivals = [r for r in written["tried"] if r["alpha"] == row["alpha"]]
        assert len(rivals) == 2
        assert row["utility_bit_s"] == max(r["utility_bit_s"] for r in rivals)
    assert "windows chosen" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--split", "validation"], "split 'validation' is held out"),
        (["--windows", "0,10"], "--windows must list numbers of at least 1"),
        (["--alphas", "x"], "--alphas must list numbers"),
        (["--powers", "equal,none"], "--powers must be among"),
        (["--drops", "0"], "--drops must be at least 1"),
    ],
)
def test_wrong_options(argv, message, capsys):
    assert main(["tune", *argv]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_windows(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"chosen": [{"alpha": 1}]}')
    with pytest.raises(UsageError, match="not a file that `tune` wrote"):
        load_windows(tmp_path / "other.json")
