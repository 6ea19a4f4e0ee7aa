"""MAPPO for two agents that decide in turn, with phases, for any `TwoTurnTask`.

Yu et al., The surprising effectiveness of PPO in cooperative multi-agent games (2022), with two
centralised critics, V1(s) before the first decision and V2(s, x) after it (`two_stage_gae`), and
the sequential correction of Kuba et al., Trust region policy optimisation in multi-agent
reinforcement learning (HAPPO, 2022), where both agents learn at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from jaxrl5g.rl.advantages import two_stage_gae
from jaxrl5g.rl.distributions import CoherentGaussian, DiagonalGaussian
from jaxrl5g.rl.losses import (
    adapt_kl_coefficient,
    normalise_advantages,
    policy_loss,
    value_loss,
)
from jaxrl5g.rl.networks import Equivariant, Pooled
from jaxrl5g.rl.normalisers import (
    RunningMoments,
    denormalise,
    init_moments,
    normalise,
    update_moments,
)
from jaxrl5g.rl.optimisers import OptimiserSettings, build_optimiser
from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class MappoConfig:
    """What sets a shape; static.

    Attributes:
      num_envs: environments of one run, over all devices.
      rollout_steps: steps of every environment between updates.
      epochs: passes over a rollout.
      minibatches: parts of a rollout, by steps; must divide `rollout_steps`.
      actor_features: hidden layers of each agent's network, none for a linear map alone.
      actor_linear: each agent's means are its network's output and a linear map of the features.
      critic_features: hidden layers of each critic.
      shared_critic: one critic V(s) for both agents instead of V1(s) and V2(s, x).
      mirrored: environments in pairs that meet the same randomness and explore in opposite
        directions; an advantage is half its difference to the partner's. What chance does to both
        cancels (common random numbers, antithetic variates). Worth it where the task draws its
        randomness from the keys it is given, and decisions change little of it. `log_std` then
        has no gradient but those of the entropy and the leash: mirrored latents are equally likely.
      rejoined: with `mirrored`, both of a pair go on from the state of its first after every step,
        so that an advantage is what the decisions of that step alone have changed. What follows
        is then known to the critics alone: for a `Hyper.trace` of 0.
    """

    num_envs: int = 64
    rollout_steps: int = 32
    epochs: int = 4
    minibatches: int = 4
    actor_features: tuple[int, ...] = (32, 32)
    actor_linear: bool = False
    critic_features: tuple[int, ...] = (64, 64)
    shared_critic: bool = False
    mirrored: bool = False
    rejoined: bool = False

    def __post_init__(self):
        for name in ("num_envs", "rollout_steps", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.rollout_steps % self.minibatches:
            raise ValueError(
                f"minibatches must divide rollout_steps = {self.rollout_steps}, "
                f"got {self.minibatches}."
            )
        if self.mirrored and self.num_envs % 2:
            raise ValueError(f"mirrored pairs need an even num_envs, got {self.num_envs}.")
        if self.rejoined and not self.mirrored:
            raise ValueError("rejoined is for mirrored environments, got mirrored=False.")

    @property
    def actor(self) -> Equivariant:
        """Each agent's network, from features to the means of its latents."""
        return Equivariant(self.actor_features, 1, linear=self.actor_linear)

    def source(self, number: Array) -> Array:
        """Number that an environment's randomness comes from: its own, or its pair's."""
        return number // 2 if self.mirrored else number


class Hyper(struct.PyTreeNode):
    """Numbers of the learner; every one a leaf that may be traced and vmapped.

    Attributes:
      learning_rate: of Adam, for actors and critics.
      max_grad_norm: global norm that gradients are clipped to.
      clip: PPO's clip of each agent's own ratio.
      value_clip: clip of value changes, in normalised units.
      huber_delta: of the value loss, in normalised units.
      entropy: weight of the entropy per element.
      discount: per step.
      trace: lambda of GAE between steps.
      inner_trace: lambda from the second agent's turn back to the first's.
      value_beta: what value statistics keep from one update to the next.
      log_std: of the latent actions at first.
      leash_target: KL from the anchor, in nats per group, that the leash adapts to.
    """

    learning_rate: Any = 3e-4
    max_grad_norm: Any = 0.5
    clip: Any = 0.2
    value_clip: Any = 10.0
    huber_delta: Any = 10.0
    entropy: Any = 0.0
    discount: Any = 0.95
    trace: Any = 0.9
    inner_trace: Any = 0.9
    value_beta: Any = 0.95
    log_std: Any = -1.0
    leash_target: Any = 0.05


