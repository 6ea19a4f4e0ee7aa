"""Upper bounds: valid duality, tight where the optimum is known, and never beaten by a policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.env import DownlinkConfig
from jaxrl5g.evaluation import bounds, drop_tracks, evaluate
from jaxrl5g.evaluation.bounds import counted_slots, envelopes, episode_bound
from jaxrl5g.evaluation.slot_bound import conjugate, conjugate_table, lagrangian, slot_bound
from jaxrl5g.mac import Allocation
from jaxrl5g.phy.rate_envelope import rate_envelope

KEY = jax.random.key(5)
SLOTS, WARM_UP = 60, 20
SHANNON = rate_envelope(12, 132, 1, "shannon")
NR = tuple(rate_envelope(12, 132, 1, "nr", "chase", 4, share) for share in (0.0, 0.3))
SHANNON_TABLE, NR_TABLE = conjugate_table((SHANNON,)), conjugate_table(NR)


@pytest.fixture(autouse=True, scope="module")
def two_floors():
    """Two of the floors that a user may take instead of nine, for the sake of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "FLOOR_SHARES", (0.0, 0.3))
        yield


def test_tabulated_conjugates_are_never_below_the_exact_ones():
    for curves, table in (((SHANNON,), SHANNON_TABLE), (NR, NR_TABLE)):
        for choice, curve in enumerate(curves):
            price = np.float32(curve.steepest * np.geomspace(1e-10, 30.0, 20_000))
            exact = curve.conjugate(price.astype(np.float64))
            value, rate, sinr = conjugate(table, jnp.asarray(price), jnp.int32(choice))
            value = np.asarray(value, np.float64)
            assert (value >= exact).all()
            assert (value - exact).max() < 3e-4 * curve.top
            # what it says of the maximiser is on the envelope's hull, to the table's resolution
            reached = np.asarray(rate, np.float64)
            some = np.asarray(sinr) < 1e4
            assert (reached[some] >= curve.rate(np.asarray(sinr))[some] * 0.999 - 1e-3).all()


dual = jax.jit(lagrangian)
best_dual = jax.jit(slot_bound)


def bisected(table, snr, weights, choice, steps=24):
    low, high = jnp.float32(1e-7), jnp.float32(1e4 * max(weights.max(), 1.0))
    sharing = jnp.float32(0.01)
    bound, at, price = best_dual(table, snr, weights, choice, low, high, sharing, jnp.int32(steps))
    return float(bound), at, float(price)


def weighted_bits(curve, snr, weights, owner, power):
    """Weighted bits of an allocation; snr [U, N], owner and power (in budgets) [..., N]."""
    prb = np.arange(snr.shape[1])
    return np.sum(weights[owner] * curve.rate(power * snr[owner, prb]), axis=-1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), log_price=st.floats(-6, 4), choice=st.integers(0, 1))
def test_every_price_of_power_bounds_every_allocation(seed, log_price, choice):
    rng = np.random.default_rng(seed)
    snr = np.float32(10.0 ** rng.uniform(-1, 4, (3, 1)) * rng.exponential(size=(3, 4)))
    weights = np.float32(rng.exponential(size=3))
    owner = rng.integers(0, 3, (2000, 4))
    power = rng.dirichlet(np.full(4, 0.5), 2000)
    for curve, table, which in ((SHANNON, SHANNON_TABLE, 0), (NR[choice], NR_TABLE, choice)):
        which = np.full(3, which, np.int32)
        price = jnp.float32(10.0**log_price)
        at_price, _ = dual(table, price, snr, weights, which, jnp.float32(0.1))
        bound, _, _ = bisected(table, snr, weights, which)
        reached = weighted_bits(curve, snr, weights, owner, power).max()
        assert reached <= bound
        assert reached <= float(at_price)


