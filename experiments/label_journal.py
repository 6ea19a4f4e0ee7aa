"""Answers on disk as they are given: one JSON line each, appended and synced at once."""

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments.names import UsageError
from prefs.feedback import PreferenceData

CHOICES = ("first", "second", "equal", "skip")
_FORMAT = {"journal": "preference-labels", "version": 1}


def journal_path(data: Path) -> Path:
    """Where the answers to a data set's questions are kept: beside it."""
    return data.with_name(f"{data.name}.labels.jsonl")


def fingerprint(data: PreferenceData) -> str:
    """SHA-256 of the questions: the segments and which of them are compared, not the labels."""
    digest = hashlib.sha256()
    for part in ("segments", "pairs"):
        for name, values in sorted(vars(getattr(data, part)).items()):
            if name != "label":
                array = np.ascontiguousarray(values)
                digest.update(f"{part} {name} {array.dtype.str} {array.shape}".encode())
                digest.update(array.tobytes())
    return digest.hexdigest()


class Journal:
    """The answers given so far, and the file that keeps them; a context manager.

    A line torn by a crash was never acknowledged and is dropped. Only one process at a time can
    have a journal open.

    Attributes:
      path: of the file.
      pairs: indices of the comparisons to ask, in order.
      answers: choice by pair, in the order given.
    """

    def __init__(self, path: Path, data: str, pairs: list[int]):
        """Open `path`, or begin it.

        Args:
          path: of the file, made where there is none.
          data: the data set's `fingerprint`.
          pairs: indices of the comparisons to ask.

        Raises:
          UsageError: it is open elsewhere, belongs to other data, or is damaged before its end.
        """
        self.path, self.pairs, self.answers = path, pairs, {}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"cannot open the journal {path}: {error.strerror}.") from None
        try:
            self._begin(data)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def next_pairs(self, count: int) -> list[int]:
        """The first `count` comparisons without an answer."""
        left = (pair for pair in self.pairs if pair not in self.answers)
        return [pair for pair, _ in zip(left, range(count), strict=False)]

    def record(self, pair: int, choice: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._append({"pair": pair, "choice": choice})
        self.answers[pair] = choice

    def undo(self) -> int | None:
        """Take the last answer back and return its pair, which is asked again; None if none is."""
        if not self.answers:
            return None
        pair = next(reversed(self.answers))
        self._append({"undo": pair})
        del self.answers[pair]
        return pair

    def _begin(self, data: str) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{self.path} is in use: this data set is being labelled.") from None
        with open(self.path, "rb") as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.ftruncate(self._file, len(whole))
        lines = whole.splitlines()
        if not lines:
            self._append({**_FORMAT, "data": data})
            _sync_folder(self.path.parent)
            return
        header = _parsed(lines[0])
        if {key: header.get(key) for key in _FORMAT} != _FORMAT:
            raise UsageError(f"{self.path} is not a journal of labels.")
        if header.get("data") != data:
            raise UsageError(f"{self.path} has the answers to another data set's questions.")
        for number, line in enumerate(lines[1:], 2):
            if not self._replay(_parsed(line)):
                raise UsageError(f"{self.path}, line {number}: not an answer to this data set.")

    def _replay(self, entry: dict[str, Any]) -> bool:
        if "undo" in entry:
            if not self.answers or entry["undo"] != next(reversed(self.answers)):
                return False
            del self.answers[entry["undo"]]
            return True
        pair, choice = entry.get("pair"), entry.get("choice")
        if pair not in self.pairs or pair in self.answers or choice not in CHOICES:
            return False
        self.answers[pair] = choice
        return True

    def _append(self, entry: dict[str, Any]) -> None:
        entry = {**entry, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        line = json.dumps(entry).encode() + b"\n"
        length = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes written")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, length)  # no half answer before the next
            raise


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
