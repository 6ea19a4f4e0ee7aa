"""The command line, from its arguments to its files."""

import json
import subprocess
import sys

import pytest

from experiments.cli import main


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evalute"], "unknown command 'evalute'; did you mean 'evaluate'"),
        (["benchmark"], "needs a command"),
        (["benchmark", "evn"], "unknown command 'benchmark evn'; did you mean 'env'"),
        (["evaluate", "--env", "MunichDownlnk-v0"], "did you mean 'MunichDownlink-v0'"),
        (["evaluate", "--schedulers", "pf,rrr"], "did you mean 'rr'"),
        (["evaluate", "--drops", "0"], "--drops must be at least 1"),
        (["evaluate", "--env", "TinyDownlink-v0", "--slots", "100"], "--slots must exceed the 100"),
        (["evaluate", "--env", "TinyDownlink-v0", "--split", "test"], "takes no split"),
        (["evaluate", "--config", "etoil"], "did you mean 'etoile'"),
        (["evaluate", "--config"], "--config needs a name"),
        (["list", "--config", "etoile"], "is for 'evaluate', not 'list'"),
        (["benchmark", "env", "--fidelities", "nrr"], "did you mean 'nr'"),
        (["benchmark", "env", "--env", "Munich"], "unknown environment id"),
        (["benchmark", "env", "--prbs", "52"], "needs RayleighDownlink-v0"),
        (["trace", "--out", "absent/folder/x.cache"], "does not exist"),
        (["trace", "--out", "x.cache", "--speed", "fast"], "--speed must list numbers"),
        (["trace", "--out", "x.cache", "--tracks", "1", "--cells", "2"], "at least cells"),
    ],
)
def test_bad_input_is_one_clear_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    ("argv", "wrong"),
    [(["evaluate", "--fidelity", "exact"], "exact"), (["evaluate", "--drop", "3"], "--drop")],
)
def test_bad_options_name_themselves(argv, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert wrong in capsys.readouterr().err


def test_a_wrong_option_in_an_experiment_names_the_nearest(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("command: evaluate\noptions: {drop: 3}\n")
    assert main(["evaluate", "--config", str(path)]) == 2
    assert "did you mean 'drops'" in capsys.readouterr().err


def test_help_costs_no_failure(capsys):
    assert main(["--help"]) == 0
    assert "benchmark env" in capsys.readouterr().out
    for argv in (["evaluate", "--help"], ["benchmark", "env", "--help"], ["trace", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert "python -m experiments" in shown and "Example" in shown


def test_list_shows_what_can_be_named(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("TinyDownlink-v0", "etoile-test", "alpha_fair", "munich3cell"):
        assert name in shown


def test_evaluate_writes_table_json_and_figures(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    options = "{env: TinyDownlink-v0, drops: 9, slots: 120, fidelity: shannon}"
    path.write_text(f"command: evaluate\noptions: {options}\n")
    out = tmp_path / "run"
    argv = ["evaluate", "--config", str(path), "--schedulers", "pf,rr", "--drops", "3"]
    assert main([*argv, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "cell throughput [Mbit/s]" in shown and "against pf" in shown
    names = ["prb_map.png", "results.json", "throughput_cdf.png", "throughput_jain.png"]
    assert sorted(item.name for item in out.iterdir()) == names
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["drops"] == 3  # the command line has the last word
    assert results["environment"]["num_users"] == 4
    assert list(results["drops"]) == ["pf", "rr"]
    assert len(results["drops"]["rr"]["cell_throughput"]) == 3
    gain = results["intervals"]["Jain's index"]["rr"]["difference"]
    assert gain["low"] <= gain["value"] <= gain["high"]


def test_the_module_runs():
    done = subprocess.run([sys.executable, "-m", "experiments", "--help"], capture_output=True)
    assert done.returncode == 0 and b"evaluate" in done.stdout
