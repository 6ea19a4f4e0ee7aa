"""The caches that come with the package."""

import multiprocessing
import os
from importlib import resources

import numpy as np
import pytest

from jaxrl5g.channel import (
    CachedChannel,
    ChannelCache,
    ChannelCacheError,
    link_budget,
    pack,
    shipped,
    shipped_names,
    snr_figure,
    track_snr_db,
)
from jaxrl5g.channel import shipped as shipped_function

NAMES = ("etoile-test", "munich-train", "munich-validation", "munich3-test", "munich3-train")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXRL5G_CACHE_DIR", str(folder))
        yield folder


def packed_files():
    return list((resources.files("jaxrl5g.channel") / "data").iterdir())


def test_names_and_total_size():
    assert shipped_names() == NAMES
    assert sum(len(item.read_bytes()) for item in packed_files()) <= 45e6


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ChannelCacheError, match="did you mean 'munich-train'"):
        shipped("munich-trian")


@pytest.mark.parametrize("name", NAMES)
def test_contents(name):
    cache = shipped(name)
    assert isinstance(cache.gains, np.memmap)
    assert cache.num_slots == 400 and cache.num_prbs == 51
    assert cache.num_cells == (3 if name.startswith("munich3") else 1)
    per_cell = np.bincount(cache.serving_cell)
    assert np.all(per_cell == per_cell[0])
    snr = track_snr_db(cache)
    low, high = cache.header["calibration"]["coverage_db"]
    assert snr.min() >= low - 0.05 and snr.max() <= high + 0.05
    assert cache.header["calibration"]["power_dbm"] == link_budget.POWER_BUDGET_DBM
    np.testing.assert_allclose(snr, cache.header["snr_db"], atol=0.02)
    assert cache.header["turned_away"]["no_path"] > 0
    for track, cell in enumerate(cache.serving_cell[:32]):
        assert cache.gains[track, :, cell].min() > -30000


@pytest.mark.parametrize("name", ["munich-train", "munich-validation"])
def test_link_budget_is_calibrated_on_munich(name):
    percentiles = np.percentile(track_snr_db(shipped(name)), [5, 50, 95])
    tolerance = 2.0 if name == "munich-train" else 3.0
    np.testing.assert_allclose(percentiles, [0, 12, 25], atol=tolerance)


def test_train_and_validation_are_different_places():
    starts = [np.array(shipped(name).header["start_m"]) for name in NAMES[1:3]]
    apart = np.linalg.norm(starts[0][:, None] - starts[1][None], axis=-1)
    assert np.mean(apart.min(axis=0) > 0.01) == 1.0


def test_speeds_are_mixed_along_the_pool():
    speeds = np.array(shipped("munich-train").header["speed_m_s"])
    assert sorted(set(speeds)) == [1.5, 15.0] and np.mean(speeds == 15.0) == 0.5
    drops = np.mean(speeds.reshape(-1, 16) == 15.0, axis=1)
    assert drops.min() > 0 and drops.max() < 1


def test_drops_that_the_environments_need():
    assert CachedChannel.from_cache(shipped("etoile-test")).disjoint_drops(16, 32).shape == (
        32,
        1,
        16,
    )
    assert CachedChannel.from_cache(shipped("munich-validation")).disjoint_drops(16, 32).size == 512


def test_a_damaged_unpacked_file_is_unpacked_again(folder):
    shipped("etoile-test")
    path = next(folder.glob("etoile-test-*.channel"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    assert shipped("etoile-test").num_tracks == 512


def test_an_upgrade_with_other_data_does_not_map_the_old_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    package, user = tmp_path / "package", tmp_path / "user"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(resources, "files", lambda package_name: package)
    monkeypatch.setenv("JAXRL5G_CACHE_DIR", str(user))
    unpacked = []
    for _ in range(2):
        gains = rng.integers(-9000, -8000, (2, 5, 1, 3)).astype(np.int16)
        # The same header, shape and time stamp: only the gains differ.
        (package / "data" / "town.jxz").write_bytes(
            pack(ChannelCache(gains, {"serving_cell": [0, 0]}))
        )
        os.utime(package / "data" / "town.jxz", (0, 0))
        np.testing.assert_array_equal(shipped("town").gains, gains)
        unpacked.append(set(user.iterdir()))
    assert len(unpacked[0]) == 1 and unpacked[0] < unpacked[1] and len(unpacked[1]) == 2


def _unpack(folder):
    os.environ["JAXRL5G_CACHE_DIR"] = str(folder)
    return int(shipped_function("etoile-test").gains[0, 0, 0, 0])


def test_two_processes_may_unpack_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_unpack, [tmp_path, tmp_path])
    assert first == second == int(shipped("etoile-test").gains[0, 0, 0, 0])
    assert len(list(tmp_path.iterdir())) == 1


def test_figure(tmp_path):
    snr_figure(shipped("etoile-test"), tmp_path / "snr.png", "etoile-test")
    assert (tmp_path / "snr.png").read_bytes()[:4] == b"\x89PNG"
