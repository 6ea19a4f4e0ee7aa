"""What can stop a training run, and how it stops: errors, non-finite numbers, signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NAMED = 8  # offending quantities named in one message


class RunError(RuntimeError):
    """A training run cannot start or go on; the message is for the one who started it."""


class CheckpointError(RunError):
    """A checkpoint is absent, damaged, or not of this program and configuration."""


class FolderError(RunError):
    """The run folder cannot be written, is too small, or already holds a run."""


class NonFiniteError(RunError):
    """A metric or a watched array became NaN or infinite.

    `names` are the offending quantities, `checkpoint` the last good one's folder, or None.
    """

    def __init__(self, message: str, names: tuple[str, ...], checkpoint: str | None):
        super().__init__(message)
        self.names = names
        self.checkpoint = checkpoint


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the run; the message says what was saved and how to resume.

    A KeyboardInterrupt, so that no `except Exception` goes on to the next run of a sweep.
    """


class StopSignals:
    """Context in which SIGINT and SIGTERM ask for a stop at the next chunk boundary.

    The first signal sets `asked`; a second one raises KeyboardInterrupt at once. The handlers that
    were there before come back at the end. Outside the main thread, where Python allows no
    handlers, and for a signal that is ignored (`nohup`), nothing is installed.
    """

    def __init__(self):
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            # None: installed by something other than Python, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after this chunk (once more to stop at once)\n")


def nonfinite_metrics(metrics: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what is not finite among host arrays: name, with the first index, to NaN or infinite.

    Integers and booleans always are finite.
    """
    found = {}
    for name, value in metrics.items():
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            continue
        bad = np.argwhere(~np.isfinite(value))
        if len(bad):
            index = tuple(int(i) for i in bad[0])
            where = f"[{', '.join(map(str, index))}]" if index else ""
            found[f"{name}{where}"] = "NaN" if np.isnan(value[index]) else "infinite"
    return found


def nonfinite_leaves(tree: Any) -> dict[str, str]:
    """Return the paths of a pytree's leaves that are not finite, each to NaN or infinite.

    The arrays stay on their devices: one reduction is compiled for each structure of the tree.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            leaves[jax.tree_util.keystr(path)] = leaf
    flags = jax.device_get(_flags(list(leaves.values())))
    return {
        name: "NaN" if nan else "infinite"
        for name, (nan, infinite) in zip(leaves, flags, strict=True)
        if nan or infinite
    }


@jax.jit
def _flags(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [(jnp.isnan(leaf).any(), jnp.isinf(leaf).any()) for leaf in leaves]


def name_nonfinite(found: Mapping[str, str]) -> str:
    """Return `loss is NaN, scale[2] is infinite and 3 more` for the quantities found."""
    parts = [f"{name} is {kind}" for name, kind in list(found.items())[:_NAMED]]
    if len(found) > _NAMED:
        return f"{', '.join(parts)} and {len(found) - _NAMED} more"
    return ", ".join(parts)
