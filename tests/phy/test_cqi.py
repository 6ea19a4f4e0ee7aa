"""CQI quantiser, its reading, and the rate a scheduler predicts."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g import phy
from jaxrl5g.phy.cqi import CQI_REFERENCE_RE

# jitted: one compilation per shape instead of one per operation
transport_block_error_rate = jax.jit(
    phy.transport_block_error_rate, static_argnames=("table", "fidelity")
)
predicted_rate = jax.jit(phy.predicted_rate, static_argnames=("table", "fidelity"))
quantise_cqi = jax.jit(phy.quantise_cqi, static_argnames=("table", "fidelity"))
select_mcs = jax.jit(phy.select_mcs, static_argnames=("table", "fidelity"))

TABLES = (1, 2)
SINR_DB = np.arange(-15, 35, 0.013)
SINR = np.asarray(10.0 ** (SINR_DB / 10.0), np.float32)
# (CQI, MCS) of equal modulation and rate
TWINS = {1: {2: 0, 4: 4, 9: 15, 10: 18, 13: 24, 15: 28}, 2: {2: 1, 6: 9, 11: 19, 15: 27}}


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("table", TABLES)
def test_index_is_monotone_and_spans_its_range(table, fidelity):
    cqi = np.asarray(quantise_cqi(SINR, table, fidelity))
    assert cqi.dtype == np.int32
    assert np.all(np.diff(cqi) >= 0)
    unreachable = fidelity == "sionna" and table == 2  # error floor of MCS 27 above 0.1
    assert (cqi[0], cqi[-1]) == (0, 14 if unreachable else 15)
    assert int(quantise_cqi(0.0, table, fidelity)) == 0
    thresholds = phy.cqi_thresholds_db(table, fidelity)
    assert thresholds.shape == (15,)
    assert np.all(np.diff(thresholds[:14]) > 0)


@pytest.mark.parametrize("fidelity", ("nr", "sionna"))
@pytest.mark.parametrize("table", TABLES)
def test_threshold_is_where_the_block_error_rate_meets_a_tenth(table, fidelity):
    for cqi, mcs in TWINS[table].items():
        threshold = float(phy.cqi_thresholds_db(table, fidelity)[cqi - 1])
        if (fidelity == "sionna" and mcs < 3) or not np.isfinite(threshold):
            continue
        sinr = 10 ** ((threshold + np.array([-0.12, 0.006])) / 10)
        below, above = transport_block_error_rate(mcs, CQI_REFERENCE_RE, sinr, table, fidelity)
        assert above <= 0.1 < below


def test_shannon_thresholds_are_capacities():
    efficiency = np.array([0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141, 2.4063,
                           2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547])  # fmt: skip
    expected = 10 * np.log10(2**efficiency - 1)
    np.testing.assert_allclose(phy.cqi_thresholds_db(1, "shannon"), expected, atol=2e-3)


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("table", TABLES)
def test_reading_an_index_gives_that_index_back(table, fidelity):
    cqi = np.arange(16)
    level = np.asarray(phy.cqi_sinr_db(cqi, table, fidelity))
    assert np.all(np.isfinite(level))
    assert np.all(np.diff(level) > 0)
    back = quantise_cqi(10 ** (level / 10), table, fidelity)
    last = 14 if fidelity == "sionna" and table == 2 else 15
    np.testing.assert_array_equal(back, np.minimum(cqi, last))
    thresholds = phy.cqi_thresholds_db(table, fidelity)
    np.testing.assert_allclose(level[1:14], (thresholds[:13] + thresholds[1:14]) / 2, atol=1e-4)
    assert level[0] == pytest.approx(thresholds[0] - (thresholds[1] - thresholds[0]) / 2, abs=1e-4)


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("table", TABLES)
def test_predicted_rate_is_monotone_and_positive(table, fidelity):
    rate = np.asarray(predicted_rate(SINR, table, fidelity))
    assert np.all(np.diff(rate) >= 0)
    assert np.all(rate > 0)
    assert float(predicted_rate(0.0, table, fidelity)) == 0.0
    if fidelity != "sionna":
        assert rate[-1] == pytest.approx(phy.max_spectral_efficiency(table))


@pytest.mark.parametrize("table", TABLES)
def test_predicted_rate_is_the_best_selectable_scheme(table):
    rate = np.asarray(predicted_rate(SINR, table))
    mcs = np.arange(phy.num_mcs(table))
    tbler = transport_block_error_rate(mcs, CQI_REFERENCE_RE, SINR[:, None], table)
    efficiency = np.asarray(phy.spectral_efficiency(mcs, table))
    best = np.max(np.where(np.asarray(tbler) <= 0.1, efficiency, 0.0), axis=-1)
    usable = best > 0
    differ = np.abs(rate - best)[usable] > 1e-5
    assert differ.mean() < 0.01  # within 0.005 dB of a threshold
    assert np.all(rate[~usable] <= efficiency.min() + 1e-6)


@settings(max_examples=50, deadline=None)
@given(sinr_db=st.floats(-20, 35), step=st.floats(0.0, 5.0))
def test_predicted_rate_ranks_users(sinr_db, step):
    rate = predicted_rate(10 ** (np.array([sinr_db, sinr_db + step]) / 10))
    assert rate[1] >= rate[0]


def test_first_use_may_be_inside_a_trace():
    """The tables are built lazily; building them must work while something else is traced."""
    phy.cqi_thresholds_db.cache_clear()

    def use(sinr):
        return quantise_cqi(sinr), predicted_rate(sinr), select_mcs(sinr, 528)

    traced = jax.jit(jax.vmap(use))(SINR[::50])
    for inside, outside in zip(traced, use(SINR[::50, None]), strict=True):
        np.testing.assert_allclose(inside, np.ravel(outside))
