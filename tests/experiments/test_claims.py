"""Claims and the reports that are made of them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from rich.console import Console

from experiments.claims import Claim, Report, Section, merge
from experiments.presets import Preset
from experiments.report import render, write_report
from experiments.run_folder import open_run_folder

HELD = Claim(
    "gain",
    "the controller | the rule",
    "above 0 with the whole interval",
    value=np.float32(0.25),
    held=np.bool_(True),
    interval=(0.1, 0.4),
    unit="Mbit/s",
    sample="5 seeds x 32 drops",
)
MISSED = Claim("rate", "slots a second", "at least 10000", 123456.7, False, command="make rate")
UNKNOWN = Claim("gpu", "on a GPU", "at least 1e6", None, None, reason="no GPU here")


@dataclass(frozen=True)
class Config:
    seeds: int = 5


@pytest.fixture
def folder(tmp_path):
    preset = Preset("probe", "probe", "what a probe is for", Config(), {})
    return open_run_folder(tmp_path / "run", preset, ("run", "probe"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held": None}, "must give a reason just where `held` is None"),
        ({"reason": "why not"}, "must give a reason just where `held` is None"),
        ({"value": None}, "needs a finite value"),
        ({"value": math.nan}, "needs a finite value"),
        ({"interval": (1.0, 0.0)}, "needs an interval from low to high"),
        ({"interval": (math.nan, 0.0)}, "needs an interval from low to high"),
    ],
)
def test_a_claim_cannot_say_more_than_it_has(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(HELD, **changes)


def test_rows_fit_their_columns():
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Section("s", columns=("a", "b"), rows=(("1",),))


def test_results_hold_every_claim_with_its_evidence(folder):
    tables = {"rates": {"a": np.arange(2.0), "b": math.inf}}
    unbounded = replace(HELD, name="one drop", interval=(-math.inf, math.inf))
    write_report(folder, Report((HELD, MISSED, UNKNOWN, unbounded), tables=tables))
    results = json.loads((folder.path / "results.json").read_text())
    gain, rate, gpu, one = results["claims"]
    assert (gain["value"], gain["interval"], gain["held"]) == (0.25, [0.1, 0.4], True)
    assert gain["command"] == "python -m experiments run probe"  # the run's own
    assert rate["command"] == "make rate" and rate["held"] is False
    assert (gpu["value"], gpu["held"], gpu["reason"]) == (None, None, "no GPU here")
    assert one["interval"] == [None, None]
    assert results["tables"] == {"rates": {"a": [0.0, 1.0], "b": None}}
    assert results["config"] == {"seeds": 5} and "versions" in results


def test_the_report_can_be_read(folder):
    figure = folder.figures / "a curve.png"
    figure.write_bytes(b"png")
    section = Section("Curves", "Two *seeds*.", ("x", "y|z"), (("1", "2\n3"),), {figure: "a curve"})
    write_report(folder, Report((HELD, MISSED, UNKNOWN), (section,)))
    text = (folder.path / "report.md").read_text()
    assert text.startswith("# probe\n\nwhat a probe is for\n")
    assert "1 of 3 held, 1 missed, 1 not measured." in text
    for line in (
        "| ✅ held | **gain**: the controller \\| the rule | 0.25 Mbit/s | 0.1 to 0.4 "
        "| above 0 with the whole interval | 5 seeds x 32 drops |",
        "| ❌ missed | **rate**: slots a second | 123,457 |  | at least 10000 |  |",
        "| ❔ not measured: no GPU here | **gpu**: on a GPU | - |  | at least 1e6 |  |",
        "rate: `make rate`",
        "## Curves",
        "| x | y\\|z |\n| --- | --- |\n| 1 | 2 3 |",
        "![a curve](figures/a%20curve.png)",
    ):
        assert line in text
    # every row of every table has the columns of its heading
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_a_report_that_lacks_something_is_not_written(folder):
    missing = Section("s", figures={folder.figures / "absent.png": ""})
    for report in (Report((), (missing,)), Report((HELD, HELD))):
        with pytest.raises(ValueError, match="does not exist|two claims are named 'gain'"):
            write_report(folder, report)
    assert not (folder.path / "results.json").exists()
    assert not (folder.path / "report.md").exists()


def test_groups_keep_their_claims_apart():
    one = Report((HELD,), (Section("Curves"),), {"t": 1})
    merged = merge({"rule=a": one, "rule=b": one})
    assert [claim.name for claim in merged.claims] == ["gain (rule=a)", "gain (rule=b)"]
    assert [section.title for section in merged.sections] == ["Curves (rule=a)", "Curves (rule=b)"]
    assert merged.tables == {"rule=a": {"t": 1}, "rule=b": {"t": 1}}


def test_the_screen_shows_outcomes_and_keeps_brackets(capsys):
    claim = replace(HELD, statement="gain in [0, 1]")
    Console(width=140).print(render((claim, MISSED, UNKNOWN), "probe [x]"))
    shown = capsys.readouterr().out
    for text in (
        "probe [x]",
        "gain: gain in [0, 1]",
        "held",
        "missed",
        "not measured: no GPU here",
    ):
        assert text in shown
    assert "1 of 3 held, 1 missed, 1 not measured" in shown
