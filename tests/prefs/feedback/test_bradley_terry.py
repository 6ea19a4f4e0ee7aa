"""The distance from Bradley and Terry's model: closed forms, enumeration, and the warning."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefs.feedback import (
    intransitivity,
    pair_matrix,
    partial_return,
    preference_matrix,
    teacher,
    unlabelled,
    warn_if_intransitive,
)

RPS = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])


def _bradley_terry(utilities):
    return 1 / (1 + np.exp(np.subtract.outer(utilities, utilities).T))


def _random(rng, number):
    upper = np.triu(rng.uniform(size=(number, number)), 1)
    return upper + np.tril(1 - upper.T, -1) + np.eye(number) / 2


def test_rock_paper_scissors_in_closed_form():
    found = intransitivity(RPS)
    assert found.cycles == 1
    assert found.log_likelihood == pytest.approx(-np.log(2), abs=1e-9)
    assert found.bound == 0 and found.gap == pytest.approx(np.log(2), abs=1e-9)
    assert found.agreement == pytest.approx(2 / 3) and found.agreement_bound == 1
    np.testing.assert_allclose(found.utilities, 0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_a_bradley_terry_preference_has_no_gap(utilities):
    utilities = np.array(utilities)
    found = intransitivity(_bradley_terry(utilities))
    assert found.gap < 1e-9 and found.cycles == 0
    np.testing.assert_allclose(found.utilities, utilities - utilities.mean(), atol=1e-3)
    assert found.agreement == pytest.approx(found.agreement_bound)


def test_a_total_order_is_a_limit_of_the_model():
    found = intransitivity(np.triu(np.ones((6, 6)), 1) + np.eye(6) / 2)
    assert found.gap < 1e-4 and found.agreement == 1 and found.cycles == 0
    assert (np.diff(found.utilities) < 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 5))
def test_agreement_and_cycles_by_enumeration(seed, number):
    matrix = _random(np.random.default_rng(seed), number)
    found = intransitivity(matrix)
    pairs = number * (number - 1) / 2
    best = max(
        sum(matrix[i, j] for i, j in itertools.combinations(order, 2)) / pairs
        for order in itertools.permutations(range(number))
    )
    assert found.agreement == pytest.approx(best)
    beats = matrix > 0.5
    cycles = sum(
        (beats[i, j] and beats[j, k] and beats[k, i])
        or (beats[j, i] and beats[k, j] and beats[i, k])
        for i, j, k in itertools.combinations(range(number), 3)
    )
    assert found.cycles == cycles
    # no other utilities do better
    for scale in (0.0, 0.3, 1.0):
        rng = np.random.default_rng(seed)
        other = _bradley_terry(found.utilities + scale * rng.normal(size=number))
        index = np.triu_indices(number, 1)
        likelihood = np.mean((matrix * np.log(other) + (1 - matrix) * np.log(1 - other))[index])
        assert likelihood <= found.log_likelihood + 1e-9
    assert found.log_likelihood <= found.bound + 1e-12


def test_weights_say_what_is_compared():
    # the cycle disappears when its third pair is never met
    weights = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    found = intransitivity(RPS, weights)
    assert found.cycles == 0 and found.gap < 1e-4 and found.agreement == 1
    twice = intransitivity(_random(np.random.default_rng(1), 4), 2 * np.ones((4, 4)))
    once = intransitivity(_random(np.random.default_rng(1), 4))
    assert twice.gap == pytest.approx(once.gap)


def test_many_items_use_the_fitted_order():
    utilities = np.linspace(0, 4, 30)
    found = intransitivity(_bradley_terry(utilities))
    assert found.gap < 1e-8 and found.agreement == pytest.approx(found.agreement_bound)


def test_the_matrix_of_a_data_set():
    pairs = unlabelled([0, 1, 0, 2], [1, 0, 2, 1])
    pairs = pairs.replace(
        label=jnp.array([1.0, 1.0, 0.25, 0.0]), mask=jnp.array([True, True, True, False])
    )
    matrix, met = pair_matrix(pairs, 3)
    np.testing.assert_allclose(matrix, [[0.5, 0.5, 0.25], [0.5, 0.5, 0.5], [0.75, 0.5, 0.5]])
    np.testing.assert_allclose(met + met.T, [[0, 2, 1], [2, 0, 0], [1, 0, 0]])
    assert intransitivity(matrix, met).gap < 1e-9


def test_the_warning_gives_the_measured_ceilings():
    with pytest.warns(UserWarning, match=r"1 cyclic .* -0.6931 nats .* 0.0000\).* 66.7% .* 100.0%"):
        found = warn_if_intransitive(preference_matrix(jnp.asarray(RPS)))
    assert found is not None and found.gap == pytest.approx(np.log(2), abs=1e-6)
    with pytest.warns(UserWarning, match="no Bradley-Terry model fits"):
        warn_if_intransitive(teacher(preference_matrix(jnp.asarray(RPS)), rationality=2.0))
    with pytest.warns(UserWarning, match="0 cyclic triples"):
        warn_if_intransitive(np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.9], [0.4, 0.1, 0.5]]))


def test_no_warning_without_a_reason():
    model = jnp.asarray(_bradley_terry(np.array([0.0, 1.0, 3.0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_if_intransitive(partial_return()) is None
        assert warn_if_intransitive(teacher(partial_return(), mistake=0.1)) is None
        found = warn_if_intransitive(preference_matrix(model))
        assert found is not None and found.gap < 1e-6
        # a sharper judge of the same utilities is a Bradley-Terry judge too
        assert warn_if_intransitive(teacher(preference_matrix(model), rationality=3.0)).gap < 1e-6
        inside = jax.jit(lambda m: (warn_if_intransitive(preference_matrix(m)) is None) * m)
        np.testing.assert_array_equal(inside(jnp.asarray(RPS)), jnp.asarray(RPS))


@pytest.mark.parametrize(
    ("matrix", "weights", "says"),
    [
        (np.full((2, 2), 0.6), None, "must be 1, got 1.2"),
        (RPS, np.ones((2, 2)), r"weights must be \(3, 3\) .* got \(2, 2\)"),
        (RPS, -np.ones((3, 3)), "at least 0"),
        (RPS, np.zeros((3, 3)), "nothing to compare"),
        (np.array([[0.5]]), None, "nothing to compare"),
    ],
)
def test_bad_matrices_are_refused(matrix, weights, says):
    with pytest.raises(ValueError, match=says):
        intransitivity(matrix, weights)
