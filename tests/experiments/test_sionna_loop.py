"""The rival's closed loop does what the benchmark and the parity tests take it to do."""

import numpy as np
import pytest

from experiments.sionna_loop import RE_PER_PRB, run_loop

pytestmark = pytest.mark.sionna


@pytest.fixture(scope="module")
def sinr():
    rng = np.random.default_rng(0)
    mean = 10 ** rng.uniform(-0.2, 2.3, (2, 1, 4))
    return mean * rng.exponential(size=(40, 2, 12, 4))


@pytest.fixture(scope="module")
def record(sinr):
    return run_loop(sinr)


def test_effective_sinr_input_equals_resource_elements(sinr, record):
    slow = run_loop(sinr, form="elements")
    for field in ("owner", "num_prbs", "mcs", "tbs", "feedback", "bits"):
        np.testing.assert_array_equal(getattr(slow, field), getattr(record, field), field)
    np.testing.assert_allclose(slow.sinr_eff, record.sinr_eff, rtol=1e-12)
    np.testing.assert_allclose(slow.tbler, record.tbler, rtol=1e-12)


def test_states_chain_from_slot_to_slot(record):
    for field in ("average", "offset", "sinr_eff_db"):
        after, before = getattr(record, field), getattr(record, f"{field}_before")
        np.testing.assert_array_equal(after[:-1], before[1:], field)
    for field in ("feedback", "sinr_eff", "bits"):
        np.testing.assert_array_equal(
            getattr(record, field)[:-1], getattr(record, f"{field}_before")[1:], field
        )
    assert (record.average_before[0] == 1).all() and (record.offset_before[0] == 0).all()


def test_decisions_follow_from_the_recorded_state(record):
    average = 0.98 * record.average_before + 0.02 * record.bits_before
    np.testing.assert_allclose(record.average, average, rtol=1e-12)
    metric = record.achievable_rate / record.average[:, :, None]
    np.testing.assert_array_equal(record.owner, metric.argmax(axis=-1))
    step = np.select([record.feedback_before == 1, record.feedback_before == 0], [-1 / 9, 1.0])
    offset = np.clip(record.offset_before + step, -20, 20)
    np.testing.assert_allclose(record.offset, offset, atol=1e-12)
    served = record.num_prbs > 0
    assert (record.num_prbs.sum(axis=-1) == 12).all()
    assert (record.tbs[served] > 0).all()
    assert (record.feedback[~served] == -1).all() and (record.bits[~served] == 0).all()
    np.testing.assert_array_equal(record.bits, np.where(record.feedback == 1, record.tbs, 0))


def test_uniforms_decide_the_acks(sinr, record):
    uniforms = np.random.default_rng(0).random((40, 2, 4))
    np.testing.assert_array_equal(run_loop(sinr, uniforms=uniforms).feedback, record.feedback)
    served = record.num_prbs > 0
    np.testing.assert_array_equal(
        record.feedback[served], (uniforms >= record.tbler)[served].astype(int)
    )
    always = run_loop(sinr, uniforms=np.ones((40, 2, 4)))
    assert (always.feedback[always.num_prbs > 0] == 1).all()


def test_sionnas_own_draws_deliver_its_own_block_sizes(sinr):
    import torch

    from experiments.sionna_loop import SionnaLoop

    loop = SionnaLoop(2, 4, 12, precision="double", seed=3)
    for slot in range(5):
        out = loop.step(torch.as_tensor(sinr[slot]))
        tbs = loop.transport_block_size(out["mcs"], out["num_prbs"] * RE_PER_PRB)
        acked = out["feedback"] == 1
        assert (out["bits"][acked] == tbs[acked]).all() and (out["bits"][~acked] == 0).all()


def test_wrong_shapes_are_named(sinr):
    with pytest.raises(ValueError, match=r"sinr must be \[slots, batch, PRBs, users\]"):
        run_loop(sinr[0])
    with pytest.raises(ValueError, match="uniforms must be"):
        run_loop(sinr, uniforms=np.zeros((40, 2, 5)))
