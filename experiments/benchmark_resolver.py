"""`benchmark resolver`: exact quota assignments per second, beside other solvers and a floor.

As a module it measures one `Setting` given as JSON and prints the outcome as JSON, so that
threads can have a process that dispatches as they need it.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import jaxrl5g
from experiments import quota_rivals
from experiments.machine_floor import best_seconds
from experiments.names import UsageError, integers, split_list
from experiments.processes import run_apart
from experiments.record import provenance, write_json
from jaxrl5g import phy
from jaxrl5g.mac.apportionment import apportion
from jaxrl5g.mac.quota_resolver import resolve_quotas

_WINDOW = 100  # slots of the average in the weights r / T
_DRIFT, _TILT = 0.97, 0.7  # of the logarithm of the shares: correlation and standard deviation
_OPERATIONS = 4  # of a dual pass, per user and PRB: subtract, maximise, compare, count


@dataclass(frozen=True)
class BenchmarkResolver:
    """Time the exact quota resolver.

    Weights r / T of drops in the ray-traced munich training tracks, slot after slot, and quotas
    that drift about proportional fair's counts; from nothing (cold) and from the last slot's
    dual (warm), one instance at a time and batched, from one thread and from one per core. Beside
    it SciPy's and optax's assignment solvers, greedy and Sinkhorn. Leave the machine otherwise
    idle.

    Examples:
      python -m experiments benchmark resolver
      python -m experiments benchmark resolver --quick
      python -m experiments benchmark resolver --sizes 16x51 --batches 64,1024
    """

    out: Path = Path("runs/benchmark-resolver.json")
    """JSON file to write."""
    sizes: str = "4x13,10x51,16x51,16x106,32x106,16x273"
    """Users x PRBs, comma-separated."""
    batches: str = "1,1024"
    """Instances side by side, comma-separated; 1 is one instance after the other."""
    threads: int = 2
    """On a CPU, also split the largest batch over this many Python threads; 1 = never."""
    repeats: int = 5
    """Timed runs per setting, of which the median counts."""
    rivals: int = 16
    """Instances per size for the other solvers; 0 = none."""
    reported: bool = False
    """Rates as a scheduler predicts them from 4-bit CQI of 4-PRB subbands: many are equal."""
    quick: bool = False
    """Two sizes, small batches, two repeats: a smoke test."""


@dataclass(frozen=True)
class Setting:
    """What to time: `slots` consecutive slots of `batch` drops, batch 1 without a batch axis.

    Each of the threads solves its share of the batch in a program of its own.
    """

    users: int = 16
    prbs: int = 51
    batch: int = 1
    threads: int = 1
    repeats: int = 5
    reported: bool = False

    @property
    def slots(self) -> int:
        """Slots of a run."""
        return int(np.clip(8192 // self.batch, 16, 128))


def drop_slots(
    users: int, prbs: int, drops: int, slots: int, reported: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Quotas int32[slots, drops, U] and weights float32[slots, drops, U, N] of consecutive slots.

    Rates log2(1 + SNR) at equal power from the shipped munich tracks, interpolated linearly over
    the PRB index from 51 columns to N; or, where `reported`, the rates predicted from 4-bit CQI of
    4-PRB subbands, each PRB with that of the nearest column to its left. Weights are r / T, T the
    average rate under parallel proportional fair; shares are its counts c + 1/(4U), times e^z, z
    drifting.
    """
    _, params = jaxrl5g.make("MunichDownlink-v0", num_users=users)
    keys = jax.random.split(jax.random.key(0), drops + 1)
    position = np.linspace(0, params.config.num_prbs - 1, prbs)
    left = np.minimum(position.astype(int), params.config.num_prbs - 2)
    right_share = jnp.asarray(position - left, jnp.float32)
    subband = np.arange(params.config.num_prbs) // params.config.subband_size
    mean_of = np.equal(subband[:, None], np.unique(subband)).astype(np.float32)
    mean_of /= mean_of.sum(axis=0)

    @jax.jit
    def every_slot(params: Any) -> tuple[jax.Array, jax.Array]:
        def draw(key: jax.Array) -> Any:
            return params.channel.draw(key, params.tracks, params.start_slot, jnp.int32(slots))

        drawn = jax.vmap(draw)(keys[1:])

        def rates(slot: jax.Array) -> jax.Array:
            gain = jax.vmap(lambda drop: params.channel.gains(drop, slot)[0, :, 0])(drawn)
            snr = gain * params.power_budget / params.config.num_prbs / params.noise_power
            if reported:
                level_db = phy.cqi_sinr_db(phy.quantise_cqi(snr @ mean_of))
                return phy.predicted_rate(phy.to_linear(level_db))[..., subband[left]]
            rate = jnp.log2(1 + snr)
            return rate[..., left] * (1 - right_share) + rate[..., left + 1] * right_share

        def slot(state: tuple[jax.Array, jax.Array], number: jax.Array):
            mean, tilt = state
            rate = rates(number)
            weights = rate / jnp.maximum(mean, 1e-3)[..., None]
            fair = jax.nn.one_hot(jnp.argmax(weights, axis=1), users, axis=1)
            shares = (jnp.sum(fair, axis=-1) + 1 / (4 * users)) * jnp.exp(tilt)
            mean = mean + (jnp.sum(fair * rate, axis=-1) - mean) / _WINDOW
            step = jax.random.normal(jax.random.fold_in(keys[0], number), tilt.shape)
            tilt = _DRIFT * tilt + _TILT * (1 - _DRIFT**2) ** 0.5 * step
            return (mean, tilt), (apportion(shares, prbs), weights)

        mean = jnp.sum(rates(jnp.int32(0)), axis=-1) / users
        tilt = _TILT * jax.random.normal(jax.random.fold_in(keys[0], slots), mean.shape)
        return jax.lax.scan(slot, (mean, tilt), jnp.arange(slots))[1]

    return every_slot(params)


