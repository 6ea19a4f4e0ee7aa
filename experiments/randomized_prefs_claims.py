"""What the `randomized-prefs` experiment claims, and the tables it reports."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from experiments.claims import Claim, Section
from experiments.interval_claims import ABOVE, BELOW, interval_claim, interval_text
from experiments.randomized_prefs_config import RandomizedPrefs
from experiments.randomized_prefs_runs import GREEDY, PBTS, PR_LSVI, PROBLEMS, Measured, Part
from jaxrl5g.evaluation.statistics import Interval, bootstrap_interval, mean, paired_bootstrap

_SUBLINEAR = 1.95  # R(T) / R(T/2) below which regret counts as bending; 2 is linear

Found = Mapping[Part, Measured]


def problem_claims(config: RandomizedPrefs, problem: str, found: Found) -> list[Claim]:
    """Return the claims about one kind of problem."""
    name = PROBLEMS[problem]
    claims = [_within_bound(config, name, found)]
    for learner in (PR_LSVI, PBTS):
        by_threshold = _active(found, learner)
        if by_threshold:
            label = f"{name}: {learner}"
            claims += [
                _sublinear(config, label, by_threshold[0.0]),
                *_monotone(config, label, by_threshold),
                _below_greedy(config, label, by_threshold[0.0], found),
                _active_below_random(config, label, learner, found),
                _queries(config, label, by_threshold),
            ]
    return claims


def more(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Return by how many percent the mean of `ours` [S] exceeds that of `theirs`, seeds paired."""
    gain = paired_bootstrap(ours, theirs, relative=True)
    return Interval(*(100 * value for value in gain))


