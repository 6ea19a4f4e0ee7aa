"""Largest remainder: exact against fractions, its bound, and shares that are not shares."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.mac.apportionment import apportion

USERS = 7
APPORTION = jax.jit(apportion)


def hamilton(shares, num_prbs):
    """Largest remainder on exact fractions; ties to the lowest index."""
    total = sum(map(Fraction, shares))
    ideal = [num_prbs * Fraction(share) / total for share in shares]
    quotas = [int(value) for value in ideal]
    by_remainder = sorted(range(len(shares)), key=lambda u: (quotas[u] - ideal[u], u))
    for user in by_remainder[: num_prbs - sum(quotas)]:
        quotas[user] += 1
    return quotas


# eighths: exactly representable, with many ties between remainders
tied = st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=USERS, max_size=USERS)
# 24 bits below the largest share: what fixed point of 27 bits reads exactly
fine = st.lists(st.integers(0, 2**24).map(lambda k: k / 2**24), min_size=USERS, max_size=USERS)


@settings(max_examples=150, deadline=None)
@given(shares=st.one_of(tied, fine).filter(any), num_prbs=st.integers(0, 300))
def test_equals_largest_remainder_on_fractions(shares, num_prbs):
    quotas = APPORTION(jnp.asarray(shares, jnp.float32), jnp.int32(num_prbs))
    assert quotas.dtype == jnp.int32
    assert quotas.tolist() == hamilton(shares, num_prbs)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_prbs=st.integers(0, 300), spread=st.floats(0.01, 8))
def test_quotas_stay_within_one_of_the_shares(seed, num_prbs, spread):
    rng = np.random.default_rng(seed)
    shares = np.exp(spread * rng.normal(size=USERS))
    shares = (shares / shares.sum()).astype(np.float32)
    quotas = np.asarray(APPORTION(jnp.asarray(shares), jnp.int32(num_prbs)))
    assert quotas.sum() == num_prbs and (quotas >= 0).all()
    ideal = num_prbs * shares.astype(float) / shares.astype(float).sum()
    assert (np.abs(quotas - ideal) < 1).all()


@pytest.mark.parametrize("num_users", [1, 2, 16, 64, 100])
def test_counts_over_their_sum_come_back(num_users):
    """Where float32 `N * share` falls below the whole number that it should be."""
    rng = np.random.default_rng(num_users)
    counts = rng.multinomial(273, np.full(num_users, 1 / num_users), size=200)
    shares = (counts / np.float32(273)).astype(np.float32)
    assert (np.asarray(APPORTION(jnp.asarray(shares), jnp.int32(273))) == counts).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_masked_users_get_nothing_and_the_rest_is_shared_without_them(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(USERS) < 0.6
    shares = rng.integers(1, 9, USERS) / 8
    masked = jax.jit(apportion)(jnp.asarray(shares, jnp.float32), 51, jnp.asarray(mask))
    quotas = np.asarray(masked)
    assert (quotas[~mask] == 0).all()
    if mask.any():
        assert quotas[mask].tolist() == hamilton(shares[mask].tolist(), 51)
    else:
        assert quotas.sum() == 0


@pytest.mark.parametrize("scale", [1e-30, 0.25, 1.0, 2.0**100])
def test_shares_need_no_common_scale(scale):
    shares = jnp.asarray([3.0, 1.0, 2.0, 0.0, 1.0, 0.0, 0.0]) * scale
    assert APPORTION(shares, jnp.int32(14)).tolist() == [6, 2, 4, 0, 2, 0, 0]


def test_what_is_not_a_share_counts_as_zero():
    shares = jnp.asarray([jnp.nan, -1.0, jnp.inf, 1.0, -jnp.inf, 3.0, 0.0])
    assert APPORTION(shares, jnp.int32(8)).tolist() == [0, 0, 0, 2, 0, 6, 0]


def test_no_positive_share_means_equal_shares():
    nothing = jnp.full(USERS, -1.0)
    assert APPORTION(nothing, jnp.int32(16)).tolist() == [3, 3, 2, 2, 2, 2, 2]
    mask = jnp.asarray([False, True, True, False, False, False, True])
    assert jax.jit(apportion)(nothing, 16, mask).tolist() == [0, 6, 5, 0, 0, 0, 5]


def test_batches_and_counts_broadcast():
    shares = jnp.asarray([[1.0, 1.0], [3.0, 1.0]])
    assert apportion(shares, jnp.asarray([4, 8])).tolist() == [[2, 2], [6, 2]]
    assert jax.vmap(apportion)(shares, jnp.asarray([4, -3])).tolist() == [[2, 2], [0, 0]]


@pytest.mark.parametrize("num_prbs", [-1, 2.5, 1 << 15, "51"])
def test_a_number_of_prbs_out_of_range_is_named(num_prbs):
    with pytest.raises(ValueError, match="num_prbs must be an integer from 0 to 32767"):
        apportion(jnp.ones(3), num_prbs)


def test_shares_without_users_are_named():
    with pytest.raises(ValueError, match=r"shares must be \[..., U\] with U from 1 to 4096"):
        apportion(jnp.ones((3, 0)), 4)