def resolve_slots(warm: bool, quotas: jax.Array, weights: jax.Array, dual: jax.Array):
    """Owners, duals and gaps slot by slot, each from the last slot's dual if `warm`."""
    solve = resolve_quotas if quotas.ndim == 2 else jax.vmap(resolve_quotas)

    def slot(dual: jax.Array, instance: tuple[jax.Array, jax.Array]):
        solution = solve(*instance, dual) if warm else solve(*instance)
        return solution[1], solution

    return jax.lax.scan(slot, dual, (quotas, weights))[1]


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Compile and time one setting, from nothing (`start` "cold") and from the last slot ("warm").

    Returns:
        For both the setting with `solves_per_s` (median), `spread` (slowest and fastest),
        `us_per_solve`, `cpu_us_per_solve` (processor time, all threads together; on a machine
        that does other work the better measure of one core), `trace_s`, `compile_s`, `solved`
        and, of these, `gaps_above_0` and `not_met`.

    Raises:
        ValueError: the batch does not divide over the threads.
    """
    if setting.batch % setting.threads:
        raise ValueError(f"batch {setting.batch} does not divide over {setting.threads} threads.")
    quotas, weights = drop_slots(
        setting.users, setting.prbs, setting.batch, setting.slots, setting.reported
    )
    if setting.batch == 1:
        quotas, weights = quotas[:, 0], weights[:, 0]
    shares = (jnp.split(array, setting.threads, axis=1) for array in (quotas, weights))
    arrays = [(q, w, jnp.zeros(q.shape[1:], jnp.float32)) for q, w in zip(*shares, strict=True)]
    rows = []
    for warm in (False, True):

        def run(quotas: jax.Array, weights: jax.Array, dual: jax.Array, warm: bool = warm):
            return resolve_slots(warm, quotas, weights, dual)

        began = time.perf_counter()
        lowered = jax.jit(run).lower(*arrays[0])
        lowered_at = time.perf_counter()
        compiled = lowered.compile()
        compiled_at = time.perf_counter()

        def solve(arguments: tuple[jax.Array, ...], compiled: Any = compiled) -> Any:
            return jax.block_until_ready(compiled(*arguments))

        seconds, processor = [], []
        with ThreadPoolExecutor(setting.threads) as pool:
            solved = list(pool.map(solve, arrays))
            for _ in range(setting.repeats):
                tick, cpu_tick = time.perf_counter(), time.process_time()
                list(pool.map(solve, arrays))
                seconds.append(time.perf_counter() - tick)
                processor.append(time.process_time() - cpu_tick)
        gap = np.concatenate([gap.reshape(-1) for _, _, gap in solved])
        # where a warm run of the same slots starts
        arrays = [(*old[:2], duals[0]) for old, (_, duals, _) in zip(arrays, solved, strict=True)]
        solves = setting.batch * setting.slots
        rows.append(
            {
                **asdict(setting),
                "start": "warm" if warm else "cold",
                "slots": setting.slots,
                "solves_per_s": solves / float(np.median(seconds)),
                "spread": [solves / max(seconds), solves / min(seconds)],
                "us_per_solve": 1e6 * float(np.median(seconds)) / solves,
                "cpu_us_per_solve": 1e6 * float(np.median(processor)) / solves,
                "trace_s": lowered_at - began,
                "compile_s": compiled_at - lowered_at,
                "solved": solves,
                "gaps_above_0": int(np.sum(gap > 0)),
                "not_met": int(np.sum(gap < 0)),
            }
        )
    return rows


def measure_apart(setting: Setting) -> list[dict[str, Any]]:
    """Measure in a process of its own, in which each thread runs what it calls.

    Raises:
        RuntimeError: the process failed; its last line of output is the message.
    """
    # asynchronous calls from threads cost a fifth (docs/quota-resolver.md)
    return run_apart(__name__, setting, variables={"JAX_CPU_ENABLE_ASYNC_DISPATCH": "0"})


def measure_rivals(
    users: int, prbs: int, instances: int, reported: bool = False
) -> list[dict[str, Any]]:
    """Time other solvers on instances side by side and compare the values they reach.

    Returns:
        Per solver: `us_per_solve` (fastest of three runs, compiled before), and by how many per
        cent of the optimum it stays below it, `loss_mean` and `loss_max`.
    """
    quotas, weights = (array[-1] for array in drop_slots(users, prbs, instances, 2, reported))
    values = jax.jit(jax.vmap(quota_rivals.value))
    best = np.asarray(values(jax.jit(jax.vmap(resolve_quotas))(quotas, weights)[0], weights))
    host = np.asarray(quotas), np.asarray(weights)

    def scipy() -> jax.Array:
        owners = [quota_rivals.scipy_assignment(*row) for row in zip(*host, strict=True)]
        return jnp.asarray(np.stack(owners), jnp.int32)

    def batched(solver: Callable[..., jax.Array]) -> Callable[[], jax.Array]:
        compiled = jax.jit(jax.vmap(solver))
        return lambda: compiled(quotas, weights)

    solvers = {
        "scipy": scipy,
        "optax": batched(quota_rivals.optax_assignment),
        "greedy": batched(quota_rivals.greedy),
        "sinkhorn": batched(quota_rivals.sinkhorn),
    }
    rows = []
    for name, solver in solvers.items():
        seconds = best_seconds(solver, repeats=3)
        loss = 100 * (1 - np.asarray(values(solver(), weights)) / best)
        rows.append(
            {
                "solver": name,
                "users": users,
                "prbs": prbs,
                "instances": instances,
                "us_per_solve": 1e6 * seconds / instances,
                "loss_mean": float(loss.mean()),
                "loss_max": float(loss.max()),
            }
        )
    return rows


def integer_rate(elements: int = 1 << 13, rounds: int = 256) -> float:
    """int32 subtractions and maxima per second on arrays in the first-level cache, one device."""

    @jax.jit
    def chain(x: jax.Array) -> jax.Array:
        def body(index: jax.Array, x: jax.Array) -> jax.Array:
            for step in range(32):
                x = jnp.maximum(x - index, step - x)
            return x

        return jax.lax.fori_loop(0, rounds, body, x)

    x = jnp.arange(elements, dtype=jnp.int32)
    return elements * rounds * 32 * 3 / best_seconds(lambda: chain(x))


def floor_us(users: int, prbs: int, rate: float) -> float:
    """Least time of a solve: one pass for the owners, their counts and nothing else, in us."""
    return 1e6 * _OPERATIONS * users * prbs / rate


def settings(
    options: BenchmarkResolver,
    sizes: list[tuple[int, int]],
    batches: tuple[int, ...],
    on_cpu: bool,
) -> list[Setting]:
    """What to time: every size and batch; on a CPU the largest batch over threads too."""
    found = []
    for users, prbs in sizes:
        base = Setting(users, prbs, repeats=options.repeats, reported=options.reported)
        found += [replace(base, batch=batch) for batch in batches]
        largest, threads = max(batches), options.threads
        if on_cpu and threads > 1 and largest > 1 and largest % threads == 0:
            found.append(replace(base, batch=largest, threads=threads))
    return found


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Read `4x13,16x51` as users and PRBs.

    Raises:
        UsageError: an item is not two positive integers joined by x, or beyond 64 x 275.
    """
    sizes = []
    for item in split_list(text):
        users, _, prbs = item.partition("x")
        if not (users.isdecimal() and prbs.isdecimal()) or not (
            1 <= int(users) <= 64 and 2 <= int(prbs) <= 275
        ):
            raise UsageError(f"--sizes must list users x PRBs, such as 4x13,16x51; got {item!r}.")
        sizes.append((int(users), int(prbs)))
    if not sizes:
        raise UsageError("--sizes names no size.")
    return sizes


