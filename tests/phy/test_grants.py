"""Tables of whole-PRB grants say what the functions they are made from say."""

import functools

import jax
import numpy as np
import pytest

from jaxrl5g import phy
from jaxrl5g.phy.mcs import mcs_arrays

PRBS, RES = 51, 132


@pytest.mark.parametrize("fidelity", ["nr", "sionna"])
@pytest.mark.parametrize("table", [1, 2])
def test_tables_are_those_of_the_transport_block(table, fidelity):
    tables = phy.grants(PRBS, RES, table, fidelity)
    orders, rates = mcs_arrays(table)
    num_re = RES * np.arange(PRBS + 1)[:, None]
    bits = phy.transport_block_size(num_re, orders, rates, fidelity=fidelity)
    np.testing.assert_array_equal(tables.block_bits, bits)
    assert (tables.block_bits[0] == 0).all() and (tables.blocks >= 1).all()
    mcs = np.arange(len(orders))
    rate = jax.jit(
        functools.partial(phy.transport_block_error_rate, table=table, fidelity=fidelity)
    )
    ours = jax.jit(functools.partial(phy.grant_error_rate, tables))
    for sinr in (0.05, 1.0, 7.3, 60.0):
        expected = np.asarray(rate(mcs, num_re[1:], sinr))
        found = np.asarray(ours(np.arange(1, PRBS + 1)[:, None], mcs, sinr))
        np.testing.assert_array_equal(found, expected)
    assert (np.asarray(ours(0, mcs[phy.num_mcs(table) // 2 :], 1.0)) == 0).all()


@pytest.mark.parametrize("table", [1, 2])
def test_choice_is_that_of_select_mcs(table):
    tables = phy.grants(PRBS, RES, table, "sionna")
    rng = np.random.default_rng(table)
    count = rng.integers(0, PRBS + 1, 5000)
    sinr = 10 ** rng.uniform(-1.5, 3.2, 5000).astype(np.float32)
    choose = jax.jit(functools.partial(phy.grant_mcs, tables))
    select = jax.jit(functools.partial(phy.select_mcs, table=table, fidelity="sionna"))
    for target in (0.001, 0.1, 0.6):
        np.testing.assert_array_equal(
            choose(count, sinr, target), select(sinr, RES * count, target)
        )
