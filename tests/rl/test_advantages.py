"""GAE against float64 sums over each episode, its limits, and its form for two turns a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import gae, two_stage_gae

STEPS, BATCH = 12, 3
GAE = jax.jit(gae)
TWO_STAGE = jax.jit(two_stage_gae)
seeds = st.integers(0, 2**32 - 1)
units = st.floats(0, 1)


def rollout(seed):
    """Random values, and episodes that end in every way, several within the recording."""
    rng = np.random.default_rng(seed)
    rewards, first, second, following = rng.normal(size=(4, STEPS, BATCH)).astype(np.float32)
    terminated, truncated = rng.random((2, STEPS, BATCH)) < 0.15
    return rewards, first, second, following, terminated, truncated


def episode_sum(errors, ended, factor, start, lane):
    """Sum over the rest of the episode of factor^k errors[start + k], in float64."""
    total, weight = 0.0, 1.0
    for step in range(start, STEPS):
        total += weight * errors[step, lane]
        if ended[step, lane]:
            break
        weight *= factor
    return total


@settings(max_examples=40, deadline=None)
@given(seed=seeds, discount=units, trace=units)
def test_gae_is_the_sum_of_errors_of_its_own_episode(seed, discount, trace):
    rewards, values, _, following, terminated, truncated = rollout(seed)
    advantages, targets = GAE(rewards, values, following, terminated, truncated, discount, trace)
    errors = rewards.astype(float) + discount * np.where(terminated, 0, following) - values
    expected = [
        [
            episode_sum(errors, terminated | truncated, discount * trace, step, lane)
            for lane in range(BATCH)
        ]
        for step in range(STEPS)
    ]
    np.testing.assert_allclose(advantages, expected, atol=2e-5)
    np.testing.assert_allclose(targets, values + np.asarray(expected), atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, discount=units)
def test_whole_trace_gives_discounted_returns_less_values(seed, discount):
    """Within an episode V' is the next step's value; beyond its recorded end, V' stands for all."""
    rewards, values, _, following, terminated, truncated = rollout(seed)
    ended = terminated | truncated
    following[:-1] = np.where(ended[:-1], following[:-1], values[1:])
    _, targets = GAE(rewards, values, following, terminated, truncated, discount, 1.0)
    later = np.zeros(BATCH)
    for step in reversed(range(STEPS)):
        cut = np.full(BATCH, step == STEPS - 1) | ended[step]
        tail = np.where(terminated[step], 0, np.where(cut, following[step], later))
        later = rewards[step] + discount * tail
        np.testing.assert_allclose(targets[step], later, atol=2e-5)


def test_no_trace_gives_one_step_errors():
    rewards, values, _, following, terminated, truncated = rollout(1)
    advantages, _ = GAE(rewards, values, following, terminated, truncated, 0.9, 0.0)
    expected = rewards + 0.9 * np.where(terminated, 0, following) - values
    np.testing.assert_allclose(advantages, expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, cut=st.integers(0, STEPS - 2), terminates=st.booleans())
def test_nothing_after_the_end_of_an_episode_changes_it(seed, cut, terminates):
    *values, terminated, truncated = rollout(seed)
    (terminated if terminates else truncated)[cut] = True
    before = TWO_STAGE(*values, terminated, truncated, 0.99, 0.95, 1.0)
    others = [np.where(np.arange(STEPS)[:, None] > cut, np.nan, x) for x in values]
    if terminates:
        others[-1][cut] = np.nan  # the value of a state that nobody can be in
    after = TWO_STAGE(*others, terminated, truncated, 0.99, 0.95, 1.0)
    for was, now in zip(before, after, strict=True):
        assert np.array_equal(was[: cut + 1], now[: cut + 1])


