import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrl5g.channel import ChannelCache, ChannelCacheError, pack, unpack
from jaxrl5g.channel.codec import decode_gains, encode_gains

shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 2), st.integers(1, 6))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int16, shapes))
def test_any_gains_round_trip(gains):
    decoded = decode_gains(encode_gains(gains), gains.shape)
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, gains)


def smooth(tracks=8, slots=200, prbs=20):
    rng = np.random.default_rng(1)
    time, prb = np.arange(slots)[:, None], np.arange(prbs)[None, :]
    gains = [
        -9000 + 700 * np.sin(time * rng.uniform(0.01, 0.05) + prb * rng.uniform(0.1, 0.4))
        for _ in range(tracks)
    ]
    return np.rint(gains).astype(np.int16)[:, :, None, :]


def test_smooth_gains_shrink_to_rounding_noise():
    gains = smooth()
    data = encode_gains(gains)
    np.testing.assert_array_equal(decode_gains(data, gains.shape), gains)
    assert 8 * len(data) / gains.size < 2.5


def test_wrong_input():
    with pytest.raises(ValueError, match="int16"):
        encode_gains(np.zeros((2, 2, 2, 2)))
    with pytest.raises(ValueError, match="empty"):
        encode_gains(np.zeros((0, 2, 2, 2), np.int16))
    data = encode_gains(smooth())
    with pytest.raises(ValueError, match="do not decode"):
        decode_gains(data, (8, 200, 1, 21))
    with pytest.raises(ValueError, match="do not decode"):
        decode_gains(data[:-3], (8, 200, 1, 20))


@pytest.fixture(scope="module")
def packed():
    gains = smooth(tracks=3, slots=20, prbs=5)
    return pack(ChannelCache(gains, {"serving_cell": [0, 0, 0], "scene": "x"}))


def test_pack_round_trip(packed):
    cache = unpack(packed)
    np.testing.assert_array_equal(cache.gains, smooth(tracks=3, slots=20, prbs=5))
    assert cache.header["scene"] == "x"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:30], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: b"x" + data[1:], "not a packed"),
        (lambda data: data[:8] + b"\x09" + data[9:], "newer"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "corrupted"),
    ],
)
def test_damaged_packs(packed, damage, reason):
    with pytest.raises(ChannelCacheError, match=reason) as caught:
        unpack(damage(packed), "my-pack")
    assert "my-pack" in str(caught.value)
