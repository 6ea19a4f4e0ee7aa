"""Data from elsewhere and for elsewhere: ragged episodes in Minari's HDF5 layout.

An episode is a group `episode_<number>` with `observations` [T+1, ...], `actions` [T, ...] and
`rewards` [T], as Minari's `main_data.hdf5` has them; comparisons, which Minari does not know, are
in an optional group `preferences`. docs/prefs-data.md has the layout in full.
"""

from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from jax import Array

from prefs.feedback.checks import check_data
from prefs.feedback.files import (
    PreferenceFileError,
    checked,
    opened,
    read_array,
    to_jax,
    write_array,
    written_atomically,
)
from prefs.feedback.segments import Pairs, PreferenceData, Segments

_EPISODE = re.compile(r"episode_(\d+)")


def export_episodes(
    path: str | os.PathLike, data: PreferenceData, about: dict[str, Any] | None = None
) -> None:
    """Write each segment as an episode without its padding, and the comparisons of them.

    Args:
      path: the file, written whole or not at all.
      data: a sound data set whose segments are continuous: what follows a step is what the next
        step sees.
      about: provenance, JSON-compatible; None for none.

    Raises:
      ValueError: data that `check_data` refuses, or a segment that is not continuous.
      OSError: the folder cannot be written.
    """
    check_data(data)
    segments = SimpleNamespace(**{n: np.asarray(v) for n, v in vars(data.segments).items()})
    lengths = segments.mask.sum(1)
    joined = segments.observations[:, 1:] == segments.next_observations[:, :-1]
    joined = joined.reshape(*joined.shape[:2], -1).all(-1) | ~segments.mask[:, 1:]
    if not joined.all():
        row, step = np.argwhere(~joined)[0]
        raise ValueError(
            f"segment {row} is not continuous: what follows step {step} is not what the next sees."
        )
    with written_atomically(path) as file:
        file.attrs.update(total_episodes=len(lengths), total_steps=int(lengths.sum()))
        if about is not None:
            file.attrs["provenance"] = json.dumps(about, sort_keys=True, allow_nan=False)
        for number, length in enumerate(lengths):
            episode = file.create_group(f"episode_{number}")
            episode.attrs.update(id=number, total_steps=int(length))
            last = segments.next_observations[number, length - 1 : length]
            seen = np.concatenate([segments.observations[number, :length], last])
            write_array(episode, "observations", seen)
            write_array(episode, "actions", segments.actions[number, :length])
            write_array(episode, "rewards", segments.rewards[number, :length])
            write_array(episode, "terminations", np.zeros(length, bool))
            write_array(episode, "truncations", np.arange(length) == length - 1)
        cuts = np.stack([np.arange(len(lengths)), np.zeros(len(lengths), int), lengths], -1)
        write_array(file, "preferences/segments", cuts)
        for name, values in vars(data.pairs).items():
            write_array(file, f"preferences/{name}", values)


def import_segments(path: str | os.PathLike, length: int | None = None) -> Segments:
    """Read episodes as segments, those shorter than the longest padded.

    Args:
      path: a file in the layout, such as a Minari data set's `data/main_data.hdf5`.
      length: cut every episode into consecutive segments of so many steps, the last of which may
        be shorter; None for one segment an episode.

    Returns:
      `Segments` in the order of the episodes' numbers.

    Raises:
      PreferenceFileError: missing, malformed, or episodes that do not fit together; one sentence
        naming the file and the reason.
      ValueError: a length below 1.
    """
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1 step, got {length}.")
    with opened(path) as file:
        episodes = _episodes(path, file)
    cuts = [
        (number, start, min(length or len(rewards), len(rewards) - start))
        for number, (_, _, rewards) in episodes.items()
        for start in range(0, len(rewards), length or len(rewards))
    ]
    return _cut(path, episodes, cuts)


