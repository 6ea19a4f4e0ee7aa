"""Options as dataclasses, as dotted names and as what YAML holds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.names import UsageError
from experiments.settings import (
    convert,
    describe,
    flatten,
    from_plain,
    option_types,
    replace,
    to_plain,
)


@dataclass(frozen=True)
class Network:
    widths: tuple[int, ...] = (32, 32)
    activation: Literal["tanh", "relu"] = "tanh"


@dataclass(frozen=True)
class Training:
    learning_rate: float = 1e-3
    num_envs: int = 4
    anneal: bool = True
    limit: float | None = None
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {self.num_envs}")


@dataclass(frozen=True)
class Config:
    name: str = "x"
    cache: Path | None = None
    span: tuple[float, float] = (0.0, 1.0)
    training: Training = field(default_factory=lambda: Training(learning_rate=0.5))


@dataclass(frozen=True)
class Needy:
    drops: int
    training: Training = field(default_factory=Training)


CONFIGS = st.builds(
    Config,
    name=st.text(max_size=8),
    cache=st.none() | st.sampled_from([Path("a/b"), Path("no: yes # [")]),
    span=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
    training=st.builds(
        Training,
        learning_rate=st.floats(allow_nan=False),
        num_envs=st.integers(1, 10**12),
        anneal=st.booleans(),
        limit=st.none() | st.floats(allow_nan=False),
        network=st.builds(
            Network,
            widths=st.lists(st.integers(), max_size=3).map(tuple),
            activation=st.sampled_from(["tanh", "relu"]),
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(CONFIGS)
def test_yaml_gives_back_what_it_was_given(config):
    text = yaml.safe_dump(to_plain(config))
    assert from_plain(Config, yaml.safe_load(text), "file") == config


@settings(max_examples=30, deadline=None)
@given(CONFIGS, CONFIGS)
def test_replacing_every_option_gives_the_other_configuration(config, other):
    assert list(flatten(config)) == list(option_types(Config))
    assert replace(config, flatten(other)) == other
    assert replace(config, {}) == config


def test_what_is_left_out_keeps_the_default_of_its_own_section():
    found = from_plain(Config, {"training": {"network": {"widths": [8]}}}, "file")
    # 0.5 is what Config says of its training, not what Training says of itself
    expected = Training(learning_rate=0.5, network=Network(widths=(8,)))
    assert found == Config(training=expected)
    assert from_plain(Config, {}, "file") == Config()


def test_replace_touches_nothing_else():
    changed = replace(Config(), {"training.network.widths": (1,), "name": "y"})
    before, after = flatten(Config()), flatten(changed)
    assert {name for name in before if before[name] != after[name]} == {
        "training.network.widths",
        "name",
    }
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        replace(Config(), {"training.num_envs": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {lerning_rate: 1}", "'training.lerning_rate'; did you mean 'training.learning"),
        ("trainng: {}", "unknown option in file: 'trainng'; did you mean 'training'"),
        ("training: {network: {width: [1]}}", "did you mean 'training.network.widths'"),
        ("training: 3", "file: training must hold named values, got 3"),
        (
            "training: {num_envs: many}",
            "file: training.num_envs must be a whole number, got 'many'",
        ),
        ("training: {num_envs: 1.5}", "must be a whole number, got 1.5"),
        ("training: {num_envs: true}", "must be a whole number, got True"),
        ("training: {learning_rate: fast}", "must be a number, got 'fast'"),
        ("training: {learning_rate: false}", "must be a number, got False"),
        ("training: {anneal: 1}", "must be true or false, got 1"),
        ("training: {limit: high}", "must be a number or null, got 'high'"),
        ("training: {network: {activation: gelu}}", "must be 'tanh' or 'relu', got 'gelu'"),
        ("training: {network: {widths: 32}}", "a list, each item a whole number, got 32"),
        ("training: {network: {widths: [a]}}", "a list, each item a whole number, got ['a']"),
        ("span: [1]", "span must be a list of a number, a number, got [1]"),
        ("name: 3", "file: name must be text, got 3"),
        ("cache: 3", "cache must be a path or null, got 3"),
        ("training: {num_envs: 0}", "file: training: num_envs must be at least 1, got 0"),
        ("[1]", "file: options must hold named values"),
    ],
)
def test_wrong_options_are_one_clear_sentence(text, message):
    with pytest.raises(UsageError) as error:
        from_plain(Config, yaml.safe_load(text), "file")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_option_without_default_must_be_given():
    with pytest.raises(UsageError, match="file must give drops: a whole number"):
        from_plain(Needy, {}, "file")
    assert from_plain(Needy, {"drops": 3}, "file") == Needy(3)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    plain = yaml.safe_load("{learning_rate: 1e-4, limit: .inf}")
    assert plain["learning_rate"] == "1e-4"  # YAML 1.1 wants a point
    found = from_plain(Training, plain, "file")
    assert found == Training(learning_rate=1e-4, limit=math.inf)
    assert type(convert(float, 3, "x")) is float


@pytest.mark.parametrize("annotation", [dict[str, int], list[int], Network, complex, tuple, object])
def test_types_that_no_option_can_have_are_named(annotation):
    with pytest.raises(ValueError, match="an option cannot have the type"):
        describe(annotation)


def test_fields_that_are_not_options_stay_out():
    @dataclass(frozen=True)
    class Derived:
        sides: int = 2
        area: int = dataclasses.field(init=False, default=0)

    assert list(option_types(Derived)) == ["sides"]
    assert to_plain(Derived()) == {"sides": 2}
