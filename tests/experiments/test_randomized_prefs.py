"""The randomised preference experiment: a tiny run, resumption, and what claims make of data."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import randomized_prefs_runs as runs
from experiments.cli import main
from experiments.names import UsageError
from experiments.randomized_prefs_claims import problem_claims, table
from experiments.randomized_prefs_config import RandomizedPrefs
from experiments.randomized_prefs_figures import section
from experiments.randomized_prefs_runs import (
    DPS,
    GREEDY,
    PBTS,
    PR_LSVI,
    THEORY,
    Lanes,
    Measured,
    Part,
    plan,
)
from experiments.sweeps import expand, parse_sweep
from prefs.algorithms import pr_lsvi
from prefs.algorithms.links import Logistic

SEEDS, EPISODES, POINTS = 4, 60, 6
THRESHOLDS = (0.0, 0.05, 0.1, 9.0)
OPTIONS = [
    *("--problems", "low_rank", "--posterior-sampling"),
    *("--seeds", str(SEEDS), "--episodes", str(EPISODES), "--points", str(POINTS)),
    *("--thresholds", *map(str, THRESHOLDS)),
    *("--low-rank.num-states", "4", "--low-rank.num-actions", "2"),
    *("--low-rank.horizon", "2", "--low-rank.rank", "2"),
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "tiny"
    assert main(["run", "randomized-prefs", *OPTIONS, "--out", str(out)]) == 0
    return out


def _results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_run_folder_holds_what_was_asked_and_found(run_folder):
    results = _results(run_folder)
    label = "low-rank MDPs: PR-LSVI"
    assert [claim["name"] for claim in results["claims"]] == [
        f"{label} keeps its query bound",
        f"{label}: sub-linear regret",
        f"{label}: regret grows with the threshold, ends",
        f"{label}: regret grows with the threshold, every step",
        f"{label}: below greedy MLE",
        f"{label}: active queries beat random ones",
        f"{label}: queries grow no faster than 1 / threshold squared",
    ]
    assert results["claims"][0]["held"]
    parts = results["tables"]["low_rank"]
    assert all(np.shape(part["regret"]) == (SEEDS,) for part in parts.values())
    active, at_random = (parts[f"pr-lsvi-{query}-0.1"] for query in ("active", "random"))
    assert sum(active["queries"]) > 0 and active["queries"] == at_random["queries"]
    assert not any(parts["pr-lsvi-active-9.0"]["queries"])
    assert "pr-lsvi-random-9.0" not in parts  # nothing asked, nothing to ask at random
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(parts) * POINTS
    assert lines[POINTS - 1]["episode"] == EPISODES
    first = parts["pr-lsvi-active-0.0"]
    assert lines[POINTS - 1]["regret"] == pytest.approx(np.mean(first["regret"]))
    report = (run_folder / "report.md").read_text()
    for figure in ("regret", "trade-off", "queries", "bound"):
        assert (run_folder / "figures" / f"low_rank-{figure}.png").stat().st_size > 1000
        assert f"figures/low_rank-{figure}.png" in report


def test_a_kept_part_is_what_the_learner_does_alone(run_folder, tmp_path):
    (line,) = (run_folder / "config.yaml").read_text().splitlines()[:1]
    assert line == "experiment: randomized-prefs"
    config = _tiny()
    lanes = Lanes(config, "low_rank", run_folder / "parts" / "low_rank")
    kept = lanes.kept(Part(PR_LSVI, "active", 0.05))
    mdp = jax.tree.map(lambda x: x[1], lanes._mdps)
    settings = pr_lsvi.practical(episodes=EPISODES, eps=0.05)
    train = jax.jit(pr_lsvi.make_train(settings, mdp, Logistic(8.0)))
    metrics = train(lanes._keys[1]).metrics
    at = np.arange(1, POINTS + 1) * (EPISODES // POINTS) - 1
    np.testing.assert_allclose(kept.regret[1], metrics["regret"][at], rtol=1e-4)
    np.testing.assert_array_equal(kept.asked[1], np.cumsum(metrics["queried"])[at])
    np.testing.assert_allclose(kept.bound[1], metrics["query_bound"], rtol=1e-5)


def test_what_is_kept_is_not_measured_again(run_folder, monkeypatch):
    before, measured = _results(run_folder), []
    measure = runs._run

    def counted(make, settings, *rest):
        measured.append(settings.query)
        return measure(make, settings, *rest)

    monkeypatch.setattr(runs, "_run", counted)
    argv = ["run", "randomized-prefs", *OPTIONS, "--out", str(run_folder), "--resume"]
    assert main(argv) == 0
    assert measured == []
    (run_folder / "parts" / "low_rank" / "pr-lsvi-random-0.1.json").unlink()
    assert main(argv) == 0
    assert measured == ["random"]
    after = _results(run_folder)
    assert after["tables"] == before["tables"]
    assert [c["value"] for c in after["claims"]] == [c["value"] for c in before["claims"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--episodes", "55"], "episodes must be a positive multiple of refit_every = 10"),
        (["--points", "5"], "points must be even"),
        (["--thresholds", "0.1", "0.2"], "thresholds must be at least two finite numbers"),
        (["--compared", "0.07"], "compared must be one of the thresholds"),
        (["--problems"], "problems must name one"),
        (["--scale", "0"], "scale must be above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", "randomized-prefs", *options, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pr_lsvi.sigma_r=0", "sigma_r must be positive"),
        ("pr_lsvi.sigma_P=-1", "sigma_P must be finite, at least 0"),
        ("pr_lsvi.alpha_U=0.1", "alpha_U must be at least alpha_L = 0.2"),
        ("posterior.prior_count=.nan", "prior_count must be positive"),
        ("low_rank.rank=12", "rank must be below num_states = 12"),
        ("random.horizon=0", "horizon must be at least 1"),
    ],
)
def test_settings_of_a_section_that_do_not_fit_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        expand(RandomizedPrefs(), parse_sweep([name], RandomizedPrefs))


def test_random_queries_come_after_the_run_that_sets_their_number():
    config = RandomizedPrefs()
    parts = plan(config, "random")
    assert len(set(parts)) == len(parts)
    assert len({part.slug for part in parts}) == len(parts)
    for place, part in enumerate(parts):
        if part.query == "random":
            assert part._replace(query="active") in parts[:place]
    assert {part.learner for part in parts} == {PR_LSVI, PBTS, GREEDY, THEORY, DPS}
    assert {part.learner for part in plan(config, "low_rank")} == {PR_LSVI, GREEDY, THEORY}


def _tiny():
    config = RandomizedPrefs(seeds=SEEDS, episodes=EPISODES, points=POINTS, thresholds=THRESHOLDS)
    sizes = {"num_states": 4, "num_actions": 2, "horizon": 2, "rank": 2}
    return dataclasses.replace(config, low_rank=dataclasses.replace(config.low_rank, **sizes))


def _measured(height, power, queries, bound=np.nan):
    """Seeds whose regret grows as height x episodes ** power; the first asks twice as often."""
    seeds = np.linspace(0.9, 1.1, SEEDS)[:, None]
    episodes = np.arange(1, POINTS + 1) * (EPISODES // POINTS)
    asked = queries * np.linspace(2, 1, SEEDS)[:, None] * episodes / EPISODES
    return Measured(
        height * seeds * episodes**power,
        asked,
        np.full(SEEDS, bound),
        ~(asked[:, -1] > bound),
    )


def _found(config, exponent=2.0, power=0.5, active=1.0, bound=1e4):
    """Parts of the random problems whose every claim holds, but for what is asked otherwise."""
    found = {}
    for part in plan(config, "random"):
        eps = part.eps or 0.0
        asks = 0 if eps > 5 else 1000 if eps == 0 else eps**-exponent
        height = {GREEDY: 9.0, THEORY: 9.0}.get(part.learner, 1 + eps)
        if part.query == "active":
            height *= active
        if part.query == "random" and not asks:
            continue
        limit = bound if part.learner == PR_LSVI and eps else np.nan
        found[part] = _measured(height, power, asks, limit)
    return found


def _by_name(config, found):
    claims = problem_claims(config, "random", found)
    return {claim.name.removeprefix("random MDPs: "): claim for claim in claims}


def test_claims_hold_of_data_made_to_fit_them():
    config = _tiny()
    claims = _by_name(config, _found(config, active=0.5, exponent=1.5))
    assert len(claims) == 1 + 2 * 6
    assert all(claim.held for claim in claims.values())
    bend = claims["PR-LSVI: sub-linear regret"]
    assert bend.value == pytest.approx(2**0.5) and bend.interval == pytest.approx((2**0.5,) * 2)
    assert claims["PbTS: queries grow no faster than 1 / threshold squared"].value == (
        pytest.approx(1.5)
    )
    steps = claims["PbTS: regret grows with the threshold, every step"]
    assert steps.value == pytest.approx(100 * (1.1 / 1.05 - 1))  # the least of three
    ends = claims["PR-LSVI: regret grows with the threshold, ends"]
    assert ends.value == pytest.approx(900)
    active = claims["PR-LSVI: active queries beat random ones"]
    assert active.value == pytest.approx(-50)
    share = claims["PR-LSVI keeps its query bound"]
    assert share.value == pytest.approx(100 * 2 * 0.05**-1.5 / 1e4)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"power": 1.0}, "sub-linear regret"),
        ({"exponent": 2.5}, "queries grow no faster than 1 / threshold squared"),
        ({"active": 1.1}, "active queries beat random ones"),
        ({"active": 10.0}, "below greedy MLE"),
    ],
)
def test_a_claim_that_does_not_hold_is_reported_so(change, missed):
    config = _tiny()
    claims = _by_name(config, _found(config, **change))
    for learner in (PR_LSVI, PBTS):
        assert claims[f"{learner}: {missed}"].held is False


def test_one_run_beyond_its_bound_breaks_the_claim():
    config = _tiny()
    found = _found(config, bound=2 * 0.05**-2.0 - 1)  # the seed that asks most is just beyond
    claim = _by_name(config, found)["PR-LSVI keeps its query bound"]
    assert claim.held is False and (claim.value or 0) > 100


def test_one_step_downwards_breaks_the_monotone_claim_alone():
    config = _tiny()
    found = _found(config)
    found[Part(PBTS, "active", 0.1)] = _measured(1.01, 0.5, 50)
    claims = _by_name(config, found)
    assert claims["PbTS: regret grows with the threshold, every step"].held is False
    assert "0.05 to 0.1" in claims["PbTS: regret grows with the threshold, every step"].statement
    assert claims["PbTS: regret grows with the threshold, ends"].held


def test_thresholds_that_never_ask_are_no_step_and_no_comparison():
    config = dataclasses.replace(_tiny(), thresholds=(0.0, 8.0, 9.0), compared=9.0)
    found = {
        part: _measured(5, 0.5, 0, 10) for part in plan(config, "random") if part.query != "random"
    }
    found[Part(PR_LSVI, "active", 0.0)] = _measured(1, 0.5, 100)
    claims = _by_name(config, found)
    steps = claims["PR-LSVI: regret grows with the threshold, every step"]
    assert steps.held and "least of 1 steps" in steps.statement
    assert claims["PR-LSVI: active queries beat random ones"].held is None
    assert claims["PR-LSVI: queries grow no faster than 1 / threshold squared"].held is None
    assert claims["PbTS: regret grows with the threshold, every step"].held is None
    assert claims["PR-LSVI keeps its query bound"].value == 0


def test_tables_and_figures_of_both_learners(tmp_path):
    config = _tiny()
    found = _found(config)
    made = table(config, "random", found)
    assert len(made.rows) == len(found)
    drawn = section(config, "random", found, tmp_path)
    assert len(drawn.figures) == 4
    assert all(path.stat().st_size > 1000 for path in drawn.figures)
