"""Models of what the one who judges looks at: utilities of segments, and preferences from them.

Utilities are in nats of log odds: of two segments the first is preferred with probability
sigmoid(u1 - u2) (Bradley and Terry 1952), and K are ranked by Plackett and Luce's rule. A
teacher's imperfections go on top (`prefs.feedback.teachers`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from prefs.feedback.checks import check_not_negative, check_probabilities, known
from prefs.feedback.segments import Segments

Table = Array | Callable[..., Array]
"""Values by state (or state and action), or a function of observations (and actions) [N, k, ...];
`jax.tree_util.Partial` makes a function's own numbers leaves that can be traced and vmapped."""


class Labeller(struct.PyTreeNode):
    """Judges segments; subclasses say how."""

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        """What the judge makes of each segment, [N, ...]: float[N] utilities if not told otherwise.

        Step t of a segment of T steps counts myopia^(T-1-t) times: the last in full.
        """
        raise NotImplementedError

    def log_odds(self, first: Array, second: Array) -> Array:
        """Log odds, float[M], that the segments with scores `first` beat those with `second`."""
        return first - second

    def preference(self, first: Array, second: Array) -> Array:
        """Probability, float[M], that the segments with scores `first` are preferred."""
        return jax.nn.sigmoid(self.log_odds(first, second))

    def tied(self, first: Array, second: Array) -> Array:
        """Whether the judge says "equal" for certain, bool[M]."""
        return jnp.zeros(self.log_odds(first, second).shape, bool)

    def keeps(self, first: Array, second: Array) -> Array:
        """Whether the judge answers at all, bool[M]."""
        return jnp.ones(self.log_odds(first, second).shape, bool)

    def ranking_keys(self, key: Array, scores: Array) -> Array:
        """Random float[M, K] from scores [M, K, ...]; the judge ranks by them, largest first."""
        return scores + jax.random.gumbel(key, scores.shape, scores.dtype)


class PartialReturn(Labeller):
    """u = sum_t discount^t r_t.

    Attributes:
      discount: float[], at least 0.
    """

    discount: ArrayLike = 1.0

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        return _weighted(segments.rewards, segments.mask, self.discount, myopia)


class Regret(Labeller):
    """u = sum_t discount^t A(s_t, a_t), minus the regret where A is the optimal advantage.

    Attributes:
      advantage: float[S, A], or float[H, S, A] for episodes of H steps, or a function of
        (observations, actions) that gives float[N, k].
      discount: float[], at least 0.
    """

    advantage: Table
    discount: ArrayLike = 1.0

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        if callable(self.advantage):
            steps = self.advantage(segments.observations, segments.actions)
        elif self.advantage.ndim == 3:
            time = jnp.arange(segments.mask.shape[1])
            steps = self.advantage[time, segments.observations, segments.actions]
        else:
            steps = self.advantage[segments.observations, segments.actions]
        return _weighted(steps, segments.mask, self.discount, myopia)


class TelescopedRegret(Labeller):
    """u = sum_{t<T-1} discount^t r_t + discount^(T-1) V(s_{T-1}) - V(s_0) of T steps.

    With discount 1 it is what the public code of CPL labels with (its key `rl_sum`). The last
    action is not judged. Step t's share is discount^t (r_t + discount V(s_{t+1}) - V(s_t)), whose
    mean is the advantage when the discount is the problem's; with discount 1 and the values of a
    discounted problem the mean is larger by (1 - gamma) E[V(s_{t+1})].

    Attributes:
      value: float[S] or a function of observations that gives float[N, k].
      discount: float[], at least 0.
    """

    value: Table
    discount: ArrayLike = 1.0

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        states = segments.observations
        values = self.value(states) if callable(self.value) else self.value[states]
        follows = jnp.pad(segments.mask[:, 1:], ((0, 0), (0, 1)))
        after = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
        steps = segments.rewards + self.discount * after - values
        return _weighted(jnp.where(follows, steps, 0.0), segments.mask, self.discount, myopia)


class PreferenceMatrix(Labeller):
    """P(y preferred to y') from a table of items: any preference, cyclic ones included.

    A segment's score is its item, which has no steps and no utility: myopia is without effect.
    K segments are ranked by a round robin: every two are compared once, and more wins stand
    higher, ties by lot.

    Attributes:
      matrix: float[n, n], P + P^T = 1.
      item: the segments' items, int32[N], from `Segments`.
    """

    matrix: Array
    item: Callable[[Segments], Array] = struct.field(pytree_node=False)

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        del myopia
        return jnp.asarray(self.item(segments), jnp.int32)

    def log_odds(self, first: Array, second: Array) -> Array:
        """Log odds, clipped to +-1e30 so that they can be multiplied by 0."""
        chance = self.matrix[first, second]
        return jnp.clip(jnp.log(chance) - jnp.log1p(-chance), -1e30, 1e30)

    def preference(self, first: Array, second: Array) -> Array:
        return self.matrix[first, second]

    def ranking_keys(self, key: Array, scores: Array) -> Array:
        return round_robin(key, self.preference(scores[:, :, None], scores[:, None, :]))