class PhaseSettings(struct.PyTreeNode):
    """Who learns, who acts and how in a phase; traced, so that phases share one program.

    Attributes:
      train_first, train_second: the agent learns.
      explore_first, explore_second: the agent samples; else it takes its mode.
      rest_first, rest_second: the agent is left out.
      learning_rate: factor on the learner's.
      warm_up: updates at the start in which only the critics learn.
      leash: coefficient of KL from the policies at the phase's start; 0 for none, else adapted.
    """

    train_first: Any = True
    train_second: Any = True
    explore_first: Any = True
    explore_second: Any = True
    rest_first: Any = False
    rest_second: Any = False
    learning_rate: Any = 1.0
    warm_up: Any = 0
    leash: Any = 0.0


class LearnerState(NamedTuple):
    """All of a learner, so that a saved one goes on where it stopped.

    Attributes:
      params: "first" and "second" (actors with their `log_std`), "first_critic", "second_critic".
      optimiser: moments of Adam.
      first_moments, second_moments: statistics of the critics' targets.
      anchor: actors at the start of the phase.
      leash: coefficient of KL from the anchor, float32[].
      updates: since the start of the phase, int32[].
      all_updates: in all phases, int32[]; each took num_envs x rollout_steps steps.
      key: typed.
      environments: task states, leaves [B, ...].
    """

    params: dict[str, Any]
    optimiser: Any
    first_moments: RunningMoments
    second_moments: RunningMoments
    anchor: dict[str, Any]
    leash: Array
    updates: Array
    all_updates: Array
    key: Array
    environments: Any


class Rollout(NamedTuple):
    """Steps of every environment, leaves [T, B, ...]."""

    first: Seen
    second: Seen
    first_latent: Array
    second_latent: Array
    first_log_prob: Array
    second_log_prob: Array
    turn: Turn


class Batch(NamedTuple):
    """What a minibatch's loss reads, leaves [T, B, ...]; targets and values are normalised."""

    rollout: Rollout
    first_advantages: Array
    second_advantages: Array
    first_targets: Array
    second_targets: Array
    first_values: Array
    second_values: Array


def policy(params: dict[str, Any], seen: Seen, config: MappoConfig) -> Any:
    """An agent's distribution over latents [..., G, E]; one event per group.

    A `DiagonalGaussian`, or a `CoherentGaussian` where there is a direction to explore along.
    """
    mean = config.actor.apply(params["network"], seen.features, seen.mask)
    assert isinstance(mean, Array)
    mean = mean[..., 0]
    log_std = jnp.broadcast_to(params["log_std"], mean.shape)
    if seen.along is not None:
        return CoherentGaussian(mean, log_std, seen.along, seen.mask)
    return DiagonalGaussian(mean, log_std, seen.mask)


def value(params: Any, seen: Seen, config: MappoConfig) -> Array:
    """A critic's value, normalised, [...]: the mean of its value of every group."""
    each = Pooled(config.critic_features).apply(params, seen.features, seen.mask)
    assert isinstance(each, Array)
    return jnp.mean(each, axis=-1)


def _second_view(rollout: Rollout, config: MappoConfig) -> tuple[str, Seen]:
    """Parameters and input of the second critic."""
    if config.shared_critic:
        return "first_critic", rollout.first
    return "second_critic", rollout.second


