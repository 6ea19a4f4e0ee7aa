"""What preference data must satisfy, asked before it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.core import Tracer

from prefs.feedback.segments import Pairs, PreferenceData, Segments


def check_segments(segments: Segments) -> None:
    """Refuse segments whose leaves do not fit together.

    Traced leaves are asked for their shapes only.

    Raises:
      ValueError: shapes that do not match, no segment, a mask that is not bool or not a run of
        True followed by padding, or a number that is not finite among the steps that count.
    """
    shape = np.shape(segments.mask)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"mask must be [N, k] with a segment and a step at least, got {shape}.")
    if segments.mask.dtype != bool:
        raise ValueError(f"the segments' mask must be bool, got {segments.mask.dtype}.")
    if np.shape(segments.rewards) != shape:
        raise ValueError(f"rewards must be {shape} as the mask, got {np.shape(segments.rewards)}.")
    for name in ("observations", "actions"):
        if np.shape(getattr(segments, name))[:2] != shape:
            found = np.shape(getattr(segments, name))
            raise ValueError(f"{name} must begin with {shape} as the mask, got {found}.")
    seen, after = np.shape(segments.observations), np.shape(segments.next_observations)
    if seen != after:
        raise ValueError(f"next_observations must be {seen} as observations, got {after}.")
    mask = known(segments.mask)
    if mask is None:
        return
    if not mask[:, 0].all():
        raise ValueError(f"segment {int(np.argmin(mask[:, 0]))} has no step at all.")
    gaps = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if gaps.any():
        raise ValueError(
            f"a segment's mask must be True for its steps and False after them; segment "
            f"{int(np.argmax(gaps))} has steps after its padding."
        )
    for name in ("observations", "actions", "rewards", "next_observations"):
        values = known(getattr(segments, name))
        if values is not None and values.dtype.kind == "f":
            wrong = ~np.isfinite(values[mask]).reshape(int(mask.sum()), -1).all(1)
            if wrong.any():
                row, step = np.argwhere(mask)[int(np.argmax(wrong))]
                raise ValueError(f"{name} of segment {row}, step {step}, are not finite.")


def check_pairs(pairs: Pairs, num_segments: int) -> None:
    """Refuse comparisons that cannot be learned from.

    Traced leaves are asked for their shapes only.

    Raises:
      ValueError: shapes that do not match, no comparison that counts, an index outside
        [0, num_segments), a segment against itself, or a label outside [0, 1].
    """
    shape = np.shape(pairs.first)
    for name in ("first", "second", "label", "mask"):
        if len(shape) != 1 or np.shape(getattr(pairs, name)) != shape:
            shapes = {n: np.shape(getattr(pairs, n)) for n in ("first", "second", "label", "mask")}
            raise ValueError(f"pairs need first, second, label and mask of one [M], got {shapes}.")
    if pairs.mask.dtype != bool:
        raise ValueError(f"the pairs' mask must be bool, got {pairs.mask.dtype}.")
    mask = known(pairs.mask)
    if shape == (0,) or (mask is not None and not mask.any()):
        raise ValueError(f"no pair to learn from: {shape[0]} pairs, none unmasked.")
    first, second = known(pairs.first), known(pairs.second)
    for name, index in (("first", first), ("second", second)):
        if index is None:
            continue
        if index.dtype.kind not in "iu":
            raise ValueError(f"pairs.{name} must be integers, got {index.dtype}.")
        wrong = (index < 0) | (index >= num_segments)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"pairs.{name}[{at}] is {index[at]}, but segments are numbered from 0 to "
                f"{num_segments - 1}."
            )
    if first is not None and second is not None and mask is not None:
        alone = (first == second) & mask
        if alone.any():
            at = int(np.argmax(alone))
            raise ValueError(f"pair {at} compares segment {first[at]} with itself.")
    label = known(pairs.label)
    if label is not None:
        check_probabilities("pairs.label", label)


def check_data(data: PreferenceData) -> None:
    """Refuse a data set that `check_segments` or `check_pairs` refuses.

    Raises:
      ValueError: as theirs.
    """
    check_segments(data.segments)
    check_pairs(data.pairs, np.shape(data.segments.mask)[0])


def check_probabilities(name: str, values: Any) -> None:
    """Refuse concrete values outside [0, 1], NaN among them.

    Raises:
      ValueError: with the first such value and where it is.
    """
    found = known(values)
    if found is None:
        return
    wrong = ~((found >= 0) & (found <= 1))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"[{', '.join(map(str, at))}]" if at else ""
        raise ValueError(f"{name}{where} must be a probability in [0, 1], got {found[at]:g}.")


def check_not_negative(name: str, values: Any) -> None:
    """Refuse concrete values below 0, and NaN.

    Raises:
      ValueError: naming them.
    """
    found = known(values)
    if found is not None and not (found >= 0).all():
        raise ValueError(f"{name} must be at least 0, got {found}.")


def known(values: Any) -> np.ndarray | None:
    """Return the values on the host, or None while they are traced."""
    return None if isinstance(values, Tracer) else np.asarray(values)
