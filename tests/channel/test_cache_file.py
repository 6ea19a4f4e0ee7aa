import json
import os
import struct

import numpy as np
import pytest

from jaxrl5g.channel import ChannelCache, ChannelCacheError, load, save


def make_cache(tracks=4, slots=6, cells=2, prbs=3, coefficients=False):
    rng = np.random.default_rng(0)
    shape = (tracks, slots, cells, prbs)
    gains = rng.integers(-15000, -6000, shape).astype(np.int16)
    complex_gains = None
    if coefficients:
        complex_gains = (rng.normal(size=(*shape, 2, 1)) * (1 + 1j)).astype(np.complex64)
    header = {"serving_cell": [i % cells for i in range(tracks)], "scene": "test"}
    return ChannelCache(gains, header, complex_gains)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "test.channel"
    save(path, make_cache())
    return path


@pytest.mark.parametrize("coefficients", [False, True])
def test_round_trip_is_a_memory_map(tmp_path, coefficients):
    cache = make_cache(coefficients=coefficients)
    save(tmp_path / "c", cache)
    loaded = load(tmp_path / "c")
    assert isinstance(loaded.gains, np.memmap)
    np.testing.assert_array_equal(loaded.gains, cache.gains)
    assert loaded.header == cache.header
    if coefficients:
        np.testing.assert_array_equal(loaded.coefficients, cache.coefficients)
    else:
        assert loaded.coefficients is None


def test_arrays_are_aligned_and_saving_is_reproducible(path, tmp_path):
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data, 16)[0]
    entry = json.loads(data[56 : 56 + length])["arrays"]["gains"]
    assert entry["offset"] % 64 == 0
    assert entry["offset"] + entry["bytes"] == len(data)
    save(tmp_path / "again", make_cache())
    assert (tmp_path / "again").read_bytes() == data


def expect(path, reason, **options):
    with pytest.raises(ChannelCacheError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert str(path) in message and reason in message
    assert "\n" not in message and message.count(". ") == 0
    assert isinstance(caught.value, ValueError)


def test_missing_file(tmp_path):
    expect(tmp_path / "none", "no such file")


def test_a_folder(tmp_path):
    expect(tmp_path, "cannot be read")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(100), b"hello"])
def test_not_a_cache(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    expect(tmp_path / "x", "not a channel cache")


@pytest.mark.parametrize("keep", [20, 100, -1, -40])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    expect(path, "truncated")
    expect(path, "truncated", verify=False)


def test_corrupted_payload(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    expect(path, "gains does not match its checksum")
    assert load(path, verify=False).num_tracks == 4


def test_corrupted_header(path):
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    expect(path, "header does not match its checksum", verify=False)


def test_newer_format(path):
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 8, 2)
    path.write_bytes(data)
    expect(path, "newer")


def rewrite_header(path, change):
    import hashlib

    data = path.read_bytes()
    magic, version, zero, length, _ = struct.unpack_from("<8sIIQ32s", data)
    header = json.loads(data[56 : 56 + length])
    change(header)
    text = json.dumps(header, sort_keys=True).encode().ljust(length)
    assert len(text) == length
    prefix = struct.pack("<8sIIQ32s", magic, version, zero, length, hashlib.sha256(text).digest())
    path.write_bytes(prefix + text + data[56 + length :])


def test_wrong_shape(path):
    rewrite_header(path, lambda header: header["arrays"]["gains"].update(shape=[4, 6, 2, 4]))
    expect(path, "wrong shape")


def test_wrong_number_of_axes(path):
    rewrite_header(path, lambda header: header["arrays"]["gains"].update(shape=[24, 6]))
    expect(path, "wrong shape")


def test_serving_cells_that_do_not_fit(path):
    rewrite_header(path, lambda header: header["provenance"].update(serving_cell=[0, 1, 2, 1]))
    expect(path, "serving_cell")


def test_header_without_arrays(path):
    rewrite_header(path, lambda header: header.pop("arrays"))
    expect(path, "arrays")


def test_wrong_dtype_in_memory():
    with pytest.raises(ChannelCacheError, match="int16"):
        ChannelCache(np.zeros((1, 1, 1, 1)), {"serving_cell": [0]})


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, make_cache(tracks=2))
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]