def init_learner(
    key: Array, task: TwoTurnTask, task_params: Any, config: MappoConfig, hyper: Hyper
) -> LearnerState:
    """A learner before its first update, environments freshly reset.

    Environment b starts from `fold_in(key, b)`, however many devices there are.
    """
    key, reset_key, *network_keys = jax.random.split(key, 6)
    numbers = config.source(jnp.arange(config.num_envs))
    keys = jax.vmap(partial(jax.random.fold_in, reset_key))(numbers)
    environments = jax.vmap(task.reset, (0, None))(keys, task_params)

    def views(state: Any) -> tuple[Seen, Seen]:
        first, plan = task.first(state, task_params)
        latent = jnp.zeros(first.mask.shape)
        return first, task.second(plan, latent, jnp.bool_(False), task_params)[0]

    # networks ask for the shapes of what they will see, not for its values
    shapes = jax.eval_shape(views, jax.tree.map(lambda leaf: leaf[0], environments))
    first, second = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def actor(key: Array, seen: Seen) -> dict[str, Any]:
        return {
            "network": config.actor.init(key, seen.features, seen.mask),
            "log_std": jnp.asarray(hyper.log_std, jnp.float32),
        }

    def critic(key: Array, seen: Seen) -> Any:
        return Pooled(config.critic_features).init(key, seen.features, seen.mask)

    params = {
        "first": actor(network_keys[0], first),
        "second": actor(network_keys[1], second),
        "first_critic": critic(network_keys[2], first),
        "second_critic": critic(network_keys[3], second),
    }
    return LearnerState(
        params=params,
        all_updates=jnp.int32(0),
        key=key,
        environments=environments,
        **_at_the_start(params, PhaseSettings(), hyper),
    )


def enter_phase(state: LearnerState, phase: PhaseSettings, hyper: Hyper) -> LearnerState:
    """Start a phase: value statistics and Adam's moments anew, the policies' anchor here."""
    return state._replace(**_at_the_start(state.params, phase, hyper))


def _at_the_start(params: dict[str, Any], phase: PhaseSettings, hyper: Hyper) -> dict[str, Any]:
    """Fields of a `LearnerState` that a phase begins anew."""
    return {
        "optimiser": _optimiser(hyper, phase, jnp.bool_(False)).init(params),
        "first_moments": init_moments(),
        "second_moments": init_moments(),
        "anchor": {name: params[name] for name in ("first", "second")},
        "leash": jnp.asarray(phase.leash, jnp.float32),
        "updates": jnp.int32(0),
    }


def _optimiser(hyper: Hyper, phase: PhaseSettings, warm: Any) -> optax.GradientTransformation:
    """Adam for what the phase trains; actors wait while the critics warm up."""
    settings = OptimiserSettings(
        learning_rate=hyper.learning_rate * phase.learning_rate,
        max_grad_norm=hyper.max_grad_norm,
    )
    trainable = {
        "first": warm & jnp.asarray(phase.train_first, bool),
        "second": warm & jnp.asarray(phase.train_second, bool),
        "first_critic": True,
        "second_critic": True,
    }
    return build_optimiser(settings, trainable)


def rollout(
    state: LearnerState,
    task: TwoTurnTask,
    task_params: Any,
    config: MappoConfig,
    phase: PhaseSettings,
    key: Array,
    first_env: Array | int = 0,
) -> tuple[Any, Rollout]:
    """Play `rollout_steps` steps in every environment.

    Args:
      first_env: number of the first environment on this device; keys are functions of the
        environment's number alone.

    Returns:
      The environments' states after it, and the steps.
    """
    count = jax.tree.leaves(state.environments)[0].shape[0]
    numbers = first_env + jnp.arange(count)

    def act(name: str, seen: Seen, keys: Array, explore: Any) -> tuple[Array, Array]:
        chosen = policy(state.params[name], seen, config)
        sampled = jax.vmap(lambda one, key: one.sample(key))(chosen, keys)
        if config.mirrored:
            odd = (numbers % 2 == 1)[:, None, None]
            sampled = jnp.where(odd, 2.0 * chosen.mode() - sampled, sampled)
        latent = jnp.where(jnp.asarray(explore, bool), sampled, chosen.mode())
        return latent, chosen.log_prob(latent)

    def step(environments: Any, step_key: Array):
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(config.source(numbers))
        keys = jax.vmap(partial(jax.random.split, num=3))(keys)
        first, plan = jax.vmap(task.first, (0, None))(environments, task_params)
        latent_1, log_prob_1 = act("first", first, keys[:, 0], phase.explore_first)
        rest = jnp.asarray(phase.rest_first, bool), jnp.asarray(phase.rest_second, bool)
        second, plan = jax.vmap(task.second, (0, 0, None, None))(
            plan, latent_1, rest[0], task_params
        )
        latent_2, log_prob_2 = act("second", second, keys[:, 1], phase.explore_second)
        environments, turn = jax.vmap(task.step, (0, 0, 0, 0, None, None))(
            keys[:, 2], environments, plan, latent_2, rest[1], task_params
        )
        if config.rejoined:
            environments = jax.tree.map(lambda leaf: jnp.repeat(leaf[::2], 2, axis=0), environments)
        played = Rollout(first, second, latent_1, latent_2, log_prob_1, log_prob_2, turn)
        return environments, played

    step_keys = jax.random.split(key, config.rollout_steps)
    return jax.lax.scan(step, state.environments, step_keys)


