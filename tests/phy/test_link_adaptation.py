"""MCS selection by exhaustive comparison, and the outer loop's fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g import phy

# jitted: one compilation per shape instead of one per operation
select_mcs = jax.jit(phy.select_mcs, static_argnames=("table", "fidelity"))
transport_block_error_rate = jax.jit(
    phy.transport_block_error_rate, static_argnames=("table", "fidelity")
)

TABLES = (1, 2)
NUM_RE = np.unique(np.r_[1, 12, 132 * np.arange(1, 52, 5), 156 * 273]).astype(np.int32)
SINR = np.asarray(10.0 ** (np.arange(-12, 32, 0.11) / 10.0), np.float32)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fidelity", ("nr", "sionna"))
@pytest.mark.parametrize("target", (1e-3, 0.1, 0.5))
def test_highest_scheme_that_meets_the_target(table, fidelity, target):
    mcs = np.arange(phy.num_mcs(table))
    tbler = np.asarray(
        transport_block_error_rate(mcs, NUM_RE[:, None, None], SINR[:, None], table, fidelity)
    )
    lowest = 0 if fidelity == "nr" else 4 - table
    expected = np.max(np.where(tbler <= target, mcs, -1), axis=-1)
    expected = np.where(expected < 0, lowest, expected)
    chosen = np.asarray(select_mcs(SINR, NUM_RE[:, None], target, table, fidelity))
    assert chosen.dtype == np.int32
    tie = np.any(np.abs(tbler - target) < 1e-5 * target, axis=-1)
    np.testing.assert_array_equal(chosen[~tie], expected[~tie])
    assert tie.mean() < 0.01


@pytest.mark.parametrize("table", TABLES)
def test_shannon_takes_the_best_rate_below_capacity(table):
    efficiency = np.asarray(phy.spectral_efficiency(np.arange(phy.num_mcs(table)), table))
    chosen = np.asarray(select_mcs(SINR, np.full(SINR.shape, 500), table=table, fidelity="shannon"))
    capacity = np.log2(1 + SINR.astype(np.float64))
    for index, bits in zip(chosen, capacity, strict=True):
        possible = efficiency[efficiency <= bits]
        assert efficiency[index] == (possible.max() if len(possible) else efficiency.min())


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("table", TABLES)
def test_one_sinr_per_candidate(table, fidelity):
    num_mcs = phy.num_mcs(table)
    num_re = np.full(len(SINR), 1320)
    same = np.repeat(SINR[:, None], num_mcs, axis=1)
    np.testing.assert_array_equal(
        select_mcs(same, num_re, table=table, fidelity=fidelity),
        select_mcs(SINR, num_re, table=table, fidelity=fidelity),
    )
    # only candidate 7 is usable at all
    only = np.full((1, num_mcs), 1e-3, np.float32)
    only[0, 7] = 1e3
    assert int(select_mcs(only, np.array([1320]), table=table, fidelity=fidelity)[0]) == 7


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
def test_no_resources_reads_zero(fidelity):
    assert int(select_mcs(1e3, 0, fidelity=fidelity)) == 0


@settings(max_examples=100, deadline=None)
@given(
    table=st.sampled_from(TABLES),
    num_re=st.integers(1, 42_900),
    low=st.floats(-20, 30),
    step=st.floats(0, 20),
)
def test_better_channel_never_lowers_the_scheme(table, num_re, low, step):
    sinr = 10.0 ** (np.array([low, low + step]) / 10.0)
    chosen = np.asarray(select_mcs(sinr, np.full(2, num_re), table=table))
    assert chosen[1] >= chosen[0]


@pytest.mark.parametrize("fidelity", phy.FIDELITIES)
@pytest.mark.parametrize("per_candidate", (False, True))
def test_jit_and_vmap_and_targets(fidelity, per_candidate):
    rng = np.random.default_rng(3)
    shape = (4, 6, 29) if per_candidate else (4, 6)
    sinr = (10 ** rng.uniform(-2, 3, shape)).astype(np.float32)
    num_re = rng.integers(0, 6000, (4, 6))
    targets = np.array([0.01, 0.1, 0.2, 0.4], np.float32)

    def choose(s, n, t):
        return select_mcs(s, n, t, 1, fidelity)

    mapped = jax.jit(jax.vmap(choose))(sinr, num_re, targets)
    one_by_one = [choose(s, n, float(t)) for s, n, t in zip(sinr, num_re, targets, strict=True)]
    np.testing.assert_array_equal(mapped, one_by_one)
    # one target per user takes the other branch
    per_user = choose(sinr, num_re, np.broadcast_to(targets[:, None], (4, 6)))
    np.testing.assert_array_equal(per_user, mapped)


def test_a_new_target_does_not_retrace():
    traces = []

    @jax.jit
    def choose(target):
        traces.append(1)
        return select_mcs(jnp.ones(3), jnp.full(3, 500), target)

    choose(0.1)
    choose(0.3)
    assert len(traces) == 1


def test_outer_loop_steps():
    update = phy.outer_loop_update
    assert float(update(1.0, 0)) == pytest.approx(2.0)
    assert float(update(1.0, 1)) == pytest.approx(1.0 - 1.0 / 9.0)
    assert float(update(1.0, -1)) == 1.0
    assert float(update(19.5, 0)) == 20.0
    assert float(update(-19.99, 1, 2.0, 0.5)) == -20.0
    np.testing.assert_allclose(
        update(np.zeros(3), np.array([0, 1, -1]), 0.5, 0.2), [0.5, -0.125, 0]
    )


@pytest.mark.parametrize("step_up_db", (0.1, 1.0))
@pytest.mark.parametrize("target", (0.05, 0.1, 0.3))
def test_outer_loop_holds_the_target_in_the_long_run(step_up_db, target):
    """A biased channel report: the loop finds the offset at which blocks fail at the target."""
    num_users, num_slots, bias_db = 64, 4000, 3.0

    def slot(offset_db, key):
        true_key, draw_key = jax.random.split(key)
        true_db = 12.0 + 2.0 * jax.random.normal(true_key, (num_users,))
        believed = 10 ** ((true_db + bias_db - offset_db) / 10)
        num_re = jnp.full(num_users, 1320)
        mcs = select_mcs(believed, num_re, 0.1)
        failure = transport_block_error_rate(mcs, num_re, 10 ** (true_db / 10))
        ack = (jax.random.uniform(draw_key, (num_users,)) >= failure).astype(jnp.int32)
        return phy.outer_loop_update(offset_db, ack, step_up_db, target), ack

    keys = jax.random.split(jax.random.key(0), num_slots)
    final, acks = jax.jit(lambda k: jax.lax.scan(slot, jnp.zeros(num_users), k))(keys)
    assert np.abs(np.asarray(final)).max() < 19.0
    measured = 1.0 - np.asarray(acks)[num_slots // 4 :].mean()
    assert measured == pytest.approx(target, rel=0.02)
