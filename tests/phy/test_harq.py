"""HARQ: the life of a process, soft combining against theory, and the shared uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammainc

from jaxrl5g import phy
from jaxrl5g.phy import harq

TABLE = 1


def send(state, slot, prbs, failed, uniform=0.5, mcs=10, delay=2):
    """One user, one slot: send on `prbs`, store the outcome, take the feedback of slot + 1."""
    sent = harq.start(state, jnp.int32(slot), jnp.asarray([prbs]), jnp.asarray([uniform]))
    sent = sent.replace(mcs=jnp.where(sent.attempt == 1, mcs, sent.mcs))
    evidence = sent.evidence + 1.0
    state = harq.store(state, sent, evidence, jnp.asarray([failed]), jnp.int32(slot + delay))
    state, feedback = harq.receive_feedback(state, jnp.int32(slot + 1), max_transmissions=3)
    return state, sent, feedback


def test_a_block_is_sent_again_until_given_up():
    state = harq.init_harq((1,), 2)
    log = []
    for slot in range(10):
        need = int(harq.waiting_prbs(state, jnp.int32(slot))[0])
        prbs = need if need else (5 if slot == 0 else 0)
        state, sent, feedback = send(state, slot, prbs, failed=True)
        log.append((int(sent.attempt[0]), int(feedback.outcome[0]), bool(feedback.dropped[0])))
        if sent.attempt[0] > 1:
            assert int(sent.mcs[0]) == 10 and float(sent.uniform[0]) == 0.5
            assert float(sent.evidence[0]) == sent.attempt[0] - 1
    # K1 = 2: feedback two slots after each transmission, three transmissions in all
    assert [entry[0] for entry in log] == [1, 0, 2, 0, 3, 0, 0, 0, 0, 0]
    assert [entry[1] for entry in log] == [-1, 0, -1, 0, -1, 0, -1, -1, -1, -1]
    assert [entry[2] for entry in log].index(True) == 5
    assert int(harq.free_processes(state)[0]) == 2


def test_a_grant_of_another_size_carries_new_data_while_the_block_waits():
    state = harq.init_harq((1,), 2)
    state, *_ = send(state, 0, 5, failed=True)
    state, *_ = send(state, 1, 0, failed=False)
    assert int(harq.waiting_prbs(state, jnp.int32(2))[0]) == 5
    state, sent, _ = send(state, 2, 6, failed=True, uniform=0.25)
    assert int(sent.attempt[0]) == 1 and float(sent.uniform[0]) == 0.25
    assert int(harq.waiting_prbs(state, jnp.int32(3))[0]) == 5
    # both processes are busy: a grant that fits no waiting block sends nothing
    state, sent, _ = send(state, 3, 4, failed=False)
    assert int(sent.attempt[0]) == 0 and int(sent.num_prbs[0]) == 0
    # the oldest waits first
    state, sent, _ = send(state, 4, 5, failed=False)
    assert int(sent.attempt[0]) == 2


def test_acknowledged_blocks_free_their_process_and_report_their_size():
    state = harq.init_harq((1,), 1)
    state, _, feedback = send(state, 0, 7, failed=False, mcs=12)
    assert int(feedback.outcome[0]) == -1 and int(harq.free_processes(state)[0]) == 0
    state, _, feedback = send(state, 1, 0, failed=False)
    assert int(feedback.outcome[0]) == 1
    assert (int(feedback.num_prbs[0]), int(feedback.mcs[0])) == (7, 12)
    assert int(harq.free_processes(state)[0]) == 1


def combined_sinrs(samples, combining, mcs):
    """SINRs at which the curve is read after 1..m transmissions, [m, blocks]."""
    evidence, read = jnp.zeros(samples.shape[1]), []
    for attempt, sinr in enumerate(samples, start=1):
        evidence, total = harq.combine(
            evidence, jnp.int32(attempt), sinr, jnp.int32(mcs), TABLE, combining
        )
        read.append(total)
    return np.stack(read)


@pytest.mark.parametrize("threshold_over_mean", [0.3, 1.0, 2.5])
def test_chase_combining_fails_like_the_incomplete_gamma_function(threshold_over_mean):
    # flat i.i.d. Rayleigh and a threshold receiver: P(fail after m) = gammainc(m, s / mean)
    mean, count = 4.0, 40_000
    samples = jax.random.exponential(jax.random.key(1), (4, count)) * mean
    total = combined_sinrs(samples, "chase", mcs=12)
    for m in range(1, 5):
        expected = gammainc(m, threshold_over_mean)
        measured = np.mean(total[m - 1] < threshold_over_mean * mean)
        assert abs(measured - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_decoding_averages_the_curve_over_the_gamma_distribution():
    # E[P_m] over Rayleigh fading is the integral of the BLER curve against a gamma density
    mcs, mean, count, num_re = 12, 6.0, 40_000, 8 * 132
    samples = jax.random.exponential(jax.random.key(2), (3, count)) * mean
    uniform = jax.random.uniform(jax.random.key(3), (count,))
    total = combined_sinrs(samples, "chase", mcs)
    grid = np.linspace(1e-3, 120.0, 40_001)
    curve = np.asarray(phy.transport_block_error_rate(mcs, num_re, grid, table=TABLE))
    for m in range(1, 4):
        expected = np.trapezoid(curve * stats.gamma.pdf(grid, a=m, scale=mean), grid)
        rate = phy.transport_block_error_rate(mcs, num_re, total[m - 1], table=TABLE)
        measured = np.mean(np.asarray(uniform) < np.asarray(rate))
        assert abs(measured - expected) < 5 * np.sqrt(expected * (1 - expected) / count) + 1e-3


def test_incremental_redundancy_beats_chase_and_is_exact_on_flat_channels():
    mcs, sinr = 15, np.float32(5.0)
    flat = np.full((4, 1), sinr)
    chase = 10 * np.log10(combined_sinrs(flat, "chase", mcs))[:, 0]
    incremental = 10 * np.log10(combined_sinrs(flat, "incremental", mcs))[:, 0]
    shift = [float(phy.incremental_redundancy_shift_db(mcs, m, table=TABLE)) for m in range(1, 5)]
    np.testing.assert_allclose(incremental, 10 * np.log10(sinr) + np.asarray(shift), atol=1e-3)
    # coding gain comes on top of the energy gain, 10 log10(m)
    assert (incremental[1:] > chase[1:]).all()


@pytest.mark.parametrize("combining", harq.COMBINING)
def test_more_transmissions_never_hurt(combining):
    rng = np.random.default_rng(0)
    samples = rng.exponential(5.0, (4, 500)).astype(np.float32)
    for mcs in (0, 9, 16, 28):
        read = combined_sinrs(samples, "chase", mcs)
        assert (np.diff(read, axis=0) >= 0).all()
        rate = np.asarray(
            phy.transport_block_error_rate(
                mcs, 6 * 132, combined_sinrs(np.full((4, 1), 3.0), combining, mcs), table=TABLE
            )
        )
        assert (np.diff(rate[:, 0]) <= 1e-6).all()
