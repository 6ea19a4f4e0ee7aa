"""Sweeps: from listed values to the points of a grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.names import UsageError
from experiments.settings import flatten
from experiments.sweeps import expand, parse_sweep, point_label, read_sweep


@dataclass(frozen=True)
class Training:
    learning_rate: float = 1e-3
    discount: float = 0.99
    num_envs: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount must be in [0, 1], got {self.discount}")


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    widths: tuple[int, ...] = (32,)
    rule: str = "adam"
    limit: float | None = None


TRACED = ("training.learning_rate", "training.discount")


def test_values_have_the_type_of_their_option():
    found = parse_sweep(
        [
            "training.learning-rate=1e-4, 3e-4,1",
            "widths=[32,32],[]",
            "rule=adam,sgd",
            "limit=null,2",
            "training.num_envs=8",
        ],
        Config,
    )
    assert found == {
        "training.learning_rate": (1e-4, 3e-4, 1.0),
        "widths": ((32, 32), ()),
        "rule": ("adam", "sgd"),
        "limit": (None, 2.0),
        "training.num_envs": (8,),
    }
    assert type(found["training.learning_rate"][2]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.lerning_rate=1", "did you mean 'training.learning_rate'"),
        ("training=1", "unknown option in --sweep: 'training'"),
        ("rule", "must be FIELD=VALUE,VALUE, got 'rule'"),
        ("rule=", "rule must list values, got []"),
        ("rule=a,,b", "rule must list values, got 'a,,b'"),
        ("rule=a],[b", "rule must list values"),
        ("training.learning_rate=1,fast", "training.learning_rate must be a number, got 'fast'"),
        ("training.num_envs=1.5", "must be a whole number, got 1.5"),
        ("training.learning_rate=1e-3,0.001", "lists a value twice"),
    ],
)
def test_wrong_sweeps_are_one_clear_sentence(text, message):
    with pytest.raises(UsageError) as error:
        parse_sweep([text], Config)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_option_is_swept_once():
    with pytest.raises(UsageError, match="names training.num_envs twice"):
        parse_sweep(["training.num_envs=1", "training.num-envs=2"], Config)


def test_a_file_must_list_values():
    with pytest.raises(UsageError, match="file: rule must list values, got 'adam'"):
        read_sweep({"rule": "adam"}, Config, "file")


def test_without_a_sweep_there_is_one_point():
    (group,) = expand(Config(), {}, TRACED)
    assert group.config == group.config_at(0) == Config()
    assert group.values == {} and group.points == ("",) and group.label == ""


def test_traced_options_share_a_group_and_static_ones_part_it():
    sweep = parse_sweep(
        ["training.discount=0.9,1", "rule=adam,sgd", "training.learning_rate=0.1,0.2,0.3"], Config
    )
    groups = expand(Config(), sweep, TRACED)
    assert [group.config.rule for group in groups] == ["adam", "sgd"]
    assert [group.label for group in groups] == ["rule=adam", "rule=sgd"]
    for group in groups:
        assert all(column.dtype == np.float32 for column in group.values.values())
        grid = np.array(list(itertools.product([0.9, 1.0], [0.1, 0.2, 0.3])), np.float32)
        np.testing.assert_array_equal(np.stack(list(group.values.values()), 1), grid)
        assert list(group.values) == ["training.discount", "training.learning_rate"]
    assert groups[1].points[4] == "rule=sgd, training.discount=1.0, training.learning_rate=0.2"


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True),
    envs=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    rules=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    traced=st.sampled_from([(), TRACED, TRACED[1:]]),
    order=st.permutations(["training.learning_rate", "training.num_envs", "rule"]),
)
def test_every_combination_is_one_point(rates, envs, rules, traced, order):
    lists = {"training.learning_rate": rates, "training.num_envs": envs, "rule": rules}
    sweep = {name: tuple(lists[name]) for name in order}
    groups = expand(Config(), sweep, traced)
    configs = [group.config_at(p) for group in groups for p in range(len(group.points))]
    found = [tuple(flatten(config)[name] for name in order) for config in configs]
    assert sorted(map(repr, found)) == sorted(
        map(repr, itertools.product(*(lists[name] for name in order)))
    )
    labels = [point for group in groups for point in group.points]
    assert len(set(labels)) == len(labels)
    assert len(groups) == len({group.config for group in groups})  # nothing static is run twice
    for group in groups:  # a group is a sweep of its own
        (again,) = expand(group.config, group.sweep, traced)
        assert again.settings == group.settings


def test_points_out_of_range_are_refused_before_any_is_run():
    for traced in ((), TRACED):
        with pytest.raises(UsageError, match="discount must be in .0, 1., got 2.0"):
            expand(Config(), {"training.discount": (0.5, 2.0)}, traced)


def test_labels_tell_apart_what_differs():
    assert point_label({"a": 0.1, "b": (1, 2)}) == "a=0.1, b=[1, 2]"
    assert point_label({"a": 1.0}) != point_label({"a": 1.0000000000000002})
