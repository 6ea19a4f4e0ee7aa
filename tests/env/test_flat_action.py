"""Flat observations and actions: what they mean, in NumPy, and a foreign learner that uses them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.env.flat_action import FlatActionWrapper, feature_names
from jaxrl5g.env.reward import peak_cell_rate

CELLS, USERS, PRBS, HORIZON, SLOTS = 2, 4, 12, 24, 130
RANGE = 3.0
ENV, PARAMS = jaxrl5g.make(
    "TinyDownlink-v0",
    num_cells=CELLS,
    min_users=1,
    harq_processes=2,
    max_steps_in_episode=HORIZON,
)
FLAT = FlatActionWrapper(ENV, logit_range=RANGE)
SIZE = 2 * CELLS * USERS


# these programs are short: compile them quickly rather than well
QUICKLY = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(QUICKLY)


class Slot(NamedTuple):
    """What one slot of a rollout leaves behind."""

    seen: mac.Observation
    flat: jax.Array
    action: jax.Array
    reserved: mac.Reservation
    rates: jax.Array
    after: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict


def rollout(key):
    """Random actions, which leave the space at times and are NaN at times."""

    def slot(carry, key):
        flat, state = carry
        seen = ENV.observe(key, state, None, PARAMS)
        action = jax.random.uniform(key, (SIZE,), minval=-1.3, maxval=1.3)
        action = jnp.where(jax.random.bernoulli(key, 0.05, (SIZE,)), jnp.nan, action)
        after, state, reward, terminated, truncated, info = FLAT.step(key, state, action, PARAMS)
        return (after, state), Slot(
            seen,
            flat,
            action,
            mac.reserve_retransmissions(seen, PARAMS.config),
            mac.per_prb(mac.predicted_rates(seen, PARAMS), PARAMS.config),
            after,
            reward,
            terminated,
            truncated,
            {name: info[name] for name in ("owner", "radiated", "final_observation")},
        )

    reset_key, slot_key = jax.random.split(key)
    return jax.lax.scan(slot, FLAT.reset(reset_key, PARAMS), jax.random.split(slot_key, SLOTS))[1]


@pytest.fixture(scope="module")
def slots():
    """`Slot` of NumPy arrays [SLOTS, ...]."""
    key = jax.random.key(0)
    return jax.tree.map(np.asarray, compiled(rollout, key)(key))


def test_steps_follow_gymnax(slots):
    space = FLAT.observation_space(PARAMS)
    assert slots.flat.shape[1:] == slots.after.shape[1:] == space.shape
    assert slots.flat.dtype == slots.reward.dtype == np.float32
    for values in (slots.flat, slots.after, slots.info["final_observation"]):
        assert ((values >= space.low) & (values <= space.high)).all()
    assert np.isfinite(slots.reward).all() and not slots.terminated.any()
    ends = np.arange(1, SLOTS + 1) % HORIZON == 0
    assert (slots.truncated == ends).all()
    # the observation returned is the next slot's, and that of a new drop after the last one
    np.testing.assert_array_equal(slots.after[:-1], slots.flat[1:])
    final, after = slots.info["final_observation"], slots.after
    np.testing.assert_array_equal(final[~ends], after[~ends])
    assert (final[ends] != after[ends]).any(axis=-1).all()
    fresh = after[ends].reshape(-1, CELLS * USERS, len(feature_names(PARAMS.config)))
    fresh = dict(zip(feature_names(PARAMS.config), np.moveaxis(fresh, -1, 0), strict=True))
    assert not fresh["acked_bits"].any() and not fresh["ack"].any()
    np.testing.assert_allclose(fresh["throughput"], np.log(0.01) / 4 * fresh["present"], rtol=1e-5)
    np.testing.assert_array_equal(fresh["processes_free"], fresh["present"])


def test_features_are_what_their_names_say(slots):
    seen, config = slots.seen, PARAMS.config
    names = feature_names(config)
    features = slots.flat.reshape(SLOTS, CELLS, USERS, len(names))
    got = dict(zip(names, np.moveaxis(features, -1, 0), strict=True))
    mask = seen.mask
    assert 0 < mask.mean() < 1
    assert not features[~mask].any()
    throughput = np.where(mask, seen.throughput, 0.0).astype(np.float64)
    peak = peak_cell_rate(config)
    average = throughput.sum(-1, keepdims=True) / mask.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        expected = {
            "olla_offset": seen.olla_offset_db / 20.0,
            "throughput": np.clip(np.log(throughput * USERS / peak), -8, 8) / 4,
            "throughput_share": np.clip(np.log(throughput / average), -8, 8) / 4,
            "acked_bits": seen.acked_bits / peak,
            "ack": seen.feedback == 1,
            "nack": seen.feedback == 0,
            "retransmission": seen.harq_prbs / PRBS,
            "processes_free": seen.harq_free / 2,
            "present": np.ones_like(mask),
        }
    for subband in range(config.num_subbands):
        expected[f"csi_{subband}"] = (seen.csi_db[..., subband] - 10.0) / 20.0
    assert list(got) == names_in_order(expected, config)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name][mask], value[mask], rtol=1e-4, atol=1e-5)
        if name not in ("present", "csi_0"):
            assert len(np.unique(got[name][mask])) > 1, name


def names_in_order(expected, config):
    csi = [f"csi_{subband}" for subband in range(config.num_subbands)]
    return csi + [name for name in expected if not name.startswith("csi_")]


def hamilton(shares, count):
    """Largest remainders in float64."""
    exact = shares * count
    quotas = np.floor(exact).astype(int)
    short = count - quotas.sum()
    quotas[np.argsort(quotas - exact, kind="stable")[:short]] += 1
    return quotas


def test_actions_mean_shares_an_optimal_assignment_and_powers(slots):
    budget = float(PARAMS.power_budget)
    logits = RANGE * np.clip(np.nan_to_num(slots.action, nan=0.0), -1, 1).astype(np.float64)
    logits = logits.reshape(SLOTS, 2, CELLS, USERS)
    idle = 0
    for index in np.ndindex(SLOTS, CELLS):
        slot, cell = index
        prb, tilt = logits[slot, :, cell]
        owner, power = slots.info["owner"][index], slots.info["radiated"][index]
        reserved, eligible = slots.reserved.owner[index], slots.reserved.eligible[index]
        free = reserved < 0
        np.testing.assert_array_equal(owner[~free], reserved[~free])
        np.testing.assert_allclose(power[~free], budget / PRBS, rtol=1e-5)
        if not eligible.any():
            assert (owner[free] == -1).all() and not power[free].any()
            idle += 1
            continue

        shares = np.where(eligible, np.exp(prb), 0.0)
        quotas = hamilton(shares / shares.sum(), free.sum())
        counts = np.bincount(owner[free], minlength=USERS)
        np.testing.assert_array_equal(counts, quotas)

        rates = slots.rates[index].astype(np.float64)
        rows = np.repeat(np.arange(USERS), quotas)
        value = rates[owner[free], np.flatnonzero(free)].sum()
        best = rates[rows][:, free]
        best = best[scipy.optimize.linear_sum_assignment(best, maximize=True)].sum()
        np.testing.assert_allclose(value, best, rtol=1e-5)

        weight = np.exp(tilt)[owner[free]]
        expected = budget * free.sum() / PRBS * weight / max(weight.sum(), 1e-9)
        np.testing.assert_allclose(power[free], expected, rtol=1e-4)
    assert idle > 0  # both processes of every user were busy at times
    assert (slots.reserved.owner >= 0).any()
    spent = slots.info["radiated"].sum(-1)
    assert (spent <= budget * (1 + 1e-5)).all()


def tiny(**options):
    return jaxrl5g.make("TinyDownlink-v0", fidelity="shannon", csi="perfect", **options)


def test_all_zero_is_equal_shares_at_equal_power_and_odd_values_are_tame():
    env, params = tiny(min_users=3, max_users=3)
    flat = FlatActionWrapper(env)
    key = jax.random.key(1)

    def start(params):
        observation, state = flat.reset_env(key, params)
        again = flat.observe(key, state, None, params)
        return observation, again, env.observe(key, state, None, params), state

    observation, again, seen, state = compiled(start, params)(params)
    np.testing.assert_array_equal(observation, again)
    step = compiled(flat.step_env, key, state, jnp.zeros(8), params)

    def carried_out(action):
        _, _, reward, terminated, info = step(key, state, jnp.array(action, jnp.float32), params)
        assert np.isfinite(reward) and not terminated
        return np.asarray(info["owner"])[0], np.asarray(info["radiated"])[0]

    owner, power = carried_out([0.0] * 8)
    np.testing.assert_array_equal(np.bincount(owner, minlength=4), [4, 4, 4, 0])
    np.testing.assert_allclose(power, float(params.power_budget) / 12, rtol=1e-5)

    wild = [2.0, np.nan, -np.inf, 0.0, np.inf, -9.0, np.nan, 0.0]
    tame = [1.0, 0.0, -1.0, 0.0, 1.0, -1.0, 0.0, 0.0]
    absent = [1.0, 0.0, -1.0, 1.0, 1.0, -1.0, 0.0, -1.0]  # the fourth user is not there
    for other in (wild, absent):
        for a, b in zip(carried_out(other), carried_out(tame), strict=True):
            np.testing.assert_array_equal(a, b)

    # one user takes all, and powers differ by no more than e^(2 * range)
    owner, _ = carried_out([1.0, -1.0, -1.0, 0.0] + [0.0] * 4)
    np.testing.assert_array_equal(owner, 0)
    owner, power = carried_out([0.0] * 4 + [1.0, -1.0, -1.0, 0.0])
    np.testing.assert_allclose(power[owner == 0] / power[owner == 1], np.exp(8.0), rtol=1e-3)

    # a policy over vectors schedules what it would have done in the wrapper
    scheduler = flat.scheduler(lambda key, seen: jnp.tanh(jax.random.normal(key, (8,)) + seen[:8]))
    allocation, _ = compiled(scheduler.apply, key, seen, (), params)(key, seen, (), params)
    owner, power = carried_out(jnp.tanh(jax.random.normal(key, (8,)) + observation[:8]))
    np.testing.assert_array_equal(allocation.owner[0], owner)
    np.testing.assert_allclose(allocation.power[0], power, rtol=1e-5)


def test_spaces_have_the_sizes_of_the_configuration():
    assert FLAT.num_actions == SIZE
    space = FLAT.action_space()
    assert space.shape == (SIZE,) and bool(space.contains(space.sample(jax.random.key(0))))
    wide = jaxrl5g.make("TinyDownlink-v0", num_users=6)[1]
    assert FLAT.action_space(wide).shape == (12,)
    # 3 subbands and 9 more features
    assert FLAT.observation_space(wide).shape == (6 * 12,)
    assert len(feature_names(wide.config)) == 12
    sample = FLAT.observation_space(wide).sample(jax.random.key(0))
    assert bool(FLAT.observation_space(wide).contains(sample))


def test_bad_input_is_named():
    for logit_range in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="logit_range must be positive and finite"):
            FlatActionWrapper(ENV, logit_range)
    for step in (FLAT.step, FLAT.step_env):
        with pytest.raises(ValueError, match=r"\(16,\), got \(8,\); use jax.vmap"):
            step(jax.random.key(0), None, jnp.zeros(8), PARAMS)
    with pytest.raises(ValueError, match="does not support transition gradients"):
        FLAT.with_transition_gradients()


class Recorded(NamedTuple):
    """A state with the return of the episode under way and of the last one that ended."""

    state: object
    so_far: jax.Array
    last: jax.Array


class FiveValues:
    """The environment as rejax steps it: gymnax's older five values, with the return recorded."""

    def __init__(self, env):
        self.env = env
        self.action_space, self.observation_space = env.action_space, env.observation_space

    def reset(self, key, params):
        observation, state = self.env.reset(key, params)
        return observation, Recorded(state, jnp.float32(0), jnp.float32(0))

    def step(self, key, recorded, action, params):
        observation, state, reward, terminated, truncated, _ = self.env.step(
            key, recorded.state, action, params
        )
        done, total = terminated | truncated, recorded.so_far + reward
        last = jnp.where(done, total, recorded.last)
        return observation, Recorded(state, jnp.where(done, 0.0, total), last), reward, done, {}