def run(options: BenchmarkResolver, argv: list[str]) -> dict[str, Any]:
    """Run the benchmark and return what the JSON file holds.

    Raises:
        UsageError: an option is malformed or out of range.
    """
    for name, least in (("threads", 1), ("repeats", 1), ("rivals", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(options, name)}.")
    sizes, batches = parse_sizes(options.sizes), integers("--batches", options.batches)
    if options.quick:
        options = replace(options, repeats=2, rivals=min(options.rivals, 4))
        sizes, batches = sizes[:2], tuple(sorted({min(batch, 64) for batch in batches}))
    console = Console() if Console().is_terminal else Console(width=110)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    rivals: list[dict[str, Any]] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("machine floor", total=None)
        rate = integer_rate()
        for setting in settings(options, sizes, batches, jax.default_backend() == "cpu"):
            progress.update(task, description=str(setting))
            rows += measure_apart(setting) if setting.threads > 1 else measure(setting)
        for users, prbs in sizes if options.rivals else []:
            progress.update(task, description=f"other solvers, {users} x {prbs}")
            rivals += measure_rivals(users, prbs, options.rivals, options.reported)
    floors = {f"{u}x{n}": floor_us(u, n, rate) for u, n in sizes}
    results = {
        **provenance(argv),
        "config": asdict(options),
        "rows": rows,
        "gaps_above_0": sum(row["gaps_above_0"] for row in rows),
        "not_met": sum(row["not_met"] for row in rows),
        "solved": sum(row["solved"] for row in rows),
        "rivals": rivals,
        "floor": {"int32_operations_per_s": rate, "us_per_solve": floors},
    }
    write_json(options.out, results)
    _print(console, results)
    console.print(f"written to {options.out}")
    return results


def _print(console: Console, results: dict[str, Any]) -> None:
    hardware = results["hardware"]
    title = f"exact assignments on {hardware['cpu']}, {hardware['cores']} cores"
    if jax.default_backend() != "cpu":
        title = f"exact assignments on {', '.join(hardware['devices'])}"
    table = Table(title=title, title_justify="left")
    for column in ("users x PRBs", "batch", "threads", "start"):
        table.add_column(column)
    for column in ("per s", "slowest to fastest", "us each", "CPU us", "of floor", "compile, s"):
        table.add_column(column, justify="right")
    for row in results["rows"]:
        size = f"{row['users']}x{row['prbs']}"
        floor = results["floor"]["us_per_solve"][size]
        low, high = row["spread"]
        table.add_row(
            size,
            str(row["batch"]),
            str(row["threads"]),
            row["start"],
            f"{row['solves_per_s']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{row['us_per_solve']:.2f}",
            f"{row['cpu_us_per_solve']:.2f}",
            f"{floor / row['cpu_us_per_solve']:.1%}",
            f"{row['trace_s'] + row['compile_s']:.1f}",
        )
    console.print(table)
    console.print(
        f"gaps above 0: {results['gaps_above_0']} of {results['solved']:,}; quotas not met: "
        f"{results['not_met']}; floor: one dual pass at "
        f"{results['floor']['int32_operations_per_s'] / 1e9:.1f} G int32 operations/s"
    )
    if results["rivals"]:
        console.print(_rival_table(results["rivals"]))


def _rival_table(rivals: list[dict[str, Any]]) -> Table:
    table = Table(title="other solvers", title_justify="left")
    table.add_column("users x PRBs")
    table.add_column("solver")
    for column in ("us each", "mean loss", "largest loss"):
        table.add_column(column, justify="right")
    for row in rivals:
        table.add_row(
            f"{row['users']}x{row['prbs']}",
            row["solver"],
            f"{row['us_per_solve']:,.1f}",
            f"{row['loss_mean']:.3f} %",
            f"{row['loss_max']:.3f} %",
        )
    return table


if __name__ == "__main__":
    print(json.dumps(measure(Setting(**json.loads(sys.argv[1])))))
