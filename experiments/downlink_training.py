"""Training of the two-agent controller: variants, curriculum, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.downlink_config import Downlink
from experiments.environments import open_environment
from experiments.settings import to_plain
from experiments.sweeps import Group
from jaxrl5g import mac
from jaxrl5g.agents import ControllerConfig, controller, downlink_task, save_controller
from jaxrl5g.agents.decisions import Parametrisation
from jaxrl5g.env import peak_cell_rate
from jaxrl5g.evaluation import Metrics, evaluate, evaluate_stack
from jaxrl5g.rl import Hyper, LearnerState, MappoConfig, Phase, PhaseSettings, run_phases
from jaxrl5g.rl.checkpoints import load_checkpoint
from jaxrl5g.rl.mappo import enter_phase
from jaxrl5g.rl.mesh import AXIS, init_learners, make_chunk

TRACED = tuple(
    f"training.{name}"
    for name in (
        "learning_rate",
        "log_std",
        "discount",
        "trace",
        "inner_trace",
        "clip",
        "entropy",
        "leash_target",
    )
)
"""Options that a sweep may stack: all their points are trained by one program."""


@dataclass(frozen=True)
class Variant:
    """One of the controllers that are trained.

    Attributes:
        parametrisation: one of `jaxrl5g.agents.decisions.PARAMETRISATIONS`.
        name: one of `VARIANTS`.
    """

    parametrisation: Parametrisation
    name: str

    @property
    def label(self) -> str:
        """As it is reported."""
        return f"{self.parametrisation} {self.name}"

    @property
    def slug(self) -> str:
        """Folder of its training."""
        return f"{self.parametrisation}-{self.name}"

    @property
    def sees(self) -> dict[str, str]:
        """What its environments are made with beyond the scenario: the CSI that it needs."""
        csi = ControllerConfig(self.parametrisation).csi
        return {} if csi == "reported" else {"csi": csi}

    @property
    def rest_first(self) -> bool:
        """Whether PRBs are left to proportional fair."""
        return self.name == "power_only"

    @property
    def rest_second(self) -> bool:
        """Whether the power agent is left out."""
        return self.name == "prb_only"


def controller_config(config: Downlink, variant: Variant) -> ControllerConfig:
    """Return what the agents of a variant decide."""
    return ControllerConfig(
        parametrisation=variant.parametrisation,
        decision_period=config.decisions.period,
        window=config.decisions.window,
    )


def learner_config(config: Downlink, variant: Variant) -> MappoConfig:
    """Return the learner's sizes."""
    training = config.training
    return MappoConfig(
        num_envs=training.num_envs,
        rollout_steps=training.rollout_steps,
        epochs=training.epochs,
        minibatches=training.minibatches,
        actor_features=training.actor_features,
        actor_linear=training.actor_linear,
        critic_features=training.critic_features,
        shared_critic=variant.name == "shared_critic",
        mirrored=training.mirrored,
        rejoined=training.rejoined,
    )


def curriculum(config: Downlink, variant: Variant) -> list[tuple[str, int, PhaseSettings]]:
    """Return name, updates and settings of a variant's phases; all variants have equal updates."""
    training = config.training
    first, second, third = training.phase_updates
    total = first + second + third
    begin = PhaseSettings(warm_up=training.warm_up)
    prb = begin.replace(train_second=False, explore_second=False, rest_second=True)
    power = begin.replace(train_first=False, explore_first=False)
    if variant.name == "prb_only":
        return [("PRB agent", total, prb)]
    if variant.name == "power_only":
        return [("power agent", total, power.replace(rest_first=True))]
    if variant.name == "no_curriculum":
        return [("both agents", total, begin)]
    joint = begin.replace(learning_rate=training.joint_learning_rate, leash=training.leash)
    return [("PRB agent", first, prb), ("power agent", second, power), ("joint", third, joint)]


def hypers(group: Group) -> Hyper:
    """Return the learner's numbers, leaves [points x seeds], seeds running fastest."""
    training = group.config.training
    points = len(group.settings)
    swept = {name.removeprefix("training."): column for name, column in group.values.items()}

    def column(name: str) -> jax.Array:
        values = swept.get(name, np.full(points, getattr(training, name)))
        return jnp.repeat(jnp.asarray(values, jnp.float32), training.seeds)

    named = {name.removeprefix("training.") for name in TRACED}
    count = points * training.seeds
    return Hyper(
        **{
            name: column(name) if name in named else jnp.full(count, value, jnp.float32)
            for name, value in Hyper().__dict__.items()
        }
    )


@dataclass(frozen=True)
class MakeController:
    """Makes a controller from its parameters; equal, and so compiled once, for equal settings."""

    config: ControllerConfig
    networks: MappoConfig
    rest_first: bool
    rest_second: bool

    def __call__(self, actors: Mapping[str, Any]) -> mac.Scheduler:
        return controller(
            dict(actors),
            self.config,
            self.networks,
            rest_first=self.rest_first,
            rest_second=self.rest_second,
        )


def maker(config: Downlink, variant: Variant) -> MakeController:
    """Return what makes the variant's controllers."""
    training = config.training
    networks = MappoConfig(
        actor_features=training.actor_features, actor_linear=training.actor_linear
    )
    return MakeController(
        controller_config(config, variant), networks, variant.rest_first, variant.rest_second
    )


