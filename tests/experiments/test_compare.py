"""The comparison on a tiny environment: what it writes, resumes and refuses."""

import json

import jax
import numpy as np
import pytest

from experiments import compare as command
from experiments.cli import main
from experiments.compare import REFERENCE, field, policy_name
from experiments.tune import ALPHAS

WINDOWS = {(alpha, power): 50.0 for alpha in ALPHAS for power in ("equal", "knapsack")}
DROPS = 3


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A comparison of a few rules, run twice; the second time nothing may be measured again."""
    folder = tmp_path_factory.mktemp("compare")
    windows = folder / "windows.json"
    rows = [{"alpha": a, "power": p, "window": w} for (a, p), w in WINDOWS.items()]
    windows.write_text(json.dumps({"chosen": rows}))
    argv = ["compare", "--env", "TinyDownlink-v0", "--drops", str(DROPS), "--slots", "150"]
    argv += ["--windows", str(windows), "--bound-steps", "2", "--out", str(folder / "out")]
    patch = pytest.MonkeyPatch()
    whole = command.field

    def some(num_cells, chosen):
        parts = {part.slug: part for part in whole(num_cells, chosen)}
        slugs = ("alpha-equal-reported", "alpha-knapsack-reported", "max-rate-reported")
        kept = [parts[slug] for slug in slugs]
        return [part._replace(settings=part.settings[4:8], names=part.names[4:8]) for part in
                kept[:2]] + kept[2:]  # fmt: skip

    patch.setattr(command, "field", some)
    try:
        assert main(argv) == 0
        first = json.loads((folder / "out" / "results.json").read_text())
        patch.setattr(command, "evaluate_family", None)
        assert main(argv) == 0
        assert main([*argv, "--seed", "5"]) == 2
    finally:
        patch.undo()
    return folder / "out", first


def test_results_hold_every_policy_and_the_bound(run_folder):
    out, results = run_folder
    names = [f"{policy_name(a, p)} (reported)" for p in ("equal", "knapsack") for a in ALPHAS[4:8]]
    assert list(results["policies"]) == [*names, "max rate (reported)"]
    bound = np.array(results["bound"]["geometric_mean"])
    assert bound.shape == (DROPS,)
    for name, drops in results["drops"].items():
        achieved = np.array(drops["geometric_mean"], float)
        assert (achieved <= bound * 1.02).all(), name  # luck of HARQ in a short episode
    reference = results["policies"][f"{REFERENCE} (reported)"]
    assert reference["against_reference"] is None
    assert results["policies"]["max rate (reported)"]["at_matched_jain"]["gain"] is not None
    for picture in ("frontier.png", "geometric_mean.png"):
        assert (out / picture).read_bytes()[:4] == b"\x89PNG"


def test_a_second_run_resumes_and_agrees(run_folder):
    out, first = run_folder
    second = json.loads((out / "results.json").read_text())
    assert second["policies"] == first["policies"] and second["drops"] == first["drops"]


def test_the_field_grows_with_the_cells():
    one, three = field(1, WINDOWS), field(3, WINDOWS)
    names = [part.slug for part in three]
    assert len(set(names)) == len(names) and len(three) == len(one) + 5
    assert {part.csi for part in three} == {"reported", "perfect", "centralised"}
    for part in three:
        assert len(part.settings) == len(part.names)
        with jax.ensure_compile_time_eval():
            part.make(*part.settings[0])
    with pytest.raises(command.UsageError, match=r"no window for \(alpha, power\)"):
        field(1, {(1.0, "equal"): 100.0})


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--drops", "0"], "--drops must be at least 1"),
        (["--slots", "50"], "--slots must exceed"),
        (["--bound-steps", "-1"], "--bound-steps must be at least 0"),
        (["--env", "MunichDownlnk-v0"], "MunichDownlink-v0"),
        (["--windows", "nowhere.json"], "does not exist"),
        (["--drops", "4000"], "disjoint drops"),
    ],
)
def test_wrong_options(argv, message, capsys, tmp_path):
    assert main(["compare", *argv, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
