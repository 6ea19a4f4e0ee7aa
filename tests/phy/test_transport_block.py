"""Transport blocks: exact against rational arithmetic, and segmentation rules."""

import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g import phy
from jaxrl5g.phy.transport_block import segment, small_block_sizes


def oracle(num_re, order, rate2048, layers=1):
    """TS 38.214 5.1.3.2 in rational numbers."""
    info = Fraction(num_re * order * layers * rate2048, 2048)
    if info == 0:
        return 0
    if info <= 3824:
        shift = max(3, (math.floor(info).bit_length() - 1) - 6)
        quantised = max(24, 2**shift * math.floor(info / 2**shift))
        return int(next(size for size in small_block_sizes() if size >= quantised))
    shift = math.floor(info - 24).bit_length() - 1 - 5
    quantised = max(3840, 2**shift * math.floor((info - 24) / 2**shift + Fraction(1, 2)))
    if Fraction(rate2048, 2048) <= Fraction(1, 4):
        blocks = math.ceil(Fraction(quantised + 24, 3816))
    else:
        blocks = math.ceil(Fraction(quantised + 24, 8424)) if quantised > 8424 else 1
    return 8 * blocks * math.ceil(Fraction(quantised + 24, 8 * blocks)) - 24


def dense_num_re():
    prbs = np.arange(1, 276)
    return np.unique(np.r_[0:300, 132 * prbs[::2], 156 * prbs[::3], 2 ** np.arange(16)])


@pytest.mark.parametrize("table", (1, 2))
@pytest.mark.parametrize("layers", (1, 4))
def test_equals_rational_arithmetic(table, layers):
    num_re = dense_num_re()
    order, rate = (np.asarray(x) for x in phy.mcs_parameters(np.arange(phy.num_mcs(table)), table))
    scheme = list(zip(order, rate, strict=True))
    expected = [
        [oracle(int(n), int(q), round(2048 * float(r)), layers) for q, r in scheme] for n in num_re
    ]
    actual = jax.jit(phy.transport_block_size)(num_re[:, None], order, rate, layers)
    assert actual.dtype == np.int32
    np.testing.assert_array_equal(actual, expected)
    # float32 loses nothing on this grid: Sionna's arithmetic agrees with the specification
    sionna = phy.transport_block_size(num_re[:, None], order, rate, layers, fidelity="sionna")
    np.testing.assert_array_equal(sionna, expected)


@settings(max_examples=200, deadline=None)
@given(
    num_re=st.integers(1, 42_900),
    order=st.sampled_from((2, 4, 6, 8)),
    rate2048=st.integers(1, 2048),
    layers=st.integers(1, 8),
)
def test_equals_rational_arithmetic_for_any_rate(num_re, order, rate2048, layers):
    size = phy.transport_block_size(num_re, order, np.float32(rate2048 / 2048), layers)
    assert int(size) == oracle(num_re, order, rate2048, layers)


# (coded bits / Qm, rate * 2048) where N_info is a power of two, a half step, or just past 3824
EDGES = [(2048, 1024), (4096, 1024), (3824, 1024), (15_296, 256), (3825, 2048), (3856, 2048)]


@pytest.mark.parametrize(("bits", "rate2048"), EDGES)
def test_edges(bits, rate2048):
    size = phy.transport_block_size(bits // 2, 2, np.float32(rate2048 / 2048))
    assert int(size) == oracle(bits // 2, 2, rate2048)


def test_ties_go_upward():
    # N_info - 24 = 64 * 60.5 and 64 * 61.5: half to even would send them to 60 and 62
    for half_steps, quantised in ((121, 3904), (123, 3968)):
        info = 24 + 32 * half_steps
        size = int(phy.transport_block_size(info // 2, 2, np.float32(1.0)))
        assert size == 8 * math.ceil((quantised + 24) / 8) - 24


def test_shannon_is_unquantised():
    size = phy.transport_block_size(132, 6, np.float32(0.5), 2, fidelity="shannon")
    assert size.dtype == np.float32
    assert float(size) == 132 * 6 * 0.5 * 2


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
def test_no_resources_no_bits(fidelity):
    assert float(phy.transport_block_size(0, 2, np.float32(0.3), fidelity=fidelity)) == 0


@pytest.mark.parametrize(
    ("tbs", "rate", "expected"),
    [
        (0, 0.5, (0, 0)),
        (24, 0.5, (40, 1)),  # 16-bit CRC
        (3824, 0.2, (3840, 1)),
        (3848, 0.2, ((3848 + 24) // 2 + 24, 2)),  # small base graph from here
        (3848, 0.5, (3872, 1)),  # 24-bit CRC
        (8424, 0.5, (8448, 1)),  # the largest single code block
        (8456, 0.5, ((8456 + 24) // 2 + 24, 2)),
    ],
)
def test_code_blocks(tbs, rate, expected):
    assert tuple(int(x) for x in phy.code_blocks(tbs, np.float32(rate))) == expected


@pytest.mark.parametrize("table", (1, 2))
def test_segmentation_is_even_and_within_the_base_graphs(table):
    num_re = dense_num_re()[1:, None]
    order, rate = (np.asarray(x) for x in phy.mcs_parameters(np.arange(phy.num_mcs(table)), table))
    tbs = np.asarray(phy.transport_block_size(num_re, order, rate))
    size, blocks = (np.asarray(x) for x in phy.code_blocks(tbs, rate))
    crc = np.where(tbs > 3824, 24, 16)
    np.testing.assert_array_equal(blocks * (size - 24 * (blocks > 1)), tbs + crc)
    assert size.max() <= 8448
    low_rate = np.broadcast_to(rate <= 0.25, size.shape)
    assert size[low_rate].max() <= 3840


@pytest.mark.parametrize("table", (1, 2))
@pytest.mark.parametrize("fidelity", ("nr", "sionna"))
def test_segment_is_the_short_cut_of_code_blocks(table, fidelity):
    num_re = dense_num_re()[1:, None].astype(np.int32)
    order, rate = (np.asarray(x) for x in phy.mcs_parameters(np.arange(phy.num_mcs(table)), table))
    tbs = phy.transport_block_size(num_re, order, rate, fidelity=fidelity)
    size, blocks = (np.asarray(x) for x in phy.code_blocks(tbs, rate))
    cut = segment(num_re * order, rate, fidelity)
    np.testing.assert_array_equal(cut.blocks, blocks)
    large = ~np.asarray(cut.small)
    np.testing.assert_array_equal(np.asarray(cut.large_size)[large], size[large])
    assert size[large].min() >= 1960  # select_mcs relies on it: always the last CBS row


def test_mcs_tables_have_the_lengths_and_ends_of_the_specification():
    assert (phy.num_mcs(1), phy.num_mcs(2)) == (29, 28)
    for table, first, last in ((1, (2, 120), (6, 948)), (2, (2, 120), (8, 948))):
        order, rate = phy.mcs_parameters(np.array([0, phy.num_mcs(table) - 1]), table)
        assert order.dtype == np.int32
        assert list(order) == [first[0], last[0]]
        np.testing.assert_array_equal(np.asarray(rate) * 1024, [first[1], last[1]])
    assert phy.max_spectral_efficiency(1) == pytest.approx(5.5547, abs=1e-4)
    assert phy.max_spectral_efficiency(2) == pytest.approx(7.4063, abs=1e-4)
    efficiency = np.asarray(phy.spectral_efficiency(np.arange(29), 1))
    assert efficiency[17] < efficiency[16]
    assert np.sum(np.diff(efficiency) < 0) == 1
