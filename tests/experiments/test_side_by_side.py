"""Jobs side by side: all are done, at the same time, and errors and interruptions end them."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from experiments import side_by_side as module
from experiments.side_by_side import Bar, Job, side_by_side

PATIENCE, MOMENT = 30, 0.02  # seconds


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(module, "_devices", lambda: jax.local_devices()[:1] * 2)


def test_every_job_is_done_once_whatever_the_order():
    jobs = [Job(n, f"job {n}", lambda n=n: int(jnp.sum(jnp.arange(n)))) for n in range(7)]
    with Bar(len(jobs)) as bar:
        assert dict(side_by_side(jobs, bar)) == {n: n * (n - 1) // 2 for n in range(7)}


def test_two_run_at_once():
    meeting = threading.Barrier(2)
    jobs = [Job(n, "waits for another", lambda: meeting.wait(PATIENCE)) for n in range(2)]
    with Bar(2) as bar:
        assert {key for key, _ in side_by_side(jobs, bar)} == {0, 1}


def test_each_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "_devices", lambda: ["a", "b"])
    inside = threading.local()
    monkeypatch.setattr(module.jax, "default_device", lambda device: _Entered(inside, device))
    meeting = threading.Barrier(2)

    def which():
        meeting.wait(PATIENCE)
        return inside.device

    with Bar(2) as bar:
        found = dict(side_by_side([Job(n, "", which) for n in range(2)], bar))
    assert sorted(found.values()) == ["a", "b"]


class _Entered:
    def __init__(self, inside, device):
        self._inside, self._device = inside, device

    def __enter__(self):
        self._inside.device = self._device

    def __exit__(self, *_):
        del self._inside.device


@pytest.mark.parametrize("error", [ValueError("no such grid"), KeyboardInterrupt()])
def test_what_a_job_raises_ends_them_all(error):
    begun = []

    def measure(number):
        begun.append(number)
        if number == 0:
            raise error
        time.sleep(MOMENT)

    jobs = [Job(n, "", lambda n=n: measure(n)) for n in range(50)]
    with Bar(len(jobs)) as bar, pytest.raises(type(error)):
        for _ in side_by_side(jobs, bar):
            pass
    assert len(begun) < len(jobs)


def test_a_consumer_that_stops_begins_no_more():
    begun = []

    def measure(number):
        begun.append(number)
        time.sleep(MOMENT)

    jobs = [Job(n, "", lambda n=n: measure(n)) for n in range(50)]
    with Bar(len(jobs)) as bar, pytest.raises(RuntimeError, match="full disk"):
        for _ in side_by_side(jobs, bar):
            raise RuntimeError("full disk")
    assert len(begun) < len(jobs)
