"""Presets: YAML files that hold the options of an experiment, and the kinds of experiment."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from experiments import configs
from experiments.claims import Report
from experiments.kinds import EXPERIMENTS, Experiment, _check, load_experiment
from experiments.names import UsageError
from experiments.presets import differences, dump_preset, load_preset


@dataclass(frozen=True)
class Training:
    learning_rate: float = 1e-3
    num_envs: int = 4


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    widths: tuple[int, ...] = (32,)


EXPERIMENT = Experiment(Config, lambda group, folder: Report(), ("training.learning_rate",))

TEXT = """
experiment: probe
description: "colons: and # hashes"
options:
  training: {learning_rate: 3e-4}
sweep:
  widths: [[8], [16, 16]]
"""


@pytest.fixture(autouse=True)
def kinds(monkeypatch, tmp_path):
    monkeypatch.setitem(EXPERIMENTS, "probe", __name__)
    monkeypatch.setattr(configs, "_FOLDER", tmp_path)
    (tmp_path / "probe-quick.yaml").write_text(TEXT)


def test_a_preset_holds_its_options_over_the_defaults():
    found = load_preset("probe-quick")
    assert (found.name, found.kind) == ("probe-quick", "probe")
    assert found.config == Config(Training(learning_rate=3e-4))
    assert found.sweep == {"widths": ((8,), (16, 16))}


def test_a_dumped_preset_is_the_preset(tmp_path):
    preset = load_preset("probe-quick")
    path = tmp_path / "config.yaml"
    for wanted in (preset, preset._replace(sweep={})):
        path.write_text(dump_preset(wanted))
        found = load_preset(str(path))
        assert found == wanted._replace(name="config")
        assert differences(wanted, found) == []


def test_differences_name_old_and_new():
    old = load_preset("probe-quick")
    new = old._replace(
        config=Config(Training(learning_rate=0.1, num_envs=4)), sweep={"widths": ((8,),)}
    )
    assert differences(old, new) == [
        "training.learning_rate was 0.0003, now 0.1",
        "sweep.widths was [[8], [16, 16]], now [[8]]",
    ]
    assert differences(old, old._replace(kind="other")) == ["experiment was probe, now other"]
    unswept = differences(old, old._replace(sweep={}))
    assert unswept == ["sweep.widths was [[8], [16, 16]], now absent"]


def test_nan_does_not_differ_from_itself():
    preset = load_preset("probe-quick")
    nan = preset._replace(config=Config(Training(learning_rate=float("nan"))))
    assert differences(nan, nan._replace(name="other")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiment: prob", "unknown kind of experiment 'prob'; did you mean 'probe'"),
        ("experiment: probe\noptions: {training: {lr: 1}}", "'training.lr'; did you mean"),
        ("experiment: probe\nsweep: {training.num_env: [1]}", "did you mean 'training.num_envs'"),
        ("experiment: probe\nsweep: {widths: []}", "sweep: widths must list values, got []"),
        ("experiment: probe\nsweep: 3", "sweep must hold named values, got 3"),
        ("experiment: probe\noptions:", "options must hold named values, got None"),
        ("experiment: probe\ncommand: run", "names both a command and an experiment"),
        ("command: evaluate\nsweep: {}", "sweep is for an experiment"),
        ("command: evaluate", "is for 'evaluate': python -m experiments evaluate --config"),
        ("options: {}", "names no command or experiment"),
    ],
)
def test_wrong_presets_are_one_clear_sentence(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_preset(str(path))
    assert message in str(error.value)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="unknown experiment 'probe-quik'; did you mean 'probe-q"):
        load_preset("probe-quik")


def test_every_kind_can_be_loaded():
    for kind in EXPERIMENTS:
        assert load_experiment(kind).config()  # a kind's own defaults are complete


@dataclass(frozen=True)
class Taken:
    resume: int = 1


@dataclass(frozen=True)
class Untypable:
    table: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (EXPERIMENT._replace(config=Taken), "`run` has an option --resume of its own"),
        (EXPERIMENT._replace(config=Untypable), "table: an option cannot have the type"),
        (EXPERIMENT._replace(traced=("training.num_envs",)), "is not a float option"),
        (EXPERIMENT._replace(traced=("training.rate",)), "is not a float option"),
    ],
)
def test_a_kind_that_cannot_be_offered_is_refused(experiment, message):
    with pytest.raises(ValueError, match="experiment 'odd'") as error:
        _check("odd", experiment)
    assert message in str(error.value)