def partial_return(discount: ArrayLike = 1.0) -> PartialReturn:
    """Judge by discounted reward.

    Raises:
      ValueError: a concrete discount below 0 or NaN.
    """
    return PartialReturn(_checked(discount))


def regret(advantage: Table, discount: ArrayLike = 1.0) -> Regret:
    """Judge by advantages; see `Regret` (the regret preference model of Knox et al. 2022).

    Raises:
      ValueError: a concrete discount below 0, or a table that is not [S, A] or [H, S, A].
    """
    if not callable(advantage):
        advantage = jnp.asarray(advantage)
        if advantage.ndim not in (2, 3):
            raise ValueError(f"advantage must be [S, A] or [H, S, A], got {advantage.shape}.")
    return Regret(advantage, _checked(discount))


def telescoped_regret(value: Table, discount: ArrayLike = 1.0) -> TelescopedRegret:
    """Judge by rewards and the change of value from the first state to the last.

    Raises:
      ValueError: a concrete discount below 0, or a table that is not [S].
    """
    if not callable(value):
        value = jnp.asarray(value)
        if value.ndim != 1:
            raise ValueError(f"value must be [S], got {value.shape}.")
    return TelescopedRegret(value, _checked(discount))


def first_action(segments: Segments) -> Array:
    """Item of a one-step game: the segment's first action, int32[N]."""
    return segments.actions[:, 0]


def segment_number(segments: Segments) -> Array:
    """Item of a matrix over the data set's own segments: 0, 1, ..., N-1."""
    return jnp.arange(segments.mask.shape[0], dtype=jnp.int32)


def preference_matrix(
    matrix: ArrayLike, item: Callable[[Segments], Array] = first_action
) -> PreferenceMatrix:
    """Judge by a table of preferences between items.

    Args:
      matrix: float[n, n] with P + P^T = 1, so 1/2 on the diagonal; need not be transitive.
      item: which item each segment is, a function of `Segments` that gives int32[N].

    Raises:
      ValueError: not square, outside [0, 1], or (concrete) P + P^T further than 1e-5 from 1.
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or 0 in matrix.shape:
        raise ValueError(f"a preference matrix must be [n, n], got {matrix.shape}.")
    check_probabilities("the preference matrix", matrix)
    values = known(matrix)
    if values is not None:
        total = values + values.T
        i, j = (int(k) for k in np.unravel_index(np.argmax(abs(total - 1)), total.shape))
        if abs(total[i, j] - 1) > 1e-5:
            raise ValueError(
                f"P(i preferred to j) + P(j preferred to i) must be 1, got {total[i, j]:.6g} for "
                f"items {i} and {j}."
            )
    return PreferenceMatrix(matrix, item)


def plackett_luce(utilities: Array) -> Array:
    """Log probability of an order under Plackett and Luce's rule (Luce 1959, Plackett 1975).

    The best is chosen with probability softmax(u), the next likewise from those that are left.

    Args:
      utilities: float[..., K] in the order of the ranking, best first.

    Returns:
      float[...], at most 0; log sigmoid(u1 - u2) for two.
    """
    axis = utilities.ndim - 1
    return jnp.sum(utilities - jax.lax.cumlogsumexp(utilities, axis=axis, reverse=True), axis)


def round_robin(key: Array, chances: Array) -> Array:
    """Wins of each of K against the others, one game each, plus a lot in [0, 1): float[..., K].

    Args:
      key: random key.
      chances: float[..., K, K], chances[i, j] that i beats j; only i < j is read.
    """
    of_games, of_lots = jax.random.split(key)
    games = jax.random.uniform(of_games, chances.shape, chances.dtype) < chances
    upper = jnp.triu(jnp.ones(chances.shape[-2:], bool), 1)
    won = jnp.where(upper, games, upper.T & ~jnp.swapaxes(games, -1, -2))
    lots = jax.random.uniform(of_lots, chances.shape[:-1], chances.dtype)
    return jnp.sum(won, -1, dtype=chances.dtype) + lots


def _weighted(steps: Array, mask: Array, discount: ArrayLike, myopia: ArrayLike) -> Array:
    """Sum over a segment's steps of discount^t myopia^(T-1-t) times each."""
    time = jnp.arange(mask.shape[1], dtype=steps.dtype)
    to_go = jnp.sum(mask, -1, keepdims=True, dtype=steps.dtype) - 1 - time
    weight = jnp.power(jnp.asarray(discount, steps.dtype), time)
    weight = weight * jnp.power(jnp.asarray(myopia, steps.dtype), jnp.maximum(to_go, 0))
    return jnp.sum(jnp.where(mask, steps * weight, 0.0), -1)


def _checked(discount: ArrayLike) -> ArrayLike:
    check_not_negative("discount", discount)
    return discount
