"""The report of a run: results.json, report.md and the table of claims on the screen."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.markup import escape
from rich.table import Table

from experiments.claims import Claim, Report, Section
from experiments.record import write_json, write_text
from experiments.run_folder import RunFolder
from experiments.settings import to_plain

_MARKS = {True: "✅", False: "❌", None: "❔"}
_STYLES = {True: "[green]", False: "[red]", None: "[yellow]"}


def write_report(folder: RunFolder, report: Report) -> None:
    """Write results.json and report.md.

    results.json holds provenance, `config`, `sweep`, `claims` and `tables`.

    Raises:
        ValueError: two claims of one name, or a figure that does not exist.
    """
    names = [claim.name for claim in report.claims]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two claims are named {name!r}")
    made = json.loads((folder.path / "provenance.json").read_text())
    claims = [
        dataclasses.replace(claim, command=claim.command or made["command"])
        for claim in report.claims
    ]
    text = _markdown(folder, claims, report.sections, made)  # before anything is written
    results = {
        **made,
        "experiment": folder.preset.kind,
        "config": to_plain(folder.preset.config),
        "sweep": folder.preset.sweep,
        "claims": [dataclasses.asdict(claim) for claim in claims],
        "tables": dict(report.tables),
    }
    write_json(folder.path / "results.json", results)
    write_text(folder.path / "report.md", text)


def render(claims: Sequence[Claim], title: str) -> Table:
    """Return the table of claims for the screen."""
    table = Table(title=escape(title), title_justify="left", caption=_count(claims))
    table.caption_justify = "left"
    for column in ("claim", "target", "value", "95 % interval", "over", "outcome"):
        table.add_column(column)
    for claim in claims:
        cells = (claim.target, _value(claim), _interval(claim), claim.sample)
        table.add_row(
            f"[bold]{escape(claim.name)}:[/] {escape(claim.statement)}",
            *map(escape, cells),
            _STYLES[claim.held] + escape(_verdict(claim)),
        )
    return table


def _markdown(
    folder: RunFolder, claims: Sequence[Claim], sections: Iterable[Section], made: dict[str, Any]
) -> str:
    preset, hardware = folder.preset, made["hardware"]
    packages = ("jaxrl5g", "jax", "python")
    versions = ", ".join(f"{name} {made['versions'][name]}" for name in packages)
    blocks = [
        f"# {preset.name}",
        preset.description,
        f"```\n{made['command']}\n```",
        f"Begun {made['time']} at revision {made['revision']} on {', '.join(hardware['devices'])} "
        f"({hardware['cpu']}, {hardware['cores']} cores) with {versions}. Every option is in "
        "[config.yaml](config.yaml), every number in [results.json](results.json).",
    ]
    if "resumed" in made:
        times = ", ".join(again["time"] for again in made["resumed"])
        blocks.append(f"Interrupted, and resumed at {times}.")
    if claims:
        columns = ("outcome", "claim", "value", "95 % interval", "target", "over")
        rows = [
            (
                f"{_MARKS[claim.held]} {_verdict(claim)}",
                f"**{claim.name}**: {claim.statement}",
                _value(claim),
                _interval(claim),
                claim.target,
                claim.sample,
            )
            for claim in claims
        ]
        blocks += ["## Claims", f"{_count(claims)}.", _table(columns, rows)]
        others = {c.name: c.command for c in claims if c.command != made["command"]}
        blocks += [f"{name}: `{command}`" for name, command in others.items()]
    for section in sections:
        blocks += [f"## {section.title}", section.text]
        if section.columns:
            blocks.append(_table(section.columns, section.rows))
        blocks += [_figure(folder.path, path, text) for path, text in section.figures.items()]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _verdict(claim: Claim) -> str:
    if claim.held is None:
        return f"not measured: {claim.reason}"
    return "held" if claim.held else "missed"


def _count(claims: Sequence[Claim]) -> str:
    held, missed, unknown = (
        sum(claim.held is outcome for claim in claims) for outcome in (True, False, None)
    )
    return f"{held} of {len(claims)} held, {missed} missed, {unknown} not measured"


def _value(claim: Claim) -> str:
    if claim.value is None or not math.isfinite(claim.value):
        return "-"
    return f"{_number(claim.value)} {claim.unit}".strip()


def _interval(claim: Claim) -> str:
    if claim.interval is None:
        return ""
    if not all(math.isfinite(bound) for bound in claim.interval):
        return "unknown"
    return " to ".join(_number(bound) for bound in claim.interval)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _figure(folder: Path, path: Path, caption: str) -> str:
    if not path.is_file():
        raise ValueError(f"figure {path} does not exist")
    link = quote(Path(os.path.relpath(path, folder)).as_posix())
    return f"![{caption}]({link})"
