"""A run stopped at any moment and resumed is the run that was not stopped, bit for bit.

The learner is a real one: Adam on a quadratic with noisy gradients, the noise from a typed key in
the state. This file, run as a program, trains it in a folder; tests kill that program.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl.checkpoints import load_checkpoint, read_checkpoint, read_metadata
from jaxrl5g.rl.faults import (
    CheckpointError,
    FolderError,
    Interrupted,
    NonFiniteError,
    nonfinite_leaves,
)
from jaxrl5g.rl.training_loop import Phase, run_phases

ROOT = Path(__file__).parents[2]
TARGET = jnp.asarray([1.0, -2.0, 3.0])
OPTIMISER = optax.adam(0.05)
CONFIG = {"learning_rate": 0.05, "chunks": {"rough": 5, "fine": 4}}


class Learner(NamedTuple):
    weights: Any
    optimiser: Any
    key: jax.Array
    noise: jax.Array  # of the gradients
    chunks: Any
    entered: Any  # how often a phase was entered
    ballast: Any  # makes saving take a while


def a_learner(ballast: int = 0, seed: int = 0) -> Learner:
    weights = {"w": jnp.zeros(3)}
    rng = np.random.default_rng(seed)
    return Learner(
        weights,
        OPTIMISER.init(weights),
        jax.random.key(seed),
        jnp.asarray(1.0),
        0,  # weakly typed until the loop settles it
        0,
        rng.integers(0, 2**32, ballast, np.uint32),
    )


def _chunk(state: Learner):
    """Four optimiser steps; metrics: the mean loss, and the last gradient per coordinate."""

    def step(carry: Learner, _):
        key, draw = jax.random.split(carry.key)
        noise = carry.noise * jax.random.normal(draw, (3,))
        gradient = {"w": carry.weights["w"] - TARGET + noise}
        updates, optimiser = OPTIMISER.update(gradient, carry.optimiser)
        weights = optax.apply_updates(carry.weights, updates)
        loss = 0.5 * jnp.sum((carry.weights["w"] - TARGET) ** 2)
        return carry._replace(weights=weights, optimiser=optimiser, key=key), (loss, gradient["w"])

    state, (losses, gradients) = jax.lax.scan(step, state, length=4)
    state = state._replace(chunks=state.chunks + 1)
    return state, {"loss": jnp.mean(losses), "gradient": gradients[-1], "chunks": state.chunks}


chunk = jax.jit(_chunk)
donating_chunk = jax.jit(_chunk, donate_argnums=0)


@jax.jit
def distance(state: Learner):
    return {"distance": jnp.linalg.norm(state.weights["w"] - TARGET), "seen": state.chunks}


def less_noise(state: Learner) -> Learner:
    return state._replace(
        noise=state.noise * 0.5,
        entered=state.entered + 1,
        optimiser=OPTIMISER.init(state.weights),
    )


def plan(rough: int = 5, fine: int = 4, step: Callable[..., Any] = chunk) -> list[Phase]:
    return [Phase("rough", rough, step, less_noise), Phase("fine", fine, step, less_noise)]


def train(folder, phases=None, state=None, **options):
    options = {
        "config": CONFIG,
        "evaluate": distance,
        "evaluate_every": 2,
        "score": lambda evaluated: -evaluated["distance"],
        "checkpoint_every": 3,
        "watch": lambda state: (state.weights, state.optimiser),
        "progress": False,
    } | options
    return run_phases(phases or plan(), state or a_learner(), folder, **options)


class At:
    """A tracker that does something after a chunk, and remembers all that it was given."""

    def __init__(self, step: int = -1, act=None):
        self.step, self.act = step, act
        self.logged: list[tuple[int, dict]] = []
        self.closed = 0

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))
        if step == self.step and self.act is not None:
            self.act()

    def close(self):
        self.closed += 1


class Crash(Exception):
    """A stop that the loop knows nothing of, such as a kill."""


def crash():
    raise Crash


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(leaf) -> tuple:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert [bits(leaf) for leaf in jax.tree.leaves(left)] == [
        bits(leaf) for leaf in jax.tree.leaves(right)
    ]


def assert_same_run(folder: Path, state, other: Path, other_state):
    """Equal leaves, logs and checkpoints."""
    assert_same(state, other_state)
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for name in ("latest", "best"):
        theirs, ours = (path / "checkpoints" / name for path in (folder, other))
        (saved, metadata), (same, its_metadata) = (
            load_checkpoint(path, state) for path in (theirs, ours)
        )
        assert_same(saved, same)
        assert metadata == its_metadata


@pytest.fixture(scope="module", autouse=True)
def signals():
    """Python's own handlers, also where the tests run in the background, deaf to Ctrl-C."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of nine chunks that nothing stops."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return folder, train(folder)


