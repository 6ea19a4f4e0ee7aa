"""`run downlink-...`: the hierarchical controller, trained and held against the classical field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import downlink_figures as figures
from experiments.claims import Claim, Report, Section, merge
from experiments.compare import policy_name
from experiments.comparison_report import Bound
from experiments.downlink_config import Downlink
from experiments.downlink_training import TRACED, Variant, maker, train
from experiments.environments import held_out_split, open_environment
from experiments.interval_claims import ABOVE
from experiments.kept import kept_bound, kept_metrics
from experiments.kinds import Experiment
from experiments.run_folder import RunFolder
from experiments.sweeps import Group
from experiments.tune import WINDOWS_FILE, load_windows
from jaxrl5g import mac
from jaxrl5g.agents import load_controller
from jaxrl5g.evaluation import (
    WARM_UP_SLOTS,
    Metrics,
    evaluate_family,
    evaluate_stack,
    record_episode,
)
from jaxrl5g.evaluation.frontier import matched_jain_gain, mean_jain_gain
from jaxrl5g.evaluation.statistics import (
    Interval,
    geometric_mean,
    hierarchical_bootstrap,
    mean,
    paired_hierarchical_bootstrap,
    pooled_percentile,
)

EQUAL, KNAPSACK = policy_name(1.0, "equal"), policy_name(1.0, "knapsack")
DUAL = "dual optimum"
HELD = "held on-off"
"""What `coordinated` is at z = 0."""


class Policy(NamedTuple):
    """A policy on the test drops.

    Attributes:
        metrics: one `Metrics` per seed; one for a classical rule.
        learned: whether it was trained.
    """

    metrics: list[Metrics]
    learned: bool

    def column(self, field: str) -> np.ndarray:
        """[S, D, ...] of a field of `Metrics`."""
        return np.stack([np.asarray(getattr(m, field)) for m in self.metrics])


class Tested(NamedTuple):
    """Everything that was measured on the test drops of one sweep point.

    Attributes:
        policies: by name.
        frontier: names of the alpha-fair rules that span it.
        bound: certified bounds of the first drops.
    """

    policies: dict[str, Policy]
    frontier: tuple[str, ...]
    bound: Bound

    def share_of_bound(self, name: str) -> np.ndarray | None:
        """Geometric means over the certified bounds, [S, drops]; None without bounds."""
        bound = self.bound.geometric_mean
        if not len(bound):
            return None
        return self.policies[name].column("geometric_mean")[:, : len(bound)] / bound


def run(group: Group, folder: RunFolder) -> Report:
    """Train every variant, test all policies on the same drops, and say what holds."""
    config: Downlink = group.config
    console = Console() if Console().is_terminal else Console(width=110)
    variants = [
        Variant(parametrisation, name)
        for parametrisation in config.parametrisations
        for name in config.variants_of(parametrisation)
    ]
    actors = {}
    for number, variant in enumerate(variants, start=1):
        console.print(f"[bold]{variant.label}[/bold] ({number} of {len(variants)})")
        path = folder.path / "training" / variant.slug
        actors[variant] = train(group, variant, path, folder.resuming)
    console.print("[bold]test[/bold]: classical field and controllers on the same drops")
    classical = _classical(config, folder.path / "test")
    learned = {
        variant: _learned(group, variant, actors[variant], folder.path / "test")
        for variant in variants
    }
    delays = _delays(group, variants, actors, folder.path / "test")
    reports = []
    for point in range(len(group.settings)):
        seeds = slice(point * config.training.seeds, (point + 1) * config.training.seeds)
        found = Tested(
            classical.policies
            | {v.label: Policy(metrics[seeds], True) for v, metrics in learned.items()},
            classical.frontier,
            classical.bound,
        )
        reports.append(_report(config, found, folder, group.points[point]))
    if len(reports) == 1:
        report = reports[0]
    else:
        report = merge(dict(zip(group.points, reports, strict=True)))
    sections = [*report.sections, *_pictures(config, variants, folder)]
    if delays:
        sections.append(delays)
    return Report(report.claims, sections, report.tables)


EXPERIMENT = Experiment(Downlink, run, TRACED)


def _test_env(config: Downlink, **changes: Any) -> tuple[Any, Any]:
    scenario = config.scenario
    split = held_out_split(scenario.test_env)
    return open_environment(
        scenario.test_env, split, scenario.test_drops, scenario.slots, **changes
    )


def _test_key(config: Downlink) -> jax.Array:
    return jax.random.key(config.seed + 2)


def _classical(config: Downlink, folder: Path) -> Tested:
    """The alpha-fair frontier at tuned windows, the joint optimum, several cells' rules, bounds."""
    env, params = _test_env(config)
    key, drops = _test_key(config), config.scenario.test_drops
    windows = load_windows(WINDOWS_FILE)
    policies: dict[str, Policy] = {}

    def family(name: str, make: Callable[..., mac.Scheduler], rows: list, names: list[str]) -> None:
        found = kept_metrics(
            folder / f"{name}.json",
            lambda: evaluate_family(env, params, make, rows, key, drops),
        )
        policies.update({n: Policy([m], False) for n, m in zip(names, found, strict=True)})

    for power in ("equal", "knapsack"):
        rows = [(alpha, windows[alpha, power]) for alpha in config.rivals.alphas]
        names = [policy_name(alpha, power) for alpha, _ in rows]
        family(f"alpha-{power}", partial(mac.alpha_fair, power=power), rows, names)
    frontier = tuple(policies)
    own = float(config.decisions.window)
    at_rest = partial(mac.alpha_fair, power="knapsack")
    for kind in ("residual", "weighted"):
        if kind in config.parametrisations:
            family(f"rest-{own:g}", at_rest, [(1.0, own)], [f"{kind} at z = 0"])
    window = windows[1.0, "equal"]
    family("dual", mac.dual_optimum, [(1.0, windows[1.0, "knapsack"])], [DUAL])
    if params.config.num_cells > 1:
        family("reuse3", mac.reuse_three, [(window,)], ["reuse 3"])
        central, central_params = _test_env(config, csi="centralised")
        rules = {
            "on-off": (mac.on_off, window),
            "wmmse": (mac.wmmse, window),
            HELD: (mac.held_on_off, float(config.decisions.window), float(config.decisions.period)),
        }
        for name, (make, *numbers) in rules.items():
            metrics = kept_metrics(
                folder / f"{name.replace(' ', '-')}-{'-'.join(map('{:g}'.format, numbers))}.json",
                lambda make=make, numbers=numbers: evaluate_family(
                    central, central_params, make, [numbers], key, drops
                ),
            )
            policies[_centralised(name)] = Policy(metrics, False)
    count, steps = config.rivals.bound_drops, config.rivals.bound_steps
    start = policies[EQUAL].metrics[0]
    path = folder / f"bound-{count}-{steps}.json"
    return Tested(policies, frontier, kept_bound(path, env, params, key, count, steps, start))


