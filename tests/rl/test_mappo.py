"""The learner's parts against NumPy, and what phases, masks and vmap must leave as it is."""

from __future__ import annotations

import json
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl5g.rl import mappo
from jaxrl5g.rl.faults import NonFiniteError
from jaxrl5g.rl.mappo import Hyper, LearnerState, MappoConfig, PhaseSettings
from jaxrl5g.rl.training_loop import Phase, run_phases
from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask

MASK = np.array([[True, True, True], [True, True, False]])  # two groups of three elements
CONFIG = MappoConfig(
    num_envs=4,
    rollout_steps=4,
    epochs=2,
    minibatches=2,
    actor_features=(8, 8),
    critic_features=(8,),
)
SHARED = MappoConfig(**{**vars(CONFIG), "shared_critic": True})
MIRRORED = MappoConfig(**{**vars(CONFIG), "mirrored": True})
REJOINED = MappoConfig(**{**vars(MIRRORED), "rejoined": True})
HYPER = Hyper(learning_rate=3e-3)
BOTH = PhaseSettings()
SCALE = 1.0


class _State(NamedTuple):
    signal: jax.Array  # float32[2, 3]
    time: jax.Array


class _Plan(NamedTuple):
    state: _State
    latent: jax.Array


def _seen(state: _State, mine: jax.Array) -> Seen:
    time = jnp.broadcast_to(state.time.astype(jnp.float32), mine.shape)
    return Seen(jnp.stack([state.signal, time, mine], axis=-1), jnp.asarray(MASK))


def _reset(key: jax.Array, scale: Any) -> _State:
    return _State(jax.random.normal(key, MASK.shape), jnp.int32(0))


def _second(plan: _Plan, latent: jax.Array, at_rest: jax.Array, scale: Any):
    latent = jnp.where(at_rest, 0.0, latent)
    return _seen(plan.state, latent), plan._replace(latent=latent)


def _step(key, state: _State, plan: _Plan, latent: jax.Array, at_rest: jax.Array, scale: Any):
    """Say the signal, then take it back; the fourth step is the last that is recorded."""
    latent = jnp.where(at_rest, 0.0, latent)
    lost = (plan.latent - state.signal) ** 2 + (plan.latent + latent) ** 2
    reward = -scale * jnp.sum(jnp.where(MASK, lost, 0.0))
    last = state._replace(time=state.time + 1)
    over = last.time >= 4
    following = jax.tree.map(lambda a, b: jnp.where(over, a, b), _reset(key, scale), last)
    info = {"second_at_rest": at_rest.astype(jnp.float32)}
    turn = Turn(reward, jnp.bool_(False), over, _seen(last, jnp.zeros(MASK.shape)), info)
    return following, turn


def _first(state: _State, scale: Any):
    nothing = jnp.zeros(MASK.shape)
    return _seen(state, nothing), _Plan(state, nothing)


TASK = TwoTurnTask(_reset, _first, _second, _step)

# One program each for the whole file: phases and numbers are traced, and a second trace fails.


@jax.jit
@partial(chex.assert_max_traces, n=1)
def begin(key, hyper):
    return mappo.init_learner(key, TASK, SCALE, CONFIG, hyper)


@jax.jit
@partial(chex.assert_max_traces, n=1)
def advance(state, scale, phase, hyper):
    return mappo.update(state, TASK, scale, CONFIG, phase, hyper)


@jax.jit
def improve(state, batch, phase, hyper):
    return mappo.improve(state, batch, CONFIG, phase, hyper, state.key)


@partial(jax.jit, static_argnames="config")
def play(state, phase, hyper, config=CONFIG):
    environments, played = mappo.rollout(state, TASK, SCALE, config, phase, state.key)
    return environments, played, mappo.prepare_batch(state, played, config, hyper)