def import_preferences(path: str | os.PathLike) -> PreferenceData:
    """Read episodes and the comparisons of pieces of them.

    Raises:
      PreferenceFileError: as `import_segments`, or comparisons that are missing or malformed.
    """
    with opened(path) as file:
        episodes = _episodes(path, file)
        cuts = read_array(path, file, "preferences/segments")
        first, second, label = (
            read_array(path, file, f"preferences/{name}") for name in ("first", "second", "label")
        )
        given = "mask" in file["preferences"]  # pyright: ignore[reportOperatorIssue]
        mask = read_array(path, file, "preferences/mask") if given else np.ones(first.shape, bool)
    _check_cuts(path, episodes, cuts)
    pairs = Pairs(
        first=to_jax(path, "first", first),
        second=to_jax(path, "second", second),
        label=to_jax(path, "label", np.asarray(label, float)),
        mask=to_jax(path, "mask", np.asarray(mask, bool)),
    )
    rows = [(int(episode), int(start), int(steps)) for episode, start, steps in cuts]
    return checked(path, PreferenceData(_cut(path, episodes, rows), pairs))


def _episodes(
    path: str | os.PathLike, file: h5py.File
) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Observations [T+1, ...], actions [T, ...] and rewards [T] by episode number, sorted."""
    found = {int(m[1]): name for name in file if (m := _EPISODE.fullmatch(str(name)))}
    if not found:
        raise PreferenceFileError(f"{path}: no episode: it has no group named episode_0 or so.")
    episodes = {}
    shapes: dict[str, tuple] = {}
    for number in sorted(found):
        name = found[number]
        seen, actions, rewards = (
            read_array(path, file, f"{name}/{part}")
            for part in ("observations", "actions", "rewards")
        )
        if rewards.ndim != 1 or not len(rewards):
            raise PreferenceFileError(
                f"{path}: {name}/rewards must be [T] of at least one step, got {rewards.shape}."
            )
        steps = len(rewards)
        for part, values, rows in (("observations", seen, steps + 1), ("actions", actions, steps)):
            if values.shape[:1] != (rows,):
                raise PreferenceFileError(
                    f"{path}: {name}/{part} must begin with {rows} for {steps} steps, got shape "
                    f"{values.shape}."
                )
            expected = shapes.setdefault(part, values.shape[1:])
            if values.shape[1:] != expected:
                raise PreferenceFileError(
                    f"{path}: {name}/{part} has steps of shape {values.shape[1:]}, those before "
                    f"{expected}."
                )
        episodes[number] = seen, actions, rewards
    return episodes


def _check_cuts(path: str | os.PathLike, episodes: dict, cuts: np.ndarray) -> None:
    if cuts.ndim != 2 or cuts.shape[1] != 3 or not len(cuts) or cuts.dtype.kind not in "iu":
        raise PreferenceFileError(
            f"{path}: preferences/segments must be integers [N, 3] (episode, start, steps), got "
            f"{cuts.dtype} of shape {cuts.shape}."
        )
    for row, (episode, start, steps) in enumerate(cuts.tolist()):
        has = len(episodes[episode][2]) if episode in episodes else None
        if has is None or start < 0 or steps < 1 or start + steps > has:
            what = f"has {has} steps" if has is not None else "does not exist"
            raise PreferenceFileError(
                f"{path}: preferences/segments[{row}] asks for steps {start} to {start + steps} of "
                f"episode {episode}, which {what}."
            )


def _cut(path: str | os.PathLike, episodes: dict, cuts: list[tuple[int, int, int]]) -> Segments:
    """Pieces (episode, start, steps), padded with zeros to the longest."""
    longest = max(steps for _, _, steps in cuts)

    def pieces(part: int, name: str, shift: int = 0) -> Array:
        rows = [episodes[e][part][s + shift : s + shift + n] for e, s, n in cuts]
        rows = [np.pad(r, [(0, longest - len(r))] + [(0, 0)] * (r.ndim - 1)) for r in rows]
        return to_jax(path, name, np.stack(rows))

    mask = np.arange(longest) < np.asarray([steps for _, _, steps in cuts])[:, None]
    return Segments(
        observations=pieces(0, "observations"),
        actions=pieces(1, "actions"),
        rewards=pieces(2, "rewards"),
        mask=jnp.asarray(mask),
        next_observations=pieces(0, "observations", shift=1),
    )
