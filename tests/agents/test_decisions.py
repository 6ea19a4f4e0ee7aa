"""From latents to PRBs and watts: closed forms, NumPy, and the classical rule at rest."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.agents.decisions import allot, assign, fair_assignment, tilt, value
from jaxrl5g.agents.slots import prepare

CELLS, USERS, PRBS = 2, 5, 12
_, PARAMS = jaxrl5g.make("TinyDownlink-v0", num_cells=CELLS, num_users=USERS)
CONFIG = PARAMS.config
BUDGET = float(PARAMS.power_budget)
REST = jnp.zeros((CELLS, USERS))
PF = mac.proportional_fair()


@jax.jit
def decide(observation, mean, first, second):
    """The slot, who gets each PRB, and watts, in `residual`; test_controller has `paper`."""
    slot = prepare(observation, mean, PARAMS)
    owner = assign(slot, first, PARAMS, "residual")
    return slot, owner, allot(slot, owner, second, observation, PARAMS, "residual").power


@jax.jit
def weighted(observation, mean, first, second):
    """The slot as the PRB agent values it, who gets each PRB, and watts, in `weighted`."""
    slot = value(prepare(observation, mean, PARAMS), first, PARAMS, "weighted")
    owner = assign(slot, first, PARAMS, "weighted")
    return slot, owner, allot(slot, owner, second, observation, PARAMS, "weighted").power


@jax.jit
def fair(observation, carry):
    """Proportional fair at equal power, by the agents at rest and by the classical rule."""
    classical, mean = PF.apply(jax.random.key(0), observation, carry, PARAMS)
    slot = prepare(observation, mean, PARAMS)
    resting = allot(slot, fair_assignment(slot), REST, observation, PARAMS, "paper")
    return resting, classical, slot


@jax.jit
def paper_power(observation, mean, latent):
    slot = prepare(observation, mean, PARAMS)
    return allot(slot, fair_assignment(slot), latent, observation, PARAMS, "paper").power


@jax.jit
def knapsack(observation, owner, weights, reserved):
    return mac.mcs_aware_power(observation, owner, PARAMS, weights, reserved=reserved).power


def observe(rng):
    """Anything a slot may look like: absent users, busy ones, retransmissions that wait."""
    shape = (CELLS, USERS)
    mask = rng.random(shape) < 0.8
    need = rng.integers(0, 6, shape) * (rng.random(shape) < 0.4) * mask
    return mac.Observation(
        csi_db=jnp.asarray(rng.uniform(-8, 26, (*shape, CONFIG.num_subbands)), jnp.float32),
        olla_offset_db=jnp.asarray(rng.uniform(-3, 3, shape), jnp.float32),
        throughput=jnp.asarray(rng.uniform(0, 1e3, shape), jnp.float32),
        acked_bits=jnp.asarray(rng.uniform(0, 1e3, shape) * mask, jnp.float32),
        feedback=jnp.asarray(rng.integers(-1, 2, shape), jnp.int32),
        harq_prbs=jnp.asarray(need, jnp.int32),
        harq_free=jnp.asarray(rng.integers(0, 4, shape), jnp.int32),
        mask=jnp.asarray(mask),
    )


def averages(rng):
    return jnp.asarray(np.exp(rng.uniform(2, 6, (CELLS, USERS))), jnp.float32)


def latents(rng, size=1.5):
    return jnp.asarray(rng.normal(0, size, (CELLS, USERS)), jnp.float32)


def slots(seed):
    """A generator, an observation, and the averages."""
    rng = np.random.default_rng(seed)
    return rng, observe(rng), averages(rng)


SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)


@settings(deadline=None)
@given(latent=st.floats(width=32, allow_subnormal=False))
def test_a_tilt_is_the_latent_softly_bounded(latent):
    found = float(tilt(jnp.float32(latent)))
    expected = 0.0 if np.isnan(latent) else 3.0 * np.tanh(np.float64(latent) / 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)
    assert abs(found) <= 3.0


def test_a_tilt_is_the_latent_near_zero():
    assert float(tilt(0.0)) == 0.0
    np.testing.assert_allclose(jax.grad(tilt)(0.0), 1.0, rtol=1e-6)


@EXAMPLES
@given(seed=SEEDS, equal=st.booleans())
def test_residual_at_rest_is_proportional_fair_s_assignment(seed, equal):
    _, observation, mean = slots(seed)
    # an episode starts with equal averages, so that reports alike are exact ties
    mean = jnp.full_like(mean, 40.0) if equal else mean
    csi_db = jnp.round(observation.csi_db / 3) * 3 if equal else observation.csi_db
    slot, owner, _ = decide(observation.replace(csi_db=csi_db), mean, REST, REST)
    np.testing.assert_array_equal(owner, fair_assignment(slot))
    free = np.asarray(slot.reservation.owner) < 0
    np.testing.assert_array_equal(np.asarray(owner)[~free], slot.reservation.owner[~free])


@EXAMPLES
@given(seed=SEEDS)
def test_agents_at_rest_are_proportional_fair_at_equal_power(seed):
    _, observation, carry = slots(seed)
    resting, classical, slot = fair(observation, carry)
    np.testing.assert_array_equal(resting.owner, classical.owner)
    np.testing.assert_allclose(resting.power, classical.power, rtol=1e-5)
    # the classical rule itself: the largest r / T of those that may be served
    metric = np.asarray(slot.rates, np.float64) / np.asarray(slot.mean)[..., None]
    metric = np.repeat(metric, CONFIG.subband_size, axis=-1)
    metric = np.where(np.asarray(slot.reservation.eligible)[..., None], metric, -1.0)
    chosen = np.take_along_axis(metric, np.maximum(classical.owner, 0)[:, None], axis=1)[:, 0]
    new = np.asarray((slot.reservation.owner < 0) & (classical.owner >= 0))
    np.testing.assert_allclose(chosen[new], metric.max(1)[new], rtol=1e-6)


def hamilton(shares, count):
    """Largest remainders in float64, ties to the lowest index."""
    exact = shares / shares.sum() * count
    quotas = np.floor(exact).astype(int)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    return quotas


@EXAMPLES
@given(seed=SEEDS)
def test_tilts_mean_quotas_and_an_optimal_assignment(seed):
    rng, observation, mean = slots(seed)
    latent = latents(rng)
    slot, owner, power = jax.device_get(decide(observation, mean, latent, latents(rng)))
    z = 3 * np.tanh(np.asarray(latent, np.float64) / 3)
    for cell in range(CELLS):
        held, eligible = slot.reservation.owner[cell], slot.reservation.eligible[cell]
        free = held < 0
        np.testing.assert_array_equal(owner[cell][~free], held[~free])
        if not eligible.any():
            assert (owner[cell][free] == -1).all()
            continue
        shares = slot.counts[cell] * np.exp(z[cell]) + np.exp(2 * z[cell]) / (4 * USERS)
        quotas = hamilton(np.where(eligible, shares, 0.0), free.sum())
        got = np.bincount(owner[cell][free], minlength=USERS)
        np.testing.assert_array_equal(got, quotas)
        # no assignment with these quotas has a larger sum of r / T
        value = slot.rates[cell].astype(np.float64) / np.asarray(mean[cell])[:, None]
        value = np.repeat(value, CONFIG.subband_size, axis=-1)[:, free]
        rows = np.repeat(np.arange(USERS), quotas)
        best = scipy.optimize.linear_sum_assignment(value[rows], maximize=True)
        reached = value[owner[cell][free], np.arange(free.sum())].sum()
        np.testing.assert_allclose(reached, value[rows][best].sum(), rtol=1e-4)
    served = np.maximum(owner, 0)
    assert np.take_along_axis(np.asarray(observation.mask), served, -1)[owner >= 0].all()
    assert (power >= 0).all() and not power[owner < 0].any()
    assert (power.sum(-1) <= BUDGET * (1 + 1e-5)).all()


@EXAMPLES
@given(seed=SEEDS)
def test_residual_values_a_bit_at_its_tilted_price(seed):
    rng, observation, mean = slots(seed)
    second = latents(rng)
    slot, owner, power = decide(observation, mean, latents(rng), second)
    z = 3 * np.tanh(np.asarray(second, np.float64) / 3)
    weights = jnp.asarray(np.exp(z) / np.asarray(mean), jnp.float32)
    expected = knapsack(observation, owner, weights, slot.reservation.owner >= 0)
    np.testing.assert_allclose(power, expected, rtol=1e-4, atol=1e-6 * BUDGET)


@EXAMPLES
@given(seed=SEEDS)
def test_weighted_values_a_bit_at_its_tilted_price_in_prbs_and_in_power(seed):
    rng, observation, mean = slots(seed)
    first, second = latents(rng), latents(rng)
    slot, owner, power = jax.device_get(weighted(observation, mean, first, second))
    price = np.exp(3 * np.tanh(np.asarray(first, np.float64) / 3)) / np.asarray(mean, np.float64)
    np.testing.assert_allclose(slot.prices, price, rtol=1e-5)
    metric = np.repeat(slot.rates * price[..., None], CONFIG.subband_size, axis=-1)
    metric = np.where(slot.reservation.eligible[..., None], metric, -1.0)
    chosen = np.take_along_axis(metric, np.maximum(owner, 0)[:, None], axis=1)[:, 0]
    held = slot.reservation.owner >= 0
    np.testing.assert_array_equal(owner[held], slot.reservation.owner[held])
    new = ~held & (owner >= 0)
    np.testing.assert_allclose(chosen[new], metric.max(1)[new], rtol=1e-5)
    np.testing.assert_array_equal(owner[~held] < 0, (metric.max(1) < 0)[~held])
    weights = price * np.exp(3 * np.tanh(np.asarray(second, np.float64) / 3))
    expected = knapsack(observation, owner, jnp.asarray(weights, jnp.float32), held)
    np.testing.assert_allclose(power, expected, rtol=1e-4, atol=1e-6 * BUDGET)


@EXAMPLES
@given(seed=SEEDS)
def test_odd_latents_are_tame_and_those_of_absent_users_do_not_matter(seed):
    rng, observation, mean = slots(seed)
    absent = ~np.asarray(observation.mask)
    pairs = []
    for _ in range(2):
        tame, wild = np.array(latents(rng)), np.empty((CELLS, USERS))
        odd = rng.choice([np.nan, np.inf, -np.inf, 0.0], (CELLS, USERS))
        tame = np.where(odd == 0, tame, np.nan_to_num(odd, nan=0.0, posinf=1e4, neginf=-1e4))
        wild = np.where(odd == 0, tame, odd)
        wild = np.where(absent, rng.choice([np.nan, 50.0, -np.inf], wild.shape), wild)
        pairs.append((jnp.asarray(tame, jnp.float32), jnp.asarray(wild, jnp.float32)))
    (first, wild_first), (second, wild_second) = pairs
    _, *calm = decide(observation, mean, first, second)
    _, *other = decide(observation, mean, wild_first, wild_second)
    calm.append(paper_power(observation, mean, second))
    other.append(paper_power(observation, mean, wild_second))
    for one, two in zip(calm, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()


@EXAMPLES
@given(seed=SEEDS, orders=st.tuples(*CELLS * [st.permutations(range(USERS))]))
def test_permuting_users_permutes_what_residual_gives_them(seed, orders):
    rng, observation, mean = slots(seed)
    # several retransmissions at once are served in the order of users
    waiting = jnp.arange(USERS) == rng.integers(USERS)
    observation = observation.replace(harq_prbs=jnp.where(waiting, observation.harq_prbs, 0))
    first, second = latents(rng), latents(rng)
    order = np.array(orders)

    def move(leaf):
        return leaf[np.arange(CELLS)[:, None], order]

    def given(observation, mean, *both):
        slot, owner, power = jax.device_get(decide(observation, mean, *both))
        rates = np.repeat(slot.rates, CONFIG.subband_size, axis=-1) * slot.prices[..., None]
        mine = (owner[:, None] == np.arange(USERS)[:, None]) & (slot.reservation.owner < 0)[:, None]
        return mine.sum(-1), (rates * mine).sum((-2, -1)), power.sum(-1)

    counts, value, spent = given(observation, mean, first, second)
    moved = given(jax.tree.map(move, observation), *map(move, (mean, first, second)))
    # PRBs of equal rate are ties, so that it is the number and the value that are moved
    np.testing.assert_array_equal(moved[0], move(counts))
    np.testing.assert_allclose(moved[1], value, rtol=1e-4)
    np.testing.assert_allclose(moved[2], spent, rtol=1e-5)
