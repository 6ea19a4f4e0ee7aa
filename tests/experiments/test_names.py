"""Names typed by hand: schedulers, lists, named experiments."""

import pytest

from experiments.configs import config_names, load_config
from experiments.names import UsageError, integers, split_list
from experiments.presets import load_preset
from experiments.schedulers import parse_scheduler, parse_schedulers
from jaxrl5g.mac import SCHEDULERS, Scheduler


def test_split_list_drops_blanks():
    assert split_list(" pf, ,rr ,") == ("pf", "rr")
    assert integers("--batches", "1, 64") == (1, 64)


@pytest.mark.parametrize("text", ["", "a", "0", "1,-2", "1.5"])
def test_integers_must_be_positive(text):
    with pytest.raises(UsageError, match="--batches must list positive integers"):
        integers("--batches", text)


@pytest.mark.parametrize("name", ["pf", "pf:50", "rr", "max_rate", "bet:10", "alpha_fair:0.5"])
def test_schedulers_are_made_by_name(name):
    assert isinstance(parse_scheduler(name), Scheduler)


def test_order_of_schedulers_is_kept():
    names = [name for name in SCHEDULERS if name != "alpha_fair"]
    assert list(parse_schedulers(",".join(reversed(names)))) == names[::-1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("pff", "unknown scheduler 'pff'; did you mean 'pf'"),
        ("max-rate", "did you mean 'max_rate'"),
        ("alpha_fair", "needs its alpha"),
        ("rr:3", "'rr' takes no number"),
        ("pf:fast", "scheduler 'pf:fast'"),
        ("pf:0", "window must be at least 1"),
        ("pf,rr,pf", "'pf' is named twice"),
        (" , ", "names no scheduler"),
    ],
)
def test_wrong_scheduler_is_explained(names, message):
    with pytest.raises(UsageError, match=message):
        parse_schedulers(names)


def test_every_named_experiment_is_well_formed():
    assert "etoile" in config_names()
    for name in config_names():
        config = load_config(name)
        assert config.command and config.description
        if config.command == "run":
            load_preset(name)
        else:
            parse_schedulers(config.options["schedulers"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("command: [", "is not YAML"),
        ("just text", "must hold the keys"),
        ("options: {}", "names no command"),
        ("comand: evaluate", "unknown key .* did you mean 'command'"),
    ],
)
def test_wrong_experiment_file_is_explained(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        load_config(str(path))
    assert str(path) in str(error.value)


def test_unknown_experiment_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'munich"):
        load_config("munch")
    with pytest.raises(UsageError, match="No such file"):
        load_config("absent.yaml")
