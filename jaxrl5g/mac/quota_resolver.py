"""Quotas to PRBs: an optimal assignment with exactly the PRBs that each user is due."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from jaxrl5g.mac.quota_batch import Problem, Solution, solve_batch

MAX_USERS = 126
MAX_PRBS = 4096


def resolve_quotas(
    quotas: ArrayLike,
    weights: ArrayLike,
    dual: ArrayLike | None = None,
    *,
    available: ArrayLike | None = None,
    block_size: int = 1,
) -> tuple[Array, Array, Array]:
    """Owners that maximise the sum of `weights[owner(n), n]` with quotas[u] PRBs for user u.

    A transportation problem, solved exactly in integers: weights are rounded to fixed point of at
    least 18 bits relative to the range of the instance (of users with a quota, on available
    PRBs), and the optimum is that of the rounded weights. Deterministic, the same bits alone and
    under jit, vmap, scan and map, on every backend, whatever batch an instance is in. Carries no
    gradient (zeros). The method and its proof are in docs/quota-resolver.md.

    Args:
      quotas: int32[U], at least 0, U at most 126. Their sum should be the number of available
        PRBs. If it is less, the PRBs of least value stay unowned: as if a user of constant weight
        took them. If it is more, or a quota is negative, nobody owns anything and gap is -1.
      weights: float32[U, N], N at most 4096. NaN and -inf count as the least finite weight of the
        instance, +inf as the largest, beyond +-1e37 as +-1e37. A user with quota 0, such as a
        masked one, may have any.
      dual: float32[U], the dual of an earlier slot, a start that is used where it misplaces fewer
        PRBs than the start without it. Any values will do: they change the time it takes and,
        where several assignments are optimal, which of them is returned; never the value.
      available: bool[N], False for PRBs that are not to be given to anybody; None for no such PRB.
      block_size: PRBs that only go together, such as those of a resource block group: quotas then
        count groups n // block_size, the last of which may be short, owners are constant over a
        group, and a group counts as available if all of its PRBs are.

    Returns:
      owner: int32[N], the user 0..U-1 of each PRB, -1 where it has none. Users' own largest
        weights if they happen to meet the quotas, ties to the lowest index: with the counts of
        parallel proportional fair and its weights this is proportional fair's assignment.
      dual: float32[U], a price per PRB (or group) of each user, in units of weights: the sum over
        available PRBs of max(0, max_u (weights[u, n] - dual[u])), plus the sum of
        quotas[u] * dual[u], bounds what any assignment can reach, and is reached up to rounding.
      gap: int32[], what an independent bound leaves unproven, in units of the rounded weights: 0
        for proven optimal, -1 where the quotas cannot be met.

    Raises:
      ValueError: shapes that do not match, an integer type expected, or a size out of range.
    """
    quotas, weights = jnp.asarray(quotas), jnp.asarray(weights)
    if not jnp.issubdtype(quotas.dtype, jnp.integer):
        raise ValueError(f"quotas must be integers, got {quotas.dtype}.")
    if weights.ndim != 2 or quotas.shape != weights.shape[:1]:
        raise ValueError(
            "quotas must be [U] and weights [U, N] (use vmap for batches), got shapes "
            f"{quotas.shape} and {weights.shape}."
        )
    num_users, num_prbs = weights.shape
    if not (1 <= num_users <= MAX_USERS and 1 <= num_prbs <= MAX_PRBS):
        raise ValueError(
            f"weights must have 1 to {MAX_USERS} users and 1 to {MAX_PRBS} PRBs, got "
            f"{num_users} and {num_prbs}."
        )
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"block_size must be a positive integer, got {block_size!r}.")
    available = _vector("available", available, (num_prbs,), jnp.bool_)
    carried = None if dual is None else _vector("dual", dual, (num_users,), jnp.float32)

    weights = weights.astype(jnp.float32)
    if block_size > 1:
        weights, available = _by_blocks(weights, available, block_size)
    problem = Problem(
        quotas.astype(jnp.int32),
        weights,
        available,
        jnp.zeros(num_users) if carried is None else carried,
    )
    problem = jax.tree.map(jax.lax.stop_gradient, problem)
    owner, price, gap = _one(carried is not None)(*problem)
    if block_size > 1:
        owner = jnp.repeat(owner, block_size)[:num_prbs]
    return owner, price, gap


def _vector(name: str, values: ArrayLike | None, shape: tuple[int, ...], dtype) -> Array:
    if values is None:
        return jnp.ones(shape, dtype)
    array = jnp.asarray(values)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}.")
    return array.astype(dtype)


def _by_blocks(weights: Array, available: Array, size: int) -> tuple[Array, Array]:
    """Weights summed over groups of PRBs, and groups all of whose PRBs are available."""
    short = -weights.shape[-1] % size
    weights = jnp.pad(weights, ((0, 0), (0, short)))
    available = jnp.pad(available, (0, short), constant_values=True)
    blocks = (-1, size)
    return (
        jnp.sum(weights.reshape(weights.shape[0], *blocks), axis=-1),
        jnp.all(available.reshape(blocks), axis=-1),
    )


@functools.cache
def _one(warm: bool):
    """The solver of one instance, whose vmap is the solver of a batch.

    A rule of `custom_vmap` is called once and its body then batched plainly. So the rule enters
    another such function, which merges any further axis into the batch and enters itself again.
    """

    @custom_vmap
    def one(*problem: Array) -> Solution:
        single = Problem(*(a[None] for a in problem))
        return jax.tree.map(lambda a: a[0], solve_batch(single, warm))

    @custom_vmap
    def many(*problem: Array) -> Solution:
        return solve_batch(Problem(*problem), warm)

    @one.def_vmap
    def _(size: int, batched: list[bool], *problem: Array):
        found = many(*_batch(size, batched, problem))
        return found, jax.tree.map(lambda _: True, found)

    @many.def_vmap
    def _(size: int, batched: list[bool], *problem: Array):
        arrays = _batch(size, batched, problem)
        merged = (a.reshape(math.prod(a.shape[:2]), *a.shape[2:]) for a in arrays)
        found = many(*merged)
        split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), found)
        return split, jax.tree.map(lambda _: True, split)

    return one


def _batch(size: int, batched: list[bool], arrays: tuple[Array, ...]) -> list[Array]:
    return [
        a if mapped else jnp.broadcast_to(a, (size, *a.shape))
        for a, mapped in zip(arrays, batched, strict=True)
    ]