def test_truncation_bootstraps_and_termination_does_not():
    one = np.ones((1, 1), np.float32)
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    for terminated, truncated, expected in [
        (no, no, 1 + 0.5 * 4 - 2),
        (no, yes, 1 + 0.5 * 4 - 2),
        (yes, no, 1 - 2),
        (yes, yes, 1 - 2),
    ]:
        advantages, _ = gae(one, 2 * one, 4 * one, terminated, truncated, 0.5, 0.9)
        assert advantages.item() == expected


def half_step_sum(errors, factors, start):
    """Sum over k of (the product of factors[start..k-1]) errors[k], in float64."""
    reach = np.cumprod(np.concatenate([np.ones_like(factors[:1]), factors[start:-1]]), axis=0)
    return np.sum(reach * errors[start:], axis=0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, discount=units, trace=units, inner=units)
def test_two_stage_is_gae_over_half_steps(seed, discount, trace, inner):
    rewards, first, second, following, terminated, truncated = rollout(seed)
    got = TWO_STAGE(
        rewards, first, second, following, terminated, truncated, discount, trace, inner
    )
    errors, factors = np.zeros((2, 2 * STEPS, BATCH))
    errors[::2] = second.astype(float) - first
    errors[1::2] = rewards + discount * np.where(terminated, 0.0, following) - second
    factors[::2] = inner
    factors[1::2] = np.where(terminated | truncated, 0, discount * trace)
    sums = np.stack([half_step_sum(errors, factors, start) for start in range(2 * STEPS)])
    np.testing.assert_allclose(got.first_advantages, sums[::2], atol=5e-5)
    np.testing.assert_allclose(got.second_advantages, sums[1::2], atol=5e-5)
    np.testing.assert_allclose(got.first_targets, first + sums[::2], atol=5e-5)
    np.testing.assert_allclose(got.second_targets, second + sums[1::2], atol=5e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, discount=units, trace=units)
def test_two_stage_of_equal_values_is_gae(seed, discount, trace):
    rewards, values, _, following, terminated, truncated = rollout(seed)
    rest = (following, terminated, truncated, discount, trace)
    advantages, targets = GAE(rewards, values, *rest)
    stages = TWO_STAGE(rewards, values, values, *rest, 1.0)
    for got in (stages.first_advantages, stages.second_advantages):
        np.testing.assert_allclose(got, advantages, atol=1e-5)
    for got in (stages.first_targets, stages.second_targets):
        np.testing.assert_allclose(got, targets, atol=1e-5)


def test_no_inner_trace_credits_the_first_agent_with_what_the_critics_say():
    rewards, first, second, following, terminated, truncated = rollout(2)
    stages = TWO_STAGE(rewards, first, second, following, terminated, truncated, 0.99, 0.95, 0.0)
    np.testing.assert_allclose(stages.first_advantages, second - first, atol=1e-6)
    np.testing.assert_allclose(stages.first_targets, second, atol=1e-6)


def test_numbers_may_be_traced_and_vmapped():
    data = rollout(3)
    rest = (data[0], data[1], *data[3:])
    discounts, traces = jnp.array([0.0, 0.9, 1.0]), jnp.array([0.3, 0.95, 1.0])
    many, _ = jax.jit(jax.vmap(lambda d, t: gae(*rest, d, t)))(discounts, traces)
    for index in range(3):
        one, _ = GAE(*rest, discounts[index], traces[index])
        np.testing.assert_allclose(many[index], one, atol=1e-6)


def test_shapes_that_differ_are_refused():
    rewards, values, second, following, terminated, truncated = rollout(4)
    with pytest.raises(
        ValueError, match=r"values of shape \(11, 3\) .* rewards of shape \(12, 3\)"
    ):
        gae(rewards, values[:-1], following, terminated, truncated, 0.9, 0.9)
    with pytest.raises(ValueError, match="truncated of shape"):
        two_stage_gae(rewards, values, second, following, terminated, truncated[0], 0.9, 0.9, 1.0)
    with pytest.raises(ValueError, match="time axis"):
        gae(1.0, 1.0, 1.0, False, False, 0.9, 0.9)