def bend(measured: Measured) -> Interval:
    """Return R(T) / R(T/2), the ratio of the means over seeds."""
    half = measured.regret[:, measured.regret.shape[1] // 2 - 1]
    return Interval(*(1 + v for v in paired_bootstrap(measured.total, half, relative=True)))


def steps(by_threshold: Mapping[float, Measured]) -> dict[tuple[float, float], Interval]:
    """Return the percentage by which regret grows between neighbouring thresholds.

    Where neither asks anything the runs are the same, and there is no step.
    """
    return {
        (low, high): more(by_threshold[high].total, by_threshold[low].total)
        for low, high in pairwise(by_threshold)
        if by_threshold[low].queries.any() or by_threshold[high].queries.any()
    }


def table(config: RandomizedPrefs, problem: str, found: Found) -> Section:
    """Return the section with all that was measured on one kind of problem."""
    columns = (
        "learner",
        "threshold",
        "queries",
        "most in a run",
        "query bound",
        "regret",
        "R(T)/R(T/2)",
        "regret an episode, last tenth",
        "against the threshold before [%]",
        "against random queries [%]",
        f"against {GREEDY} [%]",
    )
    greedy = found[Part(GREEDY, "always", None)]
    rows = []
    for part, measured in found.items():
        before = against = ""
        if part.query == "active" and part.eps is not None:
            grown = steps(_active(found, part.learner))
            before = "".join(
                interval_text(gain, "+.1f") for (_, to), gain in grown.items() if to == part.eps
            )
            rival = found.get(part._replace(query="random"))
            if rival is not None and measured.queries.any():
                against = interval_text(more(measured.total, rival.total), "+.1f")
        tail = max(measured.regret.shape[1] // 10, 1)
        span = tail * config.episodes / config.points
        late = (measured.total - measured.regret[:, -1 - tail]) / span
        bounded = np.isfinite(measured.bound).all()
        rows.append(
            (
                part.learner + (", random queries" if part.query == "random" else ""),
                "" if part.eps is None else f"{part.eps:g}",
                interval_text(bootstrap_interval(measured.queries), ".1f"),
                f"{measured.queries.max():.0f}",
                f"{measured.bound.mean():.3g}" if bounded else "",
                interval_text(bootstrap_interval(measured.total), ".1f"),
                interval_text(bend(measured), ".2f"),
                interval_text(bootstrap_interval(late), ".3f"),
                before,
                against,
                ""
                if part.learner == GREEDY
                else interval_text(more(measured.total, greedy.total), "+.1f"),
            )
        )
    return Section(_title(problem), _caption(config, problem), columns, rows)


def _title(problem: str) -> str:
    name = PROBLEMS[problem]
    return name[0].upper() + name[1:]


def _caption(config: RandomizedPrefs, problem: str) -> str:
    size = getattr(config, problem)
    sizes = f"{size.num_states} states, {size.num_actions} actions, {size.horizon} steps"
    kind = {
        "random": f"Random tables of {sizes}, one-hot features",
        "low_rank": f"Linear MDPs of {sizes} and rank {getattr(size, 'rank', '')}",
    }[problem]
    return (
        f"{kind}; returns in [0, 1]; each of {config.seeds} seeds has a problem of its own, on "
        f"which all learners meet the same luck. {config.episodes} episodes; regret is the exact "
        f"sum over both executed policies; P(first preferred) is the logistic function of "
        f"{config.scale:g} times the difference of returns. Threshold 0 asks about every pair "
        "that differs; random queries are as many as the active run of the same seed and "
        "threshold made. In brackets: 95 % bootstrap intervals over seeds, differences paired."
    )


def _active(found: Found, learner: str) -> dict[float, Measured]:
    return {
        part.eps: measured
        for part, measured in found.items()
        if part.learner == learner and part.query == "active" and part.eps is not None
    }


def _within_bound(config: RandomizedPrefs, name: str, found: Found) -> Claim:
    """The posterior's bound is left out: far above T, it says nothing."""
    runs = {eps: measured for eps, measured in _active(found, PR_LSVI).items() if eps > 0}
    # a bound of 0, at thresholds beyond any doubt, allows nothing to divide
    share = max(float(np.max(m.queries / np.maximum(m.bound, 1e-3))) for m in runs.values())
    return Claim(
        f"{name}: {PR_LSVI} keeps its query bound",
        "every run asks no more than its deterministic bound; the largest share of it used",
        "at most 100 in every run",
        100 * share,
        all(m.held.all() for m in runs.values()),
        unit="%",
        sample=f"every one of {len(runs)} thresholds x {config.seeds} runs",
    )


def _sublinear(config: RandomizedPrefs, label: str, always: Measured) -> Claim:
    return interval_claim(
        f"{label}: sub-linear regret",
        "R(T) / R(T/2) at threshold 0",
        f"below {_SUBLINEAR:g} with the whole interval",
        found := bend(always),
        found.high < _SUBLINEAR,
        _seeds(config),
    )


def _monotone(
    config: RandomizedPrefs, label: str, by_threshold: Mapping[float, Measured]
) -> list[Claim]:
    first, *_, last = by_threshold
    ends = more(by_threshold[last].total, by_threshold[first].total)
    grown = steps(by_threshold)
    statement, gain, reason = "steps between neighbouring thresholds", ends, "nothing is ever asked"
    if grown:
        least = min(grown, key=lambda pair: grown[pair].value)
        statement = (
            f"the least of {len(grown)} steps between neighbouring thresholds that ask, "
            f"{least[0]:g} to {least[1]:g}"
        )
        gain, reason = grown[least], ""
    return [
        interval_claim(
            f"{label}: regret grows with the threshold, ends",
            f"regret at threshold {last:g} against threshold {first:g}",
            ABOVE,
            ends,
            ends.low > 0,
            _seeds(config),
            "%",
        ),
        interval_claim(
            f"{label}: regret grows with the threshold, every step",
            statement,
            "each step above 0 with its whole interval",
            gain,
            all(step.low > 0 for step in grown.values()),
            _seeds(config),
            "%",
            reason,
        ),
    ]


def _below_greedy(config: RandomizedPrefs, label: str, always: Measured, found: Found) -> Claim:
    gain = more(always.total, found[Part(GREEDY, "always", None)].total)
    return interval_claim(
        f"{label}: below {GREEDY}",
        "regret at threshold 0 against no randomisation, both asking about all that differs",
        BELOW,
        gain,
        gain.high < 0,
        _seeds(config),
        "%",
    )


def _active_below_random(config: RandomizedPrefs, label: str, learner: str, found: Found) -> Claim:
    eps = config.compared
    active = found[Part(learner, "active", eps)]
    at_random = found.get(Part(learner, "random", eps))  # not there where nothing is asked
    gain = more(active.total, (at_random or active).total)
    return interval_claim(
        f"{label}: active queries beat random ones",
        f"regret at threshold {eps:g} against as many queries at random in each run",
        BELOW,
        gain,
        gain.high < 0,
        _seeds(config),
        "%",
        "" if at_random else f"nothing is asked at threshold {eps:g}",
    )


def _queries(config: RandomizedPrefs, label: str, by_threshold: Mapping[float, Measured]) -> Claim:
    asking = [eps for eps, m in by_threshold.items() if eps > 0 and m.queries.any()][:2]
    gain, reason = Interval(np.nan, np.nan, np.nan), "fewer than two thresholds above 0 ask"
    if len(asking) == 2:
        few, many = (by_threshold[eps].queries for eps in reversed(asking))
        ratio = paired_bootstrap(many, few, _log_mean)
        gain = Interval(*(value / np.log(asking[1] / asking[0]) for value in ratio))
        reason = ""
    return interval_claim(
        f"{label}: queries grow no faster than 1 / threshold squared",
        "the exponent between the two smallest thresholds above 0"
        + (f", {asking[0]:g} and {asking[1]:g}" if not reason else ""),
        "at most 2 with the whole interval",
        gain,
        gain.high <= 2,
        _seeds(config),
        reason=reason,
    )


def _log_mean(samples: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a resample without a query
        return np.log(mean(samples))


def _seeds(config: RandomizedPrefs) -> str:
    return f"{config.seeds} seeds"
