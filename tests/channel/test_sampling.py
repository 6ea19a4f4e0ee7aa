import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.channel import CachedChannel, ChannelCache
from jaxrl5g.channel.sampling import decode_ranks, skip_taken


def make_channel(tracks=24, slots=10, cells=2, prbs=3):
    rng = np.random.default_rng(0)
    gains = rng.integers(-15000, -6000, (tracks, slots, cells, prbs)).astype(np.int16)
    serving = [i % cells for i in range(tracks)]
    return CachedChannel.from_cache(ChannelCache(gains, {"serving_cell": serving}))


CHANNEL = make_channel()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_decoded_codes_are_what_removal_from_a_list_gives(data):
    count = data.draw(st.integers(1, 8))
    pool = data.draw(st.integers(count, 12))
    free = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    left, code, expected = list(range(pool)), [], []
    for is_free in free:
        code.append(data.draw(st.integers(0, len(left) - 1)))
        expected.append(left.pop(code[-1]) if is_free else None)
    ranks = np.asarray(decode_ranks(jnp.array(code), jnp.array(free)))
    assert all(e is None or e == r for e, r in zip(expected, ranks, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 11), max_size=6))
def test_skipping_enumerates_the_untaken(taken):
    untaken = [i for i in range(12) if i not in taken]
    padded = np.array(sorted(taken, key=hash) + [-1] * (7 - len(taken)), np.int32)
    ranks = jnp.arange(len(untaken))
    np.testing.assert_array_equal(skip_taken(ranks, jnp.array(padded)), untaken)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.lists(st.integers(0, 23), max_size=6, unique=True))
def test_draws_are_distinct_keep_pins_and_respect_cells(seed, pins):
    tracks = np.full(12, -1, np.int32)
    places = np.random.default_rng(seed).permutation(12)[: len(pins)]
    tracks[places] = pins
    tracks = tracks.reshape(2, 6)
    drop = _draw(jax.random.key(seed), tracks)
    drawn = np.asarray(drop.tracks)
    assert len(set(drawn.ravel())) == 12
    np.testing.assert_array_equal(drawn[tracks >= 0], tracks[tracks >= 0])
    cells = np.broadcast_to(np.arange(2)[:, None], (2, 6))
    np.testing.assert_array_equal((drawn % 2)[tracks < 0], cells[tracks < 0])


@jax.jit
def _draw(key, tracks):
    return CHANNEL.draw(key, tracks, jnp.int32(-1), jnp.int32(4))


def test_draws_are_uniform_over_tracks_pairs_and_starts():
    draws = 40000
    drop = jax.jit(
        jax.vmap(
            lambda key: CHANNEL.draw(
                key, jnp.array([[-1, 4, -1], [-1, -1, -1]]), jnp.int32(-1), jnp.int32(4)
            )
        )
    )(jax.random.split(jax.random.key(1), draws))
    tracks = np.asarray(drop.tracks)
    for place, pool in (((0, 0), 11), ((0, 2), 11), ((1, 0), 12), ((1, 2), 12)):
        counts = np.bincount(tracks[:, place[0], place[1]], minlength=24)
        counts = counts[counts > 0]
        assert len(counts) == pool
        assert np.sum((counts - draws / pool) ** 2) / (draws / pool) < 45
    pairs = np.bincount(tracks[:, 1, 0] * 24 + tracks[:, 1, 1], minlength=576)
    pairs = pairs[pairs > 0]
    assert len(pairs) == 12 * 11
    assert np.sum((pairs - draws / 132) ** 2) / (draws / 132) < 220
    starts = np.bincount(drop.start)
    assert len(starts) == 7
    assert np.sum((starts - draws / 7) ** 2) / (draws / 7) < 30


def test_a_pinned_start_is_kept():
    drop = CHANNEL.draw(jax.random.key(0), jnp.full((2, 3), -1), jnp.int32(5), jnp.int32(4))
    assert int(drop.start) == 5


def test_gains_are_the_stored_ones_and_clip_at_the_end():
    drop = CHANNEL.draw(jax.random.key(0), jnp.array([[0, 2], [1, 3]]), jnp.int32(7), jnp.int32(3))
    steps = np.asarray(CHANNEL.steps, np.float64)
    for slot, stored in ((0, 7), (2, 9), (50, 9)):
        gains = np.asarray(CHANNEL.gains(drop, jnp.int32(slot)))
        assert gains.shape == (2, 2, 2, 3) and gains.dtype == np.float32
        expected = 10 ** (steps[[[0, 2], [1, 3]], stored] / 1000)
        np.testing.assert_allclose(gains, expected, rtol=2e-5)
        owner = jnp.array([[1, 0, 1], [0, 0, 1]])
        at_owners = np.asarray(CHANNEL.owner_gains(drop, jnp.int32(slot), owner))
        for cell in range(2):
            for prb in range(3):
                np.testing.assert_array_equal(
                    at_owners[cell, :, prb], gains[cell, owner[cell, prb], :, prb]
                )


def test_disjoint_drops():
    drops = CHANNEL.disjoint_drops(4, 3)
    assert drops.shape == (3, 2, 4) and drops.dtype == np.int32
    assert len(set(drops.ravel())) == 24
    np.testing.assert_array_equal(drops[:, 1] % 2, 1)
    with pytest.raises(ValueError, match="only 3"):
        CHANNEL.disjoint_drops(4, 4)
    with pytest.raises(ValueError, match="at least 1"):
        CHANNEL.disjoint_drops(0, 1)


def test_every_cell_must_serve_somebody():
    cache = ChannelCache(np.zeros((2, 1, 2, 1), np.int16), {"serving_cell": [0, 0]})
    with pytest.raises(ValueError, match="cell 1"):
        CachedChannel.from_cache(cache)
