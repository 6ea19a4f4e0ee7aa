"""Complete runs of learners from preferences, timed: many at once, and rivals one by one.

As a module it measures one `Setting` given as JSON and prints the outcome as JSON, so that every
setting has a process, and therefore virtual devices and peak memory, of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cpl_torch, pr_lsvi_numpy
from prefs.algorithms import cpl, pr_lsvi
from prefs.algorithms.evaluation import table_returns
from prefs.algorithms.links import Logistic
from prefs.algorithms.offline_data import mixed_behaviour
from prefs.algorithms.result import Result
from prefs.feedback.labellers import regret
from prefs.feedback.labels import sampled_labels
from prefs.feedback.segments import PreferenceData, sample_segments, sparse_pairs
from prefs.feedback.teachers import TEACHERS
from prefs.mdps import TabularMDP, grid_world, random_episodic, soft_optimal, tabular_problem

PAIRS, LENGTH = 500, 8  # comparisons of a CPL run, steps of a segment
THRESHOLD, JUDGE_SCALE = 0.1, 8.0  # of PR-LSVI
_AXIS = "runs"


@dataclass(frozen=True)
class Setting:
    """What to time.

    Attributes:
        learner: "cpl" or "pr-lsvi".
        runs: at once, over all devices; of a rival, one after the other.
        devices: JAX devices that share the runs.
        chunk: runs under one `vmap` on a device, which then takes chunk after chunk; 0 = all.
        rival: PyTorch's CPL or NumPy's PR-LSVI instead.
        threads: of PyTorch; 0 = as it likes.
        bc_updates, updates: of a CPL run, cloning and then CPL's loss, each on all data.
        episodes: of a PR-LSVI run.
        repeats: timed passes, of which the median counts.
    """

    learner: str = "cpl"
    runs: int = 1
    devices: int = 1
    chunk: int = 0
    rival: bool = False
    threads: int = 0
    bc_updates: int = 300
    updates: int = 1500
    episodes: int = 1500
    repeats: int = 3

    @property
    def width(self) -> int:
        """Runs under one `vmap`."""
        share = self.runs // self.devices
        return min(self.chunk or share, share)

    @property
    def cpl_config(self) -> cpl.CPLConfig:
        """Defaults but for the numbers of updates."""
        return cpl.CPLConfig(bc_steps=self.bc_updates, steps=self.updates)

    @property
    def lsvi_config(self) -> pr_lsvi.PRLSVIConfig:
        """The practical constants."""
        return pr_lsvi.practical(episodes=self.episodes, eps=THRESHOLD)


def cpl_task(key: jax.Array) -> tuple[TabularMDP, PreferenceData]:
    """A 7 x 7 grid and 500 sparse pairs of its 8-step segments.

    The behaviour is half soft-optimal, half uniform; who answers never errs about the regret.
    """
    of_grid, of_segments, of_labels = jax.random.split(key, 3)
    mdp = grid_world(of_grid)
    behaviour = mixed_behaviour(mdp, 0.1, 0.5)
    segments = sample_segments(of_segments, mdp, behaviour, 2 * PAIRS, LENGTH)
    judge = TEACHERS["oracle"](regret(soft_optimal(mdp, 0.1).advantage, mdp.discount))
    pairs = sampled_labels(of_labels, judge, segments, sparse_pairs(2 * PAIRS))
    return mdp, PreferenceData(segments, pairs)


def cpl_run(setting: Setting, key: jax.Array) -> Result:
    """Draw a problem and its data from the first half of the key, learn, evaluate exactly."""
    of_task, of_run = jax.random.split(key)
    mdp, data = cpl_task(of_task)
    train = cpl.make_train(setting.cpl_config, tabular_problem(mdp), None, data=data)
    return train(of_run)


def lsvi_run(setting: Setting, key: jax.Array) -> Result:
    """Draw a problem of 4 states, 3 actions and 3 steps, likewise, and learn from comparisons."""
    of_problem, of_run = jax.random.split(key)
    train = pr_lsvi.make_train(
        setting.lsvi_config, random_episodic(of_problem), Logistic(JUDGE_SCALE)
    )
    return train(of_run)


_RUNS = {"cpl": cpl_run, "pr-lsvi": lsvi_run}
_SHOWN = {"cpl": ("greedy_return", "return"), "pr-lsvi": ("regret", "queries")}
LEARNERS = tuple(_RUNS)


def keys_of(setting: Setting) -> jax.Array:
    """A key a run; the first runs are the same whatever their number."""
    return jax.vmap(lambda run: jax.random.fold_in(jax.random.key(0), run))(
        jnp.arange(setting.runs)
    )


def program(setting: Setting) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """All runs as a function of their keys, metrics [runs] by name; not yet compiled."""

    def one(key: jax.Array) -> dict[str, jax.Array]:
        metrics = _RUNS[setting.learner](setting, key).metrics
        return {name: metrics[name].reshape(-1)[-1] for name in _SHOWN[setting.learner]}

    def share(keys: jax.Array) -> dict[str, jax.Array]:
        run = jax.vmap(one)
        if keys.shape[0] == setting.width:
            return run(keys)
        found = jax.lax.map(run, keys.reshape(-1, setting.width))
        return jax.tree.map(lambda leaf: leaf.reshape(-1), found)

    if setting.devices == 1:
        return share
    mesh = jax.sharding.Mesh(np.array(jax.devices()[: setting.devices]), (_AXIS,))
    split = jax.P(_AXIS)
    return jax.shard_map(share, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)


def measure(setting: Setting) -> dict[str, Any]:
    """Compile and time one setting.

    Returns:
        The setting with `runs_per_s` (median), `spread` (slowest and fastest), `cpu_ms_per_run`
        (processor time, all cores together: on a machine that does other work the better measure),
        `trace_s`, `compile_s`, `program_bytes` (what the compiled program holds, all devices),
        `peak_rss_bytes` and `rss_before_bytes` (peak of the process before the first pass),
        `peak_device_bytes`, and the metrics' means: a check that the work was done.

    Raises:
        ValueError: runs that do not divide over devices and chunks, or too few devices.
    """
    if len(jax.devices()) < setting.devices:
        raise ValueError(f"{setting.devices} devices asked for, {len(jax.devices())} present.")
    if setting.runs % setting.devices or setting.runs // setting.devices % setting.width:
        raise ValueError(
            f"{setting.runs} runs do not divide over {setting.devices} devices in chunks of "
            f"{setting.width}."
        )
    keys = keys_of(setting)
    began = time.perf_counter()
    lowered = jax.jit(program(setting)).lower(keys)
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    before = _peak_rss()
    metrics = jax.block_until_ready(compiled(keys))
    seconds, processor = [], []
    for _ in range(setting.repeats):
        tick, cpu_tick = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(keys))
        seconds.append(time.perf_counter() - tick)
        processor.append(time.process_time() - cpu_tick)
    memory = compiled.memory_analysis()
    return {
        **asdict(setting),
        **_timed(setting.runs, seconds, processor),
        "trace_s": lowered_at - began,
        "compile_s": compiled_at - lowered_at,
        "program_bytes": setting.devices
        * (memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes)
        if memory
        else None,
        "rss_before_bytes": before,
        "peak_rss_bytes": _peak_rss(),
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        **{name: float(jnp.mean(value)) for name, value in metrics.items()},
    }


def measure_rival(setting: Setting) -> dict[str, Any]:
    """Time whole runs of a rival, one after the other, on the problems of our first ones.

    Problems, a CPL run's data and the evaluation are not timed; in `measure` they are.

    Returns:
        As `measure`, without what is about compiling and memory.

    Raises:
        UsageError: PyTorch is not installed.
    """
    timed = _RIVALS[setting.learner](setting)
    timed(0)  # warm
    seconds, processor, metrics = [], [], []
    for _ in range(setting.repeats):
        for run in range(setting.runs):
            spent, cpu, metric = timed(run)
            seconds.append(spent)
            processor.append(cpu)
            metrics.append(metric)
    return {
        **asdict(setting),
        **_timed(1, seconds, processor),
        **{name: float(np.mean([metric[name] for metric in metrics])) for name in metrics[0]},
    }


def _cpl_rival(setting: Setting) -> Callable[[int], tuple[float, float, dict[str, float]]]:
    torch = cpl_torch.import_torch()
    if setting.threads:
        torch.set_num_threads(setting.threads)
    of_task = jax.vmap(lambda key: jax.random.split(key)[0])(keys_of(setting))
    tasks, returns = jax.jit(jax.vmap(cpl_task))(of_task), jax.jit(table_returns)

    def timed(run: int):
        mdp, data = jax.tree.map(lambda leaf: np.asarray(leaf[run]), tasks)
        shape = (mdp.num_states, mdp.num_actions)
        spent, cpu, result = _clocked(lambda: cpl_torch.train(data, shape, setting.cpl_config))
        found = returns(mdp, result.policy)
        return spent, cpu, {name: float(value) for name, value in found.items()}

    return timed


def _lsvi_rival(setting: Setting) -> Callable[[int], tuple[float, float, dict[str, float]]]:
    of_problem = jax.vmap(lambda key: jax.random.split(key)[0])(keys_of(setting))
    mdps = jax.jit(jax.vmap(random_episodic))(of_problem)
    rng = np.random.default_rng(0)

    def timed(run: int):
        mdp = jax.tree.map(lambda leaf: np.asarray(leaf[run]), mdps)

        def whole():
            luck = pr_lsvi_numpy.draw_luck(rng, setting.episodes, *mdp.features.shape[::3])
            return pr_lsvi_numpy.train(setting.lsvi_config, mdp, luck, JUDGE_SCALE)

        spent, cpu, result = _clocked(whole)
        return spent, cpu, {"regret": result.regret[-1], "queries": result.queried.sum()}

    return timed


_RIVALS = {"cpl": _cpl_rival, "pr-lsvi": _lsvi_rival}


def _clocked(call: Callable[[], Any]) -> tuple[float, float, Any]:
    tick, cpu_tick = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - tick, time.process_time() - cpu_tick, result


def _timed(runs: int, seconds: list[float], processor: list[float]) -> dict[str, Any]:
    return {
        "runs_per_s": runs / float(np.median(seconds)),
        "spread": [runs / max(seconds), runs / min(seconds)],
        "cpu_ms_per_run": 1e3 * float(np.median(processor)) / runs,
    }


def _peak_rss() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    asked = Setting(**json.loads(sys.argv[1]))
    print(json.dumps((measure_rival if asked.rival else measure)(asked)))
