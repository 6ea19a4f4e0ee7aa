"""Other ways from quotas to PRBs: assignment solvers, greedy, and Sinkhorn with rounding.

The benchmark times them beside the resolver and says what the inexact ones lose.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from optax.assignment import hungarian_algorithm
from scipy.optimize import linear_sum_assignment

SINKHORN_ROUNDS = 50
SINKHORN_TEMPERATURE = 0.02


def value(owner: Array, weights: Array) -> Array:
    """Sum of weights at the owners, float32[], from int32[N] and float32[U, N]."""
    return jnp.sum(jnp.take_along_axis(weights, owner[None], axis=0))


def scipy_assignment(quotas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Optimal owners int64[N] by SciPy's Jonker-Volgenant solver: a row per PRB due."""
    seats = np.repeat(np.arange(len(quotas)), quotas)
    rows, prbs = linear_sum_assignment(weights[seats], maximize=True)
    owner = np.empty(weights.shape[1], np.int64)
    owner[prbs] = seats[rows]
    return owner


def optax_assignment(quotas: Array, weights: Array) -> Array:
    """Optimal owners int32[N] by optax's Hungarian algorithm: a row per PRB due."""
    num_users, num_prbs = weights.shape
    seats = jnp.repeat(jnp.arange(num_users), quotas, total_repeat_length=num_prbs)
    rows, prbs = hungarian_algorithm(-weights[seats])
    return jnp.zeros(num_prbs, jnp.int32).at[prbs].set(seats[rows])


def greedy(quotas: Array, weights: Array) -> Array:
    """Owners int32[N]: the largest weight whose user is still due a PRB, and again."""
    num_prbs = weights.shape[1]

    def give(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        owner, due = state
        open_pairs = (due > 0)[:, None] & (owner < 0)[None]
        best = jnp.argmax(jnp.where(open_pairs, weights, -jnp.inf))
        user, prb = best // num_prbs, best % num_prbs
        return owner.at[prb].set(user), due.at[user].add(-1)

    start = (jnp.full(num_prbs, -1, jnp.int32), quotas)
    return jax.lax.fori_loop(0, num_prbs, give, start)[0]


def sinkhorn(quotas: Array, weights: Array) -> Array:
    """Owners int32[N]: entropic transport plan, then greedy on the plan.

    Fifty rounds in the logarithmic domain at a temperature of 2 % of the range of weights.
    """
    temperature = SINKHORN_TEMPERATURE * jnp.maximum(jnp.ptp(weights), 1e-9)
    scores = weights / temperature
    log_quotas = jnp.where(quotas > 0, jnp.log(jnp.maximum(quotas, 1)), -jnp.inf)

    def balance(_: Array, users: Array) -> Array:
        prbs = -jax.nn.logsumexp(scores + users[:, None], axis=0)
        return log_quotas - jax.nn.logsumexp(scores + prbs, axis=1)

    users = jax.lax.fori_loop(0, SINKHORN_ROUNDS, balance, jnp.where(quotas > 0, 0.0, -jnp.inf))
    prbs = -jax.nn.logsumexp(scores + users[:, None], axis=0)
    return greedy(quotas, scores + users[:, None] + prbs)
