"""The error model turned round agrees with the error model."""

import jax
import numpy as np
import pytest

from jaxrl5g import phy
from jaxrl5g.phy.lookup import highest_true, unfused

NUM_RE = 132 * np.arange(1, 52)


@pytest.mark.parametrize("table", [1, 2])
@pytest.mark.parametrize("target", [0.01, 0.1, 0.5])
def test_error_rate_at_the_required_sinr_is_the_target(table, target):
    required = np.asarray(phy.required_sinr(NUM_RE, target, table=table))
    mcs = np.arange(phy.num_mcs(table))
    rate = jax.jit(phy.transport_block_error_rate, static_argnames="table")
    above = np.asarray(rate(mcs, NUM_RE[:, None], required * 1.0005, table=table))
    below = np.asarray(rate(mcs, NUM_RE[:, None], required * 0.9995, table=table))
    assert (above <= target * (1 + 1e-5)).all()
    assert (below >= target * (1 - 1e-5)).all()


@pytest.mark.parametrize("table", [1, 2])
def test_choice_is_that_of_select_mcs(table):
    rng = np.random.default_rng(0)
    num_re = rng.choice(NUM_RE, 4000)
    sinr = 10 ** rng.uniform(-1.5, 3, (4000, phy.num_mcs(table))).astype(np.float32)
    required = np.asarray(phy.required_sinr(num_re, 0.1, table=table))
    ours = np.asarray(phy.highest_mcs(sinr, required))
    theirs = np.asarray(phy.select_mcs(sinr, num_re, 0.1, table=table))
    # equal unless a SINR lies within float32 rounding of the one required
    marginal = (np.abs(sinr / required - 1) < 1e-4).any(axis=-1)
    assert marginal.mean() < 0.01
    np.testing.assert_array_equal(ours[~marginal], theirs[~marginal])


def test_highest_true_against_numpy():
    rng = np.random.default_rng(1)
    for count in (1, 15, 16, 29, 30):
        flags = rng.random((200, count)) < 0.1
        expected = np.where(flags, np.arange(count), -1).max(-1)
        np.testing.assert_array_equal(highest_true(flags), expected)
        rank = rng.permutation(count)
        expected = np.where(flags, rank, -1).max(-1)
        np.testing.assert_array_equal(highest_true(flags, rank), expected)
        np.testing.assert_array_equal(unfused(flags), flags)
