"""Finite-horizon solvers against linear programming, enumeration and each other."""

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
    EpisodicMDP,
    backward_induction,
    episodic_mdp,
    episodic_value,
    evaluate_episodic,
    occupancy_episodic,
    soft_backward_induction,
)

H, S, A = 3, 2, 2


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def problem(seed: int) -> EpisodicMDP:
    rng = np.random.default_rng(seed)
    return episodic_mdp(
        rng.dirichlet(np.full(S, 0.5), (H, S, A)),
        rng.normal(size=(H, S, A)),
        rng.dirichlet(np.ones(S)),
    )


def some_policy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 10_000).dirichlet(np.ones(A), (H, S))


seeds = st.integers(0, 2**20)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_optimum_is_that_of_the_linear_programme(seed):
    mdp = problem(seed)
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    rows, bounds = [], []
    for h, s, a in itertools.product(range(H), range(S), range(A)):
        row = np.zeros((H + 1, S))
        row[h, s] = -1
        row[h + 1] += p[h, s, a]
        rows.append(row[:H].ravel())
        bounds.append(-r[h, s, a])
    found = scipy.optimize.linprog(np.ones(H * S), rows, bounds, bounds=(None, None))
    assert found.success
    q, v, policy = backward_induction(mdp)
    np.testing.assert_allclose(v[:H].ravel(), found.x, atol=1e-8)
    assert (v[H] == 0).all()
    np.testing.assert_allclose(q, r + np.einsum("hsat,ht->hsa", p, v[1:]), atol=1e-12)
    assert policy.dtype == jnp.int32
    np.testing.assert_allclose(evaluate_episodic(mdp, policy), v, atol=1e-12)


_values = jax.jit(jax.vmap(evaluate_episodic, (None, 0)))


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_no_deterministic_policy_is_better(seed):
    mdp = problem(seed)
    every = np.array(list(itertools.product(range(A), repeat=H * S))).reshape(-1, H, S)
    values = np.asarray(_values(mdp, every))
    v = np.asarray(backward_induction(mdp)[1])
    assert (values <= v + 1e-12).all()
    np.testing.assert_allclose(values.max(0), v, atol=1e-12)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_a_policys_value_is_what_its_occupancy_earns(seed):
    mdp, policy = problem(seed), some_policy(seed)
    visits = np.asarray(occupancy_episodic(mdp, policy))
    np.testing.assert_allclose(visits.sum((1, 2)), 1, rtol=1e-13)
    np.testing.assert_allclose(visits[0].sum(-1), mdp.initial, rtol=1e-13)
    into = np.einsum("hsa,hsat->ht", visits, mdp.transition)
    np.testing.assert_allclose(visits[1:].sum(-1), into[:-1], atol=1e-14)
    earned = (visits * np.asarray(mdp.reward)).sum()
    np.testing.assert_allclose(earned, episodic_value(mdp, policy), atol=1e-13)


@given(seeds, st.sampled_from([1e-2, 1.0, 30.0]))
@settings(max_examples=15, deadline=None)
def test_soft_optimum(seed, temperature):
    """Soft equations, and V* <= V_soft <= V* + alpha (H - h) log A."""
    mdp = problem(seed)
    q, v, policy = map(np.asarray, soft_backward_induction(mdp, temperature))
    backed = np.asarray(mdp.reward) + np.einsum("hsat,ht->hsa", mdp.transition, v[1:])
    np.testing.assert_allclose(q, backed, rtol=1e-12, atol=1e-12)
    soft_maximum = temperature * scipy.special.logsumexp(q / temperature, axis=-1)
    np.testing.assert_allclose(v[:H], soft_maximum, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(policy, np.exp((q - v[:H, :, None]) / temperature), rtol=1e-10)
    above = v - np.asarray(backward_induction(mdp)[1])
    left = np.arange(H, -1, -1)[:, None]
    assert (above >= -1e-12).all()
    assert (above <= temperature * left * np.log(A) + 1e-12).all()
    entropy = temperature * scipy.special.entr(policy).sum(-1)
    paid = mdp.replace(reward=mdp.reward + entropy[..., None])
    np.testing.assert_allclose(evaluate_episodic(paid, policy), v, rtol=1e-11, atol=1e-11)


def test_actions_and_their_probabilities_are_one_policy():
    mdp = problem(0)
    actions = np.random.default_rng(0).integers(0, A, (H, S))
    probabilities = np.eye(A)[actions]
    for function in (evaluate_episodic, occupancy_episodic, episodic_value):
        assert (function(mdp, actions) == function(mdp, probabilities)).all()


def test_a_tie_goes_to_the_lowest_action():
    mdp = problem(0)
    policy = backward_induction(mdp.replace(reward=jnp.zeros((H, S, A))))[2]
    assert (policy == 0).all()


def test_stacked_problems_give_what_each_gives_alone():
    def everything(mdp, policy):
        return (
            backward_induction(mdp),
            soft_backward_induction(mdp, 0.1),
            evaluate_episodic(mdp, policy),
            occupancy_episodic(mdp, policy),
        )

    alone = [problem(i) for i in range(3)]
    policies = jnp.stack([jnp.asarray(some_policy(i)) for i in range(3)])
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    together = jax.jit(jax.vmap(everything))(stack, policies)
    for i, mdp in enumerate(alone):
        for one, many in zip(
            jax.tree.leaves(everything(mdp, policies[i])), jax.tree.leaves(together), strict=True
        ):
            np.testing.assert_allclose(many[i], one, rtol=1e-12, atol=1e-13)


def test_bad_input():
    mdp = problem(0)
    with pytest.raises(ValueError, match=r"policy must be int\[H, S\] or float\[H, S, A\]"):
        evaluate_episodic(mdp, jnp.ones((S, A)))
    with pytest.raises(ValueError, match="policy must be"):
        occupancy_episodic(mdp, jnp.zeros((H, S + 1), jnp.int32))
    assert np.isnan(soft_backward_induction(mdp, 0.0)[1][:H]).all()