def test_a_slot_bound_is_close_to_brute_force_over_assignments_and_powers():
    rng = np.random.default_rng(3)
    grid = np.arange(41) / 40.0
    power = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    power = np.append(power[power.sum(axis=1) <= 1.0 + 1e-9], np.zeros((1, 3)), axis=0)
    gaps = []
    for _ in range(6):
        snr = np.float32(10.0 ** rng.uniform(0, 2, (2, 1)) * rng.exponential(size=(2, 3)))
        snr = np.append(snr, np.full((1, 3), 1e-3, np.float32), axis=0)
        snr = np.append(snr, np.zeros((3, 1), np.float32), axis=1)  # a dark PRB, shapes as above
        weights = np.float32([*rng.uniform(0.5, 2, 2), 0.0])
        bound, _, _ = bisected(SHANNON_TABLE, snr, weights, np.zeros(3, np.int32))
        best = 0.0
        for assignment in np.ndindex(2, 2, 2):
            owner = np.asarray([*assignment, 0])
            values = weighted_bits(
                SHANNON, snr, weights, owner, np.append(power, 0 * power[:, :1], axis=1)
            )
            best = max(best, values.max())
        gaps.append(bound / best - 1.0)
    assert min(gaps) >= 0.0
    # what is left: the grid of powers, and users that would have to share one PRB
    assert np.median(gaps) < 0.02 and max(gaps) < 0.1


def water_filling(snr, cap):
    """Exact bits per resource element of one user: capped water-filling by bisection, float64."""
    top = (2.0**cap - 1.0) / snr
    low, high = 0.0, 1.0 + np.max(1.0 / snr)
    if top.sum() <= 1.0:
        return cap * len(snr)
    for _ in range(200):
        level = 0.5 * (low + high)
        power = np.clip(level - 1.0 / snr, 0.0, top)
        low, high = (level, high) if power.sum() < 1.0 else (low, level)
    return np.sum(np.log2(1.0 + power * snr))


def test_one_user_alone_gets_exactly_water_filling():
    rng = np.random.default_rng(4)
    for scale in (0.3, 10.0, 300.0, 1e5):
        snr = np.float32(scale * rng.exponential(size=4))
        table = np.stack([snr, np.zeros(4), np.zeros(4)]).astype(np.float32)
        weights = np.float32([2.0, 0.0, 0.0])
        bound, _, _ = bisected(SHANNON_TABLE, table, weights, np.zeros(3, np.int32))
        exact = 2.0 * 132 * water_filling(snr.astype(np.float64), SHANNON.shannon_cap)
        assert exact <= bound <= exact * 1.001


@pytest.mark.parametrize("fidelity", ["nr", "sionna", "shannon"])
def test_counted_slots_hold_every_transmission_of_a_counted_block(fidelity):
    config = DownlinkConfig(fidelity=fidelity, feedback_delay=3, max_transmissions=3)
    delay, attempts = (3, 3) if fidelity == "nr" else (1, 1)
    horizon, warm_up = 40, 11
    on_air = set()
    for first in range(horizon):
        for sent in range(1, attempts + 1):  # retransmitted as soon as the feedback is there
            slots = [first + delay * i for i in range(sent)]
            if warm_up <= slots[-1] + delay - 1 < horizon:
                on_air.update(slots)
    assert set(counted_slots(config, horizon, warm_up)) == on_air
    assert counted_slots(config, horizon, warm_up, lead=10**6).start == (
        0 if fidelity == "nr" else warm_up
    )


CASES = {
    "nr-perfect": dict(csi="perfect"),
    "nr-reported-incremental": dict(combining="incremental", min_users=2, max_users=3),
    "shannon": dict(fidelity="shannon", csi="perfect"),
    "sionna": dict(fidelity="sionna"),
}


@functools.cache
def make(case):
    return jaxrl5g.make("TinyDownlink-v0", max_steps_in_episode=SLOTS, **CASES[case])


