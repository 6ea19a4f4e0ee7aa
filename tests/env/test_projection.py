"""Projection of actions: feasible whatever comes in, unchanged when nothing is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrl5g.env import project
from jaxrl5g.env.projection import MAX_POWER_WATTS, MIN_POWER_WATTS
from jaxrl5g.mac import Allocation

CELLS, USERS, PRBS = 2, 3, 6
SHAPE = (CELLS, PRBS)
BUDGET = 2.0
MASK = np.array([[True, True, False], [True, True, True]])
PROJECT = jax.jit(lambda owner, power: project(Allocation(owner, power), MASK, BUDGET))


@settings(max_examples=300, deadline=None)
@given(
    owner=hnp.arrays(np.int32, SHAPE, elements=st.integers(-3, 6)),
    # to some processors and threads a subnormal number is 0, so its sign says nothing
    power=hnp.arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_subnormal=False)),
)
def test_any_action_becomes_feasible(owner, power):
    result = PROJECT(owner, power)
    out, kept = np.asarray(result.owner), np.asarray(result.power)
    assert ((kept >= 0) & np.isfinite(kept)).all()
    assert (kept.sum(-1) <= BUDGET * (1 + 1e-5)).all()
    assert ((out == -1) == (kept == 0)).all()
    assert ((out == -1) | (out == owner)).all()
    cells = np.broadcast_to(np.arange(CELLS)[:, None], SHAPE)
    assert MASK[cells[out >= 0], out[out >= 0]].all()
    sound = np.isfinite(power) & (power >= 0)
    np.testing.assert_array_equal(result.bad_power, (~sound).sum(-1))
    with np.errstate(over="ignore"):
        in_range = (owner >= 0) & (owner < USERS)
        valid = in_range & MASK[cells, np.clip(owner, 0, USERS - 1)]
        powered = sound & (power >= MIN_POWER_WATTS)
        np.testing.assert_array_equal(result.bad_owner, (powered & (owner != -1) & ~valid).sum(-1))
        capped = np.minimum(power, MAX_POWER_WATTS)
        total = np.where(powered & valid, capped, 0).astype(np.float64).sum(-1)
    clear = np.abs(total / BUDGET - 1) > 1e-4
    np.testing.assert_array_equal(np.asarray(result.over_budget)[clear], (total > BUDGET)[clear])
    # scaling keeps proportions
    for cell in range(CELLS):
        scale = min(1.0, BUDGET / total[cell]) if total[cell] > 0 else 1.0
        expected = np.where((powered & valid)[cell], capped[cell], 0).astype(np.float64) * scale
        np.testing.assert_allclose(kept[cell], expected, rtol=1e-4, atol=MIN_POWER_WATTS)


def test_a_feasible_action_is_untouched():
    owner = np.array([[0, 1, -1, 0, 1, 0], [2, 2, 2, 1, 0, -1]], np.int32)
    power = np.where(owner >= 0, 0.3, 0.0).astype(np.float32)
    result = PROJECT(owner, power)
    np.testing.assert_array_equal(result.owner, owner)
    np.testing.assert_array_equal(result.power, power)
    for count in (result.bad_power, result.bad_owner, result.over_budget):
        assert not np.asarray(count).any()


def test_zero_power_mutes():
    owner = jnp.zeros(SHAPE, jnp.int32)
    result = PROJECT(owner, jnp.zeros(SHAPE))
    assert (np.asarray(result.owner) == -1).all()
    assert not np.asarray(result.bad_owner).any()