@jax.jit
def loss(params, batch, anchor, leash, phase, hyper):
    function = partial(mappo.loss, config=CONFIG, phase=phase, hyper=hyper)
    return jax.value_and_grad(function, has_aux=True)(params, batch, anchor, leash)


@jax.jit
def second_loss_gradient(params, batch, anchor, phase, hyper):
    def second(params):
        _, metrics = mappo.loss(params, batch, anchor, jnp.float32(0), CONFIG, phase, hyper)
        return metrics["policy_loss_second"]

    return jax.grad(second)(params)


@jax.jit
def judged(params, first, second):
    """Means and log standard deviations of both policies, values of both critics."""
    found = {}
    for name, seen in (("first", first), ("second", second)):
        found[name] = mappo.policy(params[name], seen, CONFIG)
        found[f"{name}_critic"] = mappo.value(params[f"{name}_critic"], seen, CONFIG)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal bit by bit."""
    chex.assert_trees_all_equal_structs(one, other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(_raw(a).tobytes() == _raw(b).tobytes() for a, b in pairs)


def _raw(leaf: Any) -> np.ndarray:
    typed = jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if typed else leaf)


def moved(params: Any, seed: int, size: float) -> Any:
    """Parameters with normal noise of a standard deviation on every leaf."""
    rng = np.random.default_rng(seed)

    def noisy(leaf):
        return leaf + np.float32(size) * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(noisy, params)


def steps_of(batch: mappo.Batch, steps: list[int]) -> mappo.Batch:
    return jax.tree.map(lambda leaf: leaf[np.array(steps)], batch)


@pytest.fixture(scope="module")
def start() -> LearnerState:
    return begin(jax.random.key(0), HYPER)


@pytest.fixture(scope="module")
def batch(start) -> mappo.Batch:
    return play(start, BOTH, HYPER)[2][1]


def after(state: LearnerState, phase: PhaseSettings, count: int) -> LearnerState:
    for _ in range(count):
        state, _ = advance(state, SCALE, phase, HYPER)
    return state


# --- a minibatch's loss -------------------------------------------------------------------------


def test_ratios_are_one_on_the_first_minibatch(start, batch):
    part = steps_of(batch, [0, 2])
    played = part.rollout
    found = judged(start.params, played.first, played.second)
    for name in ("first", "second"):
        log_ratio = found[name].log_prob(getattr(played, f"{name}_latent"))
        log_ratio -= getattr(played, f"{name}_log_prob")
        np.testing.assert_allclose(log_ratio, 0, atol=1e-6)
    (_, metrics), _ = loss(start.params, part, start.anchor, 0.0, BOTH, HYPER)
    for name in ("first", "second"):
        advantages = getattr(part, f"{name}_advantages")
        assert abs(advantages.mean()) > 1e-3  # else the next line would say nothing
        np.testing.assert_allclose(
            metrics[f"policy_loss_{name}"], -advantages.mean(), rtol=1e-4, atol=1e-6
        )
        assert metrics[f"clip_fraction_{name}"] == 0
        assert abs(metrics[f"kl_{name}"]) < 1e-9


def oracle(params, batch, anchor, leash, phase, hyper) -> dict[str, float]:
    """The loss in float64, from the networks' outputs."""
    played = batch.rollout
    new = jax.tree.map(np.float64, judged(params, played.first, played.second))
    held = jax.tree.map(np.float64, judged({**params, **anchor}, played.first, played.second))
    present = np.broadcast_to(MASK, played.first.mask.shape)
    ratios, found = [], {}
    for name in ("first", "second"):
        latent = np.float64(getattr(played, f"{name}_latent"))
        mean, std = new[name].mean, np.exp(new[name].log_std)
        density = -0.5 * ((latent - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        log_prob = np.sum(density * present, axis=-1)
        ratios.append(np.exp(log_prob - np.float64(getattr(played, f"{name}_log_prob"))))
        entropy = np.sum((0.5 + 0.5 * np.log(2 * np.pi) + np.log(std)) * present, axis=-1)
        found[f"entropy_{name}"] = np.mean(entropy / present.sum(-1))
        was = np.exp(held[name].log_std)
        apart = np.log(was / std) + (std**2 + (mean - held[name].mean) ** 2) / (2 * was**2) - 0.5
        found[f"leash_{name}"] = np.mean(np.sum(apart * present, axis=-1))
    # HAPPO: the first agent's ratio multiplies the second's advantages where both learn
    correction = ratios[0] if phase.train_first and phase.train_second else 1.0
    total = 0.0
    for name, ratio, factor in (("first", ratios[0], 1.0), ("second", ratios[1], correction)):
        gained = np.float64(getattr(batch, f"{name}_advantages"))[..., None] * factor
        clipped = np.clip(ratio, 1 - hyper.clip, 1 + hyper.clip)
        found[f"policy_loss_{name}"] = -np.mean(np.minimum(ratio * gained, clipped * gained))
        old, target = (np.float64(getattr(batch, f"{name}_{k}")) for k in ("values", "targets"))
        value = new[f"{name}_critic"]
        near = old + np.clip(value - old, -hyper.value_clip, hyper.value_clip)
        errors = np.abs(np.stack([value, near]) - target)
        delta = hyper.huber_delta
        each = np.where(errors < delta, errors**2 / 2, delta * (errors - delta / 2))
        found[f"value_loss_{name}"] = np.mean(each.max(axis=0))
        if getattr(phase, f"train_{name}"):
            total += found[f"policy_loss_{name}"] - hyper.entropy * found[f"entropy_{name}"]
            total += leash * found[f"leash_{name}"]
        total += found[f"value_loss_{name}"]
    return {"total": total, **found}


@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_the_documented_one(start, batch, trained, seed):
    phase = PhaseSettings(train_first=trained[0], train_second=trained[1])
    hyper = HYPER.replace(entropy=0.1, value_clip=0.2, huber_delta=0.5)
    params = moved(start.params, seed, 0.05)
    (total, metrics), _ = loss(params, batch, start.anchor, 0.3, phase, hyper)
    expected = oracle(params, batch, start.anchor, 0.3, phase, hyper)
    assert metrics["clip_fraction_first"] > 0.1  # the ratios are far enough from 1 to matter
    for name in metrics.keys() & expected.keys():
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total, expected["total"], rtol=1e-4)


def test_only_the_joint_phase_corrects_the_second_by_the_first(start, batch):
    params = {**start.params, "first": moved(start.params["first"], 3, 0.05)}
    alone = PhaseSettings(train_first=False)

    def second(params, phase):
        return loss(params, batch, start.anchor, 0.0, phase, HYPER)[0][1]["policy_loss_second"]

    assert abs(second(params, BOTH) - second(start.params, BOTH)) > 1e-3
    assert second(params, alone) == second(start.params, alone)
    # a constant to the gradient: the first agent does not learn to please the second's loss
    gradient = second_loss_gradient(params, batch, start.anchor, BOTH, HYPER)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["first"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient["second"]))


