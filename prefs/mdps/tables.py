"""Decision problems as tables, and what makes a table sound."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jax.typing import ArrayLike

TOLERANCE = 1e-5  # by which a distribution may miss 1: what float32 sums of a few hundred terms do


class TabularMDP(struct.PyTreeNode):
    """A discounted problem with infinite horizon.

    Attributes:
      transition: [S, A, S], transition[s, a, t] = P(next state t | state s, action a).
      reward: [S, A], mean reward of action a in state s.
      initial: [S], distribution of the first state.
      discount: [], in [0, 1).
    """

    transition: jax.Array
    reward: jax.Array
    initial: jax.Array
    discount: jax.Array

    @property
    def num_states(self) -> int:
        """S, also of a stack of problems."""
        return self.transition.shape[-1]

    @property
    def num_actions(self) -> int:
        """A, also of a stack of problems."""
        return self.transition.shape[-2]


class EpisodicMDP(struct.PyTreeNode):
    """A problem that ends after H steps, undiscounted; rewards are a function of step and pair.

    Attributes:
      transition: [H, S, A, S], transition[h, s, a, t] = P(t | s, a) at step h. The last step's row
        is where the episode ends.
      reward: [H, S, A].
      initial: [S], distribution of the first state.
      features: [H, S, A, d], what a linear learner sees of a pair.
    """

    transition: jax.Array
    reward: jax.Array
    initial: jax.Array
    features: jax.Array

    @property
    def horizon(self) -> int:
        """H, also of a stack of problems."""
        return self.transition.shape[-4]

    @property
    def num_states(self) -> int:
        """S, also of a stack of problems."""
        return self.transition.shape[-1]

    @property
    def num_actions(self) -> int:
        """A, also of a stack of problems."""
        return self.transition.shape[-2]


def tabular_mdp(
    transition: ArrayLike, reward: ArrayLike, initial: ArrayLike, discount: ArrayLike
) -> TabularMDP:
    """`TabularMDP` of arrays in JAX's default float; shapes and ranges as there.

    Raises:
      ValueError: unsound tables (`check_tables`; not checked under a transformation).
    """
    mdp = TabularMDP(*(jnp.asarray(x, float) for x in (transition, reward, initial, discount)))
    check_concrete(mdp)
    return mdp


def episodic_mdp(
    transition: ArrayLike,
    reward: ArrayLike,
    initial: ArrayLike,
    features: ArrayLike | None = None,
) -> EpisodicMDP:
    """`EpisodicMDP` of arrays in JAX's default float; features are one-hot where none are given.

    Raises:
      ValueError: unsound tables (`check_tables`; not checked under a transformation).
    """
    transition = jnp.asarray(transition, float)
    if transition.ndim != 4:
        raise ValueError(f"transition must have shape [H, S, A, S], got {transition.shape}.")
    if features is None:
        horizon, num_states, num_actions, _ = transition.shape
        features = jnp.broadcast_to(
            one_hot_features(num_states, num_actions),
            (horizon, num_states, num_actions, num_states * num_actions),
        )
    rest = (jnp.asarray(x, float) for x in (reward, initial, features))
    mdp = EpisodicMDP(transition, *rest)
    check_concrete(mdp)
    return mdp


def one_hot_features(num_states: int, num_actions: int) -> jax.Array:
    """[S, A, S * A]: pair (s, a) is unit vector s * A + a, so every table is a linear MDP."""
    size = num_states * num_actions
    return jnp.eye(size, dtype=float).reshape(num_states, num_actions, size)


def state_reward(cells: jax.Array, num_actions: int) -> jax.Array:
    """[S, A] reward of staying in a state, whatever is done there, from [S]."""
    return jnp.broadcast_to(cells[:, None], (cells.shape[0], num_actions))


def check_tables(mdp: TabularMDP | EpisodicMDP) -> None:
    """Refuses tables that are no decision problem. One problem with concrete values, not a stack.

    Raises:
      ValueError: a wrong shape, a value that is not finite, a distribution with a negative entry or
        a sum further than 1e-5 from 1, or a discount outside [0, 1).
    """
    if not isinstance(mdp, TabularMDP | EpisodicMDP):
        raise ValueError(f"expected a TabularMDP or an EpisodicMDP, got {type(mdp).__name__}.")
    episodic = isinstance(mdp, EpisodicMDP)
    axes = "[H, S, A, S]" if episodic else "[S, A, S]"
    transition = np.asarray(mdp.transition)
    rank = 4 if episodic else 3
    square = transition.ndim == rank and transition.shape[-1] == transition.shape[-3]
    if not square or transition.size == 0:
        raise ValueError(f"transition must have shape {axes}, got {transition.shape}.")
    pairs = transition.shape[:-1]
    expected = {"reward": pairs, "initial": pairs[-2:-1]}
    if isinstance(mdp, EpisodicMDP):
        expected["features"] = (*pairs, np.shape(mdp.features)[-1] if np.ndim(mdp.features) else 0)
    else:
        expected["discount"] = ()
    for name, shape in expected.items():
        if np.shape(getattr(mdp, name)) != shape:
            raise ValueError(
                f"{name} must have shape {shape}, as transition {transition.shape} wants, "
                f"got {np.shape(getattr(mdp, name))}."
            )
    for name in ("transition", *expected):
        bad = ~np.isfinite(np.asarray(getattr(mdp, name)))
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            raise ValueError(f"{name} must be finite, but is not at {where}.")
    for name in ("transition", "initial"):
        _check_distribution(name, np.asarray(getattr(mdp, name), np.float64))
    if isinstance(mdp, TabularMDP) and not 0 <= float(mdp.discount) < 1:
        raise ValueError(f"discount must be in [0, 1), got {float(mdp.discount)}.")


def check_concrete(mdp: TabularMDP | EpisodicMDP) -> None:
    """`check_tables` where values are known: not under a transformation."""
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(mdp)):
        check_tables(mdp)


def _check_distribution(name: str, rows: np.ndarray) -> None:
    if (rows < 0).any():
        where = [int(i) for i in np.argwhere(rows < 0)[0]]
        raise ValueError(f"{name} must not be negative, got {rows[tuple(where)]:g} at {where}.")
    sums = rows.sum(-1)
    wrong = np.abs(sums - 1) > TOLERANCE
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        place = f" at {where}" if where else ""
        raise ValueError(f"{name} must sum to 1, got {sums[tuple(where)]:g}{place}.")
