"""A folder that cannot take a run says so before the run starts."""

import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxrl5g.rl.faults import FolderError
from jaxrl5g.rl.training_loop import Phase, run_phases
from jaxrl5g.rl.writable import check_writable

Usage = namedtuple("Usage", "total used free")


def never(state):
    raise AssertionError("a chunk was run")


def start(folder, state=None):
    """Start a run that must not reach its first chunk."""
    state = {"a": jnp.zeros(4)} if state is None else state
    run_phases([Phase("only", 1, never)], state, folder, config={}, progress=False)


def test_a_new_folder_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b", 1000)
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["run", "run/deeper"])
def test_a_file_in_the_way(tmp_path, below):
    (tmp_path / "run").write_text("here already")
    with pytest.raises(FolderError, match="run.*(a file has its name|Not a directory)"):
        start(tmp_path / below)
    assert (tmp_path / "run").read_text() == "here already"


@pytest.fixture
def read_only():
    """A folder that may be entered and not written, seen by someone who is not root."""
    # not tmp_path, whose parents only their owner may enter
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    if user == 0:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder(read_only):
    with pytest.raises(FolderError, match="cannot write in the run folder .*: Permission denied"):
        start(read_only)
    with pytest.raises(FolderError, match="cannot write in the run folder .*: Permission denied"):
        start(read_only / "run")


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 2**20, 2**20))
    check_writable(tmp_path, 2**20)
    with pytest.raises(FolderError, match="has 1.0 MiB free, and the run needs 1.5 MiB"):
        check_writable(tmp_path, 3 * 2**19)


def test_a_run_asks_for_room_for_its_checkpoints(tmp_path, monkeypatch):
    """Four copies of a state of 1 MiB, and 16 MiB for the logs."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 20 * 2**20 - 1))
    with pytest.raises(FolderError, match="the run needs 20.0 MiB"):
        start(tmp_path, {"a": jnp.zeros(2**18)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 20 * 2**20))
    with pytest.raises(AssertionError, match="a chunk was run"):
        start(tmp_path, {"a": jnp.zeros(2**18)})
