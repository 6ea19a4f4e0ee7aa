"""EESM: bounds, scaling, and agreement of its three forms."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrl5g import phy

# jitted: one compilation per shape instead of one per operation
effective_sinr = jax.jit(phy.effective_sinr, static_argnames="table")
owner_effective_sinr = jax.jit(phy.owner_effective_sinr, static_argnames="table")
candidate_effective_sinr = jax.jit(
    phy.candidate_effective_sinr, static_argnames=("num_users", "table")
)


def reference(sinr, used, beta):
    """Float64 log-sum-exp."""
    sinr = sinr[used].astype(np.float64)
    if not len(sinr):
        return 0.0
    low = sinr.min()
    value = low - beta * np.log(np.mean(np.exp(-(sinr - low) / beta)))
    return float(np.clip(value, 1e-3, 1e3))


sinr_db_arrays = hnp.arrays(np.float32, 24, elements=st.floats(-28, 29, width=32))
masks = hnp.arrays(bool, 24)


@settings(max_examples=200, deadline=None)
@given(sinr_db=sinr_db_arrays, used=masks, table=st.sampled_from((1, 2)), mcs=st.integers(0, 27))
def test_between_worst_and_mean_and_equal_to_float64(sinr_db, used, table, mcs):
    sinr = np.asarray(10.0 ** (sinr_db / 10.0), np.float32)
    value = float(effective_sinr(sinr, used, mcs, table))
    if not used.any():
        assert value == 0.0
        return
    assert sinr[used].min() * (1 - 1e-5) <= value <= sinr[used].mean(dtype=np.float64) * (1 + 1e-5)
    expected = reference(sinr, used, float(phy.eesm_beta(table)[mcs]))
    assert abs(10 * np.log10(value / expected)) < 1e-4


@pytest.mark.parametrize("table", (1, 2))
def test_flat_channel_is_its_own_effective_sinr(table):
    mcs = np.arange(phy.num_mcs(table))
    for sinr_db in (-30, -10, 0, 17, 30):
        sinr = np.full((1, 51), 10 ** (sinr_db / 10), np.float32)
        value = effective_sinr(sinr, True, mcs, table)
        np.testing.assert_allclose(value, sinr[0, 0], rtol=1e-6)


def test_clamp_and_zero():
    assert float(effective_sinr(np.full(4, 1e6, np.float32), True, 5)) == pytest.approx(1e3)
    assert float(effective_sinr(np.full(4, 1e-6, np.float32), True, 5)) == pytest.approx(1e-3)
    assert float(effective_sinr(np.full(4, 1.0, np.float32), False, 5)) == 0.0
    # an allocated resource without signal counts as unused, as in Sionna
    assert float(effective_sinr(np.array([0.0, 2.0]), True, 5)) == pytest.approx(2.0)


def test_many_resources_with_one_dominating():
    sinr = np.full(45_864, 500.0, np.float32)
    sinr[7] = 0.01
    value = float(effective_sinr(sinr, True, 28))
    expected = reference(sinr, np.ones(len(sinr), bool), float(phy.eesm_beta(1)[28]))
    assert abs(10 * np.log10(value / expected)) < 1e-4


def test_a_higher_mcs_averages_more():
    """b grows with the MCS, and with it the effective SINR: candidates differ by many dB."""
    sinr = np.random.default_rng(0).exponential(100.0, 51).astype(np.float32)
    value = np.asarray(effective_sinr(sinr, True, np.arange(29)[:, None][:, 0]))
    assert np.all(np.diff(value) > 0)
    assert 10 * np.log10(value[-1] / value[0]) > 3.0


@settings(max_examples=60, deadline=None)
@given(
    sinr_db=hnp.arrays(np.float32, 51, elements=st.floats(-10, 35, width=32)),
    owner=hnp.arrays(np.int32, 51, elements=st.integers(-1, 5)),
    table=st.sampled_from((1, 2)),
)
def test_grant_forms_agree(sinr_db, owner, table):
    sinr = np.asarray(10.0 ** (sinr_db / 10.0), np.float32)
    mine = owner == np.arange(6)[:, None]
    mcs = np.arange(phy.num_mcs(table))
    every = np.asarray(effective_sinr(sinr, mine[:, None], mcs, table))
    candidates = np.asarray(candidate_effective_sinr(sinr, owner, 6, table))
    np.testing.assert_allclose(candidates, every, rtol=2e-4, atol=0)
    chosen = np.array([0, 5, 9, 14, 20, 27])
    own = np.asarray(owner_effective_sinr(sinr, owner, chosen, table))
    np.testing.assert_allclose(own, every[np.arange(6), chosen], rtol=1e-5)


def test_muted_resources_leave_the_grant():
    sinr = np.array([0.0, 4.0, 4.0, 0.0], np.float32)
    owner = np.array([0, 0, 1, 2], np.int32)
    mcs = np.array([3, 3, 3], np.int32)
    np.testing.assert_allclose(owner_effective_sinr(sinr, owner, mcs), [4.0, 4.0, 0.0])
    candidates = candidate_effective_sinr(sinr, owner, 3)
    np.testing.assert_allclose(np.asarray(candidates)[:, 3], [4.0, 4.0, 0.0], rtol=1e-6)


def test_leading_axes_and_vmap():
    rng = np.random.default_rng(1)
    sinr = rng.exponential(10.0, (3, 2, 20)).astype(np.float32)
    owner = rng.integers(-1, 4, (3, 2, 20)).astype(np.int32)
    mcs = rng.integers(0, 29, (3, 2, 4)).astype(np.int32)
    for function in (
        lambda s, o, m: owner_effective_sinr(s, o, m),
        lambda s, o, m: candidate_effective_sinr(s, o, 4),
        lambda s, o, m: effective_sinr(s[..., None, :], o[..., None, :] == 1, m),
    ):
        mapped = jax.jit(jax.vmap(jax.vmap(function)))(sinr, owner, mcs)
        np.testing.assert_allclose(mapped, function(sinr, owner, mcs), rtol=1e-6)


def test_gradient_is_finite_at_the_edges():
    sinr = np.array([0.0, 1.0, 5.0], np.float32)
    for used in ([True, True, False], [False, False, False]):
        grad = jax.grad(lambda s, u=used: effective_sinr(s, np.array(u), 4))(sinr)
        assert np.all(np.isfinite(grad))