def test_the_log_is_what_the_chunks_say(unbroken):
    folder, final = unbroken
    state = less_noise(a_learner())
    expected = []
    for total in range(1, 10):
        if total == 6:
            state = less_noise(state)
        state, metrics = chunk(state)
        metrics |= {f"evaluation/{n}": v for n, v in distance(state).items() if total % 2 == 0}
        expected.append(
            {
                "phase": "rough" if total <= 5 else "fine",
                "chunk": total if total <= 5 else total - 5,
                "total": total,
                "metrics": {name: np.asarray(value).tolist() for name, value in metrics.items()},
            }
        )
    assert lines(folder) == expected
    assert_same(final, state)
    assert final.entered == 2 and final.noise == 0.25


def test_timings_have_a_line_a_chunk_and_the_metrics_have_no_time(unbroken):
    folder, _ = unbroken
    timings = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    assert [entry["total"] for entry in timings] == list(range(1, 10))
    assert all(entry["seconds"] > 0 for entry in timings)
    assert [entry["total"] for entry in timings if "evaluation_seconds" in entry] == [2, 4, 6, 8]
    assert "seconds" not in (folder / "metrics.jsonl").read_text()


def test_the_best_checkpoint_is_the_state_that_was_evaluated(unbroken):
    folder, final = unbroken
    evaluated = {
        line["total"]: line["metrics"]["evaluation/distance"]
        for line in lines(folder)
        if "evaluation/distance" in line["metrics"]
    }
    best, metadata = load_checkpoint(folder / "checkpoints" / "best", final)
    at = min(evaluated, key=lambda total: evaluated[total])
    assert metadata["total"] == at == int(best.chunks)
    assert float(distance(best)["distance"]) == evaluated[at]
    assert metadata["best"] == {"score": -evaluated[at], "total": at}
    assert int(load_checkpoint(folder / "checkpoints" / "latest", final)[0].chunks) == 9


def test_of_equal_scores_the_first_is_best(tmp_path):
    train(tmp_path, score=lambda evaluated: 1.0)
    assert read_metadata(tmp_path / "checkpoints" / "00000002")["best"]["total"] == 2


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.sampled_from(["crash", "signal"]))
def test_any_stops_and_resumptions_give_the_unbroken_run(unbroken, stops, how):
    folder, final = unbroken
    act = crash if how == "crash" else lambda: signal.raise_signal(signal.SIGINT)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "run"
        for stop in stops:
            with contextlib.suppress(Crash, Interrupted):
                train(path, trackers=[At(stop, act)], resume=True)
        assert_same_run(path, train(path, resume=True), folder, final)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_finished_chunk_and_says_how_to_resume(tmp_path, unbroken, number):
    folder, final = unbroken
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    tracker = At(7, lambda: signal.raise_signal(number))
    with pytest.raises(Interrupted, match="--resume") as stopped:
        train(tmp_path, trackers=[tracker], evaluate_every=2)
    assert "chunk 2 of 4 of phase 'fine'" in str(stopped.value)
    assert str(tmp_path / "checkpoints" / "00000007") in str(stopped.value)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert tracker.closed == 1 and len(lines(tmp_path)) == 7

    tracker = At()
    assert_same_run(tmp_path, train(tmp_path, trackers=[tracker], resume=True), folder, final)
    assert [step for step, _ in tracker.logged] == [8, 9]


def test_an_ignored_signal_stays_ignored(tmp_path, unbroken):
    folder, final = unbroken
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        tracker = At(4, lambda: signal.raise_signal(signal.SIGINT))
        assert_same_run(tmp_path, train(tmp_path, trackers=[tracker]), folder, final)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("step", [chunk, donating_chunk])
