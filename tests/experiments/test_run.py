"""`run`, end to end, on a small experiment: lines fitted to noisy points by gradient descent."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml

from experiments import configs
from experiments.claims import Claim, Report, Section
from experiments.cli import main
from experiments.figures import new_figure, save
from experiments.kinds import EXPERIMENTS, Experiment
from experiments.names import UsageError
from experiments.run_folder import new_run_path
from jaxrl5g.evaluation.statistics import bootstrap_interval
from jaxrl5g.rl.faults import Interrupted, NonFiniteError

CHUNK = 100  # steps


@dataclass(frozen=True)
class Fit:
    """How the line is fitted."""

    learning_rate: float = 0.02
    """Step size."""
    steps: int = 400
    """Steps in all, a multiple of 100."""
    rule: Literal["adam", "sgd"] = "adam"
    """Optimiser."""

    def __post_init__(self) -> None:
        if self.steps % CHUNK:
            raise ValueError(f"steps must be a multiple of {CHUNK}, got {self.steps}")


@dataclass(frozen=True)
class Line:
    """A line and how it is fitted."""

    slope: float = 1.0
    """Of the line."""
    seeds: int = 2
    """Of the noise."""
    fit: Fit = field(default_factory=Fit)


COMPILED: list[str] = []  # one entry per program
AFTER_CHUNK = []  # called between chunks


def loss(parameters, key, slope):
    x = jnp.linspace(-1.0, 1.0, 32)
    y = slope * x + 0.01 * jax.random.normal(key, x.shape)
    return jnp.mean((parameters[0] * x + parameters[1] - y) ** 2)


@partial(jax.jit, static_argnames="rule")
def chunk(state, keys, slope, rates, rule):
    """Advance every learning rate [P] of every seed [S]."""
    COMPILED.append(rule)

    def one(state, key, rate):
        optimiser = getattr(optax, rule)(rate)

        def step(carry, _):
            parameters, moments = carry
            value, gradient = jax.value_and_grad(loss)(parameters, key, slope)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(parameters, updates), moments), value

        return jax.lax.scan(step, state, None, CHUNK)

    return jax.vmap(lambda state, rate: jax.vmap(one, (0, 0, None))(state, keys, rate))(
        state, rates
    )


def run_line(group, folder):
    config, fit = group.config, group.config.fit
    rates = group.values.get("fit.learning_rate", np.float32([fit.learning_rate]))
    keys = jax.random.split(jax.random.key(0), config.seeds)
    start = jnp.zeros((len(rates), config.seeds, 2))
    moments = jax.vmap(jax.vmap(getattr(optax, fit.rule)(0.1).init))(start)
    leaves, structure = jax.tree.flatten((start, moments))
    saved, lines = folder.path / "state.npz", []
    if folder.resuming and saved.exists():
        with np.load(saved) as stored:
            leaves = [jnp.asarray(stored[name]) for name in stored.files]
        lines = folder.metrics.read_text().splitlines()
    state = jax.tree.unflatten(structure, leaves)
    for index in range(len(lines), fit.steps // CHUNK):
        state, losses = chunk(state, keys, config.slope, rates, fit.rule)
        lines.append(json.dumps({"chunk": index, "loss": np.asarray(losses)[..., -1].tolist()}))
        folder.metrics.write_text("\n".join(lines) + "\n")
        np.savez(saved, *jax.tree.leaves(state))
        for call in AFTER_CHUNK:
            call()
    slopes = np.asarray(state[0])[..., 0]  # [P, S]
    claims = []
    for label, found in zip(group.points, slopes, strict=True):
        middle = bootstrap_interval(found)
        claims.append(
            Claim(
                f"slope at {label}" if label else "slope",
                f"the line is found {label}".strip(),
                f"within 0.05 of {config.slope:g}",
                middle.value,
                bool(abs(middle.value - config.slope) < 0.05),
                interval=(middle.low, middle.high),
                sample=f"{config.seeds} seeds",
            )
        )
    claims.append(Claim("speed", "steps a second", "1e9", None, None, reason="not timed here"))
    figure, axes = new_figure("loss", (3.0, 2.0))
    axes.plot([np.mean(json.loads(line)["loss"]) for line in lines])
    save(figure, folder.figures / "loss.png")
    section = Section(
        "Curves", "Loss by chunk.", figures={folder.figures / "loss.png": "mean over seeds"}
    )
    return Report(claims, (section,), {"slopes": slopes, "chunks": len(lines)})


EXPERIMENT = Experiment(Line, run_line, ("fit.learning_rate",))
PRESET = "experiment: line\ndescription: a steep line\noptions: {slope: 2, fit: {steps: 300}}\n"


@pytest.fixture(autouse=True)
def interruptible():
    """A suite started in the background of a shell inherits that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def presets(monkeypatch, tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "line-quick.yaml").write_text(PRESET)
    (folder / "etoile.yaml").write_text("command: evaluate\ndescription: not an experiment\n")
    monkeypatch.setattr(configs, "_FOLDER", folder)
    monkeypatch.setitem(EXPERIMENTS, "line", __name__)
    monkeypatch.chdir(tmp_path)
    AFTER_CHUNK.clear()