def _learned(
    group: Group, variant: Variant, actors: Any, folder: Path, **changes: Any
) -> list[Metrics]:
    """Test every point and seed of a variant, in that order."""
    config: Downlink = group.config
    label = "".join(f"-{name}-{value}" for name, value in changes.items())

    def measure() -> list[Metrics]:
        env, params = _test_env(config, **changes, **variant.sees)
        count = len(group.settings) * config.training.seeds
        return evaluate_stack(
            env,
            params,
            maker(config, variant),
            (actors,),
            count,
            _test_key(config),
            config.scenario.test_drops,
        )

    return kept_metrics(folder / f"{variant.slug}{label}.json", measure)


def _report(config: Downlink, found: Tested, folder: RunFolder, point: str) -> Report:
    claims: list[Claim] = []
    for parametrisation in config.parametrisations:
        if parametrisation == "coordinated":
            claims += _cells_claims(config, found)
        else:
            claims += _paper_claims(config, found, parametrisation)
        claims += _honest_claims(config, found, parametrisation)
    name = "plane.png" if not point else f"plane-{point}.png".replace("/", "_")
    figures.plane(folder.figures / name, found, "test drops")
    figures.user_cdf(folder.figures / name.replace("plane", "users"), found)
    section = Section(
        "Policies on the test drops",
        _caption(config),
        *_table(found),
        figures={
            folder.figures / name: "Cell throughput against Jain's index, the alpha-fair frontier "
            "(upper hull) and every learned controller; 95 % intervals.",
            folder.figures / name.replace("plane", "users"): "User throughput, drops (and seeds) "
            "pooled.",
        },
    )
    tables = {
        name: {
            field: policy.column(field)
            for field in ("cell_throughput", "jain", "geometric_mean", "p5_throughput")
        }
        for name, policy in found.policies.items()
    }
    return Report(claims, [section], {"policies": tables, "bound": found.bound._asdict()})


