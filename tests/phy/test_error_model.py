"""Error rates: shape of the repaired curves, consistency, and what each fidelity promises."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g import phy
from jaxrl5g.phy.nr_curves import monotone, nr_curves
from jaxrl5g.phy.sionna_curves import available_mcs, sionna_bler

# jitted: one compilation per shape instead of one per operation
block_error_rate = jax.jit(phy.block_error_rate, static_argnames=("table", "fidelity"))
transport_block_error_rate = jax.jit(
    phy.transport_block_error_rate, static_argnames=("table", "fidelity")
)

TABLES = (1, 2)
SIZES = np.array([24, 40, 100, 333, 500, 1000, 2000, 8448])
SINR_DB = np.arange(-30.0, 30.01, 0.05)
SINR = np.asarray(10.0 ** (SINR_DB / 10.0), np.float32)


def all_curves(table, fidelity="nr"):
    mcs = np.arange(phy.num_mcs(table))
    return np.asarray(block_error_rate(mcs[:, None, None], SIZES[:, None], SINR, table, fidelity))


@pytest.mark.parametrize("table", TABLES)
def test_curves_fall_from_one_to_nothing(table):
    bler = all_curves(table)
    assert bler.dtype == np.float32
    assert np.all((bler >= 0) & (bler <= 1))
    assert np.all(np.diff(bler, axis=-1) <= 1e-7 + 1e-6 * bler[..., :-1])
    assert np.all(bler[..., 0] == 1.0)  # -30 dB
    assert bler[..., -1].max() < 1e-4  # +30 dB: no error floor


@settings(max_examples=300, deadline=None)
@given(
    table=st.sampled_from(TABLES),
    mcs=st.integers(0, 27),
    num_re=st.integers(1, 42_900),
    low=st.floats(-30, 35),
    step=st.floats(0.001, 20),
)
def test_transport_block_error_rate_never_rises_with_sinr(table, mcs, num_re, low, step):
    sinr = np.asarray(10.0 ** (np.array([low, low + step]) / 10.0), np.float32)
    tbler = np.asarray(transport_block_error_rate(mcs, num_re, sinr, table))
    assert np.all((tbler >= 0) & (tbler <= 1))
    assert tbler[1] <= tbler[0] * (1 + 1e-5) + 1e-7


@pytest.mark.parametrize("table", TABLES)
def test_waterfall_is_continued_at_a_decade_per_db_or_steeper(table):
    curves = nr_curves(table)
    data_end = 20.0 if table == 1 else 25.0
    first = int(round((data_end - curves.start_db) / curves.step_db))
    slope = np.diff(curves.log_bler[..., first:], axis=-1) / curves.step_db
    assert slope.max() <= -1.0 + 1e-5
    assert curves.log_bler.nbytes < 300_000


@pytest.mark.parametrize("table", TABLES)
def test_repairs_touch_nothing_else(table):
    """At the measured sizes and knots, where rates fall and are not 0, "nr" is the raw data."""
    from jaxrl5g.phy.bler_data import load_bler_data

    data = load_bler_data(table)
    clean = monotone(data.bler) == data.bler
    use = clean & (data.bler > 0)
    # 24 and 2000 bits are rows of the repaired curves
    sinr = np.asarray(10.0 ** (data.snr_db / 10.0), np.float32)
    for column, size in ((0, 24), (-1, 2000)):
        bler = np.asarray(block_error_rate(data.mcs[:, None], size, sinr, table))
        expected = data.bler[:, column]
        error = np.abs(np.log10(bler) - np.log10(np.where(use[:, column], expected, bler)))
        assert error.max() < 1e-4


@pytest.mark.parametrize("table", TABLES)
def test_missing_schemes_are_the_donor_shifted(table):
    missing = np.flatnonzero(~available_mcs(table))
    donor = missing[-1] + 1
    efficiency = np.asarray(phy.spectral_efficiency(np.arange(donor + 1), table), np.float64)
    limit_db = 10 * np.log10(2.0**efficiency - 1)
    sinr_db = np.linspace(-8, 8, 41)
    for mcs in missing:
        own = block_error_rate(mcs, 500, 10 ** (sinr_db / 10), table)
        shifted = sinr_db + limit_db[donor] - limit_db[mcs]
        other = block_error_rate(donor, 500, 10 ** (shifted / 10), table)
        np.testing.assert_allclose(own, other, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("table", TABLES)
def test_order_of_schemes_at_equal_sinr(table):
    """Within a modulation a higher rate fails more often, up to the Monte-Carlo noise."""
    order = np.asarray(phy.mcs_parameters(np.arange(phy.num_mcs(table)), table)[0])
    bler = all_curves(table)
    same = order[1:] == order[:-1]
    inversion = (bler[:-1] - bler[1:])[same]
    assert inversion.max() < 0.06


def test_error_floors_of_the_raw_tables():
    high = np.float32(1e3)
    assert float(block_error_rate(28, 8000, high, 1, "sionna")) == pytest.approx(0.00433, 1e-2)
    assert float(block_error_rate(27, 8000, high, 2, "sionna")) == pytest.approx(0.1503, 1e-2)
    assert float(block_error_rate(28, 8000, high, 1)) < 1e-10
    assert float(block_error_rate(27, 8000, high, 2)) < 1e-4


@pytest.mark.parametrize("table", TABLES)
def test_sionna_has_no_rate_for_missing_schemes(table):
    missing = ~available_mcs(table)
    assert list(np.flatnonzero(missing)) == list(range(4 - table))
    assert np.all(np.isinf(sionna_bler(table)[missing]))
    mcs = np.arange(phy.num_mcs(table))
    for value in (
        block_error_rate(mcs, 500, 10.0, table, "sionna"),
        transport_block_error_rate(mcs, 500, 10.0, table, "sionna"),
    ):
        np.testing.assert_array_equal(np.isinf(value), missing)


def test_transport_block_fails_when_one_code_block_does():
    mcs, num_re = 20, 132 * np.array([1, 10, 30, 51, 200])
    order, rate = phy.mcs_parameters(mcs)
    size, blocks = phy.code_blocks(phy.transport_block_size(num_re, order, rate), rate)
    sinr = np.float32(10 ** (11.6 / 10))
    bler = np.asarray(block_error_rate(mcs, size, sinr), np.float64)
    tbler = transport_block_error_rate(mcs, num_re, sinr)
    np.testing.assert_allclose(tbler, 1 - (1 - bler) ** np.asarray(blocks), rtol=1e-5)
    assert np.asarray(blocks).max() > 5


def test_tiny_rates_survive_the_union():
    """1 - (1 - b)^C must not round to zero in float32."""
    sinr = np.float32(10**2.4)
    bler = float(block_error_rate(20, 4000, sinr))
    assert 0 < bler < 1e-9
    assert float(transport_block_error_rate(20, 132 * 51, sinr)) >= bler


@pytest.mark.parametrize(("fidelity", "value"), [("nr", 0.0), ("shannon", 0.0), ("sionna", -1.0)])
def test_nothing_sent(fidelity, value):
    assert float(transport_block_error_rate(10, 0, 10.0, fidelity=fidelity)) == value


def test_shannon_makes_no_errors():
    assert not np.any(all_curves(1, "shannon"))
    assert not np.any(transport_block_error_rate(np.arange(29), 500, 1e-3, fidelity="shannon"))


@pytest.mark.parametrize("table", TABLES)
def test_incremental_redundancy_shift(table):
    mcs = np.arange(phy.num_mcs(table))
    shift = np.asarray(phy.incremental_redundancy_shift_db(mcs[:, None], np.arange(1, 5), table))
    assert np.all(np.abs(shift[:, 0]) < 1e-5)
    assert np.all(np.diff(shift, axis=1) > 0)
    efficiency = np.asarray(phy.spectral_efficiency(mcs, table), np.float64)
    expected = 10 * np.log10((2**efficiency - 1) / (2 ** (efficiency / 3) - 1))
    np.testing.assert_allclose(shift[:, 2], expected, atol=1e-4)
    # never worse than repeating the same bits, which gains 10 log10(m)
    assert np.all(shift[:, 1:] >= 10 * np.log10(np.arange(2, 5)) - 1e-4)


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("table", TABLES)
def test_jit_and_vmap_change_nothing(table, fidelity):
    rng = np.random.default_rng(table)
    mcs = rng.integers(0, phy.num_mcs(table), (5, 7))
    num_re = rng.integers(0, 7000, (5, 7))
    sinr = (10 ** rng.uniform(-3, 3, (5, 7))).astype(np.float32)
    plain = transport_block_error_rate(mcs, num_re, sinr, table, fidelity)
    mapped = jax.jit(
        jax.vmap(lambda m, n, s: transport_block_error_rate(m, n, s, table, fidelity))
    )(mcs, num_re, sinr)
    np.testing.assert_allclose(mapped, plain, rtol=1e-5, atol=1e-7)


BAD = {
    "fidelity": lambda: block_error_rate(3, 100, 1.0, 1, "exact"),
    "table": lambda: block_error_rate(3, 100, 1.0, 3, "nr"),
    "fidelity ": lambda: transport_block_error_rate(3, 100, 1.0, 1, "NR"),
    "table ": lambda: transport_block_error_rate(3, 100, 1.0, 0),
    "fidelity  ": lambda: phy.select_mcs(1.0, 100, fidelity="5g"),
    "table  ": lambda: phy.select_mcs(1.0, 100, table=4),
    "fidelity   ": lambda: phy.transport_block_size(100, 2, 0.5, fidelity="exact"),
    "table   ": lambda: phy.mcs_parameters(3, 3),
    "table    ": lambda: phy.effective_sinr(np.ones(3), True, 3, 3),
    "table     ": lambda: phy.eesm_beta(9),
    "fidelity    ": lambda: phy.quantise_cqi(1.0, 1, "exact"),
    "table      ": lambda: phy.cqi_sinr_db(1, 3),
    "fidelity     ": lambda: phy.predicted_rate(1.0, 1, "exact"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_choices_name_what_was_expected(name):
    expected = "shannon, sionna, nr" if "fidelity" in name else "must be 1"
    with pytest.raises(ValueError, match=expected):
        BAD[name]()
