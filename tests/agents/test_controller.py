"""The controller as a scheduler: what it is at rest, when it decides, and what must not matter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.agents.controller import ControllerConfig, controller, see, see_assignment
from jaxrl5g.agents.features import feature_names
from jaxrl5g.agents.slots import prepare
from jaxrl5g.rl.mappo import MappoConfig, policy
from jaxrl5g.rl.networks import Equivariant

CELLS, USERS, PRBS, PERIOD, SLOTS, DROPS = 2, 5, 12, 5, 60, 4
SIZES = {"num_cells": CELLS, "num_users": USERS, "num_prbs": PRBS}
ENV, PARAMS = jaxrl5g.make("TinyDownlink-v0", min_users=2, bler_target=0.3, **SIZES)
CONTINUOUS = {"fidelity": "shannon", "csi": "perfect"}
SMOOTH = jaxrl5g.make("TinyDownlink-v0", **CONTINUOUS, **SIZES)[1]
NETWORKS = MappoConfig(actor_features=(8, 8))
PAPER = ControllerConfig("paper", 1)
KEY = jax.random.key(0)


def actors(seed, parametrisation="paper"):
    """Random networks, of visible effect; None for networks that say 0."""
    rng = np.random.default_rng(seed)

    def actor(features):
        sample = jnp.zeros((CELLS, USERS, features)), jnp.ones((CELLS, USERS), bool)
        network = Equivariant(NETWORKS.actor_features, 1)
        shapes = jax.eval_shape(network.init, KEY, *sample)
        scale = 0.0 if seed is None else 0.6
        leaves = jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape)), shapes)
        return {"network": leaves, "log_std": jnp.float32(-1.0)}

    names = feature_names(parametrisation)
    return {name: actor(len(features)) for name, features in names.items()}


def play(make, key, params):
    """Each slot's observation, reward, what was sent, and the scheduler's memory after it."""
    scheduler = make()
    observation, state = ENV.reset_env(key, params)

    def slot(carry, _):
        observation, state, memory = carry
        allocation, memory = scheduler.apply(key, observation, memory, params)
        after, state, reward, _, info = ENV.step_env(key, state, allocation, params)
        sent = {name: info[name] for name in ("owner", "radiated", "attempt", "acked_bits")}
        return (after, state, memory), (observation, reward, sent, memory)

    start = (observation, state, scheduler.init(params))
    return jax.lax.scan(slot, start, None, length=SLOTS)[1]


@partial(jax.jit, static_argnames="parametrisation")
def episodes(parametrisation, parameters, keys, params):
    make = partial(controller, parameters, ControllerConfig(parametrisation, PERIOD), NETWORKS)
    return jax.vmap(partial(play, make), (0, None))(keys, params)


@jax.jit
def classical_episodes(keys, params):
    make = partial(mac.proportional_fair, 100.0, power="knapsack")
    return jax.vmap(partial(play, make), (0, None))(keys, params)


KEYS = jax.random.split(jax.random.key(1), DROPS)


@pytest.mark.parametrize("parametrisation", ["residual", "weighted"])
def test_at_rest_it_is_proportional_fair_with_knapsack_power_bit_for_bit(parametrisation):
    mine = episodes(parametrisation, actors(None, parametrisation), KEYS, PARAMS)
    mine = jax.device_get(mine)
    classical = jax.device_get(classical_episodes(KEYS, PARAMS))
    for one, other in zip(
        jax.tree.leaves((mine[:3], mine[3].mean)),
        jax.tree.leaves((classical[:3], classical[3])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    observation, _, sent, memory = mine
    assert not memory.first_latent.any() and not memory.second_latent.any()
    # with absent users, retransmissions, and power that is not equal
    assert 0 < observation.mask.mean() < 1
    assert (sent["attempt"] > 1).any() and (observation.harq_prbs > 0).any()
    assert np.unique(sent["radiated"]).size > 100


@pytest.mark.parametrize("parametrisation", ["residual", "weighted"])
def test_decisions_hold_for_a_period_and_prbs_follow_the_channel(parametrisation):
    observation, _, sent, memory = jax.device_get(
        episodes(parametrisation, actors(3, parametrisation), KEYS, PARAMS)
    )
    within = np.arange(1, SLOTS) % PERIOD != 0
    for latent in (memory.first_latent, memory.second_latent):
        change = np.diff(latent, axis=1)
        assert not change[:, within].any()
        assert change[:, ~within].any(axis=(2, 3)).all()
        assert not latent[~observation.mask].any()
        assert np.abs(latent).max() > 0.5
    moved = np.diff(sent["owner"], axis=1)[:, within].any(axis=(2, 3))
    assert moved.mean() > 0.5
    # the average is of acknowledged bits, the last slot's among them
    mean = np.full((DROPS, CELLS, USERS), float(PARAMS.initial_throughput))
    for slot in range(SLOTS):
        mean += (observation.acked_bits[:, slot] - mean) / 100
        np.testing.assert_allclose(memory.mean[:, slot], mean, rtol=1e-4)
    # what was decided made a difference, and nobody absent was served
    assert (sent["owner"] != np.asarray(classical_episodes(KEYS, PARAMS)[2]["owner"])).any()
    assert not sent["acked_bits"][~observation.mask].any()
    assert (sent["radiated"].sum(-1) <= float(PARAMS.power_budget) * (1 + 1e-5)).all()


def observe(rng, config, mask=None):
    """Continuous channel quality, so that no two users are alike."""
    shape = (CELLS, USERS)
    mask = rng.random(shape) < 0.8 if mask is None else mask
    return mac.Observation(
        csi_db=jnp.asarray(rng.uniform(-8, 15, (*shape, config.num_subbands)), jnp.float32),
        olla_offset_db=jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32),
        throughput=jnp.asarray(rng.uniform(10, 1e3, shape), jnp.float32),
        acked_bits=jnp.asarray(rng.uniform(0, 1e3, shape) * mask, jnp.float32),
        feedback=jnp.asarray(rng.integers(-1, 2, shape), jnp.int32),
        harq_prbs=jnp.zeros(shape, jnp.int32),
        harq_free=jnp.ones(shape, jnp.int32),
        mask=jnp.asarray(mask),
    )


@jax.jit
def apply_paper(parameters, observation, mean):
    scheduler = controller(parameters, PAPER, NETWORKS)
    memory = scheduler.init(SMOOTH)._replace(mean=mean)
    allocation, memory = scheduler.apply(KEY, observation, memory, SMOOTH)
    return allocation, memory, prepare(observation, memory.mean, SMOOTH)


def hamilton(shares, count):
    """Largest remainders in float64, ties to the lowest index."""
    exact = shares / shares.sum() * count
    quotas = np.floor(exact).astype(int)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    return quotas


@pytest.mark.parametrize("seed", [None, *range(12)])
def test_paper_gives_shares_of_the_band_and_of_the_budget(seed):
    rng = np.random.default_rng(seed or 0)
    waiting = rng.integers(0, 5, (CELLS, USERS)) * (rng.random((CELLS, USERS)) < 0.3)
    observation = observe(rng, SMOOTH.config)
    observation = observation.replace(
        harq_prbs=jnp.asarray(waiting, jnp.int32),
        harq_free=jnp.asarray(rng.integers(0, 3, (CELLS, USERS)), jnp.int32),
    )
    mean = jnp.asarray(np.exp(rng.uniform(3, 6, (CELLS, USERS))), jnp.float32)
    allocation, memory, slot = jax.device_get(apply_paper(actors(seed), observation, mean))
    owner, power, budget = allocation.owner, allocation.power, float(SMOOTH.power_budget)
    held, eligible = slot.reservation
    tilts = [
        3 * np.tanh(latent.astype(np.float64) / 3)
        for latent in (memory.first_latent, memory.second_latent)
    ]
    assert (seed is None) == (not tilts[0].any()) == (not tilts[1].any())
    for cell in range(CELLS):
        free = held[cell] < 0
        np.testing.assert_array_equal(owner[cell][~free], held[cell][~free])
        np.testing.assert_allclose(power[cell][~free], budget / PRBS, rtol=1e-5)
        if not eligible[cell].any():
            assert (owner[cell][free] == -1).all() and not power[cell][free].any()
            continue
        quotas = hamilton(np.where(eligible[cell], np.exp(tilts[0][cell]), 0.0), free.sum())
        counts = np.bincount(owner[cell][free], minlength=USERS)
        np.testing.assert_array_equal(counts, quotas)
        value = slot.rates[cell].astype(np.float64) / memory.mean[cell][:, None]
        rows = np.repeat(value[:, free], quotas, axis=0)
        best = scipy.optimize.linear_sum_assignment(rows, maximize=True)
        reached = value[owner[cell], np.arange(PRBS)][free].sum()
        np.testing.assert_allclose(reached, rows[best].sum(), rtol=1e-4)
        # the budget that is left, by PRBs and tilt: equal power at rest
        weight = np.exp(tilts[1][cell])[owner[cell][free]]
        left = budget * free.sum() / PRBS
        np.testing.assert_allclose(power[cell][free], left * weight / weight.sum(), rtol=1e-4)
        if seed is None:
            np.testing.assert_allclose(power[cell], budget / PRBS, rtol=1e-5)
            assert np.ptp(quotas[eligible[cell]]) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_permuting_users_permutes_decisions_assignment_and_power(seed):
    rng = np.random.default_rng(seed)
    observation = observe(rng, SMOOTH.config)
    mean = jnp.asarray(np.exp(rng.uniform(3, 6, (CELLS, USERS))), jnp.float32)
    order = np.stack([rng.permutation(USERS) for _ in range(CELLS)])

    def move(leaf):
        return leaf[np.arange(CELLS)[:, None], order]

    allocation, memory, _ = apply_paper(actors(seed), observation, mean)
    moved, moved_memory, _ = apply_paper(actors(seed), jax.tree.map(move, observation), move(mean))
    for name in ("mean", "first_latent", "second_latent"):
        one, other = getattr(memory, name), getattr(moved_memory, name)
        np.testing.assert_allclose(other, move(one), rtol=1e-4, atol=1e-5)
    # places[c, u] is where user u of cell c went
    places, owner = np.argsort(order, axis=-1), np.asarray(allocation.owner)
    expected = np.take_along_axis(places, np.maximum(owner, 0), axis=-1)
    np.testing.assert_array_equal(moved.owner, np.where(owner >= 0, expected, -1))
    np.testing.assert_allclose(moved.power, allocation.power, rtol=1e-4)
    assert np.unique(owner).size > 2


def prepared(observation, mean, params):
    slot = prepare(observation, mean, params)
    first = see(slot, observation, params, PAPER)
    return first, see_assignment(first, slot, slot.fair_owner, observation, params), slot


views = jax.jit(prepared)


def test_absent_users_have_no_features_and_get_no_gradient():
    rng = np.random.default_rng(0)
    observation = observe(rng, SMOOTH.config)
    mean = jnp.full((CELLS, USERS), 50.0)
    absent = ~np.asarray(observation.mask)
    assert absent.any(-1).all()
    first, second, _ = views(observation, mean, SMOOTH)
    parameters = actors(1)

    @jax.jit
    def log_prob(actor, features, seen, latent):
        def total(actor, features):
            return jnp.sum(
                policy(actor, seen._replace(features=features), NETWORKS).log_prob(latent)
            )

        return jax.grad(total, (0, 1))(actor, features)

    for name, seen in (("first", first), ("second", second)):
        assert not np.asarray(seen.features)[absent].any()
        latent = jnp.asarray(rng.normal(size=(CELLS, USERS)), jnp.float32)
        actor, features = log_prob(parameters[name], seen.features, seen, latent)
        assert not np.asarray(features)[absent].any()
        assert np.asarray(features)[~absent].any(-1).all()
        # nothing that stands in an absent user's place reaches the network's gradient
        garbage = jnp.where(seen.mask[..., None], seen.features, jnp.nan)
        other, features = log_prob(
            parameters[name], garbage, seen, jnp.where(seen.mask, latent, 9.0)
        )
        assert not np.asarray(features)[absent].any()
        for one, two in zip(jax.tree.leaves(actor), jax.tree.leaves(other), strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(one, two)


def test_features_are_what_their_names_say():
    rng = np.random.default_rng(5)
    observation = observe(rng, SMOOTH.config).replace(
        harq_prbs=jnp.zeros((CELLS, USERS), jnp.int32).at[0, 1].set(3),
        mask=jnp.ones((CELLS, USERS), bool).at[0, 4].set(False),
    )
    mean = np.exp(rng.uniform(1, 8, (CELLS, USERS)))
    _, second, slot = jax.device_get(views(observation, jnp.asarray(mean, jnp.float32), SMOOTH))
    names = feature_names("paper")["second"]
    got = dict(zip(names, np.moveaxis(second.features, -1, 0), strict=True))
    seen = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), observation)
    mask = seen.mask > 0
    csi, bits = seen.csi_db, np.where(mask, seen.acked_bits, 0.0)
    users = mask.sum(-1, keepdims=True)
    total = np.where(mask, mean, 0.0).sum(-1, keepdims=True)
    rate = 132 * np.log2(1 + 10 ** ((csi - seen.olla_offset_db[..., None]) / 10))
    metric = rate / mean[..., None]
    free, fair = slot.reservation.owner < 0, PRBS / users
    eligible = mask & (np.arange(CELLS)[:, None] * USERS + np.arange(USERS) != 1)
    np.testing.assert_array_equal(slot.reservation.eligible, eligible)
    level = np.where(eligible[..., None], metric, 0.0).max(-2).mean(-1)[:, None]
    best = np.where(eligible[..., None], metric, -1.0).argmax(-2)
    mine = (best[:, None] == np.arange(USERS)[:, None]) & free[:, None]
    counts = mine.sum(-1)
    value = (metric * mine).sum(-1)

    def log(ratio):
        return np.clip(np.log(np.maximum(ratio, 1e-6)), -6, 6) / 2

    owned_csi = (csi * mine).sum(-1) / np.maximum(counts, 1)
    expected = {
        "csi_mean": (csi.mean(-1) - 12) / 10,
        "csi_best": (csi.max(-1) - csi.mean(-1)) / 10,
        "csi_spread": csi.std(-1) / 10,
        "olla_offset": seen.olla_offset_db / 5,
        "throughput_share": log(mean * users / total),
        "metric": log(metric.mean(-1) / level),
        "metric_best": log(metric.max(-1) / level),
        "count": counts / fair,
        "log_count": log((counts + 0.25) / (fair + 0.25)),
        "acked_share": np.minimum(bits / (bits.sum(-1, keepdims=True) / users), 6) / 2,
        "ack": seen.feedback == 1,
        "nack": seen.feedback == 0,
        "retransmission": seen.harq_prbs / PRBS,
        "processes_free": seen.harq_free,
        "eligible": eligible,
        "owned": counts / fair,
        "log_owned": log((counts + 0.25) / (fair + 0.25)),
        "owned_csi": np.where(counts > 0, (owned_csi - 12) / 10, 0.0),
        "value_share": value * users / value.sum(-1, keepdims=True) / 4,
    }
    assert list(expected) == list(names)
    for name, values in expected.items():
        np.testing.assert_allclose(
            got[name], np.where(mask, values, 0.0), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_weighted_sees_what_users_have_above_the_mean_and_is_explored_along_it():
    rng = np.random.default_rng(2)
    mask = np.ones((CELLS, USERS), bool)
    mask[0, 1] = False
    observation = observe(rng, SMOOTH.config, mask)
    mean = np.array([[10.0, 500.0, 20.0, 30.0, 100.0], [1.0, 1.0, 1.0, 1.0, 96.0]], np.float32)
    config = ControllerConfig("weighted", PERIOD)
    seen = see(prepare(observation, jnp.asarray(mean), SMOOTH), observation, SMOOTH, config)
    excess = seen.features[..., feature_names("weighted")["first"].index("excess")]
    # means of 40 and of 20 over those present
    expected = [[0.0, 0.0, 0.0, 0.0, 0.75], [0.0, 0.0, 0.0, 0.0, 1.9]]
    np.testing.assert_allclose(excess, expected, rtol=1e-5)
    np.testing.assert_allclose(seen.along, np.array(expected) / 4, rtol=1e-5)
    starved = prepare(observation, jnp.zeros((CELLS, USERS)), SMOOTH)
    assert np.isfinite(see(starved, observation, SMOOTH, config).features).all()


@pytest.mark.parametrize("csi_db", [-40.0, 0.0, 60.0])
@pytest.mark.parametrize("mean", [0.0, 1e-9, 1e9])
def test_features_stay_finite_and_small_at_the_extremes(csi_db, mean):
    everybody = np.ones((CELLS, USERS), bool)
    for mask in (everybody, ~everybody, np.eye(CELLS, USERS, dtype=bool)):
        observation = observe(np.random.default_rng(0), SMOOTH.config, mask)
        csi = jnp.full_like(observation.csi_db, csi_db)
        for free in (0, 1):
            extreme = observation.replace(
                csi_db=csi,
                harq_free=jnp.full((CELLS, USERS), free, jnp.int32),
                acked_bits=jnp.zeros((CELLS, USERS)),
            )
            _, second, _ = views(extreme, jnp.full((CELLS, USERS), mean), SMOOTH)
            assert np.isfinite(second.features).all()
            assert np.abs(second.features).max() <= 6.0
            assert not np.asarray(second.features)[~mask].any()


def test_both_agents_left_out_of_paper_is_proportional_fair_at_equal_power():
    scheduler = controller(actors(2), PAPER, NETWORKS, rest_first=True, rest_second=True)
    classical = mac.proportional_fair(PAPER.window)
    mine = jax.jit(scheduler.apply)
    theirs = jax.jit(classical.apply)
    memory, mean = scheduler.init(SMOOTH), classical.init(SMOOTH)
    rng = np.random.default_rng(4)
    for _ in range(8):
        observation = observe(rng, SMOOTH.config)
        allocation, memory = mine(KEY, observation, memory, SMOOTH)
        expected, mean = theirs(KEY, observation, mean, SMOOTH)
        np.testing.assert_array_equal(allocation.owner, expected.owner)
        np.testing.assert_allclose(allocation.power, expected.power, rtol=1e-5)
        np.testing.assert_array_equal(memory.mean, mean)
        assert not np.asarray(memory.second_latent).any()


def test_samples_are_drawn_around_the_mode():
    observation = observe(np.random.default_rng(1), SMOOTH.config)
    parameters, draws = actors(6), 2000

    def latent(key, sample):
        scheduler = controller(parameters, PAPER, NETWORKS, sample=sample, rest_first=True)
        return scheduler.apply(key, observation, scheduler.init(SMOOTH), SMOOTH)[1].second_latent

    keys = jax.random.split(KEY, draws)
    sampled = jax.jit(jax.vmap(partial(latent, sample=True)))(keys)
    mode = jax.jit(partial(latent, sample=False))(KEY)
    present = np.asarray(observation.mask)
    assert not np.asarray(sampled)[:, ~present].any()
    normal = (np.asarray(sampled) - np.asarray(mode))[:, present] / np.exp(-1.0)
    assert (np.abs(normal.mean(0)) < 5 / np.sqrt(draws)).all()
    assert (np.abs(normal.std(0) - 1) < 5 / np.sqrt(2 * draws)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"parametrisation": "shares"},
            "one of residual, weighted, paper, coordinated, got 'shares'",
        ),
        ({"decision_period": 0}, "decision_period must be .* at least 1, got 0"),
        ({"decision_period": 2.5}, "decision_period must be .* got 2.5"),
        ({"window": 0.5}, "window must be at least 1 slot, got 0.5"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ControllerConfig(**options)
