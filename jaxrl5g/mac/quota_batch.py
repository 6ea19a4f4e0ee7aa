"""The quota resolver on batches: lanes in chunks on a CPU, all at once elsewhere."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.mac.quota_kernel import balance, begin, finish, prepare
from jaxrl5g.mac.quota_lanes import block_of, over_users
from jaxrl5g.mac.quota_paths import Assignment

LANES = 64
"""Instances side by side on a CPU: their weights stay in the second-level cache."""


_PRBS_PER_EARLY_PHASE = 64
"""PRBs for each phase (one at least) before what is still unbalanced is gathered anew."""


class Problem(NamedTuple):
    """int32[B, U], float32[B, U, N], bool[B, N] and float32[B, U]: see `resolve_quotas`."""

    quotas: Array
    weights: Array
    available: Array
    dual: Array


class Solution(NamedTuple):
    """int32[B, N], float32[B, U] and int32[B]: see `resolve_quotas`."""

    owner: Array
    dual: Array
    gap: Array


def solve_batch(problem: Problem, warm: bool) -> Solution:
    """Solve every instance; the result of one does not depend on the others."""
    return jax.lax.platform_dependent(
        *problem,
        cpu=lambda *arrays: _in_chunks(Problem(*arrays), warm),
        default=lambda *arrays: _at_once(Problem(*arrays), warm),
    )


def _at_once(problem: Problem, warm: bool) -> Solution:
    instances = _lanes(problem, unrolled=False)
    state = begin(instances, _dual_lanes(problem, warm), unrolled=False)
    state = balance(instances, state, _phase_limit(problem), unrolled=False)
    return _solution(finish(instances, state, unrolled=False), problem)


def _phase_limit(problem: Problem) -> int:
    """A phase moves at least one of at most N misplaced PRBs to where it belongs."""
    return problem.weights.shape[-1] + 1


def _in_chunks(problem: Problem, warm: bool) -> Solution:
    """Chunks of lanes; those that need more than a few phases are gathered into new chunks.

    Lanes of a chunk wait for the slowest of them, and few need many phases.
    """
    batch = problem.quotas.shape[0]
    chunks = -(-batch // LANES)
    lanes = -(-batch // chunks)
    if chunks == 1:
        return _chunk(problem, warm)
    padding = chunks * lanes - batch
    if padding:  # instances without a PRB are solved before they begin
        problem = Problem(*(jnp.pad(a, ((0, padding), *[(0, 0)] * (a.ndim - 1))) for a in problem))
    split = Problem(*(a.reshape(chunks, lanes, *a.shape[1:]) for a in problem))

    few = max(1, problem.weights.shape[-1] // _PRBS_PER_EARLY_PHASE)

    def early(chunk: Problem) -> tuple[Solution, Assignment, Array]:
        instances = _lanes(chunk, unrolled=True)
        state = begin(instances, _dual_lanes(chunk, warm), unrolled=True)
        state = balance(instances, state, few, unrolled=True)
        solution = _solution(finish(instances, state, unrolled=True), chunk)
        still = over_users("or", lambda e: e != 0, (state.excess,), unrolled=True)
        return solution, Assignment(*(a.T for a in state)), still

    first, state, still = jax.lax.map(early, split)
    first, state, still = jax.tree.map(
        lambda a: a.reshape(chunks * lanes, *a.shape[2:]), (first, state, still)
    )
    order = jnp.argsort(~still).astype(jnp.int32)
    count = jnp.sum(still)

    def late(carry: tuple[Array, Solution]) -> tuple[Array, Solution]:
        done, solutions = carry
        index = jax.lax.dynamic_slice_in_dim(order, done, lanes)
        chunk, begun = jax.tree.map(lambda a: a[index], (problem, state))
        instances = _lanes(chunk, unrolled=True)
        begun = Assignment(*(a.T for a in begun))
        ended = balance(instances, begun, _phase_limit(chunk), unrolled=True)
        solution = _solution(finish(instances, ended, unrolled=True), chunk)
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=done, axis=0)
        return done + lanes, jax.tree.map(write, solutions, solution)

    start = (jnp.int32(0), jax.tree.map(jnp.zeros_like, first))
    _, second = jax.lax.while_loop(lambda carry: carry[0] < count, late, start)
    place = jnp.where(still, jnp.cumsum(still) - 1, -1)

    def pick(early: Array, late: Array) -> Array:
        again = still.reshape(-1, *[1] * (early.ndim - 1))
        return jnp.where(again, late[jnp.maximum(place, 0)], early)[:batch]

    return jax.tree.map(pick, first, second)


def _chunk(problem: Problem, warm: bool) -> Solution:
    instances = _lanes(problem, unrolled=True)
    state = begin(instances, _dual_lanes(problem, warm), unrolled=True)
    state = balance(instances, state, _phase_limit(problem), unrolled=True)
    return _solution(finish(instances, state, unrolled=True), problem)


def _lanes(problem: Problem, unrolled: bool):
    """Instances on the last axis, with a row for idle PRBs and PRBs that are not there."""
    num_prbs = problem.weights.shape[-1]
    more = -num_prbs % block_of(num_prbs) if unrolled else 0
    weights = jnp.pad(jnp.transpose(problem.weights, (2, 1, 0)), ((0, more), (0, 1), (0, 0)))
    available = jnp.pad(problem.available.T, ((0, more), (0, 0)))
    return prepare(problem.quotas.T, weights, available, unrolled)


def _dual_lanes(problem: Problem, warm: bool) -> Array | None:
    return problem.dual.T if warm else None


def _solution(found: tuple[Array, Array, Array], problem: Problem) -> Solution:
    owner, dual, gap = found
    return Solution(owner[: problem.weights.shape[-1]].T, dual.T, gap)
