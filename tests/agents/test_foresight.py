"""What the PRB agent of `residual` is told of the joint optimum."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.agents.controller import ControllerConfig, see
from jaxrl5g.agents.decisions import assign, find, residual_latents, residual_shares, tilt
from jaxrl5g.agents.features import JOINT_FEATURES, joint_features
from jaxrl5g.agents.foresight import foresee
from jaxrl5g.mac.power_rules import Assignment, knapsack_power

CELLS, USERS, PRBS, DROPS = 2, 5, 12, 4
ENV, PARAMS = jaxrl5g.make(
    "TinyDownlink-v0", num_cells=CELLS, num_users=USERS, num_prbs=PRBS, min_users=2
)
COUNTS = hnp.arrays(np.int32, USERS, elements=st.integers(0, 12))


@settings(max_examples=200, deadline=None)
@given(counts=COUNTS, wanted=COUNTS)
def test_latents_ask_for_the_prbs_that_are_wanted(counts, wanted):
    latents = residual_latents(jnp.asarray(counts), jnp.asarray(wanted))
    shares = np.asarray(residual_shares(jnp.asarray(counts), tilt(latents)))
    least, most = (
        np.asarray(residual_shares(jnp.asarray(counts), jnp.float32(z))) for z in (-2.9, 2.9)
    )
    target = np.clip(wanted + 0.25 / USERS, least, most)
    np.testing.assert_allclose(shares, target, rtol=1e-4)
    assert not np.asarray(latents)[wanted == counts].any()
    assert (np.sign(latents) == np.sign(wanted - counts)).all()
    # within reach: three PRBs more than any user has are asked for, and none at all is nearly told
    assert (most >= counts + 3).all() and (least <= 0.06 * counts + 0.01).all()


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS, tilts=hnp.arrays(np.float32, 2, elements=st.floats(-3, 3, width=32)))
def test_shares_rise_with_the_tilt_and_are_the_counts_at_rest(counts, tilts):
    rest = residual_shares(jnp.asarray(counts), jnp.zeros(USERS))
    np.testing.assert_allclose(rest, counts + 0.25 / USERS, rtol=1e-6)
    low, high = (np.asarray(residual_shares(jnp.asarray(counts), z)) for z in np.sort(tilts))
    assert (low <= high).all()


@jax.jit
@jax.vmap
def told(key):
    """Of every slot under PF + knapsack: what is foreseen, and worths without it and with it."""
    scheduler = mac.proportional_fair(100.0, power="knapsack")
    observation, state = ENV.reset_env(key, PARAMS)

    def slot(carry, _):
        observation, state, memory = carry
        allocation, memory = scheduler.apply(key, observation, memory, PARAMS)
        slot = find(observation, memory, PARAMS, "residual")
        latents, gain = foresee(slot, observation, PARAMS)

        def worth(latent):
            owner = assign(slot, latent, PARAMS, "residual")
            new = (slot.reservation.owner < 0) & (owner >= 0)
            return knapsack_power(Assignment(owner, new, slot.prices), observation, PARAMS)[1]

        worths = jnp.stack([worth(jnp.zeros_like(latents)), worth(latents)])
        features = joint_features(slot, observation, PARAMS)
        along = see(slot, observation, PARAMS, ControllerConfig("residual", 1)).along
        assert see(slot, observation, PARAMS, ControllerConfig("residual", 2)).along is None
        after, state, *_ = ENV.step_env(key, state, allocation, PARAMS)
        seen = (latents, gain, worths, features, along, observation.mask, slot.counts)
        return (after, state, memory), seen

    start = (observation, state, scheduler.init(PARAMS))
    return jax.lax.scan(slot, start, None, length=40)[1]


def test_what_is_foreseen_comes_true():
    keys = jax.random.split(jax.random.key(3), DROPS)
    latents, gain, worths, features, along, mask, counts = map(np.asarray, told(keys))
    rest, tilted = np.moveaxis(worths, -2, 0)
    busy = rest > 0
    np.testing.assert_allclose(gain[busy], np.log(tilted[busy] / rest[busy]), atol=2e-5)
    assert (gain >= 0).all()
    # told only where it is worth something, now and then for a user that was left out
    assert not latents[gain == 0].any()
    assert 0.03 < (gain > 1e-3).mean() < 0.95 and gain.max() > 0.03
    assert (latents[counts == 0] > 0).any() and (latents[counts > 0] < 0).any()
    assert not latents[~mask].any()
    columns = dict(zip(JOINT_FEATURES, np.moveaxis(features, -1, 0), strict=True))
    np.testing.assert_allclose(columns["joint_latent"], latents / 2)
    np.testing.assert_allclose(along, latents / 2)  # the direction to explore
    expected = np.minimum(10 * gain, 3)[..., None] * mask
    np.testing.assert_allclose(columns["joint_gain"], expected, rtol=1e-5)