def _mean_over(axis: str | None) -> Callable[[Any], Any]:
    """Mean over devices of what each holds an equal part of."""
    return (lambda tree: tree) if axis is None else partial(jax.lax.pmean, axis_name=axis)


def _against_partner(advantages: Array) -> Array:
    """Half the difference to the other environment of the pair, float32[T, B]."""
    pairs = advantages.reshape(*advantages.shape[:-1], -1, 2)
    return (0.5 * (pairs - pairs[..., ::-1])).reshape(advantages.shape)


def prepare_batch(
    state: LearnerState, played: Rollout, config: MappoConfig, hyper: Hyper, axis: str | None = None
) -> tuple[LearnerState, Batch, Metrics]:
    """Advantages and targets of a rollout, value statistics updated by them."""
    params = state.params
    name, view = _second_view(played, config)
    moments = state.first_moments if config.shared_critic else state.second_moments
    first_values = value(params["first_critic"], played.first, config)
    second_values = value(params[name], view, config)
    final_values = value(params["first_critic"], played.turn.final, config)
    first_raw = denormalise(state.first_moments, first_values)
    second_raw = denormalise(moments, second_values)
    found = two_stage_gae(
        played.turn.reward,
        first_raw,
        second_raw,
        denormalise(state.first_moments, final_values),
        played.turn.terminated,
        played.turn.truncated,
        hyper.discount,
        hyper.trace,
        hyper.inner_trace,
    )
    first_moments = update_moments(
        state.first_moments, found.first_targets, hyper.value_beta, axis_name=axis
    )
    second_moments = update_moments(
        state.second_moments, found.second_targets, hyper.value_beta, axis_name=axis
    )
    state = state._replace(first_moments=first_moments, second_moments=second_moments)
    moments = first_moments if config.shared_critic else second_moments
    advantages = [found.first_advantages, found.second_advantages]
    if config.mirrored:
        advantages = [_against_partner(a) for a in advantages]
    first_advantages, second_advantages = (
        normalise_advantages(a, axis_name=axis) for a in advantages
    )
    batch = Batch(
        rollout=played,
        first_advantages=first_advantages,
        second_advantages=second_advantages,
        first_targets=normalise(first_moments, found.first_targets),
        second_targets=normalise(moments, found.second_targets),
        first_values=normalise(first_moments, first_raw),
        second_values=normalise(moments, second_raw),
    )
    mean = _mean_over(axis)
    spread = mean(jnp.mean(jnp.square(found.first_targets - mean(jnp.mean(found.first_targets)))))
    error = mean(jnp.mean(jnp.square(found.first_advantages)))
    metrics = {
        "reward": mean(jnp.mean(played.turn.reward)),
        "value": mean(jnp.mean(first_raw)),
        "explained_variance": 1.0 - error / jnp.maximum(spread, 1e-12),
        "advantage_spread": jnp.sqrt(mean(jnp.mean(jnp.square(advantages[0])))),
        **{k: mean(jnp.mean(v)) for k, v in played.turn.info.items()},
    }
    return state, batch, metrics


