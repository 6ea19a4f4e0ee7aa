"""Trackers get numbers where they should be, and say what to install where they cannot."""

import io
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxrl5g.rl.trackers import ConsoleTracker, TensorBoardTracker, WandbTracker, scalars

LOGGED = {
    1: {"loss": np.asarray(2.0), "return": np.asarray([1.0, 3.0])},
    2: {"loss": np.asarray(0.5), "return": np.asarray([2.0, 6.0]), "evaluation/x": np.int32(7)},
    3: {"loss": np.asarray(1.0), "return": np.asarray([0.0, 0.0])},
}
FLAT = {
    (1, "loss"): 2.0,
    (1, "return/0"): 1.0,
    (1, "return/1"): 3.0,
    (2, "loss"): 0.5,
    (2, "return/0"): 2.0,
    (2, "return/1"): 6.0,
    (2, "evaluation/x"): 7.0,
    (3, "loss"): 1.0,
    (3, "return/0"): 0.0,
    (3, "return/1"): 0.0,
}


def log_all(tracker):
    for step, metrics in LOGGED.items():
        tracker.log(step, metrics)
    tracker.close()


def test_arrays_are_numbered_by_their_places():
    metrics = {"a": np.asarray(1), "b": np.arange(4.0).reshape(2, 2)}
    assert scalars(metrics) == {"a": 1.0, "b/0/0": 0.0, "b/0/1": 1.0, "b/1/0": 2.0, "b/1/1": 3.0}


def test_the_console_summary_has_first_last_lowest_highest():
    text = io.StringIO()
    log_all(ConsoleTracker(Console(file=text, width=100)))
    rows = {
        cells[0]: cells[1:]
        for line in text.getvalue().splitlines()
        if len(cells := line.replace("│", " ").replace("┃", " ").split()) == 5
    }
    assert "chunks 1 to 3" in text.getvalue()
    assert rows["loss"] == ["2", "1", "0.5", "2"]
    assert rows["return"] == ["2", "0", "0", "4"]
    assert rows["evaluation/x"] == ["7", "7", "7", "7"]


def test_the_console_summary_of_nothing_is_nothing():
    text = io.StringIO()
    ConsoleTracker(Console(file=text)).close()
    assert text.getvalue() == ""


def events(folder: Path) -> list:
    """The events of a folder's files: length, checksum, message, checksum, and again."""
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(folder.glob("events.*")):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            message = getattr(event_pb2, "Event")  # noqa: B009 - made when it is imported
            found.append(message.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_tensorboard_gets_every_number_at_its_step(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the `track` extra")
    log_all(TensorBoardTracker(tmp_path / "events"))
    logged = {
        (event.step, value.tag): value.simple_value
        for event in events(tmp_path / "events")
        for value in event.summary.value
    }
    assert logged == FLAT


def test_tensorboard_hides_what_a_resumed_run_does_again(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the `track` extra")
    TensorBoardTracker(tmp_path / "first").close()
    TensorBoardTracker(tmp_path / "resumed", after=5).close()

    def starts(folder):  # TensorBoard drops the earlier events from such a step on
        return [e.step for e in events(folder) if e.HasField("session_log")]

    assert starts(tmp_path / "first") == [] and starts(tmp_path / "resumed") == [6]


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module that remembers what wandb would have been told."""
    told = types.SimpleNamespace(settings={}, logged={}, finished=0)

    class Run:
        def log(self, metrics, step):
            told.logged |= {(step, name): value for name, value in metrics.items()}

        def finish(self):
            told.finished += 1

    def init(**settings):
        told.settings = settings
        return Run()

    module = types.ModuleType("wandb")
    setattr(module, "init", init)  # noqa: B010 - a module has no such attribute to a type checker
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_wandb_gets_every_number_at_its_step(fake_wandb):
    log_all(WandbTracker("downlink", mode="offline", config={"seed": 1}))
    assert fake_wandb.settings == {
        "project": "downlink",
        "mode": "offline",
        "config": {"seed": 1},
    }
    assert fake_wandb.logged == FLAT and fake_wandb.finished == 1


def test_real_wandb_offline_keeps_the_numbers(tmp_path):
    pytest.importorskip("wandb", reason="needs the `track` extra")
    tracker = WandbTracker("downlink", mode="offline", dir=str(tmp_path))
    for step, metrics in LOGGED.items():
        tracker.log(step, metrics)
    # the summary is a step behind: wandb holds a step open until the next one comes
    known = {name: tracker._run.summary[name] for name in ("loss", "return/1", "evaluation/x")}
    tracker.close()
    assert known == {"loss": 0.5, "return/1": 6.0, "evaluation/x": 7.0}
    assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize(
    "module, make",
    [
        ("tensorboardX", lambda path: TensorBoardTracker(path)),
        ("wandb", lambda path: WandbTracker("downlink")),
    ],
)
def test_an_absent_tracker_names_the_extra(tmp_path, monkeypatch, module, make):
    monkeypatch.setitem(sys.modules, module, None)  # what makes `import` fail
    with pytest.raises(ImportError, match=module) as refused:
        make(tmp_path)
    assert 'pip install "jaxrl5g[track]"' in str(refused.value)
