"""Latent distributions against scipy, KL against samples, and what a mask must leave untouched.

That this file can be collected at all shows that importing distrax raises no warning that the
test settings turn into an error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import (
    LOG_STD_RANGE,
    Categorical,
    CoherentGaussian,
    DiagonalGaussian,
    SoftmaxGaussian,
)

CELLS, USERS = 3, 5
seeds = st.integers(0, 2**32 - 1)


@jax.jit
def describe(distribution, other, latent):
    return distribution.log_prob(latent), distribution.entropy(), distribution.kl(other)


draw = jax.jit(lambda distribution, key: distribution.sample(key))
KEYS = 20_000
many = jax.jit(jax.vmap(lambda distribution, key: distribution.sample(key), (None, 0)))
act = jax.jit(lambda distribution, latent: distribution.action(latent))


@jax.jit
def gradients(distribution, other, latent):
    def total(given):
        return sum(jnp.sum(x) for x in describe(given, other, latent))

    return jax.grad(total, allow_int=True)(distribution)


def gaussians(seed, event_axes=1, kind=DiagonalGaussian):
    rng = np.random.default_rng(seed)
    mask = jnp.asarray(rng.random((CELLS, USERS)) < 0.7)
    first, second = (
        kind(
            jnp.asarray(rng.normal(size=(CELLS, USERS)), jnp.float32),
            jnp.asarray(rng.uniform(-2, 1, (CELLS, USERS)), jnp.float32),
            mask,
            event_axes,
        )
        for _ in range(2)
    )
    return first, second, rng.normal(size=(CELLS, USERS)).astype(np.float32)


def categoricals(seed, event_axes=1):
    rng = np.random.default_rng(seed)
    mask = rng.random((CELLS, USERS)) < 0.6
    mask[0] = False  # a choice that does not exist
    mask[1:, 0] = True
    first, second = (
        Categorical(
            jnp.asarray(2 * rng.normal(size=(CELLS, USERS)), jnp.float32),
            jnp.asarray(mask),
            event_axes,
        )
        for _ in range(2)
    )
    latent = np.array([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in mask])
    return first, second, latent


@pytest.mark.parametrize("event_axes", [1, 2])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_gaussian_is_that_of_scipy_over_the_unmasked(event_axes, seed):
    ours, other, latent = gaussians(seed, event_axes)
    mask = np.asarray(ours.mask)
    mean, std = np.asarray(ours.mean, float), np.exp(np.asarray(ours.log_std, float))
    theirs = scipy.stats.norm(mean, std)
    ratio = std / np.exp(np.asarray(other.log_std, float))
    apart = (mean - np.asarray(other.mean)) / np.exp(np.asarray(other.log_std, float))
    axes = tuple(range(-event_axes, 0))
    expected = (
        theirs.logpdf(latent),
        theirs.entropy(),
        (ratio**2 + apart**2 - 1) / 2 - np.log(ratio),
    )
    for got, each in zip(describe(ours, other, latent), expected, strict=True):
        assert got.shape == (() if event_axes == 2 else (CELLS,))
        np.testing.assert_allclose(got, np.sum(np.where(mask, each, 0), axes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("event_axes", [1, 2])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_categorical_is_that_of_scipy_over_the_allowed(event_axes, seed):
    ours, other, latent = categoricals(seed, event_axes)
    got = describe(ours, other, latent)
    expected = np.zeros((3, CELLS))
    for row in range(CELLS):
        allowed = np.asarray(ours.mask)[row]
        if allowed.any():
            p = scipy.special.softmax(np.asarray(ours.logits, float)[row, allowed])
            q = scipy.special.softmax(np.asarray(other.logits, float)[row, allowed])
            chosen = np.flatnonzero(allowed).tolist().index(latent[row])
            expected[:, row] = (
                scipy.stats.rv_discrete(values=(range(len(p)), p)).logpmf(chosen),
                scipy.stats.entropy(p),
                scipy.stats.entropy(p, q),
            )
    for ours_, theirs in zip(got, expected, strict=True):
        theirs = theirs.sum() if event_axes == 2 else theirs
        np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [gaussians, categoricals])
def test_samples_have_the_entropy_and_the_divergence_that_are_claimed(make):
    """Entropy is -E log p and KL E log p / q, to four standard errors of 20 000 draws."""
    ours, other, _ = make(3, 2)
    _, entropy, kl = describe(ours, other, make(3, 2)[2])
    latents = many(ours, jax.random.split(jax.random.key(0), KEYS))
    of_ours, of_other = (jax.jit(jax.vmap(d.log_prob))(latents) for d in (ours, other))
    for draws, expected in [(-of_ours, entropy), (of_ours - of_other, kl)]:
        error = np.std(draws) / np.sqrt(len(draws))
        assert abs(np.mean(draws) - expected) < 4 * error


def test_samples_are_where_they_should_be():
    keys = jax.random.split(jax.random.key(1), KEYS)
    ours, _, _ = gaussians(4, 2)
    latents = np.asarray(many(ours, keys))
    mask = np.asarray(ours.mask)
    std = np.exp(np.asarray(ours.log_std))
    assert (latents[:, ~mask] == 0).all()
    errors = (latents.mean(0) - np.asarray(ours.mean)) / std
    assert np.abs(errors[mask]).max() < 5 / np.sqrt(KEYS)
    np.testing.assert_allclose((latents.std(0) / std)[mask], 1, atol=5 / np.sqrt(2 * KEYS))

    choice, _, _ = categoricals(4, 2)
    drawn = np.asarray(many(choice, keys))
    assert drawn.dtype == np.int32 and (drawn[:, 0] == 0).all()
    for row in range(1, CELLS):
        allowed = np.asarray(choice.mask)[row]
        share = np.bincount(drawn[:, row], minlength=USERS) / KEYS
        assert (share[~allowed] == 0).all()
        expected = scipy.special.softmax(np.asarray(choice.logits, float)[row, allowed])
        np.testing.assert_allclose(share[allowed], expected, atol=5 * 0.5 / np.sqrt(KEYS))


def test_mode_is_the_most_probable_latent():
    for make in (gaussians, categoricals):
        ours, other, _ = make(5, 2)
        best = describe(ours, other, ours.mode())[0]
        for latent in many(ours, jax.random.split(jax.random.key(0), KEYS))[:20]:
            assert describe(ours, other, latent)[0] <= best
    ours, _, _ = gaussians(5, 2)
    assert np.array_equal(ours.mode(), np.where(ours.mask, ours.mean, 0))


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_shares_are_a_softmax_over_the_unmasked(seed):
    ours, _, latent = gaussians(seed, kind=SoftmaxGaussian)
    mask = np.asarray(ours.mask)
    shares = np.asarray(act(ours, latent))
    assert (shares[~mask] == 0).all() and (shares >= 0).all()
    for row in range(CELLS):
        np.testing.assert_allclose(shares[row].sum(), mask[row].any(), atol=1e-6)
        expected = scipy.special.softmax(latent[row, mask[row]].astype(float))
        np.testing.assert_allclose(shares[row, mask[row]], expected, rtol=1e-5)


def test_shares_keep_out_the_density_of_the_latent():
    ours, other, latent = gaussians(6, kind=SoftmaxGaussian)
    plain = DiagonalGaussian(ours.mean, ours.log_std, ours.mask)
    rival = DiagonalGaussian(other.mean, other.log_std, other.mask)
    for got, expected in zip(
        describe(ours, other, latent), describe(plain, rival, latent), strict=True
    ):
        assert np.array_equal(got, expected)
    assert np.array_equal(plain.action(latent), latent)
    choice, _, index = categoricals(6)
    assert np.array_equal(choice.action(index), index)
    everyone = SoftmaxGaussian(ours.mean, ours.log_std)
    np.testing.assert_allclose(everyone.action(jnp.asarray(latent)).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("make", [gaussians, categoricals])
@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e30])
def test_masked_entries_are_not_read_and_get_no_gradient(make, filler):
    ours, other, latent = make(7, 2)
    absent = ~np.asarray(ours.mask)
    assert absent.any()

    def spoil(values):
        spoilt = values.dtype == np.float32 and values.shape == absent.shape
        return jnp.where(absent, filler, values) if spoilt else values

    spoilt = [jax.tree.map(spoil, x) for x in (ours, other)]
    bad_latent = spoil(latent)
    for got, clean in zip(
        describe(*spoilt, bad_latent), describe(ours, other, latent), strict=True
    ):
        assert np.array_equal(got, clean)
    for distribution in ((ours, latent), (spoilt[0], bad_latent)):
        got = gradients(distribution[0], spoilt[1], distribution[1])
        for leaf in jax.tree.leaves(got):
            if leaf.dtype == np.float32:
                assert np.isfinite(leaf).all()
                assert (leaf[absent] == 0).all() and (leaf[~absent] != 0).any()
    key = jax.random.key(2)
    assert np.array_equal(draw(ours, key), draw(spoilt[0], key))


@pytest.mark.parametrize("size", [1e3, 1e10, 1e15])
def test_extreme_gaussians_are_finite(size):
    ours, other, latent = gaussians(8, 2)
    for first, second in [(ours, other), (other, ours)]:
        extreme = first.replace(mean=first.mean * size, log_std=first.log_std * 1e3)
        for value in (*describe(extreme, second, latent), *describe(second, extreme, latent)):
            assert np.isfinite(value)
        for leaf in jax.tree.leaves(gradients(extreme, second, latent)):
            assert leaf.dtype != np.float32 or np.isfinite(leaf).all()


def test_log_std_is_clipped_to_its_range():
    for log_std, bound in zip((-50.0, 50.0), LOG_STD_RANGE, strict=True):
        got = DiagonalGaussian(jnp.zeros(1), jnp.full(1, log_std)).entropy()
        np.testing.assert_allclose(got, scipy.stats.norm(0, np.exp(bound)).entropy(), rtol=1e-6)


@pytest.mark.parametrize("size", [1e3, 1e10, 3e38])
def test_extreme_logits_are_finite_and_never_make_a_masked_category_likely(size):
    signs = np.array([[1, -1, 0, 1, -1], [-1, -1, -1, -1, -1], [0, 0, -1, 1, 0]], np.float32)
    mask = jnp.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1]], bool)
    ours = Categorical(jnp.asarray(size * signs), mask, 2)
    other = Categorical(jnp.asarray(-size * signs), mask, 2)
    latent = ours.mode()
    assert latent.tolist() == [2, 0, 3]
    for value in (*describe(ours, other, latent), *describe(other, ours, latent)):
        assert np.isfinite(value).all()
    for leaf in jax.tree.leaves(gradients(ours, other, latent)):
        assert leaf.dtype != np.float32 or np.isfinite(leaf).all()
    drawn = np.asarray(many(ours, jax.random.split(jax.random.key(3), KEYS)))
    assert np.asarray(mask)[np.arange(CELLS), drawn].all()


def test_an_index_that_is_no_category_is_impossible():
    choice = Categorical(jnp.zeros((3, 4)))
    got = jax.jit(choice.log_prob)(jnp.array([-1, 3, 4]))
    np.testing.assert_allclose(got, [-np.inf, -np.log(4), -np.inf], rtol=1e-6)


def test_same_latent_same_parameters_ratio_one():
    ours, _, _ = gaussians(9, 1, SoftmaxGaussian)
    latent = draw(ours, jax.random.key(4))
    copy = SoftmaxGaussian(ours.mean, ours.log_std, ours.mask)
    first, second = describe(ours, copy, latent), describe(copy, ours, latent)
    assert np.array_equal(first[0], second[0])
    assert np.all(np.abs(first[2]) < 1e-12)


def test_a_distribution_may_be_vmapped_and_its_log_std_shared():
    ours, _, latent = gaussians(10)
    shared = jnp.asarray([-0.5])
    rows = jax.vmap(lambda m, k, z: DiagonalGaussian(m, shared, k).log_prob(z))(
        ours.mean, ours.mask, latent
    )
    whole = DiagonalGaussian(ours.mean, shared, ours.mask).log_prob(jnp.asarray(latent))
    np.testing.assert_allclose(rows, whole, rtol=1e-6)
    mapped = jax.vmap(lambda d, z: d.log_prob(z))(ours, latent)
    np.testing.assert_allclose(mapped, describe(ours, ours, latent)[0], rtol=1e-5)


@pytest.mark.parametrize("event_axes", [0, 3])
def test_events_need_axes_that_exist(event_axes):
    ours, _, latent = gaussians(11, event_axes)
    with pytest.raises(ValueError, match="event_axes must be from 1 to .* 2 axes"):
        ours.log_prob(latent)
    with pytest.raises(ValueError, match="event_axes"):
        Categorical(jnp.zeros((2, 4)), event_axes=event_axes).entropy()


# --- coherent noise ------------------------------------------------------------------------------


def coherent(seed):
    """Two with the same mask, a latent, and their covariances row by row."""
    rng = np.random.default_rng(seed)
    mask = rng.random((CELLS, USERS)) < 0.7
    mask[0, 0] = True

    def one():
        mean, along = rng.normal(size=(2, CELLS, USERS))
        log_std = rng.uniform(-2, 1, (CELLS, USERS))
        parts = [jnp.asarray(part, jnp.float32) for part in (mean, log_std, 2 * along)]
        return CoherentGaussian(*parts, jnp.asarray(mask))

    return one(), one(), rng.normal(size=(CELLS, USERS)).astype(np.float32), mask


def normal(distribution, row, mask):
    """Mean and covariance of a row's unmasked entries, in float64."""
    mean, log_std, along = (
        np.asarray(part, np.float64)[row][mask[row]]
        for part in (distribution.mean, distribution.log_std, distribution.along)
    )
    return mean, np.diag(np.exp(2 * log_std)) + np.outer(along, along)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_coherent_noise_has_the_density_of_its_covariance(seed):
    ours, other, latent, mask = coherent(seed)
    log_prob, entropy, divergence = map(np.asarray, describe(ours, other, jnp.asarray(latent)))
    for row in range(CELLS):
        if not mask[row].any():
            assert log_prob[row] == entropy[row] == divergence[row] == 0
            continue
        (mean, covariance), (elsewhere, wider) = (normal(d, row, mask) for d in (ours, other))
        truth = scipy.stats.multivariate_normal(mean, covariance)
        np.testing.assert_allclose(log_prob[row], truth.logpdf(latent[row][mask[row]]), rtol=2e-3)
        np.testing.assert_allclose(entropy[row], truth.entropy(), rtol=1e-3, atol=1e-3)
        away = mean - elsewhere
        kl = 0.5 * (
            np.trace(np.linalg.solve(wider, covariance))
            - mean.size
            + away @ np.linalg.solve(wider, away)
            + np.linalg.slogdet(wider)[1]
            - np.linalg.slogdet(covariance)[1]
        )
        np.testing.assert_allclose(divergence[row], kl, rtol=2e-3, atol=2e-3)