def loss(
    params: dict[str, Any],
    batch: Batch,
    anchor: dict[str, Any],
    leash: Array,
    config: MappoConfig,
    phase: PhaseSettings,
    hyper: Hyper,
) -> tuple[Array, Metrics]:
    """MAPPO's loss on a minibatch: both agents, both critics, entropy and leash.

    The second agent's advantages are multiplied by the first's ratio, without gradient, where
    both learn: what the first has changed within this update has changed the second's data.
    """
    played = batch.rollout
    first = policy(params["first"], played.first, config)
    second = policy(params["second"], played.second, config)
    log_ratio_1 = first.log_prob(played.first_latent) - played.first_log_prob
    log_ratio_2 = second.log_prob(played.second_latent) - played.second_log_prob
    here = jnp.any(played.first.mask, axis=-1).astype(jnp.float32)
    elements = jnp.maximum(jnp.sum(played.first.mask, axis=-1), 1).astype(jnp.float32)

    def weighted(values: Array) -> Array:
        return jnp.sum(values * here) / jnp.maximum(jnp.sum(here), 1.0)

    def spread(advantages: Array) -> Array:
        return jnp.broadcast_to(advantages[..., None], here.shape)

    joint = jnp.asarray(phase.train_first, bool) & jnp.asarray(phase.train_second, bool)
    correction = jnp.where(joint, jnp.exp(jnp.clip(log_ratio_1, -2.0, 2.0)), 1.0)
    correction = jax.lax.stop_gradient(correction)
    loss_1, stats_1 = policy_loss(log_ratio_1, spread(batch.first_advantages), hyper.clip, here)
    loss_2, stats_2 = policy_loss(
        log_ratio_2, spread(batch.second_advantages) * correction, hyper.clip, here
    )
    name, view = _second_view(played, config)
    critic_1 = value_loss(
        value(params["first_critic"], played.first, config),
        batch.first_values,
        batch.first_targets,
        hyper.value_clip,
        hyper.huber_delta,
    )
    critic_2 = value_loss(
        value(params[name], view, config),
        batch.second_values,
        batch.second_targets,
        hyper.value_clip,
        hyper.huber_delta,
    )
    entropy_1 = weighted(first.entropy() / elements)
    entropy_2 = weighted(second.entropy() / elements)
    held = [
        policy(anchor[k], s, config)
        for k, s in (("first", played.first), ("second", played.second))
    ]
    kl_1, kl_2 = weighted(first.kl(held[0])), weighted(second.kl(held[1]))
    train_1 = jnp.asarray(phase.train_first, jnp.float32)
    train_2 = jnp.asarray(phase.train_second, jnp.float32)
    total = (
        train_1 * (loss_1 - hyper.entropy * entropy_1 + leash * kl_1)
        + train_2 * (loss_2 - hyper.entropy * entropy_2 + leash * kl_2)
        + critic_1
        + critic_2
    )
    return total, {
        "policy_loss_first": loss_1,
        "policy_loss_second": loss_2,
        "value_loss_first": critic_1,
        "value_loss_second": critic_2,
        "entropy_first": entropy_1,
        "entropy_second": entropy_2,
        "kl_first": stats_1.kl,
        "kl_second": stats_2.kl,
        "clip_fraction_first": stats_1.clip_fraction,
        "clip_fraction_second": stats_2.clip_fraction,
        "anchor_kl_first": train_1 * kl_1,
        "anchor_kl_second": train_2 * kl_2,
    }


