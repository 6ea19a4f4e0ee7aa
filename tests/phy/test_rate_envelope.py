"""The rate envelope: above everything a transport block can do, and not much above it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl5g.phy import grant_error_rate, grants, harq
from jaxrl5g.phy.effective_sinr import eesm_beta, effective_sinr
from jaxrl5g.phy.mcs import num_mcs
from jaxrl5g.phy.rate_envelope import rate_envelope

PRBS, RES = 51, 132
FLOORS = (0.0, 0.3)
NR = grants(PRBS, RES, 1, "nr")


def envelope(fidelity="nr", combining="chase", attempts=4, floor=0.0):
    return rate_envelope(PRBS, RES, 1, fidelity, combining, attempts, floor)


@functools.cache
def goodput(fidelity):
    """float64 (SINR [S], bits per PRB [N, M, S]) of single transmissions on flat channels."""
    # grid points of Sionna's curves, half-way points and the ends of the EESM range included
    sinr = 10.0 ** (np.arange(-30.0, 30.01, 0.05) / 10.0)
    tables = grants(PRBS, RES, 1, fidelity)
    count = np.arange(1, PRBS + 1)[:, None, None]
    error = grant_error_rate(tables, count, np.arange(num_mcs(1))[:, None], np.float32(sinr))
    bits = tables.block_bits[1:, :, None].astype(np.float64) / count
    return sinr, bits * (1.0 - np.minimum(np.asarray(error, np.float64), 1.0))


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("fidelity", ["nr", "sionna"])
def test_no_grant_on_a_flat_channel_carries_more(fidelity, floor):
    sinr, bits = goodput(fidelity)
    assert (bits <= envelope(fidelity, floor=floor).rate(sinr)).all()


def test_one_transmission_touches_the_envelope_of_one_transmission():
    sinr, bits = goodput("nr")
    single = envelope(attempts=1)
    own = single.height[:, None] * -np.expm1(-sinr / single.beta[:, None])
    tangent = np.max(bits.max(axis=0) / own, axis=1)
    assert (tangent <= 1.0).all() and (tangent > 0.99).all()


@pytest.mark.parametrize("fidelity", ["nr", "sionna", "shannon"])
def test_it_never_falls_and_its_conjugate_is_its_own(fidelity):
    curve = envelope(fidelity, floor=0.1 if fidelity == "nr" else 0.0)
    sinr = np.concatenate([[0.0], 10.0 ** (np.arange(-40.0, 50.0, 0.02) / 10.0)])
    rate = curve.rate(sinr)
    assert (np.diff(rate) >= -1e-9 * curve.top).all()
    assert rate[0] == pytest.approx(curve.floor) and rate[-1] <= curve.top * (1 + 1e-12)
    for price in curve.steepest * np.geomspace(1e-5, 1.2, 40):
        searched = np.max(rate - price * sinr)
        exact = float(curve.conjugate(np.asarray(price)))
        assert searched <= exact * (1 + 1e-12) + 1e-9
        assert exact <= searched + 3e-4 * curve.top
    # the least concave majorant, from the conjugate, is above r and meets it at both ends
    price = curve.steepest * np.geomspace(1e-9, 1.0, 4000)
    hull = np.min(curve.conjugate(price) + price * sinr[:, None], axis=1)
    assert (hull >= rate - 1e-9).all()
    np.testing.assert_allclose(hull[[0, -1]], rate[[0, -1]], rtol=1e-3, atol=1e-6)


def test_shannon_is_shannon():
    sinr = np.geomspace(1e-3, 1e5, 50)
    exact = RES * np.minimum(np.log2(1.0 + sinr), 6 * 948 / 1024)
    np.testing.assert_allclose(envelope("shannon").rate(sinr), exact, rtol=1e-6)


@jax.jit
def block_error_rates(sinr, used, mcs):
    """Error rates of one block on all used PRBs, [B], and of each PRB's flat channel, [B, N]."""
    count = jnp.sum(used, axis=1)
    effective = effective_sinr(sinr, used, mcs)
    every = jnp.concatenate([effective[:, None], sinr], axis=1)
    error = grant_error_rate(NR, count[:, None], mcs[:, None], every)
    return error[:, 0], error[:, 1:]


def block_goodput(sinr, used, mcs):
    """(expected bits of one block, flat-channel goodputs of its PRBs summed), sinr [B, N]."""
    error, alone = block_error_rates(np.float32(sinr), used, mcs)
    count = used.sum(axis=1)
    bits = NR.block_bits[count, mcs].astype(np.float64)
    share = (bits / count)[:, None] * (1.0 - np.asarray(alone, np.float64))
    return bits * (1.0 - np.asarray(error, np.float64)), np.sum(np.where(used, share, 0), axis=1)


BLOCKS = 4000


def test_bad_prbs_on_good_ones_need_more_than_flat_goodputs():
    sinr = np.tile(10.0 ** (np.where(np.arange(PRBS) < 38, 25.0, -40.0) / 10.0), (BLOCKS, 1))
    carried, flat = block_goodput(sinr, np.ones((BLOCKS, PRBS), bool), np.full(BLOCKS, 24))
    assert carried[0] > 1.05 * flat[0]
    for floor in FLOORS:
        assert carried[0] <= envelope(floor=floor).rate(sinr[0]).sum()