def test_a_second_signal_stops_inside_a_chunk(tmp_path, unbroken, step):
    folder, final = unbroken
    calls = itertools.count(1)

    def impatient(state):
        result = step(state)
        if next(calls) == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return result

    with pytest.raises(Interrupted, match="--resume"):
        train(tmp_path, plan(step=impatient))
    # a new best: saved already, so that nothing is lost where chunk 5 was given its memory
    assert read_metadata(tmp_path / "checkpoints" / "latest")["total"] == 4
    assert_same_run(tmp_path, train(tmp_path, plan(step=step), resume=True), folder, final)


def test_an_interruption_before_the_first_chunk_saves_nothing(tmp_path):
    def impatient(state):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="before anything was saved"):
        train(tmp_path, plan(step=impatient))
    assert not (tmp_path / "checkpoints").exists()


def test_a_donated_state_that_is_lost_goes_back_to_the_last_checkpoint(tmp_path, unbroken):
    folder, final = unbroken
    calls = itertools.count(1)

    def failing(state):
        result = donating_chunk(state)
        if next(calls) == 5:
            raise KeyboardInterrupt
        return result

    with pytest.raises(Interrupted, match="has the state after 3 chunks"):
        train(tmp_path, plan(step=failing), score=None)
    assert len(lines(tmp_path)) == 4
    assert_same(train(tmp_path, plan(step=donating_chunk), score=None, resume=True), final)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_phases_are_entered_once_whatever_happens(tmp_path):
    entered = []

    def phase(name):
        def enter(state):
            entered.append(name)
            return less_noise(state)

        return Phase(name, 3, chunk, enter)

    phases = [phase("a"), phase("b"), phase("c")]
    for stop in (3, 4, 6, 9):
        with contextlib.suppress(Interrupted):
            tracker = At(stop, lambda: signal.raise_signal(signal.SIGINT))
            final = train(tmp_path, phases, trackers=[tracker], resume=True)
    final = train(tmp_path, phases, resume=True)
    assert entered == ["a", "b", "c"]
    assert final.entered == 3 and final.chunks == 9


def test_a_longer_plan_goes_on_where_the_shorter_ended(tmp_path, unbroken):
    folder, final = unbroken
    with pytest.raises(ValueError, match="at least 1 chunk, got 0"):
        plan(5, 0)
    train(tmp_path, plan(5, 1), config=CONFIG | {"chunks": {"rough": 5, "fine": 1}})
    resumed = train(tmp_path, resume=True, ignore=("chunks.fine",))
    assert_same_run(tmp_path, resumed, folder, final)


def test_resuming_a_finished_run_changes_nothing(tmp_path, unbroken):
    first = train(tmp_path)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    assert_same(train(tmp_path, resume=True), first)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_a_phase_may_change_the_structure_of_the_state(tmp_path):
    def with_more(state):
        return state._replace(ballast={"a": jnp.arange(3), "b": state.ballast})

    phases = [Phase("thin", 2, chunk), Phase("thick", 4, chunk, with_more)]
    whole = train(tmp_path / "whole", phases)
    with pytest.raises(Crash):
        train(tmp_path / "cut", phases, trackers=[At(5, crash)])
    assert_same(train(tmp_path / "cut", phases, resume=True), whole)


