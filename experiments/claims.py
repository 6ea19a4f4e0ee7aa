"""Claims: what an experiment says it has shown, and what it leaves behind as evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One statement that a run was to show.

    Attributes:
        name: short, unique in a report.
        statement: what is claimed, in words.
        target: what had to be found for it to hold, such as "above 0 with the whole interval".
        value: measured; None where it could not be.
        held: whether the target was reached; None where that could not be measured.
        interval: low and high of the value at 95 %, in its unit; infinite where unknown.
        unit: of value and interval; empty for a pure number.
        sample: what the interval is over, such as "5 seeds x 32 drops".
        reason: why it could not be measured; given just where `held` is None.
        command: that makes the value; the run's own where left empty.
    """

    name: str
    statement: str
    target: str
    value: float | None
    held: bool | None
    interval: tuple[float, float] | None = None
    unit: str = ""
    sample: str = ""
    reason: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        for name, kind in (("value", float), ("held", bool)):  # from NumPy's scalars
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else kind(given))
        if (self.held is None) != bool(self.reason):
            raise ValueError(
                f"claim {self.name!r} must give a reason just where `held` is None, got "
                f"held={self.held} and reason={self.reason!r}"
            )
        if self.held is not None and (self.value is None or not math.isfinite(self.value)):
            raise ValueError(
                f"claim {self.name!r} needs a finite value where it says whether it held, got "
                f"{self.value}"
            )
        low, high = self.interval or (0.0, 0.0)
        if not low <= high:  # nor NaN
            raise ValueError(
                f"claim {self.name!r} needs an interval from low to high, got {self.interval}"
            )


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: heading.
        text: Markdown.
        columns: headings of a table; none without one.
        rows: cells of the table, as many as there are columns.
        figures: image files in the run's folder, with their captions.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Mapping[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"section {self.title!r}: a row has {len(row)} cells for "
                    f"{len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Report:
    """What a run leaves behind.

    Attributes:
        claims: in the order in which they are reported.
        sections: of the Markdown report, after the claims.
        tables: everything else that results.json shall hold, by name.
    """

    claims: Sequence[Claim] = ()
    sections: Sequence[Section] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)


def merge(reports: Mapping[str, Report]) -> Report:
    """Return the reports of a sweep's groups as one, each under its label."""
    claims, sections = [], []
    for label, report in reports.items():
        claims += [dataclasses.replace(c, name=f"{c.name} ({label})") for c in report.claims]
        sections += [dataclasses.replace(s, title=f"{s.title} ({label})") for s in report.sections]
    tables = {label: dict(report.tables) for label, report in reports.items()}
    return Report(claims, sections, tables)