def improve(
    state: LearnerState,
    batch: Batch,
    config: MappoConfig,
    phase: PhaseSettings,
    hyper: Hyper,
    key: Array,
    axis: str | None = None,
) -> tuple[LearnerState, Metrics]:
    """Epochs of minibatches over a batch. A minibatch holds some steps of every environment."""
    mean = _mean_over(axis)
    warm = state.updates >= phase.warm_up
    optimiser = _optimiser(hyper, phase, warm)

    def minibatch(carry: tuple[Any, Any], steps: Array) -> tuple[tuple[Any, Any], Metrics]:
        params, moments = carry
        part = jax.tree.map(lambda leaf: leaf[steps], batch)
        gradient, metrics = jax.grad(loss, has_aux=True)(
            params, part, state.anchor, state.leash, config, phase, hyper
        )
        gradient = mean(gradient)
        updates, moments = optimiser.update(gradient, moments, params)
        metrics = {**metrics, "gradient_norm": optax.tree.norm(gradient)}
        return (optax.apply_updates(params, updates), moments), metrics

    def epoch(carry: tuple[Any, Any], epoch_key: Array) -> tuple[tuple[Any, Any], Metrics]:
        order = jax.random.permutation(epoch_key, config.rollout_steps)
        return jax.lax.scan(minibatch, carry, order.reshape(config.minibatches, -1))

    (params, moments), metrics = jax.lax.scan(
        epoch, (state.params, state.optimiser), jax.random.split(key, config.epochs)
    )
    metrics = mean(jax.tree.map(jnp.mean, metrics))
    # of means: the same over any number of devices
    farthest = jnp.maximum(metrics["anchor_kl_first"], metrics["anchor_kl_second"])
    adapted = adapt_kl_coefficient(state.leash, farthest, hyper.leash_target)
    adapted = jnp.where(warm, adapted, state.leash)  # actors that wait say nothing about it
    leash = jnp.where(jnp.asarray(phase.leash) > 0, adapted, 0.0)
    return state._replace(
        params=params,
        optimiser=moments,
        leash=leash,
        updates=state.updates + 1,
        all_updates=state.all_updates + 1,
    ), {
        **metrics,
        "leash": leash,
        "log_std_first": params["first"]["log_std"],
        "log_std_second": params["second"]["log_std"],
    }


def update(
    state: LearnerState,
    task: TwoTurnTask,
    task_params: Any,
    config: MappoConfig,
    phase: PhaseSettings,
    hyper: Hyper,
    axis: str | None = None,
) -> tuple[LearnerState, Metrics]:
    """One rollout and one improvement.

    Args:
      axis: name of the mapped device axis that environments are split over, None for one device.
    """
    key, play_key, learn_key = jax.random.split(state.key, 3)
    first_env = 0
    if axis is not None:
        first_env = jax.lax.axis_index(axis) * jax.tree.leaves(state.environments)[0].shape[0]
    environments, played = rollout(state, task, task_params, config, phase, play_key, first_env)
    state = state._replace(key=key, environments=environments)
    state, batch, found = prepare_batch(state, played, config, hyper, axis)
    state, metrics = improve(state, batch, config, phase, hyper, learn_key, axis)
    return state, {**found, **metrics}


def updates(
    state: LearnerState,
    count: int,
    task: TwoTurnTask,
    task_params: Any,
    config: MappoConfig,
    phase: PhaseSettings,
    hyper: Hyper,
    axis: str | None = None,
) -> tuple[LearnerState, Metrics]:
    """`count` updates in one program; metrics are leaves [count]."""

    def one(state: LearnerState, _: None) -> tuple[LearnerState, Metrics]:
        return update(state, task, task_params, config, phase, hyper, axis)

    return jax.lax.scan(one, state, length=count)


class TrainResult(NamedTuple):
    """A whole training run: the learner at its end, and metrics by update, leaves [updates]."""

    state: LearnerState
    metrics: Metrics


def make_train(
    task: TwoTurnTask,
    config: MappoConfig,
    phases: tuple[tuple[int, PhaseSettings], ...] = ((100, PhaseSettings()),),
) -> Callable[..., TrainResult]:
    """A whole run as one pure function, `train(key, task_params, hyper) -> TrainResult`.

    `jit(vmap(train, (0, None, None)))(keys, ...)` trains many seeds at once; `hyper` may be
    vmapped as well. Long runs belong into `run_phases`, which comes back to the host now and then.

    Args:
      phases: number of updates and settings of each phase, in order.
    """

    def train(key: Array, task_params: Any = None, hyper: Hyper | None = None) -> TrainResult:
        hyper = Hyper() if hyper is None else hyper
        state = init_learner(key, task, task_params, config, hyper)
        parts = []
        for count, phase in phases:
            state = enter_phase(state, phase, hyper)
            state, metrics = updates(state, count, task, task_params, config, phase, hyper)
            parts.append(metrics)
        return TrainResult(state, jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts))

    return train