def test_coherent_noise_is_drawn_with_its_covariance_and_without_direction_is_independent():
    ours, other, latent, mask = coherent(3)
    drawn = np.asarray(many(ours, jax.random.split(jax.random.key(0), KEYS)), np.float64)
    assert not drawn[:, ~mask].any()
    for row in np.flatnonzero(mask.any(-1)):
        mean, covariance = normal(ours, row, mask)
        found = np.atleast_2d(np.cov(drawn[:, row][:, mask[row]].T))
        scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
        assert (np.abs(found - covariance) < 0.06 * scale).all()
        np.testing.assert_allclose(drawn[:, row][:, mask[row]].mean(0), mean, atol=0.1)
    plain, rival = (DiagonalGaussian(d.mean, d.log_std, d.mask) for d in (ours, other))
    still, stiller = (d.replace(along=jnp.zeros((CELLS, USERS))) for d in (ours, other))
    for one, two in zip(
        describe(plain, rival, latent), describe(still, stiller, latent), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.mode(), plain.mode())


def test_masked_entries_of_coherent_noise_get_no_gradient():
    ours, other, latent, mask = coherent(5)
    spoilt = ours.replace(along=jnp.where(mask, ours.along, jnp.nan))
    slopes = gradients(spoilt, other, jnp.where(mask, latent, jnp.nan))
    for slope in (slopes.mean, slopes.log_std, slopes.along):
        assert not np.asarray(slope)[~mask].any() and np.isfinite(slope).all()
        assert np.asarray(slope)[mask].all()