def _sample(config: Downlink) -> str:
    return f"{config.training.seeds} seeds x {config.scenario.test_drops} drops"


def _against(
    ours: Policy, theirs: Policy, field: str, statistic: Callable, relative: bool
) -> Interval:
    return paired_hierarchical_bootstrap(
        ours.column(field), theirs.column(field), statistic, relative=relative
    )


def _percent(interval: Interval) -> tuple[float, tuple[float, float]]:
    return 100 * interval.value, (100 * interval.low, 100 * interval.high)


def _known(interval: tuple[float, float]) -> tuple[float, float] | None:
    """The interval, None where there were too few seeds and drops for one."""
    return interval if np.isfinite(interval).all() else None


def _above(
    config: Downlink, found: Tested, name: str, other: str, field: str, statistic: Callable
) -> Claim:
    gain = _against(found.policies[name], found.policies[other], field, statistic, True)
    value, interval = _percent(gain)
    what = {"cell_throughput": "cell throughput", "user_throughput": "geometric mean"}[field]
    measured = bool(np.isfinite(value))
    return Claim(
        f"{name} > {other}",
        f"more {what}, paired by drop",
        ABOVE,
        value if measured else None,
        interval[0] > 0 if measured else None,
        _known(interval),
        "%",
        _sample(config),
        "" if measured else "a user without any throughput",
    )


def _paper_claims(config: Downlink, found: Tested, parametrisation: str) -> list[Claim]:
    """The order that the paper reports: full > each ablation > PF + equal power."""
    full = f"{parametrisation} full"
    rest = [
        f"{parametrisation} {name}"
        for name in config.variants_of(parametrisation)
        if name != "full"
    ]
    pairs = [(full, other) for other in rest] + [(other, EQUAL) for other in rest]
    pairs += [] if rest else [(full, EQUAL)]
    claims = [_above(config, found, a, b, "cell_throughput", mean) for a, b in pairs]
    change = _against(found.policies[full], found.policies[EQUAL], "jain", mean, False)
    claims.append(
        Claim(
            f"{full}: Jain near that of {EQUAL}",
            "Jain's index changes by no more than 0.05",
            "within 0.05 of 0 with the whole interval",
            change.value,
            bool(max(abs(change.low), abs(change.high)) <= 0.05),
            _known((change.low, change.high)),
            "",
            _sample(config),
        )
    )
    return claims


def _cells_claims(config: Downlink, found: Tested) -> list[Claim]:
    """Ten per cent above the best rule without learning, this project's own left out and not."""
    rules = [name for name, policy in found.policies.items() if not policy.learned]
    full = "coordinated full"
    claims = []
    for what, left_out in (("known rule", {_centralised(HELD)}), ("rule without learning", set())):
        best = max(
            (name for name in rules if name not in left_out),
            key=lambda name: geometric_mean(found.policies[name].column("user_throughput"))[0],
        )
        claim = _above(config, found, full, best, "user_throughput", geometric_mean)
        claims.append(
            dataclasses.replace(
                claim,
                name=f"{full}: 10 % above the best {what}",
                statement=f"geometric mean against {best}, the best of them on the test drops",
                target="at least 10",
                held=None if claim.value is None else claim.value >= 10,
            )
        )
    return claims


