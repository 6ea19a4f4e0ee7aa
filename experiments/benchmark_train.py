"""`benchmark train`: environment slots per second while the controller learns, and where they go.

As a module it measures one `Setting` given as JSON and prints the outcome as JSON: every setting
has a process, and therefore virtual devices and peak memory, of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import jaxrl5g
from experiments.names import UsageError, integers, unknown
from experiments.processes import run_apart
from experiments.record import provenance, write_json
from jaxrl5g.agents.controller import ControllerConfig
from jaxrl5g.agents.task import downlink_task
from jaxrl5g.env import registered
from jaxrl5g.rl import mappo
from jaxrl5g.rl.mesh import AXIS, init_learners, learner_sharding, make_chunk

_HORIZON = 400  # slots of an episode at most
_ACTING, _RESTING = mappo.PhaseSettings(), mappo.PhaseSettings(rest_first=True, rest_second=True)


@dataclass(frozen=True)
class BenchmarkTrain:
    """Time training: rollouts and updates of both agents.

    Counts environment slots per second of whole updates against the number of environments, the
    devices that share them and the slots for which a decision holds, each in a process of its
    own. The parts are timed as programs of their own: the update alone, and rollouts with both
    agents acting, at rest (proportional fair with knapsack power) and at rest with equal power;
    differences of these are what the resolver and the knapsack cost. On a CPU the devices are
    virtual. Leave the machine otherwise idle.

    Examples:
      python -m experiments benchmark train
      python -m experiments benchmark train --quick
      python -m experiments benchmark train --parametrisation paper --periods 10
      python -m experiments benchmark train --envs 1024,4096 --devices 1 --periods 10
    """

    out: Path = Path("runs/benchmark-train.json")
    """JSON file to write."""
    env: str = "MunichDownlink-v0"
    """Environment to train in."""
    parametrisation: Literal["residual", "weighted", "paper"] = "residual"
    """What decisions mean."""
    envs: str = "64,256"
    """Environments side by side, over all devices, comma-separated."""
    devices: str = "1,2"
    """Devices, comma-separated; each must divide the environments."""
    periods: str = "10,1"
    """Slots for which a decision of the agents holds, comma-separated."""
    repeats: int = 5
    """Timed passes per program, of which the median counts; a pass is an episode or more."""
    quick: bool = False
    """Only the first environments and period, over the most devices, in two passes."""


@dataclass(frozen=True)
class Setting:
    """What to time: as in `BenchmarkTrain`, but single numbers."""

    env: str = "MunichDownlink-v0"
    parametrisation: Literal["residual", "weighted", "paper"] = "residual"
    envs: int = 64
    devices: int = 1
    period: int = 10
    repeats: int = 5

    @property
    def horizon(self) -> int:
        """Slots of an episode: as many decisions as fit."""
        return _HORIZON // self.period * self.period


class _Programs(NamedTuple):
    """What is timed, not yet compiled.

    Attributes:
      train: `train(state, params, phase, hyper) -> (state, metrics)`, one update.
      play: rollouts by name, each `play(state, params) -> (state, played)`.
      learn: `learn(state, played, hyper) -> state`, the update without its rollout.
    """

    train: Callable[..., Any]
    play: dict[str, Callable[..., Any]]
    learn: Callable[..., Any]


def _programs(env: Any, setting: Setting, config: mappo.MappoConfig, mesh: Any) -> _Programs:
    """Training as a whole and in parts, each over the whole mesh."""
    spec = jax.tree.map(lambda sharding: sharding.spec, learner_sharding(mesh))
    steps = jax.P(None, None, AXIS)  # leaves [S, T, B, ...]
    share = config.num_envs // setting.devices

    def on_mesh(function: Callable[..., Any], given: Any, returned: Any) -> Callable[..., Any]:
        sharded = jax.shard_map(
            function, mesh=mesh, in_specs=given, out_specs=returned, check_vma=False
        )
        return jax.jit(sharded)

    def task(kind: Any) -> Any:
        return downlink_task(env, ControllerConfig(kind, decision_period=setting.period))

    def play(kind: str, phase: mappo.PhaseSettings) -> Callable[..., Any]:
        def device(state: mappo.LearnerState, params: Any):
            def one(state: mappo.LearnerState):
                first_env = jax.lax.axis_index(AXIS) * share
                key, play_key = jax.random.split(state.key)
                environments, played = mappo.rollout(
                    state, task(kind), params, config, phase, play_key, first_env
                )
                return state._replace(key=key, environments=environments), played

            return jax.vmap(one)(state)

        # phase is constant here, so that what rests is left out of the program
        return on_mesh(device, (spec, jax.P()), (spec, steps))

    def learn(state: mappo.LearnerState, played: mappo.Rollout, hyper: mappo.Hyper):
        def one(state: mappo.LearnerState, played: mappo.Rollout, hyper: mappo.Hyper):
            state, batch, _ = mappo.prepare_batch(state, played, config, hyper, AXIS)
            key, learn_key = jax.random.split(state.key)
            state = state._replace(key=key)
            return mappo.improve(state, batch, config, _ACTING, hyper, learn_key, AXIS)[0]

        return jax.vmap(one)(state, played, hyper)

    return _Programs(
        train=make_chunk(1, task(setting.parametrisation), config, mesh),
        play={
            "acting": play(setting.parametrisation, _ACTING),
            "resting": play(setting.parametrisation, _RESTING),
            "equal_power": play("paper", _RESTING),
        },
        learn=on_mesh(learn, (spec, steps, jax.P()), spec),
    )


class _Compiled(NamedTuple):
    """A compiled program and what making it took."""

    call: Callable[..., Any]
    trace_s: float
    compile_s: float
    instructions: int


def _compile(function: Any, *arguments: Any) -> _Compiled:
    began = time.perf_counter()
    lowered = function.lower(*arguments)
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    instructions = (compiled.as_text() or "").count(" = ")
    return _Compiled(compiled, lowered_at - began, compiled_at - lowered_at, instructions)


def _pass_seconds(step: Callable[[Any], Any], start: Any, count: int, repeats: int) -> list[float]:
    """Seconds of `count` steps from the same start, `repeats` times after an untimed step."""
    jax.block_until_ready(step(start))
    seconds = []
    for _ in range(repeats):
        state = start
        tick = time.perf_counter()
        for _ in range(count):
            state = step(state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - tick)
    return seconds


def measure(setting: Setting) -> dict[str, Any]:
    """Compile and time one setting.

    Returns:
        The setting with the learner's sizes, `slots` of a pass, `slots_per_s` (median) and its
        `spread` (slowest and fastest), `us_per_slot` by part, `trace_s` and `compile_s` of whole
        updates, `parts_compile_s` of the others, `instructions` of every program, and peak memory.
        Parts, in microseconds a slot: `environment` (rollout with equal power, both agents'
        networks included), `knapsack` (of the decisions, and of the joint optimum that the PRB
        agent of `residual` is told of; none in `paper`), `resolver`, `update`, and `rest`, what
        the whole takes beyond them. As differences of medians they may come out below 0 where they
        are small.

    Raises:
        ValueError: environments that do not divide over the devices, or too few devices.
    """
    if len(jax.devices()) < setting.devices:
        raise ValueError(f"{setting.devices} devices asked for, {len(jax.devices())} present.")
    env, params = jaxrl5g.make(setting.env, max_steps_in_episode=setting.horizon)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[: setting.devices]), (AXIS,))
    config = mappo.MappoConfig(num_envs=setting.envs)
    hyper = jax.tree.map(lambda number: jnp.full(1, number, jnp.float32), mappo.Hyper())
    programs = _programs(env, setting, config, mesh)
    keys = jax.random.split(jax.random.key(0), 1)

    def start(kind: Any) -> mappo.LearnerState:
        task = downlink_task(env, ControllerConfig(kind, decision_period=setting.period))
        return init_learners(keys, task, params, config, hyper, mesh)

    state = start(setting.parametrisation)
    starts = {"acting": state, "resting": state, "equal_power": start("paper")}
    params, hyper = jax.device_put((params, hyper), jax.sharding.NamedSharding(mesh, jax.P()))

    train = _compile(programs.train, state, params, _ACTING, hyper)
    play = {
        name: _compile(program, starts[name], params) for name, program in programs.play.items()
    }
    _, played = play["acting"].call(state, params)
    learn = _compile(programs.learn, state, played, hyper)

    slots_per_update = config.rollout_steps * setting.period
    count = -(-setting.horizon // slots_per_update)  # an episode at least: every reset is in it
    timed = partial(_pass_seconds, count=count, repeats=setting.repeats)
    whole = timed(lambda state: train.call(state, params, _ACTING, hyper)[0], state)
    slots = setting.envs * slots_per_update * count

    def us(seconds: list[float]) -> float:
        return 1e6 * float(np.median(seconds)) / slots

    rollout = {
        name: us(timed(lambda state, call=program.call: call(state, params)[0], starts[name]))
        for name, program in play.items()
    }
    update = us(timed(lambda state: learn.call(state, played, hyper), state))
    others = {**play, "update": learn}
    return {
        **asdict(setting),
        "learner": asdict(config),
        "slots": slots,
        "slots_per_s": slots / float(np.median(whole)),
        "spread": [slots / max(whole), slots / min(whole)],
        "us_per_slot": {
            "environment": rollout["equal_power"],
            "knapsack": rollout["resting"] - rollout["equal_power"],
            "resolver": rollout["acting"] - rollout["resting"],
            "update": update,
            "rest": us(whole) - rollout["acting"] - update,
        },
        "trace_s": train.trace_s,
        "compile_s": train.compile_s,
        "parts_compile_s": sum(part.trace_s + part.compile_s for part in others.values()),
        "instructions": {
            "train": train.instructions,
            **{name: part.instructions for name, part in others.items()},
        },
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def settings(options: BenchmarkTrain) -> list[Setting]:
    """What to time: every period, number of environments and number of devices.

    Raises:
        UsageError: an option names something unknown, out of range or not divisible.
    """
    if options.env not in registered():
        raise unknown("environment id", options.env, registered())
    if options.repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {options.repeats}.")
    envs = integers("--envs", options.envs)
    devices = integers("--devices", options.devices)
    periods = integers("--periods", options.periods)
    if max(periods) > _HORIZON:
        raise UsageError(f"--periods must be at most {_HORIZON} slots, got {max(periods)}.")
    base = Setting(options.env, options.parametrisation, repeats=options.repeats)
    if options.quick:
        envs, devices, periods = envs[:1], (max(devices),), periods[:1]
        base = replace(base, repeats=min(options.repeats, 2))
    for count in devices:
        for size in envs:
            if size % count:
                raise UsageError(f"--envs {size} does not divide over {count} devices.")
    return [
        replace(base, envs=size, devices=count, period=period)
        for period in periods
        for size in envs
        for count in devices
    ]


def run(options: BenchmarkTrain, argv: list[str]) -> dict[str, Any]:
    """Run the benchmark and return what the JSON file holds.

    Raises:
        UsageError: as `settings`.
        RuntimeError: a setting could not be measured.
    """
    console = Console() if Console().is_terminal else Console(width=120)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    todo = settings(options)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        for setting in todo:
            progress.update(task, description=str(setting))
            rows.append(run_apart(__name__, setting, setting.devices))
    results = {**provenance(argv), "config": asdict(options), "rows": rows}
    write_json(options.out, results)
    console.print(table(results))
    console.print(
        f"{options.parametrisation}; us a slot: environment, networks included; what knapsack "
        "power, with the joint optimum that is foreseen, and the resolver add to it; the update "
        "alone; what the whole takes beyond these"
    )
    console.print(f"written to {options.out}")
    return results


def table(results: dict[str, Any]) -> Table:
    """The results in a row per setting."""
    hardware = results["hardware"]
    shown = Table(
        title=f"training on {hardware['cpu']}, {hardware['cores']} cores, JAX devices: "
        f"{', '.join(hardware['devices'])}",
        title_justify="left",
    )
    for column in ("period", "envs", "devices", "slots/s", "slowest to fastest"):
        shown.add_column(column, justify="right")
    parts = ("environment", "knapsack", "resolver", "update", "rest")
    for column in (*parts, "compile, s"):
        shown.add_column(column, justify="right")
    for row in results["rows"]:
        low, high = row["spread"]
        shown.add_row(
            str(row["period"]),
            str(row["envs"]),
            str(row["devices"]),
            f"{row['slots_per_s']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            *(f"{row['us_per_slot'][part]:.1f}" for part in parts),
            f"{row['trace_s'] + row['compile_s']:.1f}",
        )
    return shown


if __name__ == "__main__":
    print(json.dumps(measure(Setting(**json.loads(sys.argv[1])))))
