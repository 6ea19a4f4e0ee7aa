"""The CPL experiment: a tiny run, resumption, what is asked, and what claims make of data."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments import cpl_maze, cpl_runs
from experiments.cli import main
from experiments.cpl_claims import grid_claims, maze_claims, maze_share, sparse
from experiments.cpl_config import Cpl, Grids, Maze
from experiments.cpl_data import Asked, ask, make_world
from experiments.cpl_figures import grid_figures
from experiments.cpl_maze import BEHAVIOUR, BEST, UNIFORM, MazeLanes, MazeMeasured
from experiments.cpl_runs import (
    BC,
    CPL,
    PIQL,
    PLAIN,
    PLANNING,
    SFT,
    TOP_BC,
    Lanes,
    Measured,
    Part,
    learner,
    plan,
)
from experiments.cpl_tables import grid_tables, maze_table
from experiments.names import UsageError
from experiments.sweeps import expand, parse_sweep
from prefs import feedback, mdps
from prefs.algorithms.evaluation import table_returns
from prefs.mdps.point_maze import MAZE

SEEDS = 4
TINY = Cpl(
    seeds=SEEDS,
    pairs=(4, 8),
    few=4,
    dense=4,
    ablated=8,
    compared=8,
    mistakes=(0.25,),
    rationalities=(1.0,),
    lengths=(1,),
    grids=Grids(size=3, length=3, bc_steps=10, steps=20),
    maze=Maze(
        seeds=2,
        pairs=4,
        length=3,
        nodes=2,
        actions=3,
        width=4,
        batch_size=2,
        bc_steps=10,
        steps=10,
        episodes=12,
        episode_steps=40,
    ),
)
OPTIONS = [
    *("--seeds", str(SEEDS), "--pairs", "4", "8", "--few", "4", "--dense", "4", "--ablated", "8"),
    *("--compared", "8", "--mistakes", "0.25", "--rationalities", "1", "--lengths", "1"),
    *("--grids.size", "3", "--grids.length", "3", "--grids.bc-steps", "10"),
    *("--grids.steps", "20", "--maze.seeds", "2", "--maze.pairs", "4", "--maze.length", "3"),
    *("--maze.nodes", "2", "--maze.actions", "3", "--maze.width", "4"),
    *("--maze.batch-size", "2", "--maze.bc-steps", "10", "--maze.steps", "10"),
    *("--maze.episodes", "12", "--maze.episode-steps", "40"),
]
FEW_LEARNERS = {"OTHERS": (), "DENSE": (PLAIN, CPL), "RANKERS": ()}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of all that claims are about, but for the maze, whose networks take long to compile."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        _trim(patch)
        assert main(["run", "cpl", *OPTIONS, "--out", str(out)]) == 0
    return out


def _trim(patch):
    for name, learners in FEW_LEARNERS.items():
        patch.setattr(cpl_runs, name, learners)
    patch.setattr(MazeLanes, "kept", lambda self, name: _maze_found()[name])


@pytest.fixture(scope="module")
def world():
    return make_world(TINY)


def _results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_run_folder_holds_what_was_asked_and_found(run_folder):
    results = _results(run_folder)
    names = [claim["name"] for claim in results["claims"]]
    assert "CPL(0.5) against SFT, 8 pairs, greedy against greedy" in names
    assert "conservative bias helps with 4 pairs" in names
    assert "labels by return of 1 step: CPL(0.5) loses" in names
    assert names[-4:] == [f"maze: CPL(0.5) against {r}" for r in ("BC", "SFT", "P-IQL", "CPL(1)")]
    grids = results["tables"]["grids"]
    assert all(np.shape(part["greedy_return"]) == (SEEDS,) for part in grids.values())
    assert set(results["tables"]["maze"]) == {*cpl_maze.REFERENCES, *cpl_maze.LEARNERS}
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(grids) + len(results["tables"]["maze"])
    report = (run_folder / "report.md").read_text()
    for figure in ("grids-pairs", "grids-bias", "grids-noise", "grids-labels", "maze-paths"):
        assert (run_folder / "figures" / f"{figure}.png").stat().st_size > 1000
        assert f"figures/{figure}.png" in report


def test_what_is_kept_is_not_measured_again(run_folder, monkeypatch):
    before, measured = _results(run_folder), []
    measure = cpl_runs._run

    def counted(make, *rest):
        measured.append(make)
        return measure(make, *rest)

    _trim(monkeypatch)
    monkeypatch.setattr(cpl_runs, "_run", counted)
    argv = ["run", "cpl", *OPTIONS, "--out", str(run_folder), "--resume"]
    (run_folder / "parts" / "grids" / "sft-4-sparse-regret-length3.json").unlink()
    assert main(argv) == 0
    assert measured == [learner(TINY, SFT)[0]]
    after = _results(run_folder)
    assert after["tables"] == before["tables"]
    assert [c["value"] for c in after["claims"]] == [c["value"] for c in before["claims"]]


@pytest.mark.parametrize("name", [CPL, TOP_BC, PIQL])
def test_padding_is_as_if_it_were_not_there(name, run_folder, world):
    """A part with fewer pairs than there is room for is the learner on just those, alone."""
    kept = Lanes(TINY, run_folder / "parts" / "grids").kept(Part(name, sparse(TINY, 4)))
    grids, keys = world
    data = ask(grids, sparse(TINY, 4), 4)
    assert data.pairs.mask.all() and data.segments.mask.all()
    make, settings = learner(TINY, name)

    @jax.jit
    def train(mdp, advantage, data, key):
        judge = feedback.regret(advantage, mdp.discount)
        return make(settings, mdps.tabular_problem(mdp), judge, data=data)(key)

    alone = train(*jax.tree.map(lambda x: x[1], (grids.mdps, grids.advantage, data)), keys[1])
    assert kept.value[1] == pytest.approx(float(alone.metrics["return"]), abs=2e-4)
    assert kept.accuracy[1] == pytest.approx(float(alone.metrics["accuracy"]))
    mdp = jax.tree.map(lambda x: x[1], grids.mdps)
    exact = jax.jit(table_returns)(mdp, alone.policy)
    assert kept.value[1] == pytest.approx(float(exact["return"]), abs=2e-4)


@pytest.mark.parametrize("labels", ["regret", "return"])
@pytest.mark.parametrize("length", [1, 3])
def test_answers_are_the_argmax_of_what_they_are_said_to_follow(world, labels, length):
    grids, _ = world
    data = ask(grids, Asked(6, labels=labels, length=length), 8)
    segments, pairs = jax.tree.map(np.asarray, (data.segments, data.pairs))
    steps = segments.rewards.astype(float)
    if labels == "return":
        seeds = np.arange(SEEDS)[:, None, None]
        reward = np.asarray(grids.mdps.reward)[seeds, segments.observations, segments.actions]
        np.testing.assert_allclose(steps, reward)
    else:
        policy = np.asarray(grids.policy, float)
        rows = np.arange(SEEDS)[:, None, None]
        steps = 0.1 * np.log(policy[rows, segments.observations, segments.actions])
    utility = steps[..., :length] @ 0.95 ** np.arange(length)
    gap = (utility[:, ::2] - utility[:, 1::2])[:, :6]
    clear = abs(gap) > 1e-4
    assert clear.any()
    np.testing.assert_array_equal(pairs.label[:, :6][clear], (gap > 0)[clear])
    np.testing.assert_array_equal(pairs.mask, np.arange(8) < np.full((SEEDS, 1), 6))
    there = segments.mask.sum(-1)
    np.testing.assert_array_equal(there, np.where(np.arange(16) < 12, length, 0)[None] + 0 * there)


def test_dense_data_compare_the_segments_of_the_sparse_ones(world):
    grids, _ = world
    few, every = (ask(grids, Asked(4, dense=dense, length=3), 4) for dense in (False, True))
    np.testing.assert_array_equal(few.segments.observations, every.segments.observations)
    assert every.pairs.first.shape == (SEEDS, 28)
    said = {}
    for data in (every, few):
        first, second, label = map(
            np.asarray, (data.pairs.first, data.pairs.second, data.pairs.label)
        )
        for seed in range(SEEDS):
            for i, j, answer in zip(first[seed], second[seed], label[seed], strict=True):
                assert said.setdefault((seed, i, j), answer) == answer


def test_soft_labels_are_the_probabilities_of_mistaken_and_noisy_answers(world):
    grids, _ = world
    asked = Asked(8, length=3, rationality=2.0, soft=True)
    label = np.asarray(ask(grids, asked, 8).pairs.label)
    flipped = np.asarray(ask(grids, asked._replace(mistake=0.25), 8).pairs.label)
    np.testing.assert_allclose(flipped, 0.25 + 0.5 * label, rtol=1e-5)
    assert ((label > 0) & (label < 1)).all()


def test_the_parts_differ_and_so_do_their_files():
    for config in (TINY, Cpl()):
        parts = plan(config)
        assert len(set(parts)) == len(parts) == len({part.slug for part in parts})
        for part in parts:
            make, settings = learner(config, part.learner)
            assert callable(make) and settings.num_segments


def test_the_maze_is_scaled_by_its_references_and_paths_keep_out_of_walls(tmp_path, monkeypatch):
    lanes, names = MazeLanes(TINY, tmp_path), (UNIFORM, BEST, CPL)
    found = {name: lanes.kept(name) for name in names}
    np.testing.assert_allclose(maze_share(found, UNIFORM), 0, atol=1e-6)
    np.testing.assert_allclose(maze_share(found, BEST), 1)
    walls = np.array([[letter == "#" for letter in row] for row in MAZE])
    for m in found.values():
        cells = np.floor(m.paths).astype(int)
        assert cells.shape == (12, 40, 2)
        assert not walls[cells[..., 0], cells[..., 1]].any()
        # all begin at the same places, from which one step leads at most half a cell
        assert abs(m.paths[:, 0] - found[BEST].paths[:, 0]).max() <= 1 + 1e-5
    assert found[CPL].accuracy.shape == (2,) and np.isnan(found[BEST].accuracy).all()
    assert found[BEST].value.mean() > found[UNIFORM].value.mean()
    monkeypatch.delattr(cpl_maze, "_run")  # what is kept needs no run
    again = {name: lanes.kept(name) for name in names}
    jax.tree.map(np.testing.assert_array_equal, again, found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--pairs", "100", "100"], "pairs must be at least two numbers that rise"),
        (["--few", "60"], "few must be one of pairs"),
        (["--few", "500"], "few must be at most ablated"),
        (["--dense", "2000"], "dense must be at most ablated"),
        (["--mistakes", "0.5"], "mistakes must be above 0 and below 0.5"),
        (["--rationalities", "inf"], "rationalities must be positive and finite"),
        (["--lengths", "8"], "lengths must name one or more from 1 to below grids.length = 8"),
        (["--problems"], "problems must name one"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", "cpl", *options, "--out", str(out)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grids.size=2", "size must be from 3 to 20"),
        ("grids.steps=15", "steps must be a positive multiple of 10"),
        ("grids.temperature=0", "temperature must be positive"),
        ("grids.uniform=1.5", r"uniform must be in \[0, 1\]"),
        ("maze.seeds=1", "maze.seeds must be at least 2"),
        ("maze.actions=4", "actions must be odd"),
        ("maze.learning_rate=-1", "learning_rate must be finite, at least 0"),
    ],
)
def test_settings_of_a_section_that_do_not_fit_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        expand(Cpl(), parse_sweep([name], Cpl))


def _measured(level, divergence=0.1, value=None):
    seeds = np.linspace(-0.01, 0.01, SEEDS)
    lower = level - 0.05 if value is None else value
    return Measured(lower + seeds, level + seeds, np.ones(SEEDS), divergence + seeds)


def _found(**levels):
    """Parts on which every claim holds, but for those whose level is asked otherwise."""
    heights = {CPL: 0.9, PLAIN: 0.7, SFT: 0.6, BC: 0.4, TOP_BC: 0.5, PIQL: 0.8, PLANNING: 0.85}
    heights |= levels
    found = {}
    for part in plan(TINY):
        asked = part.asked
        level = heights.get(part.learner, 0.3)
        if asked.labels == "return":
            level = 0.95 if part.learner == PLANNING else 0.2
        elif asked.mistake or asked.rationality < math.inf:
            level -= 0.05
        elif asked.dense:
            level += 0.05
        elif asked.pairs == 8:
            level += 0.01
        if part == Part(PLAIN, sparse(TINY, 8)):
            found[part] = _measured(0.88, value=0.995)
        else:
            found[part] = _measured(level, divergence=1 / asked.pairs)
    return found


def test_claims_hold_of_data_made_to_fit_them():
    claims = {claim.name: claim for claim in grid_claims(TINY, _found())}
    assert all(claim.held for claim in claims.values())
    alike = claims["CPL(0.5) against SFT, 4 pairs, greedy against greedy"]
    unlike = claims["CPL(0.5) against SFT, 4 pairs, greedy against return"]
    assert (alike.value, unlike.value) == (pytest.approx(0.3), pytest.approx(0.35))
    assert alike.interval == pytest.approx((0.3, 0.3))
    most = claims["conservative bias helps most with few pairs"]
    assert most.value == pytest.approx(0.2 - 0.03)
    nearing = claims["CPL(1) with population labels nears the maximum-entropy optimum"]
    assert nearing.value == pytest.approx(1 / 4 - 1 / 8)
    assert claims["CPL(0.5) degrades gracefully"].value == pytest.approx(0.85 / 0.91)


@pytest.mark.parametrize(
    ("levels", "missed"),
    [
        ({SFT: 0.95}, "CPL(0.5) against SFT, 8 pairs, greedy against greedy"),
        ({PIQL: 0.99}, "CPL(0.5) against P-IQL, 4 pairs, return against return"),
        ({PLAIN: 0.9}, "conservative bias helps with 4 pairs"),
        ({CPL: 0.15}, "labels by return of 3 steps: CPL(0.5) loses"),
        ({CPL: 0.2}, "CPL(0.5) degrades gracefully"),
    ],
)
def test_a_claim_that_does_not_hold_is_reported_so(levels, missed):
    claims = {claim.name: claim for claim in grid_claims(TINY, _found(**levels))}
    assert claims[missed].held is False


def _maze_found():
    paths = np.ones((12, 5, 2)) * 1.5

    def went(level):
        return MazeMeasured(np.array([level, level + 1.0]), np.full(2, 0.5), np.full(2, 1.0), paths)

    found = {UNIFORM: went(0.0), BEHAVIOUR: went(5.0), BEST: went(50.0), CPL: went(40.0)}
    return found | {BC: went(20.0), SFT: went(30.0), PIQL: went(45.0), PLAIN: went(10.0)}


def test_maze_claims_compare_shares_of_the_same_rollouts():
    found = _maze_found()
    claims = {claim.name: claim for claim in maze_claims(TINY, found)}
    assert claims["maze: CPL(0.5) against BC"].value == pytest.approx(0.4)
    assert claims["maze: CPL(0.5) against BC"].held
    assert claims["maze: CPL(0.5) against P-IQL"].value == pytest.approx(-0.1)
    assert claims["maze: CPL(0.5) against P-IQL"].held is False
    assert len(maze_table(TINY, found).rows) == len(found)


def test_tables_show_every_part_and_figures_are_drawn_without_ablations(tmp_path):
    found = _found()
    sections = grid_tables(TINY, found)
    cells = sum(cell != "" for section in sections[:1] for row in section.rows for cell in row[1:])
    assert cells + len(sections[-1].rows) == len(found)
    config = dataclasses.replace(TINY, mistakes=(), rationalities=())
    some = {part: found[part] for part in plan(config)}
    assert all(claim.held for claim in grid_claims(config, some))
    drawn = grid_figures(config, some, tmp_path)
    assert all(path.stat().st_size > 1000 for path in drawn.figures)