def _centralised(name: str) -> str:
    return f"{name} (centralised CSI)"


def _honest_claims(config: Downlink, found: Tested, parametrisation: str) -> list[Claim]:
    """Against the strongest rules that need no learning."""
    full = f"{parametrisation} full"
    policy = found.policies[full]
    hull = [found.policies[name] for name in found.frontier]
    points = (
        policy.column("jain"),
        policy.column("cell_throughput"),
        np.stack([p.column("jain")[0] for p in hull]),
        np.stack([p.column("cell_throughput")[0] for p in hull]),
    )
    matched = matched_jain_gain(*points)
    of_means = mean_jain_gain(*points)
    value, interval = _percent(matched.relative)
    measured = matched.comparable > 0
    claims = [
        Claim(
            f"{full}: cell throughput at matched Jain",
            "above the alpha-fair frontier's upper hull, knapsack power included, of each drop",
            ABOVE,
            value if measured else None,
            interval[0] > 0 if measured else None,
            _known(interval),
            "%",
            f"{matched.comparable} comparable of {policy.column('jain').size}",
            "" if measured else "no drop is within the frontier's range of Jain",
        ),
        Claim(
            f"{full}: mean cell throughput at matched mean Jain",
            "above the upper hull of the frontier's means over drops, at the controller's mean",
            ABOVE,
            100 * of_means.value if np.isfinite(of_means.value) else None,
            of_means.low > 0 if np.isfinite(of_means.value) else None,
            _known((100 * of_means.low, 100 * of_means.high)),
            "%",
            _sample(config),
            "" if np.isfinite(of_means.value) else "its mean Jain is beyond the frontier's",
        ),
    ]
    rivals = [name for name in found.policies if not found.policies[name].learned]
    rivals = [name for name in rivals if name not in found.frontier or name == KNAPSACK]
    claims += [
        _above(config, found, full, rival, "user_throughput", geometric_mean) for rival in rivals
    ]
    share = found.share_of_bound(full)
    if share is not None:
        value, interval = _percent(hierarchical_bootstrap(share))
        claims.append(
            Claim(
                f"{full}: share of the certified bound",
                "geometric mean as a part of what no policy can exceed",
                "at most 100",
                value,
                (_known(interval) or (value, value))[1] <= 100,
                _known(interval),
                "%",
                f"{config.training.seeds} seeds x {share.shape[1]} drops",
            )
        )
    return claims


def _caption(config: Downlink) -> str:
    scenario = config.scenario
    return (
        f"{scenario.test_drops} disjoint drops of {scenario.test_env} "
        f"({held_out_split(scenario.test_env)} tracks), {scenario.slots} slots each, "
        f"the first {WARM_UP_SLOTS} left out; controllers trained on {scenario.train_env} "
        f"({scenario.train_split} tracks), "
        f"{config.training.seeds} seeds. Differences are paired by drop; 95 % intervals over seeds "
        "and drops. UE and PRB counts, weights and sizes are ours: the paper's are not public."
    )


_COLUMNS = (
    "policy",
    "cell [Mbit/s]",
    f"cell against {EQUAL} [%]",
    f"geo. mean against {KNAPSACK} [%]",
    f"5 %-ile user against {EQUAL} [%]",
    "Jain",
    "of the bound [%]",
)