# pf, max rate, alpha-fair, blind equal throughput, random, one user; equal or random powers
RATE_POWER = np.float32([1, 1, 1, 0, 0, 0, 1, 0])
THROUGHPUT_POWER = np.float32([1, 0, 0.5, 1, 0, 0, 1, 0])
NOISE = np.float32([0, 0, 0, 0, 5, 0, 0.3, 5])
FAVOURITE = np.float32([0, 0, 0, 0, 0, 1, 0, 0]) * 1e6
SPREAD = np.float32([0, 0, 0, 0, 0, 0, 2, 2])


def policy(style, key, observation, params):
    """One of a family of schedulers; waiting retransmissions come first."""
    config = params.config
    rate_power, throughput_power, noise, favourite, spread = style
    rates = mac.per_prb(mac.predicted_rates(observation, params), config)
    score = rate_power * jnp.log(rates + 1e-6)
    score = score - throughput_power * jnp.log(observation.throughput + 1.0)[..., None]
    pick, amount = jax.random.split(key)
    score = score + noise * jax.random.gumbel(pick, score.shape)
    score = score + favourite * (jnp.arange(config.num_users) == 1)[:, None]
    held = mac.reserve_retransmissions(observation, config)
    score = jnp.where(held.eligible[..., None], score, -jnp.inf)
    owner = jnp.where(jnp.any(held.eligible, axis=1)[:, None], jnp.argmax(score, axis=1), -1)
    owner = jnp.where(held.owner >= 0, held.owner, owner).astype(jnp.int32)
    power = jnp.exp(spread * jax.random.normal(amount, owner.shape))
    return Allocation(owner, params.power_budget * power / jnp.sum(power))


@functools.partial(jax.jit, static_argnames=("env",))
def play(env, params, styles, drop_key, lucks, warm_up):
    """Bits per slot [styles, lucks, C, U] of one drop of `evaluate`, over HARQ luck, and mask."""
    reset_key, _ = jax.random.split(drop_key)

    def episode(style, luck):
        observation, state = env.reset_env(reset_key, params)
        state = state.replace(key=luck)

        def slot(carry, index):
            observation, state = carry
            key = jax.random.fold_in(jax.random.key(9), index)
            action = policy(style, key, observation, params)
            observation, state, _, _, info = env.step_env(key, state, action, params)
            return (observation, state), jnp.where(index >= warm_up, info["acked_bits"], 0.0)

        start = (observation, state)
        _, bits = jax.lax.scan(slot, start, jnp.arange(SLOTS))
        return jnp.sum(bits, axis=0) / (SLOTS - warm_up), state.mask

    each = jax.vmap(episode, in_axes=(None, 0))
    return jax.vmap(each, in_axes=(0, None))(styles, lucks)


def alpha_mean(x, alpha):
    if alpha == 1.0:
        return np.exp(np.mean(np.log(np.maximum(x, 1e-9)), axis=-1))
    return np.mean(np.maximum(x, 1e-9) ** (1.0 - alpha), axis=-1) ** (1.0 / (1.0 - alpha))


@pytest.mark.parametrize("case", CASES)
def test_no_policy_beats_its_bound(case):
    env, params = make(case)
    styles = (RATE_POWER, THROUGHPUT_POWER, NOISE, FAVOURITE, SPREAD)
    lucks = jax.random.split(jax.random.key(1), 4)
    # as many slots count as in "nr", so that one compilation serves both
    warm_up = 8 if case == "sionna" else WARM_UP
    slack = {}
    for drop in range(2):
        bits, mask = play(env, params, styles, jax.random.fold_in(KEY, drop), lucks, warm_up)
        present = np.asarray(mask)[0, 0]
        expected = np.asarray(bits, np.float64).mean(axis=1)[:, present]
        expected = expected / params.config.slot_seconds
        for alpha in (0.0, 1.0, 2.0):
            bound = episode_bound(env, params, KEY, [drop], alpha=alpha, warm_up=warm_up)
            reached = alpha_mean(expected, alpha)
            assert (reached <= bound.value[0]).all()
            slack[alpha, drop] = bound.value[0] / reached.max()
            assert bound.users[0] == present.sum()
            assert (np.isfinite(bound.throughput[0]) == present).all()
    # bounds that nobody comes near would say nothing: PF is near the geometric mean's
    assert max(slack[1.0, drop] for drop in range(2)) < 1.9
    if case == "shannon":
        assert max(slack[0.0, drop] for drop in range(2)) < 1.12


