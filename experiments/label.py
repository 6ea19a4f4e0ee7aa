"""`label`: a person compares segments on a local page."""

import signal
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.label_journal import Journal, fingerprint, journal_path
from experiments.label_server import LabelServer, Session
from experiments.names import UsageError
from prefs.feedback import PreferenceData, PreferenceFileError, load, save

_LABELS = {"first": 1.0, "second": 0.0, "equal": 0.5}


@dataclass(frozen=True)
class Label:
    """Label a data set's comparisons by hand.

    Shows the two segments of one comparison after another side by side, on a page that only this
    machine can reach and only under the address printed. Every answer is on disk, in
    FILE.labels.jsonl, before the next question comes; the same command carries on where it
    stopped. In the end the answers are written as a data set of their own.

    Examples:
      python -m experiments label --data grid.h5
      python -m experiments label --data grid.h5 --export
    """

    data: Path
    """Preference data set (HDF5) whose unmasked pairs are asked."""
    port: int = 0
    """Port to listen on; 0 takes any that is free."""
    browser: bool = True
    """Open the page in the default browser."""
    export: bool = False
    """Only write the answers there are so far, and ask nothing."""
    out: Path | None = None
    """File for the labelled data set; FILE-labelled.h5 if not given."""


def run(options: Label) -> None:
    """Ask until all is answered or the person stops, then write the labelled data set.

    Raises:
        UsageError: a file or journal that cannot be used, or a port that is taken.
    """
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, got {options.port}.")
    out = options.out or options.data.with_name(f"{options.data.stem}-labelled.h5")
    if out.absolute() == options.data.absolute():
        raise UsageError(f"--out must not be the data set itself: {out}.")
    try:
        data, about = load(options.data)
    except PreferenceFileError as error:
        raise UsageError(str(error)) from None
    pairs = np.flatnonzero(np.asarray(data.pairs.mask)).tolist()
    path = journal_path(options.data)
    with Journal(path, fingerprint(data), pairs) as journal:
        if not options.export:
            _ask(options, Session(data, about, journal))
        _export(out, data, about, journal)


def _ask(options: Label, session: Session) -> None:
    try:
        server = LabelServer(session, options.port)
    except OSError as error:
        raise UsageError(f"cannot listen on port {options.port}: {error.strerror}.") from None
    with server, _stopped_by_sigterm(), suppress(KeyboardInterrupt):
        print(f"{len(session.journal.answers)} of {len(session.journal.pairs)} answered.")
        print(f"The page is {server.address}")
        print("Stop with Ctrl-C or the page's button.", flush=True)
        if options.browser:
            webbrowser.open(server.address)
        server.serve_forever(poll_interval=0.1)
    print()


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop the server as Ctrl-C does, so that the answers are written too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def labelled(data: PreferenceData, answers: dict[int, str]) -> PreferenceData:
    """`data` with a person's answers; pairs skipped or not answered yet are masked out.

    Args:
      data: what was asked.
      answers: "first", "second", "equal" or "skip" by pair.
    """
    label = np.full(data.pairs.label.shape, 0.5, np.float32)
    mask = np.zeros(label.shape, bool)
    for pair, choice in answers.items():
        label[pair], mask[pair] = _LABELS.get(choice, 0.5), choice in _LABELS
    pairs = data.pairs.replace(label=jnp.asarray(label), mask=jnp.asarray(mask))
    return data.replace(pairs=pairs)


def _export(out: Path, data: PreferenceData, about: dict, journal: Journal) -> None:
    counts = {choice: 0 for choice in (*_LABELS, "skip")}
    for choice in journal.answers.values():
        counts[choice] += 1
    if not sum(counts[choice] for choice in _LABELS):
        print("No pair has an answer that could be learned from: nothing written.")
        return
    about = {**about, "labeller": "human", "asked_of": about.get("labeller", "")}
    about |= {"answers": counts, "unanswered": len(journal.pairs) - len(journal.answers)}
    try:
        save(out, labelled(data, journal.answers), about)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; no answer is lost.") from None
    listed = ", ".join(f"{count} {choice}" for choice, count in counts.items())
    print(f"{out}: {len(journal.answers)} of {len(journal.pairs)} answered ({listed}).")