def spoiled(seen: Seen) -> Seen:
    return seen._replace(features=jnp.where(seen.mask[..., None], seen.features, jnp.nan))


def test_masked_elements_influence_no_loss_and_get_no_gradient(start, batch):
    params = moved(start.params, 4, 0.05)
    played = batch.rollout
    nonsense = played._replace(
        first=spoiled(played.first),
        second=spoiled(played.second),
        first_latent=jnp.where(MASK, played.first_latent, jnp.nan),
        second_latent=jnp.where(MASK, played.second_latent, 1e9),
        turn=played.turn._replace(final=spoiled(played.turn.final)),
    )
    arguments = (start.anchor, 0.3, BOTH, HYPER)
    clean = loss(params, batch, *arguments)
    dirty = loss(params, batch._replace(rollout=nonsense), *arguments)
    assert same(clean, dirty)
    chex.assert_tree_all_finite(clean)
    prepare = jax.jit(partial(mappo.prepare_batch, config=CONFIG, hyper=HYPER))
    clean, dirty = prepare(start, played)[1:], prepare(start, nonsense)[1:]
    assert same(clean[0]._replace(rollout=None), dirty[0]._replace(rollout=None))
    assert same(clean[1], dirty[1])


def test_permuting_elements_permutes_latents_and_leaves_values(start, batch):
    params = moved(start.params, 5, 0.1)
    first, second = batch.rollout.first, batch.rollout.second
    order = np.array([2, 0, 1])
    shuffled = [Seen(s.features[..., order, :], s.mask[..., order]) for s in (first, second)]
    found, other = judged(params, first, second), judged(params, *shuffled)
    for name in ("first", "second"):
        assert np.std(found[name].mean) > 0.01
        np.testing.assert_allclose(other[name].mean, found[name].mean[..., order], atol=1e-5)
        critic = f"{name}_critic"
        np.testing.assert_allclose(other[critic], found[critic], atol=1e-5)


