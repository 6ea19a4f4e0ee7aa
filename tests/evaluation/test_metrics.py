"""Metrics of hand-made tallies against NumPy, field by field."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.env import DownlinkConfig
from jaxrl5g.evaluation.metrics import Tally, add_slot, empty_tally, summarise

CONFIG = DownlinkConfig(num_cells=2, num_users=3, num_prbs=10)
SLOTS = 200
PRB_HZ = 360e3


def tally(bits, mask, **sums):
    zero = np.zeros(len(bits))
    names = ("blocks", "first_failures", "dropped", "top_mcs", "joules", "prbs")
    return Tally(bits=bits, mask=mask, **{name: sums.get(name, zero) for name in names})


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_throughput_metrics_match_numpy(seed):
    rng = np.random.default_rng(seed)
    bits = rng.uniform(1, 1e6, (4, 2, 3))
    mask = rng.random((4, 2, 3)) < 0.7
    mask[:, 0, 0] = True
    metrics = summarise(tally(bits, mask), SLOTS, CONFIG, PRB_HZ)
    for drop in range(4):
        rate = bits[drop][mask[drop]] / (SLOTS * 0.5e-3)
        count = len(rate)
        expected = {
            "cell_throughput": rate.sum() / 2,
            "spectral_efficiency": rate.sum() / 2 / (10 * PRB_HZ),
            "mean_throughput": rate.mean(),
            "geometric_mean": np.prod(rate / 1e6) ** (1 / count) * 1e6,
            "p5_throughput": np.percentile(rate, 5),
            "min_throughput": rate.min(),
            "jain": rate.sum() ** 2 / (count * (rate**2).sum()),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(metrics, name)[drop], value, rtol=1e-9)
        users = metrics.user_throughput[drop]
        np.testing.assert_allclose(users[mask[drop]], rate)
        assert np.isnan(users[~mask[drop]]).all()


def test_shares_and_energy():
    mask = np.ones((2, 2, 3), bool)
    bits = np.full((2, 2, 3), 1000.0)
    metrics = summarise(
        tally(
            bits,
            mask,
            blocks=np.array([50.0, 0.0]),
            first_failures=np.array([5.0, 0.0]),
            dropped=np.array([1.0, 0.0]),
            top_mcs=np.array([20.0, 0.0]),
            joules=np.array([0.5, 0.0]),
            prbs=np.array([1000.0, 0.0]),
        ),
        SLOTS,
        CONFIG,
        PRB_HZ,
    )
    expected = {
        "first_bler": 0.1,
        "residual_bler": 0.02,
        "top_mcs_share": 0.4,
        "energy_efficiency": 6000 / 0.5,
        "prb_use": 1000 / (SLOTS * 2 * 10),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(metrics, name)[0], value)
    # a drop without a block has no error rate
    for name in ("first_bler", "residual_bler", "top_mcs_share", "energy_efficiency"):
        assert np.isnan(getattr(metrics, name)[1])
    assert metrics.prb_use[1] == 0


def test_a_starved_user_counts():
    bits = np.array([[[0.0, 100.0, 100.0], [100.0, 100.0, 100.0]]])
    metrics = summarise(tally(bits, np.ones((1, 2, 3), bool)), SLOTS, CONFIG, PRB_HZ)
    assert metrics.geometric_mean[0] == 0 and metrics.min_throughput[0] == 0
    np.testing.assert_allclose(metrics.jain[0], 5 / 6)


@pytest.mark.parametrize("counts", [True, False])
def test_a_slot_is_added_or_left_out(counts):
    mask = np.ones((1, 3), bool)
    info = {
        "attempt": np.array([[1, 2, 1]]),
        "decoded": np.array([[0, 0, 1]]),
        "dropped": np.array([[False, True, False]]),
        "mcs": np.array([[28, 28, 3]]),
        "acked_bits": np.array([[0.0, 0.0, 640.0]]),
        "radiated": np.array([[0.25, 0.0, 0.5]]),
        "num_prbs": np.array([[2, 3, 4]]),
    }
    total = add_slot(empty_tally(mask), info, np.bool_(counts), 28, 0.5e-3)
    total = add_slot(total, info, np.bool_(counts), 28, 0.5e-3)
    expected = {
        "blocks": 2 * 2,
        "first_failures": 2 * 1,
        "dropped": 2 * 1,
        "top_mcs": 2 * 1,  # a retransmission is no new block
        "joules": 2 * 0.75 * 0.5e-3,
        "prbs": 2 * 9,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(total, name), value * counts, rtol=1e-6)
    np.testing.assert_allclose(total.bits, np.array([[0, 0, 1280.0]]) * counts)
