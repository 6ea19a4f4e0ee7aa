"""Every learner has a page, and what the page says of settings, metrics and use is so."""

import ast
import dataclasses
import inspect
import re
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest

from prefs import algorithms
from prefs.algorithms.dueling_loop import DuelConfig
from prefs.algorithms.links import Logistic
from prefs.algorithms.planning import PlanningConfig
from prefs.feedback import partial_return
from prefs.mdps import fixed_grid, point_maze, random_episodic, tabular_problem

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "learners"
LEARNERS = {
    name: module
    for name, module in vars(algorithms).items()
    if name in algorithms.__all__ and inspect.ismodule(module)
}
HEADINGS = ["Objective", "Source", "What is ours", "Defaults", "Metrics", "What to know"]
SMALL = {
    "num_segments": 8,
    "segment_length": 3,
    "points": 2,
    "bc_steps": 2,
    "steps": 4,
    "reward_steps": 2,
    "episodes": 12,
    "refit_every": 4,
}
LENGTHS = {"points": 2, "T": 12}


def read(name):
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def prose(text):
    """Text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def sections(text):
    """What stands under every heading of the second order, in order."""
    parts = re.split(r"^## (.*)\n", prose(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading):
    """As GitHub makes them."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def rows(text, first):
    """{name: second cell} of the table whose first column is headed `first`."""
    table = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", text + "\n", re.MULTILINE)
    found = {}
    for line in table.group(1).splitlines() if table else []:
        name, value, meaning = (cell.strip() for cell in line.strip("|").split("|"))
        assert meaning and name.strip("`") not in found, line
        found[name.strip("`")] = value.strip("`")
    return found


SHARED = {anchor(title): text for title, text in sections(read("README")).items()}


def shared_rows(text, first):
    """The rows of the shared sections that a page's section links to."""
    found = {}
    for name in dict.fromkeys(re.findall(r"\]\(README\.md#([\w-]+)\)", text)):
        found |= rows(SHARED[name], first)
    return found


def config_of(module):
    """The class of a learner's settings."""
    (found,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Config") and value.__module__ == module.__name__
    )
    return found


def small(config):
    names = {field.name for field in dataclasses.fields(config)}
    return config(**{name: value for name, value in SMALL.items() if name in names})


def same(text, value):
    """Whether what is written is a setting's default."""
    if isinstance(value, int | float):
        return float(Fraction(text)) == value
    if value is None or isinstance(value, str):
        return ast.literal_eval(text) == value
    return text == repr(value)


def metrics_of(module):
    """{metric: shape and dtype} of a small run, on tables and, where there is one, in the maze."""
    config = small(config_of(module))

    def on_tables(key):
        if isinstance(config, DuelConfig):
            return module.make_train(config, random_episodic(key), Logistic(8.0))(key).metrics
        problem = tabular_problem(fixed_grid())
        return module.make_train(config, problem, partial_return())(key).metrics

    def at_random(key, observation):
        del observation
        return jax.random.uniform(key, (2,), minval=-1)

    def in_maze(key):
        judge = partial_return()
        return module.make_train(config, point_maze(), judge, behaviour=at_random)(key).metrics

    found = jax.eval_shape(on_tables, jax.random.key(0))
    if not isinstance(config, DuelConfig | PlanningConfig):
        found |= jax.eval_shape(in_maze, jax.random.key(0))
    return found


def test_pages_are_those_of_the_learners_and_in_the_index():
    assert {path.stem for path in FOLDER.glob("*.md")} == {*LEARNERS, "README"}
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \|", read("README"), re.MULTILINE)
    assert sorted(listed) == sorted((name, name) for name in LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_page_has_all_its_parts(name):
    text = read(name)
    assert text.startswith(f"# {name}\n\n")
    found = sections(text)
    assert list(found) == HEADINGS
    assert all(part.strip() for part in found.values())


@pytest.mark.parametrize("name", LEARNERS)
def test_the_defaults_are_those_of_the_settings(name):
    part = sections(read(name))["Defaults"]
    own, shared = rows(part, "setting"), shared_rows(part, "setting")
    fields = {f.name: f.default for f in dataclasses.fields(config_of(LEARNERS[name]))}
    assert {*own, *shared} == {*fields}
    for setting, text in {**shared, **own}.items():
        assert same(text, fields[setting]), (setting, text, fields[setting])
    # what is shared is not said again
    assert not [setting for setting in own if own[setting] == shared.get(setting)]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_metrics_are_those_of_a_run(name):
    part = sections(read(name))["Metrics"]
    said = {**shared_rows(part, "metric"), **rows(part, "metric")}
    found = metrics_of(LEARNERS[name])
    assert {*said} == {*found}
    for metric, text in said.items():
        dtype, axes = re.fullmatch(r"(\w+)\[(\w*)\]", text).groups()
        assert found[metric].shape == ((LENGTHS[axes],) if axes else ()), metric
        assert found[metric].dtype == np.dtype(dtype), metric


@pytest.mark.parametrize("name", LEARNERS)
def test_the_example_is_a_program_without_mistakes_of_names_or_shapes(name):
    (code,) = re.findall(r"^```python\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL)
    program = compile(code, str(FOLDER / f"{name}.md"), "exec")
    assert f"{name}.make_train(" in code
    jax.eval_shape(lambda: exec(program, {}))  # traced as a whole: nothing is compiled or run


def test_links_lead_somewhere():
    pages = [*FOLDER.glob("*.md"), DOCS / "prefs-cpl.md", DOCS / "prefs-randomized.md"]
    for page in pages:
        text = prose(page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, fragment = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.is_file(), (page.name, target)
            if fragment:
                titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                assert fragment in map(anchor, titles), (page.name, target)
