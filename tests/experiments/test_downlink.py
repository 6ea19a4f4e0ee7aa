"""The downlink experiment: who learns when, what a sweep stacks, what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.cli import main
from experiments.downlink_config import VARIANTS, Decisions, Downlink, Training
from experiments.downlink_training import Variant, curriculum, hypers
from experiments.sweeps import Group, expand


def test_every_variant_gets_the_same_updates():
    config = Downlink()
    total = sum(config.training.phase_updates)
    for name in VARIANTS:
        assert sum(part[1] for part in curriculum(config, Variant("paper", name))) == total


def test_what_a_variant_leaves_out_neither_learns_nor_acts():
    config = Downlink()
    (_, _, prb), (_, _, power), (_, _, joint) = curriculum(config, Variant("residual", "full"))
    assert (prb.train_first, prb.train_second, prb.rest_second) == (True, False, True)
    assert (power.train_first, power.explore_first, power.rest_first) == (False, False, False)
    assert joint.train_first and joint.train_second and joint.leash > 0
    ((_, _, only),) = curriculum(config, Variant("residual", "power_only"))
    assert only.rest_first and not only.train_first and only.train_second


def test_a_sweep_stacks_seeds_under_every_point():
    config = dataclasses.replace(Downlink(), training=Training(seeds=2))
    (group,) = expand(config, {"training.learning_rate": (1e-3, 1e-4)}, ("training.learning_rate",))
    assert isinstance(group, Group)
    stacked = hypers(group)
    np.testing.assert_allclose(stacked.learning_rate, [1e-3, 1e-3, 1e-4, 1e-4])
    assert {leaf.shape for leaf in jax.tree.leaves(stacked)} == {(4,)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": ("prb_only",)}, "full"),
        ({"decisions": Decisions(period=7)}, "multiple of decisions.period"),
        ({"training": Training(updates_per_chunk=7)}, "updates_per_chunk"),
        ({"parametrisations": ()}, "parametrisations"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(Downlink(), **change)


def test_a_path_without_a_controller_is_refused(tmp_path, capsys):
    argv = ["evaluate", "--env", "TinyDownlink-v0", "--schedulers", f"pf,controller:{tmp_path}"]
    assert main(argv) == 2
    assert "no complete checkpoint" in capsys.readouterr().err
