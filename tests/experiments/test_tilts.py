"""`tilts` on a tiny environment: what it writes, and what it refuses."""

import json

import pytest

from experiments.cli import main
from experiments.environments import held_out_split
from experiments.tilts import Tilts
from jaxrl5g.agents import feature_names

TINY = ["tilts", "--env", "TinyDownlink-v0", "--split", "none", "--drops", "2", "--slots", "120"]


def test_power_tilts_are_measured_against_rest(tmp_path):
    out = tmp_path / "tilts"
    options = ["--parametrisation", "paper", "--pf", "--coefficients", "1e-9", "1"]
    assert main([*TINY, *options, "--out", str(out)]) == 0
    rows = json.loads((out / "tilts.json").read_text())["tilts"]
    assert [row["feature"] for row in rows[::2]] == list(feature_names("paper")["second"])
    cell = {(row["feature"], row["coefficient"]): row["cell_throughput"]["value"] for row in rows}
    # a tilt too small to be seen in float32 changes nothing; one that can be seen does
    assert cell["csi_mean", 1e-9] == 0.0
    assert cell["csi_mean", 1.0] != 0.0
    assert (out / "tilts.png").stat().st_size > 1000


def test_features_can_be_chosen(tmp_path):
    options = ["--parametrisation", "paper", "--coefficients", "1", "--features", "metric", "owned"]
    assert main([*TINY, *options, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "tilts.json").read_text())["tilts"]
    named = [(row["agent"], row["feature"]) for row in rows]
    assert named == [("PRB", "metric"), ("power", "metric"), ("power", "owned")]


def test_the_defaults_look_at_no_held_out_tracks():
    assert Tilts().split not in (held_out_split(Tilts().env), "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--coefficients", "0"], "coefficients"),
        (["--env", "EtoileDownlink-v0", "--split", "test"], "held out"),
        (["--period", "0"], "decision_period"),
        (["--features", "metrik"], "did you mean 'metric'"),
    ],
)
def test_bad_options_are_named(options, said, tmp_path, capsys):
    assert main([*TINY, *options, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
