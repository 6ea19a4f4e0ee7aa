import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxrl5g.channel import Channel, JakesChannel, RayleighChannel, UMiChannel, link_budget
from jaxrl5g.channel.analytic import exponential_delays, prb_power

CHANNELS = [
    RayleighChannel(num_cells=2, num_prbs=7),
    JakesChannel(num_cells=2, num_prbs=7),
    UMiChannel(num_cells=2, num_prbs=7),
]
HORIZON = jnp.int32(10)


def free(cells, users):
    return jnp.full((cells, users), -1, jnp.int32)


@jax.jit
def draw(channel, key, tracks, start):
    return channel.draw(key, tracks, start, HORIZON)


@jax.jit
def gains_over(channel, drop, slots):
    return jax.vmap(lambda slot: channel.gains(drop, slot))(slots)


@jax.jit
def draw_and_gains(channel, key, tracks, slot):
    drop = channel.draw(key, tracks, jnp.int32(-1), HORIZON)
    return drop, channel.gains(drop, slot)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda c: type(c).__name__)
def test_protocol_shapes_and_transforms(channel):
    assert isinstance(channel, Channel)
    keys = jax.random.split(jax.random.key(0), 3)
    function = jax.jit(jax.vmap(draw_and_gains, in_axes=(None, 0, None, None)))
    drop, gains = function(channel, keys, free(2, 5), jnp.int32(3))
    assert gains.shape == (3, 2, 5, 2, 7) and gains.dtype == jnp.float32
    assert bool(jnp.all(jnp.isfinite(gains)) and jnp.all(gains > 0))
    np.testing.assert_array_equal(drop.tracks[0], np.arange(10).reshape(2, 5))
    _, alone = draw_and_gains(channel, keys[1], free(2, 5), jnp.int32(3))
    np.testing.assert_allclose(gains[1], alone, rtol=1e-4)
    assert channel.disjoint_drops(5, 3).shape == (3, 2, 5)
    with pytest.raises(ValueError, match="at least 1"):
        channel.disjoint_drops(0, 3)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda c: type(c).__name__)
def test_permuting_tracks_permutes_gains(channel):
    tracks = jnp.arange(10).reshape(2, 5)
    order = np.array([3, 0, 4, 1, 2])
    key = jax.random.key(2)
    _, gains = draw_and_gains(channel, key, tracks, jnp.int32(4))
    _, permuted = draw_and_gains(channel, key, tracks[:, order], jnp.int32(4))
    np.testing.assert_allclose(permuted, gains[:, order], rtol=1e-5)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda c: type(c).__name__)
def test_owner_gains_are_entries_of_gains(channel):
    drop, gains = draw_and_gains(channel, jax.random.key(1), free(2, 5), jnp.int32(4))
    owner = np.random.default_rng(0).integers(0, 5, (2, 7))
    at_owners = jax.jit(type(channel).owner_gains)(channel, drop, jnp.int32(4), owner)
    assert at_owners.shape == (2, 2, 7)
    for cell, prb in np.ndindex(2, 7):
        expected = gains[cell, owner[cell, prb], :, prb]
        np.testing.assert_allclose(at_owners[cell, :, prb], expected, rtol=1e-4)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda c: type(c).__name__)
def test_pinned_tracks_are_kept_and_not_drawn_again(channel):
    tracks = jnp.array([[-1, 0, -1], [7, -1, 2]])
    drop = draw(channel, jax.random.key(0), tracks, jnp.int32(5))
    np.testing.assert_array_equal(drop.tracks, [[1, 0, 3], [7, 4, 2]])
    assert int(drop.start) == 5


def test_default_mean_snr_spans_0_to_25_db():
    channel = RayleighChannel()
    low, high = (
        link_budget.snr_db(float(x)) for x in (channel.mean_gain_db_low, channel.mean_gain_db_high)
    )
    assert low == pytest.approx(0, abs=1e-3) and high == pytest.approx(25, abs=1e-3)


def unit_mean(cls, **sizes):
    return cls(mean_gain_db_low=0.0, mean_gain_db_high=0.0, **sizes)


def test_rayleigh_power_is_unit_exponential_and_white():
    channel = unit_mean(RayleighChannel, num_prbs=4)
    drop = draw(channel, jax.random.key(0), free(1, 5), jnp.int32(-1))
    gains = np.asarray(gains_over(channel, drop, jnp.arange(1000)))
    assert stats.kstest(gains.ravel()[:4000], "expon").pvalue > 1e-3
    flat = gains.reshape(1000, -1) - 1
    correlation = np.corrcoef(np.concatenate([flat[1:], flat[:-1]], axis=1).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.15


def test_jakes_power_is_unit_exponential():
    channel = unit_mean(JakesChannel, num_prbs=3)
    drop = draw(channel, jax.random.key(1), free(1, 3000), jnp.int32(-1))
    gains = np.asarray(gains_over(channel, drop, jnp.arange(1)))[0][0, :, 0, 1]
    assert stats.kstest(gains, "expon").pvalue > 1e-3


def test_jakes_autocorrelation_is_j0():
    channel = unit_mean(JakesChannel, num_prbs=1)
    channel = channel.replace(doppler_hz=50.0)
    drop = draw(channel, jax.random.key(0), free(1, 4000), jnp.int32(-1))
    taps_over = jax.jit(jax.vmap(channel.taps, in_axes=(None, 0)))
    real, imag = taps_over(drop, jnp.arange(0, 80, 8))
    taps = np.asarray(real) + 1j * np.asarray(imag)
    measured = np.mean(taps * np.conj(taps[0]), axis=tuple(range(1, taps.ndim)))
    expected = special.j0(2 * np.pi * 50.0 * np.arange(0, 80, 8) * 0.5e-3)
    np.testing.assert_allclose(measured, expected, atol=0.02)


def test_jakes_frequency_correlation_follows_the_delay_profile():
    channel = unit_mean(JakesChannel, num_prbs=11, delay_spread_s=300e-9)
    drop = draw(channel, jax.random.key(3), free(1, 6000), jnp.int32(-1))
    gains = np.asarray(gains_over(channel, drop, jnp.arange(1)))[0][0, :, 0]
    correlation = np.corrcoef(gains.T)[0]
    delays = exponential_delays(8) * 300e-9
    lag = np.arange(11) * 360e3
    expected = np.abs(np.mean(np.exp(-2j * np.pi * np.outer(lag, delays)), axis=1)) ** 2
    np.testing.assert_allclose(correlation, expected, atol=0.05)


def test_tap_delays_have_unit_rms_spread():
    assert np.std(exponential_delays(8)) == pytest.approx(1, rel=1e-5)
    assert exponential_delays(8)[0] == 0
    np.testing.assert_array_equal(exponential_delays(1), [0])


def test_prb_power_against_numpy():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(4, 6)) + 1j * rng.normal(size=(4, 6))
    delays = rng.uniform(0, 1e-6, (4, 6))
    for prbs in (1, 12, 51, 273):
        frequency = (np.arange(prbs) - (prbs - 1) / 2) * 360e3
        phase = np.exp(-2j * np.pi * delays[..., None] * frequency)
        expected = np.abs((h[..., None] * phase).sum(1)) ** 2
        got = prb_power(jnp.array(h.real), jnp.array(h.imag), jnp.array(delays), prbs, 360e3)
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
