"""Named problems: `make(id)` and `registered()`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from prefs.mdps.environment import Problem, episodic_problem, tabular_problem
from prefs.mdps.garnet import garnet
from prefs.mdps.grid_world import fixed_grid, grid_world
from prefs.mdps.linear_mdp import linear_mdp, random_episodic
from prefs.mdps.point_maze import point_maze
from prefs.mdps.river_swim import river_swim, river_swim_episodic


class ProblemSpec(NamedTuple):
    """A registered problem.

    Attributes:
      description: one line for listings.
      build: from options, after a key if it takes one, to tables or to a problem.
      wrap: from what `build` gives (and options of its own) to a problem; none if it is one.
      options: defaults that `build` does not have.
    """

    description: str
    build: Callable[..., Any]
    wrap: Callable[..., Problem] | None
    options: dict[str, Any] = {}

    @property
    def random(self) -> bool:
        """Whether a seed draws it."""
        return "key" in inspect.signature(self.build).parameters


_SPECS: dict[str, ProblemSpec] = {
    "GridWorld-v0": ProblemSpec(
        "7 x 7 grid with slip, a random goal and four hazards", grid_world, tabular_problem
    ),
    "FixedGrid-v0": ProblemSpec(
        "5 x 5 grid with slip, always the same", fixed_grid, tabular_problem
    ),
    "Garnet-v0": ProblemSpec(
        "random sparse transitions",
        garnet,
        tabular_problem,
        {"num_states": 20, "num_actions": 4, "branching": 3},
    ),
    "RiverSwim-v0": ProblemSpec(
        "a chain against the current, discounted", river_swim, tabular_problem
    ),
    "RiverSwimEpisodic-v0": ProblemSpec(
        "a chain against the current, 20 steps", river_swim_episodic, episodic_problem
    ),
    "LinearMDP-v0": ProblemSpec(
        "random linear MDP of low rank",
        linear_mdp,
        episodic_problem,
        {"num_states": 12, "num_actions": 4, "horizon": 4, "rank": 3},
    ),
    "RandomEpisodic-v0": ProblemSpec(
        "random tables, one-hot features", random_episodic, episodic_problem
    ),
    "PointMaze-v0": ProblemSpec("a point in a continuous maze with one goal", point_maze, None),
}


def registered() -> tuple[str, ...]:
    """Ids that `make` accepts."""
    return tuple(_SPECS)


def spec(problem_id: str) -> ProblemSpec:
    """What is registered under `problem_id`.

    Raises:
      ValueError: unknown id; the nearest known one is named.
    """
    if problem_id not in _SPECS:
        raise ValueError(_unknown("problem id", str(problem_id), _SPECS))
    return _SPECS[problem_id]


def make(problem_id: str, *, seed: int | None = None, **options: Any) -> Problem:
    """A registered problem.

    Args:
      problem_id: one of `registered()`.
      seed: draws a random problem, 0 by default; others take none.
      **options: arguments of the function behind the id (`size=5`, `discount=0.9`, ...) and, of a
        discounted one, `max_steps_in_episode`.

    Raises:
      ValueError: unknown id or option (the nearest name is given), a seed where nothing is random,
        or a value out of range.
    """
    found = spec(problem_id)
    if seed is not None and not found.random:
        raise ValueError(f"{problem_id} has nothing random and takes no seed.")
    build_options = set(inspect.signature(found.build).parameters) - {"key"}
    wrap_options = _second_arguments(found.wrap)
    for name in options:
        if name not in build_options | wrap_options:
            known = sorted(build_options | wrap_options)
            raise ValueError(_unknown(f"{problem_id} option", name, known))
    settings = {**found.options, **{k: v for k, v in options.items() if k in build_options}}
    keys = [jax.random.key(0 if seed is None else seed)] if found.random else []
    built = found.build(*keys, **settings)
    if found.wrap is None:
        return built
    return found.wrap(built, **{k: v for k, v in options.items() if k in wrap_options})


def _second_arguments(wrap: Callable[..., Problem] | None) -> set[str]:
    return set() if wrap is None else set(list(inspect.signature(wrap).parameters)[1:])


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}."
    return f"unknown {what} {name!r}; {hint}"