def _table(found: Tested) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = []
    for name, policy in found.policies.items():
        cell = hierarchical_bootstrap(policy.column("cell_throughput") * 1e-6)
        jain = hierarchical_bootstrap(policy.column("jain"))
        share = found.share_of_bound(name)
        rows.append(
            (
                name,
                f"{cell.value:.2f} ({cell.low:.2f}, {cell.high:.2f})",
                _difference(found, name, EQUAL, "cell_throughput", mean),
                _difference(found, name, KNAPSACK, "user_throughput", geometric_mean),
                _difference(found, name, EQUAL, "user_throughput", pooled_percentile(5)),
                f"{jain.value:.3f} ({jain.low:.3f}, {jain.high:.3f})",
                "-" if share is None else f"{100 * np.mean(share):.1f}",
            )
        )
    return _COLUMNS, rows


def _difference(found: Tested, name: str, other: str, field: str, statistic: Callable) -> str:
    if name == other:
        return ""
    gain = _against(found.policies[name], found.policies[other], field, statistic, True)
    if not np.isfinite(gain.value):
        return "-"
    value, (low, high) = _percent(gain)
    return f"{value:+.1f} ({low:+.1f}, {high:+.1f})"


def _delays(
    group: Group, variants: list[Variant], actors: Mapping[Variant, Any], folder: Path
) -> Section | None:
    """The full controllers and PF + knapsack power at other CQI delays, without training anew."""
    config: Downlink = group.config
    if not config.rivals.csi_delays:
        return None
    window = load_windows(WINDOWS_FILE)[1.0, "knapsack"]
    rows = []
    for delay in config.rivals.csi_delays:
        env, params = _test_env(config, cqi_delay=delay)
        rival = kept_metrics(
            folder / f"knapsack-cqi_delay-{delay}.json",
            lambda env=env, params=params: evaluate_family(
                env,
                params,
                partial(mac.alpha_fair, power="knapsack"),
                [(1.0, window)],
                _test_key(config),
                config.scenario.test_drops,
            ),
        )
        base = Policy(rival, False)
        for variant in variants:
            if variant.name != "full" or variant.sees:  # centralised CSI is never late
                continue
            ours = Policy(
                _learned(group, variant, actors[variant], folder, cqi_delay=delay)[
                    : config.training.seeds
                ],
                True,
            )
            gain = _against(ours, base, "user_throughput", geometric_mean, True)
            value, (low, high) = _percent(gain)
            rows.append((str(delay), variant.label, f"{value:+.1f} ({low:+.1f}, {high:+.1f})"))
    columns = ("CQI delay [slots]", "controller", f"geo. mean against {KNAPSACK} [%]")
    return Section("CSI delay", "Both under the same delay, trained at the default.", columns, rows)


def _pictures(config: Downlink, variants: list[Variant], folder: RunFolder) -> list[Section]:
    """Learning curves of every variant, and one drop's PRBs and power."""
    curves = folder.figures / "learning.png"
    figures.learning_curves(
        curves,
        {v.label: folder.path / "training" / v.slug / "metrics.jsonl" for v in variants},
    )
    env, params = _test_env(config)
    recorded = {
        EQUAL: record_episode(env, params, mac.proportional_fair(), _test_key(config)),
    }
    for variant in variants:
        if variant.name == "full":
            env, params = _test_env(config, **variant.sees)
            saved = folder.path / "training" / variant.slug / "controllers"
            first = sorted(saved.iterdir())[0]
            recorded[variant.label] = record_episode(
                env, params, load_controller(first), _test_key(config)
            )
    maps = folder.figures / "drop-0.png"
    figures.prb_and_power_maps(maps, recorded)
    return [
        Section(
            "Learning",
            "What each was trained for (log throughput or the like, with Jain's index where it is "
            "rewarded), less the same of proportional fair at its own window (with "
            "knapsack power but for `paper`), on the validation tracks; means over seeds and each "
            "seed. Dashed lines: changes of phase.",
            figures={curves: "Learning curves."},
        ),
        Section(
            "One drop", "", figures={maps: "Who holds each PRB, and its power, in test drop 0."}
        ),
    ]