def test_nothing_is_compiled_twice(tmp_path):
    traces = []

    @jax.jit
    def counted(state):
        traces.append(1)
        return _chunk(state)

    tracker = At(4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        train(tmp_path, plan(step=counted), trackers=[tracker])
    train(tmp_path, plan(step=counted), resume=True)
    assert len(traces) == 1


def test_weak_types_do_not_make_a_resumed_run_another_one(tmp_path):
    """A weakly typed leaf takes the other's precision; read from a file it would not."""

    @jax.jit
    def step(state):
        scale = jnp.where(state["on"], 1.001, 1.0)  # weakly typed
        product = state["scale"] * state["low"]
        return state | {"scale": scale, "low": product.astype(jnp.bfloat16)}, {"x": product}

    start = {"scale": 1.003, "low": jnp.asarray(3.14, jnp.bfloat16), "on": jnp.asarray(True)}
    phases = [Phase("only", 6, step)]
    options = {"config": {}, "checkpoint_every": 2, "progress": False}
    final = run_phases(phases, start, tmp_path / "whole", **options)
    with pytest.raises(Crash):
        run_phases(phases, start, tmp_path / "cut", trackers=[At(3, crash)], **options)
    assert_same(run_phases(phases, start, tmp_path / "cut", resume=True, **options), final)
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def poisoned(at: int, **values):
    """A chunk some of whose metrics are replaced after so many chunks."""

    def step(state):
        state, metrics = chunk(state)
        return state, metrics | values if int(state.chunks) == at else metrics

    return step


def test_a_metric_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    tracker = At()
    step = poisoned(5, loss=jnp.nan, gradient=jnp.asarray([0.0, 1.0, -jnp.inf]))
    with pytest.raises(NonFiniteError) as stopped:
        train(tmp_path, plan(step=step), trackers=[tracker], score=None)
    assert stopped.value.names == ("gradient[2]", "loss")  # JAX sorts dicts
    assert "gradient[2] is infinite, loss is NaN" in str(stopped.value)
    assert "chunk 5 of 5 of phase 'rough'" in str(stopped.value)
    kept = str(tmp_path / "checkpoints" / "00000003")
    assert stopped.value.checkpoint == kept and kept in str(stopped.value)

    assert len(lines(tmp_path)) == 4 and tracker.closed == 1
    good, metadata = load_checkpoint(kept, train(tmp_path / "other"))
    assert metadata["total"] == 3 and np.isfinite(good.weights["w"]).all()


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(NonFiniteError, match="no checkpoint was saved before it") as stopped:
        train(tmp_path, plan(step=poisoned(1, loss=jnp.inf)))
    assert stopped.value.checkpoint is None


def test_a_watched_array_that_is_not_finite_stops_the_run(tmp_path):
    def watch(state):
        broken = jnp.where(state.chunks == 4, jnp.inf, 1.0)
        return {"critic": [state.weights["w"], state.weights["w"] * broken], "count": state.chunks}

    with pytest.raises(NonFiniteError, match=r"\['critic'\]\[1\] is infinite after chunk 4"):
        train(tmp_path, watch=watch)
    assert [line["total"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_score_may_read_an_array_of_seeds(tmp_path):
    def evaluate(state):
        return {"seeds": jnp.asarray([state.chunks, -3.0 * state.chunks])}

    train(tmp_path, evaluate=evaluate, score=lambda evaluated: evaluated["seeds"].mean())
    best = read_metadata(tmp_path / "checkpoints" / "best")
    assert best["total"] == 2 and best["best"]["score"] == -2.0


def test_an_evaluation_or_score_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(NonFiniteError, match="evaluation/reward is NaN after chunk 2"):
        train(tmp_path / "a", evaluate=lambda state: {"reward": float("nan")}, score=None)
    with pytest.raises(NonFiniteError, match="score is infinite after chunk 2"):
        train(tmp_path / "b", score=lambda evaluated: float("inf"))


def test_nonfinite_leaves_names_all_kinds():
    tree = {"a": jnp.ones(3), "b": (np.asarray([1.0, np.nan]), 3), "c": jnp.asarray([jnp.inf])}
    assert nonfinite_leaves(tree) == {"['b'][0]": "NaN", "['c']": "infinite"}
    assert nonfinite_leaves({"key": jax.random.key(0), "n": jnp.arange(3)}) == {}


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path):
    train(tmp_path)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(FolderError, match="already holds a run"):
        train(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_resuming_without_a_checkpoint_starts_and_says_so(tmp_path, unbroken, capsys):
    folder, final = unbroken
    (tmp_path / "metrics.jsonl").write_text('{"phase": "rough", "chunk": 1, "tot')
    assert_same_run(tmp_path, train(tmp_path, resume=True), folder, final)
    assert "starting from the beginning" in capsys.readouterr().err


def test_a_log_that_lost_lines_is_told(tmp_path, capsys):
    with pytest.raises(Crash):
        train(tmp_path, trackers=[At(5, crash)])
    (tmp_path / "metrics.jsonl").write_text("")
    train(tmp_path, resume=True)
    assert "metrics.jsonl has lost lines" in capsys.readouterr().err
    assert [line["total"] for line in lines(tmp_path)] == [5, 6, 7, 8, 9]


def test_another_configuration_or_plan_is_refused_on_resume(tmp_path):
    train(tmp_path, plan(2, 1), score=None)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    other = CONFIG | {"learning_rate": 0.1}
    with pytest.raises(CheckpointError, match="learning_rate: 0.05 in the checkpoint, 0.1 now"):
        train(tmp_path, plan(2, 1), config=other, resume=True)
    with pytest.raises(CheckpointError, match="'fine' and 3 chunks in all, but .* chunks 6 to 9"):
        train(tmp_path, plan(), resume=True)
    with pytest.raises(CheckpointError, match="of phase 'fine', and this run has only joint"):
        train(tmp_path, [Phase("joint", 3, chunk)], resume=True)
    with pytest.raises(CheckpointError, match=r"ballast: uint32\[0\] in the checkpoint, .*\[5\]"):
        train(tmp_path, plan(2, 1), a_learner(ballast=5), resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"phases": []}, "at least one phase"),
        ({"phases": [Phase("a", 1, chunk), Phase("a", 1, chunk)]}, "different names, got a, a"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1 chunk, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1 chunk, got 0"),
        ({"evaluate": None}, "score needs evaluate"),
        ({"config": {"a": {1, 2}}}, "finite JSON values"),
        ({"state": {"name": "text"}}, "is a str"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, sentence):
    tracker = At()
    options = {"phases": plan(), "state": a_learner(), "config": {}} | options
    options = {"evaluate": distance, "score": lambda evaluated: 0.0} | options
    with pytest.raises(ValueError, match=sentence):
        run_phases(folder=tmp_path / "run", trackers=[tracker], **options)
    assert not (tmp_path / "run").exists() and tracker.closed == 1


def test_a_metric_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="metric 'loss' must be a number or an array, got a str"):
        train(tmp_path, plan(step=poisoned(1, loss="low")))


def test_trackers_get_every_chunk_and_are_closed_whatever_happens(tmp_path):
    trackers = [At(), At(4, crash)]
    with pytest.raises(Crash):
        train(tmp_path, trackers=trackers)
    assert [step for step, _ in trackers[0].logged] == [1, 2, 3, 4]
    assert trackers[0].logged[1][1].keys() >= {"loss", "gradient", "evaluation/distance"}
    assert [tracker.closed for tracker in trackers] == [1, 1]


def test_it_runs_outside_the_main_thread(tmp_path, unbroken):
    _, final = unbroken
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert_same(results[0], final)


def test_the_bar_shows_phase_rate_and_metrics(tmp_path, capsys):
    phases = [Phase("rough", 2, chunk, units=1e6), Phase("fine", 1, chunk)]
    train(tmp_path, phases, progress=True, shown=("loss", "evaluation/distance"), unit="slots")
    captured = capsys.readouterr()
    assert "rough" in captured.err and "fine" in captured.err and "2/2" in captured.err
    assert "slots/s" in captured.err and "loss" in captured.err and captured.out == ""


def is_saving(folder: Path) -> bool:
    """Whether a checkpoint is half written: orbax's unfinished folder is there."""
    checkpoints = folder / "checkpoints"
    return checkpoints.exists() and any("tmp" in entry.name for entry in checkpoints.iterdir())


def kill_in_a_save(folder: Path, after: int) -> bool:
    """Run this file and SIGKILL it while it saves, once `after` chunks are logged.

    Returns whether the save was caught half-way.
    """
    process = subprocess.Popen([sys.executable, __file__, str(folder)])
    log = folder / "metrics.jsonl"
    try:
        while process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= after and is_saving(folder):
                break
            time.sleep(0.0005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    return is_saving(folder)


def test_a_run_killed_while_saving_ends_as_the_unbroken_one(tmp_path, monkeypatch):
    phases, state = plan(6, 6), a_learner(ballast=2**20)
    whole = train(tmp_path / "whole", phases, state, checkpoint_every=1)
    folder, caught = tmp_path / "killed", False
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for after in (2, 4, 6, 8):
        caught = kill_in_a_save(folder, after)
        done, weights = read_checkpoint(folder / "checkpoints" / "latest", "weights")
        assert after - 1 <= done["total"] < 12 and np.isfinite(weights["w"]).all()
        if caught:
            break
    assert caught, "every kill just missed the save that it had seen"
    resumed = train(folder, phases, state, checkpoint_every=1, resume=True)
    assert_same_run(folder, resumed, tmp_path / "whole", whole)


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    train(sys.argv[1], plan(6, 6), a_learner(ballast=2**20), checkpoint_every=1, resume=True)
