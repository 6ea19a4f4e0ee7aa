"""Ray tracing for real: needs sionna-rt and LLVM 19 or newer."""

import dataclasses

import numpy as np
import pytest

from jaxrl5g.channel import Site, TraceConfig, load, run_trace, trace, tracer
from jaxrl5g.channel.evolution import Paths, prb_frequencies_hz, response
from jaxrl5g.channel.rays import RayTracer

pytestmark = pytest.mark.rt

CONFIG = TraceConfig(
    scene="simple_street_canyon",
    cells=2,
    tracks=8,
    slots=40,
    speeds_m_s=(1.5, 15.0),
    seed=7,
    num_prbs=6,
    samples=10_000,
    max_depth=2,
    radius_m=40.0,
    key_spacing_m=0.1,
    coverage_db=(-60.0, 120.0),
    sites=(Site((-25.0, 0.0, 10.0), 0.0, 8.0), Site((25.0, 5.0, 10.0), 180.0, 8.0)),
    tracks_per_chunk=16,
    receivers_per_solve=8,
    table_size=10_000_000,
)


@pytest.fixture(scope="module")
def ray_tracer():
    return RayTracer(CONFIG)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "whole.channel"
    return path, run_trace(CONFIG, path, progress=False)


def test_forward_evolution_is_sionnas_response(ray_tracer):
    import mitsuba

    rng = np.random.default_rng(0)
    positions = np.column_stack([rng.uniform(-20, 20, (4, 2)) * [1, 0.2], np.full(4, 1.5)])
    velocities = np.column_stack([rng.normal(size=(4, 2)) * 8, np.zeros(4)])
    paths, _ = ray_tracer.solve(positions, velocities)
    reference = ray_tracer._solver(
        ray_tracer.scene, max_depth=2, samples_per_src=10_000, max_num_paths_per_src=200_000, seed=8
    )
    frequencies = prb_frequencies_hz(6, 360e3)
    expected = reference.cfr(
        frequencies=mitsuba.Float(frequencies.tolist()),
        sampling_frequency=2000.0,
        num_time_steps=40,
        normalize_delays=False,
        out_type="numpy",
    )
    times = np.arange(40) * 0.5e-3
    compared = 0
    for user in range(4):
        for cell in range(2):
            ours = response(paths[user][cell], times, frequencies)[:, :, 0, 0]
            theirs = expected[user, 0, cell, 0]
            scale = np.abs(theirs).max()
            assert np.abs(ours - theirs).max() <= 2e-3 * scale
            compared += scale > 0
            speed = np.linalg.norm(velocities[user])
            bound = speed * CONFIG.carrier_hz / 299792458.0
            assert np.all(np.abs(paths[user][cell].dopplers_hz) <= bound * 1.0001 + 1e-3)
    assert compared >= 4


def test_cache_says_what_it_is(uninterrupted):
    _, cache = uninterrupted
    assert cache.gains.shape == (8, 40, 2, 6)
    np.testing.assert_array_equal(np.bincount(cache.serving_cell), [4, 4])
    header = cache.header
    assert sorted(header["speed_m_s"]) == [1.5] * 4 + [15.0] * 4
    assert header["scene"] == "simple_street_canyon" and header["seed"] == 7
    for name in ("sionna-rt", "mitsuba"):
        assert header["versions"][name]
    assert set(header["turned_away"]) == {"no_path", "outside_coverage", "surplus"}
    strongest = (10 ** (np.asarray(cache.gains, float) / 1000)).mean(axis=(1, 3)).argmax(axis=1)
    np.testing.assert_array_equal(strongest, cache.serving_cell)
    speeds = np.linalg.norm(header["velocity_m_s"], axis=1)
    np.testing.assert_allclose(speeds, header["speed_m_s"], rtol=1e-3)


def test_no_jump_at_key_positions(uninterrupted):
    _, cache = uninterrupted
    slow = np.array(cache.header["speed_m_s"]) < 2
    serving = cache.serving_cell
    gains = np.stack([cache.gains[i, :, serving[i]] for i in np.flatnonzero(slow)])
    power = 10 ** (gains.astype(float) / 1000)
    # 0.75 mm per slot is 0.055 rad at most: amplitudes cannot move further than that.
    step = np.abs(np.diff(np.sqrt(power), axis=1))
    assert step.max() < 0.2 * np.sqrt(power.max(axis=(1, 2))).max()


