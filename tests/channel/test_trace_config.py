import dataclasses
import importlib.util

import numpy as np
import pytest

from jaxrl5g.channel import ChannelCacheError, Site, TraceConfig, trace
from jaxrl5g.channel.evolution import Paths, evolve
from jaxrl5g.channel.motion import make_track, stations


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tracks": 1, "speeds_m_s": (1.5, 15.0)}, "at least cells"),
        ({"motion": "teleport"}, "motion must be one of"),
        ({"slots": 0}, "slots must be at least 1"),
        ({"speeds_m_s": ()}, "non-negative"),
        ({"tx_pattern": "laser"}, "antenna pattern"),
        ({"cells": 2, "sites": (Site((0.0, 0.0, 10.0)),)}, "1 sites were given for 2 cells"),
        ({"coverage_db": (30.0, -5.0)}, "coverage_db"),
        ({"carrier_hz": 0.0}, "carrier_hz must be positive"),
        ({"table_size": 0}, "table_size must be at least 1"),
        ({"cells": 43, "tracks": 43}, "cells times table_size"),
    ],
)
def test_bad_configurations(change, reason):
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(TraceConfig(), **change)


@pytest.mark.parametrize(("tracks", "cells", "speeds"), [(512, 3, 1), (12, 3, 2), (7, 2, 3)])
def test_tracks_are_spread_evenly(tracks, cells, speeds):
    config = TraceConfig(tracks=tracks, cells=cells, speeds_m_s=tuple(range(1, speeds + 1)))
    quotas = config.quotas()
    assert quotas.shape == (speeds, cells) and quotas.sum() == tracks
    assert quotas.max() - quotas.min() <= 1


def test_presets_fill_in_and_the_digest_sees_every_field():
    config = TraceConfig(scene="munich", cells=3, tracks=3)
    assert len(config.with_presets().sites) == 3
    assert TraceConfig(scene="florence").with_presets().sites == ()
    digests = {config.digest(), dataclasses.replace(config, seed=1).digest()}
    digests.add(dataclasses.replace(config, key_spacing_m=0.1).digest())
    assert len(digests) == 3
    assert dataclasses.replace(config, tracks=6).digest() == config.digest()
    assert config.slot_seconds == 0.5e-3 and config.prb_bandwidth_hz == 360e3


def test_missing_sionna_names_the_extra(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "sionna" in name else original(name)
    )
    with pytest.raises(RuntimeError, match=r'pip install "jaxrl5g\[rt\]"'):
        trace(TraceConfig())


def test_other_chunks_are_refused_before_tracing(tmp_path):
    (tmp_path / "config.sha256").write_text("0" * 64)
    with pytest.raises(ChannelCacheError, match="another configuration"):
        trace(TraceConfig(), work=tmp_path)


def test_straight_track():
    track = make_track(np.random.default_rng(0), np.zeros(2), 15.0, 0.2, 0.5)
    assert track.num_segments == 6
    np.testing.assert_allclose(np.linalg.norm(track.points_m[-1]), 3.0)
    np.testing.assert_allclose(np.diff(track.times_s), 0.2 / 6)
    points, velocities, ends = stations(track)
    assert len(points) == len(velocities) == 7 and ends.shape == (6, 2)


def test_waypoint_track_turns_and_keeps_its_speed():
    track = make_track(
        np.random.default_rng(0), np.zeros(2), 2.0, 10.0, 0.5, "waypoint", (1.0, 3.0)
    )
    gaps = np.linalg.norm(np.diff(track.points_m, axis=0), axis=1)
    assert gaps.max() <= 0.5 + 1e-9
    np.testing.assert_allclose(gaps, 2.0 * np.diff(track.times_s))
    np.testing.assert_allclose(gaps.sum(), 20.0)
    assert len(np.unique(track.velocities_m_s.round(6), axis=0)) >= 6
    points, velocities, ends = stations(track)
    for segment, (first, second) in enumerate(ends):
        np.testing.assert_allclose(points[first], track.points_m[segment])
        np.testing.assert_allclose(points[second], track.points_m[segment + 1])
        for end in (first, second):
            np.testing.assert_allclose(velocities[end], track.velocities_m_s[segment])


@pytest.mark.parametrize("speed", [0.0, 1.5])
def test_still_users_and_single_slots_have_a_segment(speed):
    for duration in (0.0, 0.1):
        track = make_track(np.random.default_rng(0), np.ones(2), speed, duration, 0.3)
        assert track.num_segments == 1 and track.times_s[-1] == pytest.approx(duration)


def test_cross_fade_follows_a_moving_plane_wave_exactly():
    # One far path: forward and backward agree, so the fade between them changes nothing.
    track = make_track(np.random.default_rng(3), np.zeros(2), 10.0, 0.1, 0.25)
    points, velocities, ends = stations(track)
    carrier, c = 3.5e9, 299792458.0
    toward = np.array([0.6, 0.8])

    def paths(point, velocity):
        delay = 1e-6 - point @ toward / c
        gain = np.exp(-2j * np.pi * carrier * delay)
        return Paths(
            np.full((1, 1, 1), gain), np.array([delay]), np.array([velocity @ toward / c * carrier])
        )

    traced = [paths(p, v) for p, v in zip(points, velocities, strict=True)]
    times = np.arange(201) * 0.5e-3
    got = evolve(track, ends, traced, times, np.zeros(1))[:, 0, 0, 0]
    where = np.outer(times, track.velocities_m_s[0])
    expected = np.exp(-2j * np.pi * carrier * (1e-6 - where @ toward / c))
    np.testing.assert_allclose(got, expected, atol=1e-4)
