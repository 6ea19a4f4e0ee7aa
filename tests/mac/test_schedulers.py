"""Schedulers: feasibility, their argmax rules against NumPy, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g import mac

CELLS, USERS = 1, 4
_, PARAMS = jaxrl5g.make("TinyDownlink-v0")
CONFIG = PARAMS.config
KEY = jax.random.key(0)
EVERY = {
    **{
        name: make(0.5) if name == "alpha_fair" else make() for name, make in mac.SCHEDULERS.items()
    },
    "sequential": mac.proportional_fair(sequential=True),
}
APPLY = {name: jax.jit(scheduler.apply) for name, scheduler in EVERY.items()}


def observe(rng, waiting=True):
    shape = (CELLS, USERS)
    need = rng.integers(0, 8, shape) * (rng.random(shape) < 0.4) * waiting
    return mac.Observation(
        csi_db=jnp.asarray(rng.uniform(-15, 30, (*shape, CONFIG.num_subbands)), jnp.float32),
        olla_offset_db=jnp.asarray(rng.uniform(-5, 5, shape), jnp.float32),
        throughput=jnp.asarray(rng.uniform(0, 1e4, shape), jnp.float32),
        acked_bits=jnp.asarray(rng.uniform(0, 1e4, shape), jnp.float32),
        feedback=jnp.asarray(rng.integers(-1, 2, shape), jnp.int32),
        harq_prbs=jnp.asarray(need, jnp.int32),
        harq_free=jnp.asarray(rng.integers(0, 3, shape), jnp.int32),
        mask=jnp.asarray(rng.random(shape) < 0.8),
        cross_snr=jnp.asarray(
            10 ** rng.uniform(-1.5, 3, (*shape, CELLS, CONFIG.num_prbs)), jnp.float32
        ),
    )


# plan beforehand to leave a part of the band dark, or find that its power is better spent elsewhere
PARTIAL = {"reuse3", "fractional_reuse", "wmmse", "dual"}


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_allocations_are_feasible(name, seed):
    observation = observe(np.random.default_rng(seed))
    carry = EVERY[name].init(PARAMS)
    allocation, after = APPLY[name](KEY, observation, carry, PARAMS)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    owner, power = np.asarray(allocation.owner), np.asarray(allocation.power)
    mask = np.asarray(observation.mask)
    assert owner.shape == (1, CONFIG.num_prbs) and owner.dtype == np.int32
    assert ((owner >= -1) & (owner < USERS)).all()
    assert all(mask[0, user] for user in owner[owner >= 0])
    assert power.sum() <= float(PARAMS.power_budget) * (1 + 1e-6)
    assert (power[owner < 0] == 0).all()
    # a user gets new data only with a free process; its retransmission exactly or not at all
    counts = np.bincount(owner[owner >= 0], minlength=USERS)
    for user in range(USERS):
        need = int(observation.harq_prbs[0, user])
        if counts[user] and not observation.harq_free[0, user]:
            assert counts[user] == need
    eligible = mask[0] & (np.asarray(observation.harq_free[0]) > 0)
    if eligible.any() and not (np.asarray(observation.harq_prbs) > 0).any():
        assert (owner >= 0).all() or name in PARTIAL


def rates(observation):
    return np.asarray(mac.per_prb(mac.predicted_rates(observation, PARAMS), CONFIG))[0]


def clear(rng):
    """An observation in which every user can be served."""
    return observe(rng, waiting=False).replace(
        harq_free=jnp.full((1, USERS), 3), mask=jnp.ones((1, USERS), bool)
    )


@pytest.mark.parametrize("seed", range(5))
def test_metric_rules_match_numpy(seed):
    observation = clear(np.random.default_rng(seed))
    average = float(PARAMS.initial_throughput)
    acked = np.asarray(observation.acked_bits[0], np.float64)
    mean = average + (acked - average) / 100
    rate = rates(observation).astype(np.float64)
    expected = {
        "max_rate": rate,
        "pf": rate / mean[:, None],
        "alpha_fair": rate / np.sqrt(mean)[:, None],
        "bet": np.broadcast_to(1 / mean[:, None], rate.shape),
    }
    for name, metric in expected.items():
        allocation, _ = APPLY[name](KEY, observation, EVERY[name].init(PARAMS), PARAMS)
        chosen = metric[np.asarray(allocation.owner[0]), np.arange(CONFIG.num_prbs)]
        np.testing.assert_allclose(chosen, metric.max(0), rtol=1e-5)


def test_sequential_rule_counts_what_it_hands_out():
    observation = clear(np.random.default_rng(3))
    allocation, _ = APPLY["sequential"](KEY, observation, EVERY["sequential"].init(PARAMS), PARAMS)
    average = float(PARAMS.initial_throughput)
    mean = average + (np.asarray(observation.acked_bits[0], np.float64) - average) / 100
    rate = rates(observation).astype(np.float64)
    for prb, owner in enumerate(np.asarray(allocation.owner[0])):
        metric = rate[:, prb] / mean
        assert metric[owner] >= metric.max() * (1 - 1e-5)
        mean[owner] += rate[owner, prb] / 100


def test_alpha_zero_is_max_rate_and_one_is_proportional_fair():
    for seed in range(5):
        observation = clear(np.random.default_rng(seed))
        for alpha, other in ((0.0, "max_rate"), (1.0, "pf")):
            scheduler = mac.alpha_fair(alpha)
            one, _ = scheduler.apply(KEY, observation, scheduler.init(PARAMS), PARAMS)
            two, _ = APPLY[other](KEY, observation, EVERY[other].init(PARAMS), PARAMS)
            np.testing.assert_array_equal(one.owner, two.owner)


@pytest.mark.parametrize("present", [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]])
def test_round_robin_gives_equal_counts(present):
    observation = clear(np.random.default_rng(0)).replace(mask=jnp.asarray([present], dtype=bool))
    scheduler = EVERY["rr"]
    carry, counts = scheduler.init(PARAMS), np.zeros(USERS, int)
    for slot in range(1, 8):
        allocation, carry = APPLY["rr"](KEY, observation, carry, PARAMS)
        counts += np.bincount(np.asarray(allocation.owner[0]), minlength=USERS)
        served = counts[np.asarray(present, bool)]
        assert served.max() - served.min() <= 1
        assert counts.sum() == slot * CONFIG.num_prbs


def test_nobody_to_serve_mutes_the_cell():
    observation = clear(np.random.default_rng(0)).replace(mask=jnp.zeros((1, USERS), bool))
    for name in EVERY:
        allocation, _ = APPLY[name](KEY, observation, EVERY[name].init(PARAMS), PARAMS)
        assert (np.asarray(allocation.owner) == -1).all()
        assert float(allocation.power.sum()) == 0.0


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: mac.alpha_fair(-1), "alpha must be at least 0"),
        (lambda: mac.alpha_fair(float("nan")), "alpha must be at least 0"),
        (lambda: mac.proportional_fair(window=0), "window must be at least 1"),
        (lambda: mac.blind_equal_throughput(window=0.5), "window must be at least 1"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
