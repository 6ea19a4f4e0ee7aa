import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl5g.channel import UMiChannel, link_budget
from jaxrl5g.channel import umi_statistics as umi

FREE = jnp.full((1, 4000), -1, jnp.int32)


@jax.jit
def draw(channel, key, tracks):
    return channel.draw(key, tracks, jnp.int32(-1), jnp.int32(1))


def test_path_loss_by_hand():
    # 3.5 GHz, 100 m: slant 100.3606 m, breakpoint 4 * 9 * 0.5 * 3.5e9 / c = 210.1 m.
    assert umi.breakpoint_distance_m(3.5e9) == pytest.approx(210.15, abs=0.01)
    los = 32.4 + 21 * np.log10(100.3606) + 20 * np.log10(3.5)
    nlos = 35.3 * np.log10(100.3606) + 22.4 + 21.3 * np.log10(3.5)
    assert float(umi.path_loss_los_db(100.0, 3.5e9)) == pytest.approx(los, abs=1e-3)
    assert float(umi.path_loss_nlos_db(100.0, 3.5e9)) == pytest.approx(nlos, abs=1e-3)
    assert los == pytest.approx(85.31, abs=0.01) and nlos == pytest.approx(104.64, abs=0.01)


def test_path_loss_is_continuous_at_the_breakpoint_and_grows():
    corner = umi.breakpoint_distance_m(3.5e9)
    near, far = umi.path_loss_los_db(jnp.array([corner * 0.99999, corner * 1.00001]), 3.5e9)
    assert float(near) == pytest.approx(float(far), abs=0.01)
    distance = jnp.linspace(10.0, 2000.0, 500)
    for loss in (umi.path_loss_los_db, umi.path_loss_nlos_db):
        assert bool(jnp.all(jnp.diff(loss(distance, 3.5e9)) > 0))
    assert bool(
        jnp.all(umi.path_loss_nlos_db(distance, 3.5e9) >= umi.path_loss_los_db(distance, 3.5e9))
    )


def test_los_probability():
    assert float(umi.los_probability(10.0)) == 1.0
    assert float(umi.los_probability(18.0)) == pytest.approx(1.0)
    expected = 18 / 90 + np.exp(-90 / 36) * (1 - 18 / 90)
    assert float(umi.los_probability(90.0)) == pytest.approx(expected, rel=1e-5)


def test_delay_spread_medians():
    los = float(umi.delay_spread_s(True, 3.5e9, 0.0))
    nlos = float(umi.delay_spread_s(False, 3.5e9, 0.0))
    assert los == pytest.approx(10 ** (-0.24 * np.log10(4.5) - 7.14), rel=1e-4)
    assert nlos == pytest.approx(10 ** (-0.24 * np.log10(4.5) - 6.83), rel=1e-4)


@pytest.fixture(scope="module")
def drop():
    return draw(UMiChannel(), jax.random.key(0), FREE)


def test_drop_statistics(drop):
    distance = np.linalg.norm(np.asarray(drop.position)[0], axis=-1)
    assert distance.min() >= 10 and distance.max() <= 100.001
    # Uniform in the disc: the squared distance is uniform.
    assert np.mean(distance**2) == pytest.approx((100**2 + 10**2) / 2, rel=0.03)
    los = np.asarray(drop.los)[0, :, 0]
    assert los.mean() == pytest.approx(float(umi.los_probability(distance).mean()), abs=0.03)
    loss = np.where(
        los, umi.path_loss_los_db(distance, 3.5e9), umi.path_loss_nlos_db(distance, 3.5e9)
    )
    extra = float(UMiChannel().extra_loss_db)
    shadow = -10 * np.log10(np.asarray(drop.mean_gain)[0, :, 0]) - loss - extra
    assert shadow[los].std() == pytest.approx(4.0, rel=0.1)
    assert shadow[~los].std() == pytest.approx(7.82, rel=0.1)
    assert np.all(np.asarray(drop.rician)[0, ~los] == 0)


def test_median_user_is_near_12_db(drop):
    snr = link_budget.snr_db(10 * np.log10(np.asarray(drop.mean_gain)))
    assert np.median(snr) == pytest.approx(12, abs=2)


def test_fading_has_the_mean_gain(drop):
    channel = UMiChannel()
    gains = jax.jit(jax.vmap(channel.gains, in_axes=(None, 0)))(drop, jnp.arange(0, 2000, 250))
    ratio = np.asarray(gains / drop.mean_gain[..., None])
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)


def test_response_keeps_the_rms_delay_spread(drop):
    delays = np.asarray(UMiChannel()._delays(drop))[0, :, 0]
    rician = np.asarray(drop.rician)[0, :, 0]
    power = np.repeat(1 / ((rician + 1) * 8)[:, None], 8, axis=1)
    power[:, 0] += rician / (rician + 1)
    mean = (power * delays).sum(1)
    rms = np.sqrt((power * delays**2).sum(1) - mean**2)
    np.testing.assert_allclose(rms, np.asarray(drop.delay_spread)[0, :, 0], rtol=1e-2)


def test_users_of_several_cells_are_strongest_at_home():
    channel = UMiChannel(num_cells=3)
    tracks = jnp.full((3, 200), -1, jnp.int32)
    drop = draw(channel, jax.random.key(1), tracks)
    strongest = np.argmax(np.asarray(drop.mean_gain), axis=-1)
    assert np.mean(strongest == np.arange(3)[:, None]) > 0.98
    sites = np.asarray(channel.sites())
    apart = np.linalg.norm(sites[:, None] - sites, axis=-1)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(apart, 200.0, rtol=1e-4)