# --- rollouts and batches -----------------------------------------------------------------------


def test_agents_explore_or_say_their_mode(start):
    phase = PhaseSettings(explore_first=True, explore_second=False, rest_second=True)
    environments, played, (_, _, metrics) = play(start, phase, HYPER)
    found = judged(start.params, played.first, played.second)
    np.testing.assert_allclose(played.second_latent, found["second"].mean, atol=1e-6)
    noise = ((played.first_latent - found["first"].mean) / np.exp(HYPER.log_std))[..., MASK]
    assert len(np.unique(noise)) == noise.size  # every environment, step and element its own
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)
    assert not played.first_latent[..., ~MASK].any()
    assert metrics["second_at_rest"] == 1
    assert len(np.unique(environments.signal)) == environments.signal.size


def test_one_critic_for_both_agents_gives_both_one_advantage(start):
    _, played, (state, batch, _) = play(start, BOTH, HYPER, config=SHARED)
    np.testing.assert_allclose(batch.first_advantages, batch.second_advantages, atol=1e-5)
    np.testing.assert_array_equal(batch.first_values, batch.second_values)
    gradient = jax.jit(
        jax.grad(
            lambda params: mappo.loss(
                params, batch, start.anchor, jnp.float32(0), SHARED, BOTH, HYPER
            )[0]
        )
    )(start.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["second_critic"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient["first_critic"]))


def test_a_mirrored_pair_meets_the_same_and_does_the_opposite(start):
    twins = start._replace(
        environments=jax.tree.map(lambda leaf: leaf[np.array([0, 0, 1, 1])], start.environments)
    )
    environments, played, (_, batch, _) = play(twins, BOTH, HYPER, config=MIRRORED)
    one, other = (environments.signal[i::2] for i in (0, 1))
    np.testing.assert_array_equal(one, other)  # a new episode, drawn from the same key
    mean = judged(start.params, played.first, played.second)["first"].mean
    noise = np.asarray(played.first_latent - mean)
    np.testing.assert_allclose(noise[:, ::2], -noise[:, 1::2], atol=1e-6)
    advantages = np.asarray(batch.first_advantages)
    np.testing.assert_allclose(advantages[:, ::2], -advantages[:, 1::2], atol=1e-6)
    assert np.unique(np.abs(advantages)).size == advantages.size // 2


