"""The continuous maze of the `cpl` experiment: networks, and the paths that they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.cpl_config import Cpl, Maze
from experiments.cpl_runs import BC, CPL, PIQL, PLAIN, SFT
from experiments.record import write_json
from prefs import algorithms, feedback, mdps
from prefs.algorithms import bc, cpl, preference_iql, sft
from prefs.feedback import PreferenceData, rollout_segments
from prefs.mdps import MazeReference

UNIFORM, BEHAVIOUR, BEST = "uniform actions", "behaviour", "greedy in the dense-grid values"
REFERENCES = (UNIFORM, BEHAVIOUR, BEST)
LEARNERS = (CPL, PLAIN, BC, SFT, PIQL)
SHOWN = 12  # episodes whose paths are kept


class MazeMeasured(NamedTuple):
    """What a policy does in the maze.

    Attributes:
        value: [S], mean reward of an episode, summed over its steps.
        success: [S], share of the episodes that end within a goal's width.
        accuracy: [S], share of the answers that the learner agrees with; NaN without a learner.
        paths: [SHOWN, T, 2], positions of the first seed in cells, (row, column).
    """

    value: np.ndarray
    success: np.ndarray
    accuracy: np.ndarray
    paths: np.ndarray


class MazeLanes:
    """Measures policies; all learners meet the same segments, answers and starts of rollouts."""

    def __init__(self, config: Cpl, folder: Path):
        self._maze, self._seed, self._folder = config.maze, config.seed, folder
        self._world: tuple[MazeReference, PreferenceData] | None = None
        self._making = Lock()  # policies run side by side and share it

    def kept(self, name: str) -> MazeMeasured:
        """Return what a learner or reference does, from its file where an earlier run left one."""
        slug = "-".join("".join(c if c.isalnum() or c == "." else " " for c in name).split())
        path = self._folder / f"{slug.lower()}.json"
        if not path.exists():
            write_json(path, self._measure(name))
        kept = json.loads(path.read_text())
        return MazeMeasured(**{field: np.asarray(v, float) for field, v in kept.items()})

    def _measure(self, name: str) -> MazeMeasured:
        maze = self._maze
        root = jax.random.fold_in(jax.random.key(self._seed), 1)
        of_data, of_learner, of_rollouts = jax.random.split(root, 3)
        with self._making:
            if self._world is None:
                reference = mdps.solve_maze(
                    mdps.point_maze(), maze.temperature, maze.nodes, maze.actions
                )
                keys = jax.random.split(of_data, maze.seeds)
                self._world = reference, _data(keys, reference, maze)
            reference, data = self._world
        keys = jax.random.split(of_learner, maze.seeds)
        rolls = jax.random.split(of_rollouts, maze.seeds)
        make, settings = learner(maze, name)
        found = _run(make, name, maze, settings, reference, data, keys, rolls)
        value, success, accuracy, paths = map(np.asarray, found)
        return MazeMeasured(value, success, accuracy, paths[0])


def learner(maze: Maze, name: str) -> tuple[Callable[..., Any] | None, Any]:
    """Return what makes a learner's training, and its settings; None for a reference."""
    # rollouts are made here, the same for all
    frame: dict[str, Any] = {"evaluation_episodes": 1, "evaluation_steps": 1}
    rate = maze.learning_rate
    frame |= {"batch_size": maze.batch_size, "steps": maze.steps, "learning_rate": rate}
    cloned = {**frame, "bc_steps": maze.bc_steps, "bc_learning_rate": rate}
    # as many updates as those that clone first
    cloning: dict[str, Any] = {**frame, "steps": maze.bc_steps + maze.steps}
    discount = 0.95  # of `point_maze`, as in the regret
    contrast = {**cloned, "alpha": maze.temperature, "discount": discount}
    reward = {**frame, "reward_steps": maze.steps, "reward_learning_rate": rate}
    reward |= {"reward_discount": discount, "discount": discount}
    reward |= {"learning_rate": maze.piql_learning_rate, "beta": maze.piql_beta}
    made = {
        CPL: (cpl.make_train, algorithms.CPLConfig(**contrast, conservative_bias=0.5)),
        PLAIN: (cpl.make_train, algorithms.CPLConfig(**contrast, conservative_bias=1.0)),
        BC: (bc.make_train, algorithms.BCConfig(**cloning)),
        SFT: (sft.make_train, algorithms.SFTConfig(**cloned)),
        PIQL: (preference_iql.make_train, algorithms.PIQLConfig(**reward)),
    }
    return made.get(name, (None, None))


@partial(jax.jit, static_argnames="maze")
def _data(keys: jax.Array, reference: MazeReference, maze: Maze) -> PreferenceData:
    """Segments from random starts, and the exact argmax of the discounted regret, per seed."""
    problem = mdps.Problem(mdps.PointMaze(), reference.params)
    utility = feedback.regret(Partial(mdps.maze_advantage, reference), reference.params.discount)
    judge = feedback.TEACHERS["oracle"](utility)

    def one(key):
        of_segments, of_labels = jax.random.split(key)
        act = _behaviour(reference, maze)
        segments = rollout_segments(of_segments, problem, act, 2 * maze.pairs, maze.length)
        pairs = feedback.sparse_pairs(2 * maze.pairs)
        return PreferenceData(segments, feedback.sampled_labels(of_labels, judge, segments, pairs))

    return jax.vmap(one)(keys)


def _behaviour(reference: MazeReference, maze: Maze) -> Callable[..., jax.Array]:
    def act(key, observation):
        of_choice, of_soft, of_uniform = jax.random.split(key, 3)
        soft = mdps.soft_action(of_soft, reference, observation)
        uniform = jax.random.uniform(of_uniform, soft.shape, soft.dtype, -1, 1)
        return jnp.where(jax.random.bernoulli(of_choice, maze.uniform), uniform, soft)

    return act


@partial(jax.jit, static_argnames=("make", "name", "maze"))
def _run(
    make: Callable[..., Any] | None,
    name: str,
    maze: Maze,
    settings: Any,
    reference: MazeReference,
    data: PreferenceData,
    keys: jax.Array,
    rolls: jax.Array,
) -> tuple[jax.Array, ...]:
    """Fields of `MazeMeasured` of every seed."""
    policy = algorithms.GaussianMLP(2, 2, (maze.width, maze.width))
    problem = mdps.Problem(mdps.PointMaze(), reference.params)

    def one(data, key, roll):
        accuracy = jnp.array(jnp.nan)
        if make is None:
            act = {
                UNIFORM: lambda key, seen: jax.random.uniform(key, (2,), float, -1, 1),
                BEHAVIOUR: _behaviour(reference, maze),
                BEST: lambda _, seen: mdps.greedy_action(reference, seen),
            }[name]
        else:
            found = make(settings, problem, None, policy=policy, data=data)(key)
            accuracy = found.metrics["accuracy"]
            act = lambda _, seen: policy.mode(found.policy, seen)  # noqa: E731
        went = rollout_segments(roll, problem, act, maze.episodes, maze.episode_steps)
        place = mdps.position_of(went.next_observations, reference.params)
        reached = jax.vmap(mdps.at_goal, (0, None))(place[:, -1], reference.params)
        return jnp.mean(jnp.sum(went.rewards, -1)), jnp.mean(reached), accuracy, place[:SHOWN]

    return jax.vmap(one)(data, keys, rolls)