def test_rejax_ppo_learns():
    rejax = pytest.importorskip("rejax", reason="needs the `dev` extra: rejax not installed")
    # with a window of one slot a reward is the slot's own, so that a short training shows
    env, params = tiny(max_steps_in_episode=32, throughput_window=1.0)
    view = FiveValues(FlatActionWrapper(env))
    iteration, iterations = 16 * 64, 40
    networks = {"agent_kwargs": {"hidden_layer_sizes": (32, 32)}}
    ppo = rejax.PPO(
        env=view,
        env_params=params,
        eval_callback=lambda ppo, state, key: jnp.mean(state.env_state.last),
        skip_initial_evaluation=True,
        eval_freq=iteration,
        total_timesteps=iterations * iteration,
        num_envs=16,
        num_steps=64,
        num_minibatches=4,
        num_epochs=8,
        learning_rate=0.005,
        max_grad_norm=0.5,
        gamma=0.0,
        gae_lambda=0.0,
        ent_coef=0.0,
        **rejax.PPO.create_agent(networks, view, params),
    )
    keys = jax.random.split(jax.random.key(0), 4)
    train = jax.vmap(rejax.PPO.train, in_axes=(None, 0))
    _, returns = compiled(train, ppo, keys)(ppo, keys)
    returns = np.asarray(returns)
    assert returns.shape == (4, iterations) and np.isfinite(returns).all()
    before, after = returns[:, :2].mean(axis=1), returns[:, -5:].mean(axis=1)
    assert (after > 1.25 * before).all()