def test_no_frequency_selective_grant_carries_more():
    rng = np.random.default_rng(0)
    mcs = rng.integers(0, num_mcs(1), BLOCKS)
    used = rng.random((BLOCKS, PRBS)) < rng.random((BLOCKS, 1))
    used[:, 0] = True
    # means near each MCS's own range, with spreads from none to all of Rayleigh's, and dark PRBs
    mean = rng.uniform(0.05, 8.0, (BLOCKS, 1)) * eesm_beta(1)[mcs][:, None]
    sinr = mean * rng.exponential(size=(BLOCKS, PRBS)) ** rng.uniform(0, 1.5, (BLOCKS, 1))
    sinr = np.where(rng.random((BLOCKS, PRBS)) < 0.3 * rng.random((BLOCKS, 1)), 1e-8, sinr)
    carried, flat = block_goodput(sinr, used, mcs)
    assert (carried > flat * 1.02).mean() > 0.05  # flat goodputs would not do
    for floor in FLOORS:
        charged = np.sum(np.where(used, envelope(floor=floor).rate(sinr), 0.0), axis=1)
        assert (carried <= charged).all()


@functools.partial(jax.jit, static_argnames=("combining",))
def failures(sinr, mcs, count, combining):
    """Error probability after each transmission, [B, A], as the environment combines them."""
    evidence = jnp.zeros(mcs.shape, jnp.float32)
    rates = []
    for attempt in range(sinr.shape[1]):
        evidence, combined = harq.combine(
            evidence, jnp.int32(attempt + 1), sinr[:, attempt], mcs, combining=combining
        )
        rates.append(grant_error_rate(NR, count, mcs, combined))
    return jnp.stack(rates, axis=1)


def surplus(sinr, mcs, count, combining, curve):
    """Expected bits minus the expected charge of what is really sent, per bit of the block."""
    heard = np.clip(sinr, 1e-3, 1e3).astype(np.float32)  # as an effective SINR is
    error = np.asarray(failures(heard, mcs, count, combining), np.float64)
    failed = np.minimum.accumulate(error, axis=1)  # one uniform number for all attempts
    reached = np.concatenate([np.ones((len(mcs), 1)), failed[:, :-1]], axis=1)
    bits = NR.block_bits[count, mcs].astype(np.float64)
    charge = count * np.sum(reached * curve.rate(sinr), axis=1)
    return (bits * (1.0 - failed[:, -1]) - charge) / bits


def random_harq(size, seed):
    """Transmissions whose sum lies near the threshold, in uneven and nearly dark parts."""
    rng = np.random.default_rng(seed)
    mcs = rng.integers(0, num_mcs(1), size)
    count = rng.integers(1, PRBS + 1, size)
    total = rng.uniform(0.05, 4.0, (size, 1)) * eesm_beta(1)[mcs][:, None]
    parts = rng.dirichlet(np.full(4, 0.3), size)
    parts = np.where(rng.random((size, 1)) < 0.5, -np.sort(-parts, axis=1), parts)
    sinr = np.maximum(total * parts, 1e-9)
    sinr[rng.random((size, 4)) < 0.1] = 1e-9
    return sinr, mcs, count


@pytest.mark.parametrize("combining", ["chase", "incremental"])
def test_no_use_of_harq_gains_more_than_it_is_charged(combining):
    sinr, mcs, count = random_harq(60_000, 1)
    for floor in FLOORS:
        gained = surplus(sinr, mcs, count, combining, envelope("nr", combining, 4, floor))
        assert gained.max() <= 0.0
        assert gained.max() > -0.2  # the search comes near enough to mean something


@pytest.mark.parametrize("combining, excess", [("chase", 0.01), ("incremental", 0.3)])
def test_the_envelope_of_one_transmission_does_not_survive_retransmissions(combining, excess):
    # a second transmission with little power, sent only when the first failed, wins its bits for
    # less than its share: expected bits must be held against what was really sent
    sinr, mcs, count = random_harq(60_000, 1)
    assert surplus(sinr, mcs, count, combining, envelope(attempts=1)).max() > excess


def test_more_transmissions_never_lower_it():
    heights = [envelope(attempts=attempts).height for attempts in (1, 2, 4)]
    assert (heights[0] <= heights[1] * 1.001).all() and (heights[1] <= heights[2] * 1.001).all()
    # HARQ is worth a few percent, so that nobody bounds it away with a factor
    assert (heights[2] < 1.15 * heights[0]).all()


def test_a_floor_is_charged_for_air_time_and_lowers_the_rest():
    free, charged = envelope(), envelope(floor=0.3)
    per_prb = NR.block_bits[1:] / np.arange(1, PRBS + 1)[:, None]
    assert charged.floor == pytest.approx(0.3 * per_prb.max())
    sinr = 10.0 ** (np.asarray([-5.0, 12.0, 20.0]) / 10.0)
    lower = charged.rate(sinr) < free.rate(sinr)
    assert lower.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 132), "num_prbs must be at least 1, got 0"),
        ((4, 0), "res_per_prb must be at least 1, got 0"),
        ((4, 132, 3), "table must be"),
        ((4, 132, 1, "awgn"), "fidelity must be one of"),
        ((4, 132, 1, "nr", "turbo"), "combining must be 'chase' or 'incremental', got 'turbo'"),
        ((4, 132, 1, "nr", "chase", 0), "max_transmissions must be at least 1, got 0"),
        ((4, 132, 1, "nr", "chase", 4, 1.0), "floor_share must be in"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rate_envelope(*arguments)