def test_a_rejoined_pair_starts_every_step_from_one_state(start):
    environments, played, _ = play(start, BOTH, HYPER, config=REJOINED)
    for leaf in jax.tree.leaves(environments):
        np.testing.assert_array_equal(leaf[::2], leaf[1::2])
    for seen in (played.first.features, played.first.mask):
        np.testing.assert_array_equal(seen[1:, ::2], seen[1:, 1::2])
    # what each did and where it led is its own
    assert (played.turn.reward[:, ::2] != played.turn.reward[:, 1::2]).any()
    # and what follows is what the first one's decision led to
    following = np.asarray(played.turn.final.features)[:-1, ::2]
    goes_on = ~np.asarray(played.turn.truncated | played.turn.terminated)[:-1, ::2]
    np.testing.assert_array_equal(following[goes_on], played.first.features[1:, ::2][goes_on])


# --- phases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", ["first", "second"])
def test_what_is_frozen_stays_bit_equal(start, frozen):
    learning = {"first": "second", "second": "first"}[frozen]
    phase = PhaseSettings(**{f"train_{frozen}": False}, leash=1.0)
    state = mappo.enter_phase(start, phase, HYPER)
    state = after(state, phase, 2)
    assert same(state.params[frozen], start.params[frozen])
    for name in (learning, "first_critic", "second_critic"):
        assert not same(state.params[name], start.params[name])


def test_critics_warm_up_alone(start):
    phase = PhaseSettings(warm_up=2, leash=1.0)
    state = after(mappo.enter_phase(start, phase, HYPER), phase, 2)
    actors = {name: state.params[name] for name in ("first", "second")}
    assert same(actors, start.anchor)
    assert not same(state.params["first_critic"], start.params["first_critic"])
    assert not same(state.params["second_critic"], start.params["second_critic"])
    assert state.leash == 1.0  # nothing moved that could tell it to adapt
    state = after(state, phase, 1)
    assert not any(same(state.params[name], start.params[name]) for name in actors)


def test_a_phase_begins_with_fresh_statistics(start):
    state = after(start, BOTH, 2)
    began = mappo.enter_phase(state, PhaseSettings(leash=0.7), HYPER)
    assert any(leaf.any() for leaf in jax.tree.leaves(state.optimiser))
    assert not any(leaf.any() for leaf in jax.tree.leaves(began.optimiser))
    for name in ("first_moments", "second_moments"):
        assert getattr(state, name).weight > 0
        assert same(getattr(began, name), mappo.init_moments())
    assert same(began.anchor, {name: state.params[name] for name in ("first", "second")})
    assert state.updates == 2 and began.updates == 0 and began.leash == np.float32(0.7)
    for name in ("params", "environments", "key", "all_updates"):  # all that goes on
        assert same(getattr(began, name), getattr(state, name))
    assert began.all_updates == 2


@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
def test_the_leash_pulls_back_to_the_anchor(start, batch, trained):
    # no advantage to gain: only the leash moves the actors
    idle = batch._replace(
        first_advantages=jnp.zeros_like(batch.first_advantages),
        second_advantages=jnp.zeros_like(batch.second_advantages),
    )
    phase = PhaseSettings(train_first=trained[0], train_second=trained[1], leash=1.0)
    away = {name: moved(start.params[name], 6, 0.15) for name in ("first", "second")}
    state = start._replace(params={**start.params, **away}, leash=jnp.float32(1.0))
    distances = []
    for _ in range(20):
        state, metrics = improve(state, idle, phase, HYPER)
        distances.append(max(float(metrics[f"anchor_kl_{name}"]) for name in ("first", "second")))
    assert distances[0] > 0.1 and distances[-1] < 0.3 * distances[0]
    loose, _ = improve(
        start._replace(params={**start.params, **away}), idle, PhaseSettings(), HYPER
    )
    assert same({name: loose.params[name] for name in away}, away)


def test_the_leash_adapts_to_its_target(start, batch):
    phase = PhaseSettings(leash=1.0)
    state = start._replace(leash=jnp.float32(1.0))
    far, _ = improve(state, batch, phase, HYPER.replace(leash_target=1e-9))
    near, _ = improve(state, batch, phase, HYPER.replace(leash_target=1e9))
    assert (far.leash, near.leash) == (2.0, 0.5)
    assert improve(state, batch, PhaseSettings(leash=0.0), HYPER)[0].leash == 0