def test_interrupted_and_resumed_gives_the_same_bytes(uninterrupted, tmp_path, monkeypatch):
    path = tmp_path / "resumed.channel"
    original, done = tracer._trace_chunk, []

    def die_later(*args):
        if done:
            raise KeyboardInterrupt
        done.append(args)
        return original(*args)

    monkeypatch.setattr(tracer, "_trace_chunk", die_later)
    with pytest.raises(KeyboardInterrupt):
        run_trace(CONFIG, path, progress=False)
    assert not path.exists()
    finished = sorted((tmp_path / "resumed.channel.partial").glob("chunk-*.npz"))
    assert len(finished) == 1
    # A chunk that was cut off while being written is traced again.
    (tmp_path / "resumed.channel.partial" / "chunk-1-0.npz").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(tracer, "_trace_chunk", original)
    run_trace(CONFIG, path, progress=False)
    assert path.read_bytes() == uninterrupted[0].read_bytes()
    assert not (tmp_path / "resumed.channel.partial").exists()


def test_another_configurations_chunks_are_refused(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.sha256").write_text(dataclasses.replace(CONFIG, seed=8).digest())
    with pytest.raises(ValueError, match="another configuration"):
        trace(CONFIG, work=work)


def test_waypoints_several_antennas_and_coefficients(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        cells=1,
        sites=CONFIG.sites[:1],
        tracks=3,
        slots=60,
        speeds_m_s=(15.0,),
        motion="waypoint",
        waypoint_leg_m=(0.1, 0.3),
        rx_shape=(1, 2),
        tx_shape=(1, 2),
        coefficients=True,
    )
    cache = run_trace(config, tmp_path / "c", progress=False)
    assert cache.coefficients is not None
    assert cache.coefficients.shape == (3, 60, 1, 6, 2, 2)
    power = (np.abs(cache.coefficients) ** 2).mean(-1).sum(-1)
    np.testing.assert_allclose(10 * np.log10(power), cache.gains / 100, atol=0.006)
    assert load(tmp_path / "c").coefficients is not None


def test_unknown_scene():
    with pytest.raises(ValueError, match="Unknown scene 'atlantis'.*munich"):
        RayTracer(dataclasses.replace(CONFIG, scene="atlantis"))


def test_automatic_sites():
    config = dataclasses.replace(CONFIG, sites=(), cells=2)
    placed = RayTracer(config).sites
    assert len(placed) == 2 and all(site.position_m[2] >= 3 for site in placed)


def test_paths_are_plain_arrays():
    paths = Paths(np.ones((1, 1, 1)) + 0j, np.zeros(1), np.array([100.0]))
    turning = response(paths, np.array([0.0, 2.5e-3]), np.zeros(1))[:, 0, 0, 0]
    np.testing.assert_allclose(turning, [1, 1j], atol=1e-12)


def test_how_many_receivers_are_solved_at_once_changes_nothing(ray_tracer):
    rng = np.random.default_rng(1)
    positions = np.column_stack([rng.uniform(-20, 20, (8, 2)) * [1, 0.2], np.full(8, 1.5)])
    together, _ = ray_tracer.solve(positions, np.zeros((8, 3)))
    halves = [
        ray_tracer.solve(part, np.zeros((4, 3)))[0] for part in (positions[:4], positions[4:])
    ]
    frequencies = prb_frequencies_hz(6, 360e3)
    for row, other in zip(together, halves[0] + halves[1], strict=True):
        for paths, others in zip(row, other, strict=True):
            np.testing.assert_allclose(
                response(paths, np.zeros(1), frequencies),
                response(others, np.zeros(1), frequencies),
                rtol=1e-9,
                atol=1e-15,
            )


def test_the_table_size_reaches_the_solver_and_does_not_stay():
    from sionna.rt.path_solvers.sb_candidate_generator import SBCandidateGenerator

    before = SBCandidateGenerator.MIN_SPEC_COUNT_SIZE
    positions, velocities = np.array([[0.0, 0.0, 1.5]]), np.zeros((1, 3))

    def num_paths(entries):
        config = dataclasses.replace(CONFIG, table_size=entries, max_paths=20)
        paths, _ = RayTracer(config).solve(positions, velocities)
        return sum(cell.delays_s.size for cell in paths[0])

    assert num_paths(20) < num_paths(10_000_000)  # in a tiny table nearly all chains collide
    assert before == SBCandidateGenerator.MIN_SPEC_COUNT_SIZE
