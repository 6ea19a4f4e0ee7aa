"""Names typed by hand: splitting lists, and what to say about an unknown one."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A request that cannot be run; its message is all the user needs to see."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown `name`, with the nearest of the `known` ones."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    return UsageError(f"unknown {kind} {name!r}; {hint}")


def split_list(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, leaving out blanks around and between the items."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def integers(option: str, text: str) -> tuple[int, ...]:
    """Split a comma-separated list of positive integers.

    Raises:
        UsageError: if an item is not a positive integer, or there is none.
    """
    items = split_list(text)
    if not items or not all(item.isdecimal() and int(item) > 0 for item in items):
        raise UsageError(f"{option} must list positive integers, such as 1,64; got {text!r}.")
    return tuple(int(item) for item in items)