# --- whole runs ---------------------------------------------------------------------------------


def test_vmapped_seeds_and_hyper_parameters_equal_single_runs():
    keys = jax.random.split(jax.random.key(7), 3)
    rates, discounts = np.float32([1e-3, 3e-3, 1e-2]), np.float32([0.5, 0.9, 0.99])
    hypers = Hyper(learning_rate=rates, discount=discounts)
    axes = Hyper(**dict.fromkeys(vars(hypers))).replace(learning_rate=0, discount=0)
    train = chex.assert_max_traces(mappo.make_train(TASK, CONFIG, ((2, BOTH),)), n=1)
    train = jax.jit(jax.vmap(train, (0, None, axes)))
    together = train(keys, SCALE, hypers)
    assert all(row.shape == (3, 2) for row in together.metrics.values())
    for number in range(3):
        hyper = HYPER.replace(learning_rate=rates[number], discount=discounts[number])
        state = mappo.enter_phase(begin(keys[number], HYPER), BOTH, hyper)
        for update in range(2):
            state, metrics = advance(state, SCALE, BOTH, _weak(hyper))
            for name, value in metrics.items():
                expected = together.metrics[name][number, update]
                np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-5, err_msg=name)
        mine = jax.tree.map(itemgetter(number), together.state)
        assert same((mine.key, mine.all_updates), (state.key, state.all_updates))
        # batched matrix products round differently, and Adam divides by small numbers
        chex.assert_trees_all_close(mine.params, state.params, rtol=1e-4, atol=1e-5)
    assert not same(*(jax.tree.map(itemgetter(i), together.state.params) for i in (0, 1)))
    train(keys[::-1], SCALE, hypers)  # traced once


def _weak(hyper: Hyper) -> Hyper:
    """Numbers as Python's, so that `advance` is not traced for another type."""
    return jax.tree.map(float, hyper)


PLAN = {
    "first": PhaseSettings(train_second=False, rest_second=True),
    "both": PhaseSettings(warm_up=1, learning_rate=0.5, leash=1.0),
}


class Stop(Exception):
    """A stop that the loop knows nothing of."""


class StopAt:
    def __init__(self, total: int):
        self.total = total

    def log(self, step, metrics):
        if step == self.total:
            raise Stop

    def close(self):
        pass


def run(folder, start, scale=SCALE, **options):
    phases = [
        Phase(
            name,
            3,
            lambda state, settings=settings: advance(state, scale, settings, HYPER),
            lambda state, settings=settings: mappo.enter_phase(state, settings, HYPER),
        )
        for name, settings in PLAN.items()
    ]
    options = {"config": {}, "checkpoint_every": 2, "progress": False} | options
    return run_phases(phases, start, folder, watch=lambda state: state.params, **options)


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_run_that_is_resumed_is_the_run_that_was_not_stopped(tmp_path, start, stop):
    whole = run(tmp_path / "whole", start)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", start, trackers=[StopAt(stop)])
    resumed = run(tmp_path / "stopped", start, resume=True)
    assert same(resumed, whole)
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == 6
    told = [json.loads(line)["metrics"] for line in logs[0].splitlines()]
    assert [row["second_at_rest"] for row in told] == [1, 1, 1, 0, 0, 0]


def test_a_reward_that_is_no_number_stops_the_run(tmp_path, start):
    with pytest.raises(NonFiniteError) as stopped:
        run(tmp_path, start, scale=float("nan"))
    assert {"reward", "policy_loss_first", "value_loss_second"} <= set(stopped.value.names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"rollout_steps": 8, "minibatches": 3}, "minibatches must divide rollout_steps = 8"),
        ({"num_envs": 3, "mirrored": True}, "even num_envs, got 3"),
        ({"rejoined": True}, "mirrored=False"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MappoConfig(**values)