def test_a_bound_is_for_the_drops_of_evaluate():
    env, params = make("shannon")
    metrics = evaluate(env, params, mac.proportional_fair(), KEY, 3, warm_up=WARM_UP)
    bound = episode_bound(env, params, KEY, range(3), warm_up=WARM_UP)
    assert (metrics.geometric_mean <= bound.value).all()
    assert (bound.value < 1.3 * metrics.geometric_mean).all()
    mean = episode_bound(env, params, KEY, range(3), warm_up=WARM_UP, alpha=0.0)
    assert (metrics.cell_throughput <= mean.cell_throughput).all()
    np.testing.assert_array_equal(
        episode_bound(env, params, KEY, [2], warm_up=WARM_UP).history[0], bound.history[2]
    )


def test_more_steps_never_loosen_a_bound_and_a_good_start_helps():
    env, params = make("shannon")
    long = episode_bound(env, params, KEY, [0], warm_up=WARM_UP)
    short = episode_bound(env, params, KEY, [0], warm_up=WARM_UP, steps=3)
    np.testing.assert_allclose(short.history[0], long.history[0, :4], rtol=1e-5)
    assert long.value[0] <= short.value[0] * (1 + 1e-6)
    assert long.value[0] == long.history.min() < long.history[0, 0]
    again = episode_bound(
        env, params, KEY, [0], warm_up=WARM_UP, steps=3, reference_throughput=long.throughput
    )
    assert again.history[0, 0] < short.history[0, 0]
    assert again.history[0, 0] < 1.02 * long.value[0]


def test_one_user_on_a_whole_episode_is_water_filling_slot_by_slot():
    env, params = make("shannon")
    params = params.replace(min_users=jnp.int32(1), max_users=jnp.int32(1))
    bound = episode_bound(env, params, KEY, [0], warm_up=WARM_UP)
    assert bound.users.tolist() == [1]
    reset_key, _ = jax.random.split(jax.random.fold_in(KEY, 0))
    tracks = jnp.asarray(drop_tracks(params, 1)[0])
    _, state = env.reset_env(reset_key, params.replace(tracks=tracks))
    slots = jnp.arange(WARM_UP, SLOTS)
    gains = jax.vmap(lambda slot: params.channel.gains(state.drop, slot))(slots)[:, 0, 0, 0]
    snr = np.asarray(gains, np.float64) * float(params.power_budget / params.noise_power)
    exact = np.mean([132 * water_filling(row, SHANNON.shannon_cap) for row in snr])
    exact = exact / params.config.slot_seconds
    assert exact <= bound.value[0] <= exact * 1.001


def test_shannon_has_one_envelope_and_the_rest_a_choice():
    assert len(envelopes(DownlinkConfig(num_prbs=12, fidelity="shannon"))) == 1
    assert len(envelopes(DownlinkConfig(num_prbs=12))) > 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(drops=[]), r"drops must be some drop indices, 0 or more, got \[\]"),
        (dict(drops=[0, -1]), "drops must be some drop indices"),
        (dict(alpha=-0.5), "alpha must be from 0 to 8.0, got -0.5"),
        (dict(alpha=float("nan")), "alpha must be from 0 to 8.0, got nan"),
        (dict(steps=-1), "steps must be at least 0, got -1"),
        (dict(lead=-2), "lead must be None or at least 0 slots, got -2"),
        (dict(warm_up=SLOTS), "warm_up must leave slots to count: .* horizon of 60, got 60"),
        (
            dict(reference_throughput=np.ones((1, 4))),
            r"shape \[drops, cells, users\] = \(1, 1, 4\)",
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    env, params = make("shannon")
    with pytest.raises(ValueError, match=message):
        episode_bound(env, params, KEY, **{"drops": [0], "warm_up": WARM_UP, **options})
