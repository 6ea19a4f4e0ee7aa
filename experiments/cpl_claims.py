"""What the `cpl` experiment claims, and what has to be found for it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from experiments.claims import Claim
from experiments.cpl_config import Cpl
from experiments.cpl_data import Asked
from experiments.cpl_maze import BEST, UNIFORM, MazeMeasured
from experiments.cpl_runs import (
    BC,
    CPL,
    PIQL,
    PLAIN,
    PLANNING,
    SFT,
    TOP_BC,
    Measured,
    Part,
)
from experiments.interval_claims import ABOVE, BELOW, interval_claim
from jaxrl5g.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap

NEAR_OPTIMAL = 0.98  # return that plain CPL should reach with the most pairs
GRACEFUL = 0.8  # share of its return that CPL should keep with the fewest mistakes

Found = Mapping[Part, Measured]
MazeFound = Mapping[str, MazeMeasured]

_READINGS = {
    "greedy against greedy": ("greedy", "greedy"),
    "return against return": ("value", "value"),
    "greedy against return": ("greedy", "value"),
}
"""What of the first learner is held against what of the second."""


def grid_claims(config: Cpl, found: Found) -> list[Claim]:
    """Return the claims about grids."""
    return [
        *_against_rivals(config, found),
        *_bias(config, found),
        *_dense(config, found),
        *_more_pairs(config, found),
        _consistent(config, found),
        *_noise(config, found),
        *_return_labels(config, found),
    ]


def maze_claims(config: Cpl, found: MazeFound) -> list[Claim]:
    """Return the claims about the maze."""
    claims = []
    for rival in (BC, SFT, PIQL, PLAIN):
        gain = paired_bootstrap(maze_share(found, CPL), maze_share(found, rival))
        claims.append(
            interval_claim(
                f"maze: {CPL} against {rival}",
                "difference of the returns of rollouts of the likeliest actions",
                ABOVE,
                gain,
                gain.low > 0,
                f"{config.maze.seeds} seeds x {config.maze.episodes} episodes",
            )
        )
    return claims


def maze_share(found: MazeFound, name: str) -> np.ndarray:
    """[S], return on the scale 0 = uniform actions, 1 = greedy in the dense-grid values."""
    low, high = found[UNIFORM].value, found[BEST].value
    return (found[name].value - low) / (high - low)


def sparse(config: Cpl, pairs: int) -> Asked:
    """Return exact answers by regret to so many sparse comparisons."""
    return Asked(pairs, length=config.grids.length)


def _difference(
    config: Cpl,
    name: str,
    statement: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    below: bool = False,
) -> Claim:
    gain = paired_bootstrap(ours, theirs)
    held = gain.high < 0 if below else gain.low > 0
    return interval_claim(name, statement, BELOW if below else ABOVE, gain, held, _seeds(config))


def _against_rivals(config: Cpl, found: Found) -> list[Claim]:
    claims = []
    rivals = {config.few: (SFT, PIQL), config.compared: (SFT, BC, TOP_BC, PLANNING, PIQL)}
    for pairs, names in rivals.items():
        asked = sparse(config, pairs)
        for rival in names:
            for reading, (ours, theirs) in _READINGS.items():
                if reading == "greedy against return" and rival not in (SFT, BC, TOP_BC):
                    continue
                like = "" if ours == theirs else "; not like with like, as in the reference notes"
                claims.append(
                    _difference(
                        config,
                        f"{CPL} against {rival}, {pairs} pairs, {reading}",
                        f"difference, {reading}{like}",
                        getattr(found[Part(CPL, asked)], ours),
                        getattr(found[Part(rival, asked)], theirs),
                    )
                )
    return claims


def _bias(config: Cpl, found: Found) -> list[Claim]:
    def gain(pairs: int) -> np.ndarray:
        asked = sparse(config, pairs)
        return found[Part(CPL, asked)].greedy - found[Part(PLAIN, asked)].greedy

    few, most = config.few, config.pairs[-1]
    return [
        _difference(
            config,
            f"conservative bias helps with {few} pairs",
            f"{CPL} less {PLAIN}, greedy returns",
            found[Part(CPL, sparse(config, few))].greedy,
            found[Part(PLAIN, sparse(config, few))].greedy,
        ),
        _difference(
            config,
            "conservative bias helps most with few pairs",
            f"its gain in greedy return with {few} pairs less that with {most}",
            gain(few),
            gain(most),
        ),
    ]


def _dense(config: Cpl, found: Found) -> list[Claim]:
    one = sparse(config, config.dense)
    every = one._replace(dense=True)
    return [
        _difference(
            config,
            f"dense beats sparse, {name}",
            f"all pairs of the same {2 * config.dense} segments less {config.dense}, {said}",
            getattr(found[Part(name, every)], field),
            getattr(found[Part(name, one)], field),
        )
        for name, field, said in (
            (PLAIN, "value", "returns"),
            (CPL, "greedy", "greedy returns"),
        )
    ]


def _more_pairs(config: Cpl, found: Found) -> list[Claim]:
    most = bootstrap_interval(found[Part(PLAIN, sparse(config, config.pairs[-1]))].value)
    claims = [
        interval_claim(
            f"{PLAIN} nears the optimum",
            f"return with {config.pairs[-1]} pairs",
            f"at least {NEAR_OPTIMAL:g} with the whole interval",
            most,
            most.low >= NEAR_OPTIMAL,
            _seeds(config),
        )
    ]
    for name, field in ((PLAIN, "value"), (CPL, "greedy")):
        curve = [getattr(found[Part(name, sparse(config, n))], field) for n in config.pairs]
        claims.append(
            _every_step(
                config,
                f"more pairs help {name}",
                "return" if field == "value" else "greedy return",
                config.pairs,
                curve,
            )
        )
    return claims


def _consistent(config: Cpl, found: Found) -> Claim:
    asked = sparse(config, config.few)._replace(soft=True, rationality=1.0)
    numbers = [n for n in config.pairs if Part(PLAIN, asked._replace(pairs=n)) in found]
    curve = [-found[Part(PLAIN, asked._replace(pairs=n))].divergence for n in numbers]
    last = float(np.mean(-curve[-1]))
    return _every_step(
        config,
        f"{PLAIN} with population labels nears the maximum-entropy optimum",
        f"fall of KL(optimum || policy) in nats, {last:.2g} at the last",
        numbers,
        curve,
    )


def _every_step(
    config: Cpl, name: str, what: str, numbers: list[int] | tuple[int, ...], curve: list
) -> Claim:
    steps = {
        pair: paired_bootstrap(after, before)
        for pair, (before, after) in zip(pairwise(numbers), pairwise(curve), strict=True)
    }
    least = min(steps, key=lambda pair: steps[pair].value)
    return interval_claim(
        name,
        f"{what}: the least of {len(steps)} steps, {least[0]} to {least[1]} pairs",
        "each step above 0 with its whole interval",
        steps[least],
        all(step.low > 0 for step in steps.values()),
        _seeds(config),
    )


def _noise(config: Cpl, found: Found) -> list[Claim]:
    exact = sparse(config, config.ablated)
    claims = []
    if config.mistakes:
        least, most = min(config.mistakes), max(config.mistakes)
        mistaken = found[Part(CPL, exact._replace(mistake=least))].greedy
        loss = paired_bootstrap(mistaken, found[Part(CPL, exact)].greedy, relative=True)
        share = Interval(*(1 + value for value in loss))
        claims.append(
            interval_claim(
                f"{CPL} degrades gracefully",
                f"share of its greedy return that is left with {least:.0%} mistakes, "
                f"{config.ablated} pairs",
                f"at least {GRACEFUL:g} with the whole interval",
                share,
                share.low >= GRACEFUL,
                _seeds(config),
            )
        )
        for rival in (SFT, PIQL):
            noisy = exact._replace(mistake=most)
            claims += [
                _difference(
                    config,
                    f"{CPL} against {rival}, {most:.0%} mistakes, {reading}",
                    f"difference with {config.ablated} pairs, {reading}",
                    getattr(found[Part(CPL, noisy)], _READINGS[reading][0]),
                    getattr(found[Part(rival, noisy)], _READINGS[reading][1]),
                )
                for reading in ("greedy against greedy", "return against return")
            ]
    return claims


def _return_labels(config: Cpl, found: Found) -> list[Claim]:
    claims = []
    for length in (*config.lengths, config.grids.length):
        regret = sparse(config, config.ablated)._replace(length=length)
        returns = regret._replace(labels="return")
        steps = f"{length} step{'s' if length > 1 else ''}"
        claims += [
            _difference(
                config,
                f"labels by return of {steps}: {CPL} loses",
                "greedy return with labels by return less that with labels by regret",
                found[Part(CPL, returns)].greedy,
                found[Part(CPL, regret)].greedy,
                below=True,
            ),
            _difference(
                config,
                f"labels by return of {steps}: {CPL} falls below {PLANNING}",
                "difference of greedy returns, both with labels by return",
                found[Part(CPL, returns)].greedy,
                found[Part(PLANNING, returns)].greedy,
                below=True,
            ),
        ]
    return claims


def _seeds(config: Cpl) -> str:
    return f"{config.seeds} seeds"
