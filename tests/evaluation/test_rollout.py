"""Evaluation on matched realisations: what pairs, what a drop depends on, what is refused."""

import jax
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.evaluation import drop_tracks, evaluate, evaluate_family, record_episode

ENV, PARAMS = jaxrl5g.make("TinyDownlink-v0", fidelity="sionna", max_steps_in_episode=60)
KEY = jax.random.key(3)
ROUND_ROBIN = mac.round_robin()


def measured(scheduler=ROUND_ROBIN, drops=4, env=ENV, params=PARAMS, **options):
    return evaluate(env, params, scheduler, KEY, drops, **{"warm_up": 20, **options})


def assert_same(one, other):
    for name, a, b in zip(one._fields, one, other, strict=True):
        np.testing.assert_allclose(a, b[: len(a)], rtol=1e-5, err_msg=name)


BASE = measured()


def test_metrics_have_one_entry_a_drop():
    for name, value in zip(BASE._fields, BASE, strict=True):
        assert value.shape == ((4, 1, 4) if name == "user_throughput" else (4,)), name
    assert len(np.unique(BASE.cell_throughput)) == 4
    np.testing.assert_allclose(BASE.mean_throughput * 4, BASE.cell_throughput)
    assert ((BASE.first_bler >= 0) & (BASE.first_bler <= 1)).all()
    assert ((BASE.prb_use > 0) & (BASE.prb_use <= 1)).all()


def test_identical_schedulers_meet_identical_luck():
    assert_same(BASE, measured(mac.round_robin()))


def test_a_drop_depends_neither_on_how_many_there_are_nor_on_the_chunk():
    assert_same(measured(drops=3, chunk=2), BASE)


def test_warm_up_slots_are_left_out_and_a_recording_shows_the_same_episode():
    slots = record_episode(ENV, PARAMS, ROUND_ROBIN, KEY, drop=2)
    counted = slots["bits"][20:].sum(0) / (40 * PARAMS.config.slot_seconds)
    np.testing.assert_allclose(counted, BASE.user_throughput[2], rtol=1e-5)
    joules = slots["power"][20:].sum(dtype=np.float64) * PARAMS.config.slot_seconds
    np.testing.assert_allclose(
        slots["bits"][20:].sum(dtype=np.float64) / joules, BASE.energy_efficiency[2], rtol=1e-4
    )
    used = (slots["owner"][20:] >= 0).mean()
    np.testing.assert_allclose(used, BASE.prb_use[2], rtol=1e-5)
    new = slots["attempt"][20:] == 1
    failed = (slots["decoded"][20:] == 0) & new
    np.testing.assert_allclose(failed.sum() / new.sum(), BASE.first_bler[2], rtol=1e-5)
    assert slots["owner"].shape == slots["power"].shape == (60, 1, 12)
    for name in ("mcs", "attempt", "decoded", "bits"):
        assert slots[name].shape == (60, 1, 4)


def test_drops_pin_users_and_keys_draw_them():
    assert drop_tracks(PARAMS, 3).shape == (3, 1, 4)
    pinned = PARAMS.replace(tracks=PARAMS.tracks.at[0, 0].set(5))
    assert (drop_tracks(pinned, 3) == np.asarray(pinned.tracks)).all()


def test_ray_traced_drops_are_disjoint_and_limited():
    env, params = jaxrl5g.make("MunichDownlink-v0", split="validation")
    available = int(np.min(params.channel.counts)) // 16
    tracks = drop_tracks(params, available)
    assert len(np.unique(tracks)) == tracks.size
    with pytest.raises(ValueError, match=f"has only {available}") as error:
        evaluate(env, params, ROUND_ROBIN, KEY, available + 1)
    assert f"{available + 1} disjoint drops" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "drops, warm_up, message",
    [
        (0, 20, "num_drops must be at least 1, got 0"),
        (-3, 20, "num_drops must be at least 1"),
        (2, 60, "warm_up must leave slots to count: .* horizon of 60, got 60"),
        (2, -1, "warm_up must leave slots"),
    ],
)
def test_wrong_arguments_are_named(drops, warm_up, message):
    with pytest.raises(ValueError, match=message):
        measured(drops=drops, warm_up=warm_up)


def test_the_default_warm_up_needs_a_longer_episode():
    with pytest.raises(ValueError, match="horizon of 60, got 100"):
        evaluate(ENV, PARAMS, ROUND_ROBIN, KEY, 1)


def test_a_family_is_its_members_one_by_one():
    settings = [(0.0, 50.0), (1.0, 50.0), (1.0, 10.0)]
    options = {"warm_up": 20, "chunk": 4}
    family = evaluate_family(ENV, PARAMS, mac.alpha_fair, settings, KEY, 3, **options)
    assert len(family) == 3
    for setting, found in zip(settings, family, strict=True):
        assert_same(found, measured(mac.alpha_fair(*setting), drops=3))
    with pytest.raises(ValueError, match="settings must hold at least one row"):
        evaluate_family(ENV, PARAMS, mac.alpha_fair, [], KEY, 3, warm_up=20)