def results(path):
    return json.loads((path / "results.json").read_text())


def test_a_run_leaves_a_folder_that_explains_and_repeats_it(tmp_path, capsys):
    out = tmp_path / "first"
    assert main(["run", "line-quick", "--fit.learning-rate", "0.03", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 held, 0 missed, 1 not measured" in shown and str(out) in shown
    names = ["config.yaml", "figures", "metrics.jsonl", "provenance.json", "report.md"]
    assert sorted(item.name for item in out.iterdir()) == [*names, "results.json", "state.npz"]
    found = results(out)
    assert found["config"] == {
        "slope": 2.0,
        "seeds": 2,
        "fit": {"learning_rate": 0.03, "steps": 300, "rule": "adam"},
    }
    claim = found["claims"][0]
    assert claim["held"] and abs(claim["value"] - 2) < 0.05
    assert claim["interval"][0] <= claim["value"] <= claim["interval"][1]
    assert claim["command"].startswith("python -m experiments run line-quick --fit.learning-rate")
    assert "✅ held" in (out / "report.md").read_text()
    assert (out / "figures" / "loss.png").stat().st_size > 0

    again = tmp_path / "again"
    assert main(["run", str(out / "config.yaml"), "--out", str(again)]) == 0
    assert results(again)["tables"] == found["tables"]
    for name in ("config.yaml", "metrics.jsonl"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_a_missed_claim_is_reported_as_missed(tmp_path, capsys):
    out = tmp_path / "short"
    argv = ["run", "line-quick", "--fit.learning_rate=1e-3", "--fit.steps=100", "--out", str(out)]
    assert main(argv) == 0
    assert results(out)["claims"][0]["held"] is False
    assert "❌ missed" in (out / "report.md").read_text()
    assert "0 of 2 held, 1 missed" in capsys.readouterr().out


def test_folders_are_numbered_where_none_is_named(tmp_path):
    for number in (1, 2):
        assert main(["run", "line-quick", "--fit.steps", "100"]) == 0
        assert (tmp_path / "runs" / f"line-quick-{number}" / "results.json").exists()


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, capsys):
    assert main(["run", "line-quick", "--seeds", "3", "--out", "whole"]) == 0
    AFTER_CHUNK.append(lambda: signal.raise_signal(signal.SIGINT))
    assert main(["run", "line-quick", "--seeds", "3"]) == 130
    said, how = capsys.readouterr().err.splitlines()
    assert said == "interrupted"
    command = shlex.split(how.removeprefix("go on with: "))
    assert command[:3] == ["python", "-m", "experiments"]
    out = tmp_path / "runs" / "line-quick-1"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (out / "results.json").exists()

    AFTER_CHUNK.clear()
    assert main(command[3:]) == 0
    assert results(out)["tables"] == results(tmp_path / "whole")["tables"]
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["command"] == "python -m experiments run line-quick --seeds 3"
    assert [again["command"] for again in provenance["resumed"]] == [shlex.join(command)]
    assert "resumed at" in (out / "report.md").read_text()


def test_traced_options_are_swept_in_one_program(tmp_path):
    chunk.clear_cache()
    COMPILED.clear()
    argv = ["run", "line-quick", "--fit.steps", "100", "--sweep", "fit.learning_rate=1e-2,0.05"]
    assert main([*argv, "--out", "swept"]) == 0
    assert COMPILED == ["adam"]
    swept = results(tmp_path / "swept")
    assert swept["sweep"] == {"fit.learning_rate": [0.01, 0.05]}
    for index, rate in enumerate((0.01, 0.05)):
        out = f"alone-{index}"
        options = ["--fit.steps", "100", "--fit.learning-rate", str(rate), "--out", out]
        assert main(["run", "line-quick", *options]) == 0
        alone = results(tmp_path / out)
        np.testing.assert_allclose(
            swept["tables"]["slopes"][index], alone["tables"]["slopes"][0], rtol=1e-5
        )
        assert swept["claims"][index]["name"] == f"slope at fit.learning_rate={rate}"


def test_static_options_are_swept_in_groups_of_their_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"{PRESET}sweep: {{fit.rule: [adam, sgd], fit.learning_rate: [1e-2, 0.05]}}\n"
    )
    argv = ["run", "mine.yaml", "--sweep", "fit.steps=100", "--out", "grid"]
    assert main(argv) == 0
    out = tmp_path / "grid"
    groups = sorted((out / "groups").iterdir())
    assert [group.name for group in groups] == [
        "1-fit.rule=adam_fit.steps=100",
        "2-fit.rule=sgd_fit.steps=100",
    ]
    found = results(out)
    assert len(found["claims"]) == 6  # two slopes and the speed of each group
    assert len({claim["name"] for claim in found["claims"]}) == 6
    assert list(found["tables"]) == ["fit.rule=adam, fit.steps=100", "fit.rule=sgd, fit.steps=100"]
    text = (out / "report.md").read_text()
    assert "(groups/2-fit.rule%3Dsgd_fit.steps%3D100/figures/loss.png)" in text
    # a group's config.yaml repeats that group alone
    assert main(["run", str(groups[1] / "config.yaml"), "--out", "alone"]) == 0
    alone = results(tmp_path / "alone")["tables"]
    assert alone == found["tables"]["fit.rule=sgd, fit.steps=100"] == results(groups[1])["tables"]

    assert main([*argv, "--resume"]) == 0  # a finished run says the same again
    assert results(out)["tables"] == found["tables"]
    assert "resumed" in json.loads((groups[0] / "provenance.json").read_text())


def test_a_training_run_that_cannot_go_on_is_one_clear_line(tmp_path, capsys):
    def fail(error):
        raise error

    AFTER_CHUNK.append(lambda: fail(NonFiniteError("loss is NaN", ("loss",), None)))
    assert main(["run", "line-quick", "--out", "nan"]) == 2
    assert capsys.readouterr().err == "python -m experiments: loss is NaN.\n"
    assert not (tmp_path / "nan" / "results.json").exists()
    # what nobody foresaw keeps its traceback
    AFTER_CHUNK[:] = [lambda: fail(RuntimeError("out of memory"))]
    with pytest.raises(RuntimeError, match="out of memory"):
        main(["run", "line-quick", "--out", "oom"])


def test_what_a_training_loop_says_of_an_interruption_is_kept(capsys):
    def stop():
        raise Interrupted("interrupted after chunk 1 of 3")

    AFTER_CHUNK.append(stop)
    assert main(["run", "line-quick", "--out", "cut"]) == 130
    said, how = capsys.readouterr().err.splitlines()
    assert said == "interrupted after chunk 1 of 3" and how.endswith("--out cut --resume")


def test_an_interrupted_sweep_goes_on_in_the_group_where_it_stopped(tmp_path, capsys):
    argv = ["run", "line-quick", "--sweep", "fit.rule=adam,sgd", "--fit.steps", "200"]
    assert main([*argv, "--out", "whole"]) == 0
    calls = []

    def interrupt_in_the_second_group():
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    AFTER_CHUNK.append(interrupt_in_the_second_group)
    assert main([*argv, "--out", "cut"]) == 130
    assert "--out cut --resume" in capsys.readouterr().err
    assert main([*argv, "--out", "cut", "--resume"]) == 0
    assert len(calls) == 4  # no chunk was computed twice
    assert results(tmp_path / "cut")["tables"] == results(tmp_path / "whole")["tables"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "run needs an experiment's name first: line-quick."),
        (["--out", "x"], "run needs an experiment's name first"),
        (["line-quik"], "unknown experiment 'line-quik'; did you mean 'line-quick'"),
        (["etoile"], "'etoile' is for 'evaluate': python -m experiments evaluate --config etoile"),
        (["absent.yaml"], "absent.yaml: No such file"),
        (["line-quick", "--fit.lerning-rate", "1"], "did you mean '--fit.learning-rate'"),
        (["line-quick", "--learning-rate=1"], "did you mean '--fit.learning-rate'"),
        (["line-quick", "--fit.rul=sgd"], "unknown option '--fit.rul'; did you mean '--fit.rule'"),
        (["line-quick", "--resume"], "--resume needs --out"),
        (["line-quick", "--sweep", "fit.stps=100"], "did you mean 'fit.steps'"),
        (
            ["line-quick", "--sweep", "fit.steps=100,150"],
            "steps must be a multiple of 100, got 150",
        ),
        (
            ["line-quick", "--sweep", "fit.steps=100", "--fit.steps", "200"],
            "fit.steps is swept, so --fit.steps would change nothing",
        ),
        (["line-quick", "--out", "file"], "--out file is a file, not a folder"),
        (["line-quick", "--out", "file/x"], "--out file/x: Not a directory"),
        (["line-quick", "--out", "full"], "--out full is not empty and holds no run"),
        (["line-quick", "--out", "full", "--resume"], "is not empty and holds no run"),
    ],
)
def test_bad_input_is_one_clear_line(argv, message, capsys, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert main(["run", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "runs").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--seeds", "two"], "--seeds"), (["--fit.steps", "150"], "steps must be a multiple of 100")],
)
def test_a_value_that_an_option_cannot_have_is_named(option, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "line-quick", *option])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_belongs_to_one_run(tmp_path, capsys):
    argv = ["run", "line-quick", "--fit.steps", "100", "--out", "mine"]
    assert main([*argv, "--resume"]) == 0  # nothing there yet: it starts
    assert "holds no run yet: starting one" in capsys.readouterr().out
    config = (tmp_path / "mine" / "config.yaml").read_bytes()
    assert main(argv) == 2
    assert "--out mine holds a run; add --resume" in capsys.readouterr().err
    assert main([*argv, "--fit.learning-rate", "0.5", "--slope=3", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "slope was 2.0, now 3.0; fit.learning_rate was 0.02, now 0.5." in said
    assert main([*argv, "--sweep", "seeds=1,2", "--resume"]) == 2
    assert "sweep.seeds was absent, now [1, 2]" in capsys.readouterr().err
    assert (tmp_path / "mine" / "config.yaml").read_bytes() == config


def test_help_shows_every_option_with_the_preset_as_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "line-quick", "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        "a steep line",
        "--slope FLOAT Of the line. (default: 2.0)",
        "--fit.steps INT Steps in all, a multiple of 100. (default: 300)",
        "--fit.rule {adam,sgd} Optimiser. (default: adam)",
        "How the line is fitted.",
        "--out",
        "--resume",
        "FIELD=VALUE,VALUE",
    ):
        assert text in shown
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "line-quick  a steep line" in shown and "etoile" not in shown


def test_list_says_how_to_run_each(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "python -m experiments run line-quick" in shown
    assert "python -m experiments evaluate --config etoile" in shown


def test_an_experiment_is_not_another_commands_configuration(capsys):
    assert main(["evaluate", "--config", "line-quick"]) == 2
    assert "'line-quick' is for 'run', not 'evaluate'" in capsys.readouterr().err


def test_a_folder_cut_off_while_it_was_made_can_be_used(tmp_path):
    path = tmp_path / "cut"
    path.mkdir()
    (path / "config.yaml.partial").write_text("experi")
    assert main(["run", "line-quick", "--fit.steps", "100", "--out", str(path)]) == 0
    assert yaml.safe_load((path / "config.yaml").read_text())["experiment"] == "line"


def test_two_runs_never_share_a_number(tmp_path):
    (tmp_path / "root" / "x-2").mkdir(parents=True)
    assert [new_run_path("x", tmp_path / "root").name for _ in range(3)] == ["x-1", "x-3", "x-4"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        new_run_path("x", tmp_path / "file")


def test_help_does_not_wait_for_jax():
    code = "import sys; from experiments.cli import main; main(['--help']); "
    code += "sys.exit('jax' in sys.modules)"
    checkout = Path(configs.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert b"benchmark resolver" in done.stdout