def train(group: Group, variant: Variant, folder: Path, resume: bool) -> dict[str, Any]:
    """Train a variant, all points and seeds of it, or go on with it.

    Returns:
        The actors of the state that was best on the validation tracks, leaves [points x seeds].
    """
    config: Downlink = group.config
    training, scenario = config.training, config.scenario
    env, params = open_environment(
        scenario.train_env,
        scenario.train_split,
        1,
        scenario.slots,
        reward=reward_of(config, variant),
        fairness_weight=scenario.fairness_weight,
        fairness_alpha=scenario.fairness_alpha,
        throughput_window=scenario.reward_window,
        **variant.sees,
    )
    learner, hyper = learner_config(config, variant), hypers(group)
    task = downlink_task(env, controller_config(config, variant))
    devices = training.devices or jax.local_device_count()
    mesh = jax.make_mesh((devices,), (AXIS,), devices=jax.devices()[:devices])
    chunk = make_chunk(training.updates_per_chunk, task, learner, mesh, training.seeds_at_once)
    keys = jax.random.split(jax.random.key(config.seed), training.seeds)
    keys = jnp.tile(keys, len(group.settings))  # the same seeds at every point
    state = init_learners(keys, task, params, learner, hyper, mesh)

    def phase(name: str, updates: int, settings: PhaseSettings) -> Phase:
        settings = jax.tree.map(jnp.asarray, settings)
        slots = updates_slots(config, training.updates_per_chunk) * len(keys)
        return Phase(
            name,
            updates // training.updates_per_chunk,
            lambda state: chunk(state, params, settings, hyper),
            _entering(settings, hyper),
            units=slots,
        )

    phases = [phase(*part) for part in curriculum(config, variant)]
    validate = _validation(config, variant, len(keys))
    run_phases(
        phases,
        state,
        folder,
        config={"variant": variant.slug, "sweep": list(group.points), **to_plain(config)},
        evaluate=validate,
        evaluate_every=max(1, sum(p.chunks for p in phases) // 12),
        score=lambda found: found["gain_over_rest"],
        checkpoint_every=5,
        watch=lambda state: state.params,
        resume=resume,
        shown=("reward", "log_throughput"),
        unit="slots",
    )
    best, _ = load_checkpoint(folder / "checkpoints" / "best", state)
    actors = {name: jax.device_get(best.params[name]) for name in ("first", "second")}
    for number in range(len(keys)):
        point, seed = divmod(number, training.seeds)
        name = f"seed-{seed}" if len(group.settings) == 1 else f"point-{point}-seed-{seed}"
        save_controller(
            folder / "controllers" / name,
            jax.tree.map(lambda leaf, n=number: leaf[n], actors),
            controller_config(config, variant),
            learner,
            {"variant": variant.label, "env": scenario.train_env, "seed": seed},
            rest_first=variant.rest_first,
            rest_second=variant.rest_second,
        )
    return actors


def updates_slots(config: Downlink, updates: int) -> int:
    """Return the environment slots of so many updates of one learner."""
    training = config.training
    return updates * training.num_envs * training.rollout_steps * config.decisions.period


def _entering(settings: PhaseSettings, hyper: Hyper):
    """Start a phase for every learner of the stack."""

    @jax.jit
    def enter(state: LearnerState, hyper: Hyper) -> LearnerState:
        return jax.vmap(enter_phase, (0, None, 0))(state, settings, hyper)

    return lambda state: enter(state, hyper)


def _validation(config: Downlink, variant: Variant, count: int):
    """What a variant is trained for, on the validation tracks, against the controller at rest."""
    scenario = config.scenario
    env, params = open_environment(
        scenario.train_env,
        scenario.validation_split,
        scenario.validation_drops,
        scenario.slots,
        **variant.sees,
    )
    key = jax.random.key(config.seed + 1)
    rest = evaluate(env, params, at_rest(config, variant), key, scenario.validation_drops)
    make = maker(config, variant)
    peak = peak_cell_rate(params.config) / params.config.slot_seconds
    reward = reward_of(config, variant)

    def objective(metrics: Metrics) -> float:
        jain = scenario.fairness_weight * metrics.jain
        if reward == "fairness":
            return float(np.mean(metrics.cell_throughput / peak + jain))
        utility = log_power_mean(metrics.user_throughput, scenario.fairness_alpha)
        return float(np.mean(utility + jain if reward == "weighted_rate" else utility))

    def validate(state: LearnerState) -> dict[str, Any]:
        actors = {name: jax.device_get(state.params[name]) for name in ("first", "second")}
        found = evaluate_stack(env, params, make, (actors,), count, key, scenario.validation_drops)
        gains = np.array([objective(m) - objective(rest) for m in found])
        jain = np.array([np.mean(m.jain) for m in found])
        return {"gain_over_rest": float(np.mean(gains)), "gains": gains, "jain": jain}

    return validate


def at_rest(config: Downlink, variant: Variant) -> mac.Scheduler:
    """Return the classical rule that a variant's progress is measured from."""
    window = config.decisions.window
    if variant.parametrisation == "coordinated":
        return mac.held_on_off(window, config.decisions.period)
    power = "equal" if variant.parametrisation == "paper" else "knapsack"
    return mac.proportional_fair(window, power=power)


def reward_of(config: Downlink, variant: Variant) -> str:
    """Return the reward that a variant is trained for."""
    return getattr(config.scenario, f"{variant.parametrisation}_reward")


def log_power_mean(throughput: np.ndarray, alpha: float) -> np.ndarray:
    """Return ln of what maximising alpha-fair utility maximises, [D, C, U] to [D].

    That is (mean T^(1 - alpha))^(1 / (1 - alpha)) over a drop's users, the geometric mean at alpha
    1, a user counting one bit/s at least and not at all if NaN.
    """
    logs, exponent = np.log(np.maximum(throughput, 1.0)), 1.0 - alpha
    if exponent == 0:
        return np.nanmean(logs, axis=(1, 2))
    return np.log(np.nanmean(np.exp(exponent * logs), axis=(1, 2))) / exponent
