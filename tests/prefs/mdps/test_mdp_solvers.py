"""Discounted solvers against linear programming, linear algebra, enumeration and each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.mdps import (
    TabularMDP,
    evaluate,
    evaluate_soft,
    hard_optimal,
    normalised_return,
    occupancy,
    soft_optimal,
    tabular_mdp,
    value,
)

S, A = 4, 3


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def problem(seed: int, discount: float = 0.9, shift: float = 0.0) -> TabularMDP:
    rng = np.random.default_rng(seed)
    return tabular_mdp(
        rng.dirichlet(np.full(S, 0.5), (S, A)),
        rng.normal(size=(S, A)) + shift,
        rng.dirichlet(np.ones(S)),
        discount,
    )


def some_policy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 10_000).dirichlet(np.ones(A), S)


def by_linear_algebra(mdp, policy, bonus=0.0):
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    chain = np.einsum("sa,sat->st", policy, p)
    gained = (policy * r).sum(-1) + bonus
    return np.linalg.solve(np.eye(S) - float(mdp.discount) * chain, gained)


problems = st.builds(
    problem,
    st.integers(0, 2**20),
    st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.9999]),
    st.sampled_from([-5.0, 0.0, 5.0]),
)


@given(problems)
@settings(max_examples=25, deadline=None)
def test_optimum_is_that_of_the_linear_programme(mdp):
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    discount = float(mdp.discount)
    rows = (np.eye(S)[:, None] - discount * p).reshape(-1, S)
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = scipy.optimize.linprog(
        np.ones(S), -rows, -r.ravel(), bounds=(None, None), method="highs", options=tight
    )
    assert found.success
    optimum = hard_optimal(mdp)
    unit = 1e-8 / (1 - discount)
    np.testing.assert_allclose(optimum.v, found.x, rtol=1e-9, atol=unit)
    np.testing.assert_allclose(optimum.q, r + discount * p @ found.x, rtol=1e-9, atol=unit)
    assert (np.asarray(optimum.policy).sum(-1) == 1).all()
    np.testing.assert_allclose(evaluate(mdp, optimum.policy)[1], optimum.v, rtol=1e-10, atol=unit)


@given(problems)
@settings(max_examples=10, deadline=None)
def test_no_deterministic_policy_is_better(mdp):
    every = np.eye(A)[np.array(list(itertools.product(range(A), repeat=S)))]
    values = np.asarray(_values(mdp, every))
    v = np.asarray(hard_optimal(mdp).v)
    scale = 1e-11 * (1 + np.abs(values).max()) / (1 - float(mdp.discount))
    assert (values <= v + scale).all()
    np.testing.assert_allclose(values.max(0), v, atol=scale)


_values = jax.jit(jax.vmap(lambda mdp, policy: evaluate(mdp, policy)[1], (None, 0)))


@given(problems, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_policys_value_is_that_of_linear_algebra(mdp, seed):
    policy = some_policy(seed)
    scale = 1e-11 / (1 - float(mdp.discount))
    q, v = evaluate(mdp, policy)
    expected = by_linear_algebra(mdp, policy)
    np.testing.assert_allclose(v, expected, rtol=1e-10, atol=scale)
    np.testing.assert_allclose((policy * np.asarray(q)).sum(-1), v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(value(mdp, policy), mdp.initial @ expected, rtol=1e-10, atol=scale)
    bonus = 0.3 * scipy.special.entr(policy).sum(-1)
    soft = by_linear_algebra(mdp, policy, bonus)
    np.testing.assert_allclose(evaluate_soft(mdp, policy, 0.3), soft, rtol=1e-10, atol=scale)


@given(problems, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_occupancy_is_a_flow_that_earns_the_value(mdp, seed):
    policy = some_policy(seed)
    visits = np.asarray(occupancy(mdp, policy))
    discount = float(mdp.discount)
    np.testing.assert_allclose(visits.sum(), 1, rtol=1e-13)
    assert (visits >= 0).all()
    np.testing.assert_allclose(visits, visits.sum(-1, keepdims=True) * policy, atol=1e-14)
    into = (1 - discount) * np.asarray(mdp.initial) + discount * np.einsum(
        "sa,sat->t", visits, mdp.transition
    )
    np.testing.assert_allclose(visits.sum(-1), into, atol=1e-11)
    earned = (visits * np.asarray(mdp.reward)).sum()
    np.testing.assert_allclose(earned, (1 - discount) * value(mdp, policy), rtol=1e-9, atol=1e-11)


@given(problems, st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
@settings(max_examples=25, deadline=None)
def test_soft_optimum_solves_the_soft_equations(mdp, temperature):
    q, v, advantage, policy = map(np.asarray, soft_optimal(mdp, temperature))
    scale = 1e-11 * (1 + np.abs(v).max()) / (1 - float(mdp.discount))
    backed = np.asarray(mdp.reward) + float(mdp.discount) * np.asarray(mdp.transition) @ v
    np.testing.assert_allclose(q, backed, atol=scale)
    soft_maximum = temperature * scipy.special.logsumexp(q / temperature, axis=-1)
    np.testing.assert_allclose(v, soft_maximum, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(advantage, q - v[:, None], atol=1e-15 * (1 + np.abs(v).max()))
    np.testing.assert_allclose(policy.sum(-1), 1, rtol=1e-13)
    np.testing.assert_allclose(policy, np.exp(advantage / temperature), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(evaluate_soft(mdp, policy, temperature), v, atol=scale)


@given(problems, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_no_policy_is_softly_better(mdp, seed):
    v = soft_optimal(mdp, 0.5).v
    other = evaluate_soft(mdp, some_policy(seed), 0.5)
    assert (np.asarray(other) <= np.asarray(v) + 1e-9).all()


@given(problems)
@settings(max_examples=15, deadline=None)
def test_soft_becomes_hard_as_the_temperature_falls(mdp):
    """V* <= V_soft <= V* + alpha log A / (1 - discount), since entropy is in [0, log A]."""
    hard = np.asarray(hard_optimal(mdp).v)
    rounding = 1e-11 * (1 + np.abs(hard).max()) / (1 - float(mdp.discount))
    for temperature in (1.0, 1e-2, 1e-5):
        above = np.asarray(soft_optimal(mdp, temperature).v) - hard
        assert (above >= -rounding).all()
        assert (above <= temperature * np.log(A) / (1 - float(mdp.discount)) + rounding).all()


def test_negative_values_and_no_reward_at_all():
    mdp = problem(0, 0.9)
    shifted = mdp.replace(reward=mdp.reward - 100.0)
    np.testing.assert_allclose(hard_optimal(shifted).v, hard_optimal(mdp).v - 1000, rtol=1e-10)
    np.testing.assert_allclose(
        soft_optimal(shifted, 0.1).v, soft_optimal(mdp, 0.1).v - 1000, rtol=1e-10
    )
    nothing = mdp.replace(reward=jnp.zeros((S, A)))
    assert (hard_optimal(nothing).v == 0).all()
    uniform = 0.1 * np.log(A) / (1 - 0.9)
    np.testing.assert_allclose(soft_optimal(nothing, 0.1).v, uniform, rtol=1e-12)


def test_ties_go_to_the_lowest_action():
    mdp = problem(3)
    twins = mdp.replace(
        transition=mdp.transition.at[:, 2].set(mdp.transition[:, 1]),
        reward=mdp.reward.at[:, 2].set(mdp.reward[:, 1]).at[:, 0].add(-100.0),
    )
    assert (jnp.argmax(hard_optimal(twins).policy, -1) == 1).all()
    indifferent = mdp.replace(reward=jnp.zeros((S, A)))
    assert (jnp.argmax(hard_optimal(indifferent).policy, -1) == 0).all()


def test_return_is_0_for_the_uniform_and_1_for_the_optimal_policy():
    mdp = problem(1)
    uniform, best = np.full((S, A), 1 / A), hard_optimal(mdp).policy
    assert abs(float(normalised_return(mdp, uniform))) < 1e-12
    np.testing.assert_allclose(normalised_return(mdp, best), 1, rtol=1e-12)
    between = normalised_return(mdp, some_policy(1))
    expected = (value(mdp, some_policy(1)) - value(mdp, uniform)) / (
        value(mdp, best) - value(mdp, uniform)
    )
    np.testing.assert_allclose(between, expected, rtol=1e-12)
    constant = mdp.replace(reward=jnp.full((S, A), 3.0))
    assert float(normalised_return(constant, some_policy(1))) == 1


def test_stacked_problems_give_what_each_gives_alone():
    discounts, temperatures = (0.5, 0.9, 0.999), jnp.array([0.01, 0.1, 1.0])
    alone = [problem(i, discount) for i, discount in enumerate(discounts)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    policies = jnp.stack([jnp.asarray(some_policy(i)) for i in range(3)])
    together = jax.jit(jax.vmap(_everything))(stack, policies, temperatures)
    for i, mdp in enumerate(alone):
        single = _everything(mdp, policies[i], temperatures[i])
        for one, many in zip(jax.tree.leaves(single), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-11, atol=1e-12)


@jax.jit
def _everything(mdp, policy, temperature):
    return (
        soft_optimal(mdp, temperature),
        hard_optimal(mdp),
        evaluate(mdp, policy),
        evaluate_soft(mdp, policy, temperature),
        occupancy(mdp, policy),
        normalised_return(mdp, policy),
    )


def test_single_precision_is_as_exact_as_it_can_be():
    def answers():
        mdp = jax.tree.map(jnp.float32, tables)
        policy = jnp.asarray(some_policy(0), jnp.float32)
        return [np.asarray(x) for x in jax.tree.leaves(_everything(mdp, policy, jnp.float32(0.1)))]

    tables = jax.tree.map(np.asarray, problem(0, 0.95))
    with jax.enable_x64(False):
        single = answers()
    exact = _everything(problem(0, 0.95), some_policy(0), jnp.asarray(0.1))
    for approximate, truth in zip(single, jax.tree.leaves(exact), strict=True):
        assert approximate.dtype == np.float32
        np.testing.assert_allclose(approximate, truth, rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize("discount", [1.0, -0.1, np.nan])
def test_a_traced_discount_out_of_range_gives_nan(discount):
    mdp = problem(0).replace(discount=jnp.asarray(discount))
    solved = _everything(mdp, some_policy(0), jnp.asarray(0.1))
    soft, hard, (q, v), soft_v, visits, _ = solved
    for table in (soft.v, soft.q, hard.v, hard.q, q, v, soft_v, visits):
        assert np.isnan(table).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_that_is_not_positive_gives_nan(temperature):
    solved = _everything(problem(0), some_policy(0), jnp.asarray(temperature))
    for table in (*solved[0], solved[3]):
        assert np.isnan(table).all()
    assert np.isfinite(solved[1].v).all()


def test_a_large_problem_against_linear_algebra():
    rng = np.random.default_rng(0)
    mdp = tabular_mdp(
        rng.dirichlet(np.full(60, 0.1), (60, A)), rng.normal(size=(60, A)), np.eye(60)[0], 0.99
    )
    soft = soft_optimal(mdp, 0.05)
    policy = np.asarray(soft.policy)
    chain = np.einsum("sa,sat->st", policy, mdp.transition)
    gained = (policy * np.asarray(mdp.reward)).sum(-1)
    gained += 0.05 * scipy.special.entr(policy).sum(-1)
    expected = np.linalg.solve(np.eye(60) - 0.99 * chain, gained)
    np.testing.assert_allclose(soft.v, expected, rtol=1e-11)
