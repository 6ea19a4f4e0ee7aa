"""Phases of the quota resolver: shortest paths between users, then moves along many of them.

User a can pass PRB n to user l at a cost of `(w_an - price_a) - (w_ln - price_l)`, which is never
negative where owners maximise `weight - price`. Moving PRBs along cheapest paths from users with
too many to users with too few, and lowering prices by the paths' costs, keeps that so. A unit of
weight is 2^tag_bits(R) > R, and every hop costs one extra: paths stay optimal in units of weight,
every cycle has a positive cost, and a predecessor found by equality never leads round in a
circle, whatever ties there are. Tags add a constant to each user's weights, hence to its price.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl5g.mac.quota_fixed_point import tagged_user
from jaxrl5g.mac.quota_lanes import any_user, lookup, over_prbs, over_users

_UNREACHED = -(1 << 30)
_USER_BITS = 8
_USER = (1 << _USER_BITS) - 1
_NO_HOP = (1 << 31) - 1


class Assignment(NamedTuple):
    """A batch of assignments under way.

    Attributes:
      prices: int32[R, B], of tagged weights.
      own: int32[N, B], tagged weight of each PRB's owner, which also names the owner.
      excess: int32[R, B], PRBs owned beyond the quota.
    """

    prices: Array
    own: Array
    excess: Array


def unbalanced(excess: Array, unrolled: bool) -> Array:
    """Lanes, bool[B], whose counts are not the quotas."""
    return any_user(excess != 0, unrolled)


def _labels(weights: Array, state: Assignment, unrolled: bool) -> tuple[Array, Array, Array]:
    """Price less distance from the nearest user with too many PRBs, and the farthest needed.

    Bellman-Ford on labels e_l = max_n (w_ln - w_an + e_a) - 1, a the owner of n: a round costs
    R x N and needs no matrix of edges. It ends when every label that still grows lies as far as
    the farthest user with too few, whose own label can then grow no more.

    Returns:
      Labels int32[R, B], farthest distance int32[B], and `offers` by these labels.
    """
    num_users = weights.shape[1]
    prices, own, excess = state
    owner = tagged_user(own, num_users)

    def offers(labels: Array) -> Array:
        return lookup(labels, owner, _UNREACHED, unrolled) - own - 1

    def reach(labels: Array) -> Array:
        def distance(excess: Array, price: Array, label: Array) -> Array:
            return jnp.where(excess < 0, price - label, 0)

        return over_users("max", distance, (excess, prices, labels), unrolled)

    def relax(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        labels, _, rounds = carry
        arrays = (weights, offers(labels))
        new = over_prbs("max", lambda w, offer: w + offer, arrays, labels, unrolled)
        near = (new > labels) & (prices - new < reach(new))
        return new, jnp.any(any_user(near, unrolled)), rounds + 1

    start = jnp.where(excess > 0, prices, _UNREACHED)
    labels, _, _ = jax.lax.while_loop(
        lambda carry: carry[1] & (carry[2] < num_users),
        relax,
        (start, jnp.bool_(True), jnp.int32(0)),
    )
    return labels, reach(labels), offers(labels)


def _hops(weights: Array, labels: Array, offers: Array, own: Array, unrolled: bool) -> Array:
    """First PRB behind each label, packed as PRB * 2^_USER_BITS + owner, int32[R, B]."""
    num_prbs, num_users, _ = weights.shape
    prbs = jnp.arange(num_prbs, dtype=jnp.int32)[:, None]
    packed = (prbs << _USER_BITS) | tagged_user(own, num_users)

    def term(w: Array, offer: Array, packed: Array) -> Array:
        return jnp.where(w + offer == labels, packed, _NO_HOP)

    none = jnp.full_like(labels, _NO_HOP)
    return over_prbs("min", term, (weights, offers, packed), none, unrolled)


def _branches(parent: Array, first: Array, unrolled: bool) -> Array:
    """The user next to the root on the path to each user, int32[R, B], by pointer jumping."""
    num_users = parent.shape[0]
    users = jnp.arange(num_users, dtype=jnp.int32)[:, None]

    def jump(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        pointer, _, turns = carry
        further = lookup(pointer, pointer, num_users, unrolled)
        changed = jnp.any(any_user(further != pointer, unrolled))
        return further, changed, turns + 1

    start = (jnp.where(first, users, parent), jnp.bool_(True), jnp.int32(0))
    cap = num_users.bit_length() + 1
    return jax.lax.while_loop(lambda carry: carry[1] & (carry[2] < cap), jump, start)[0]


def _paths(ends: Array, parent: Array, first: Array, unrolled: bool) -> Array:
    """Users on the paths that end at `ends`, roots left out, bool[R, B]."""
    num_users = parent.shape[0]

    def climb(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        on, _, turns = carry
        above = _occurrences(jnp.where(on & ~first, parent, -1), unrolled) > 0
        changed = jnp.any(any_user(above & ~on, unrolled))
        return on | above, changed, turns + 1

    start = (ends, jnp.bool_(True), jnp.int32(0))
    return jax.lax.while_loop(lambda carry: carry[1] & (carry[2] < num_users), climb, start)[0]


def _occurrences(index: Array, unrolled: bool) -> Array:
    """How often each user occurs in int32[R, B], int32[R, B]."""
    users = jnp.arange(index.shape[0], dtype=jnp.int32)[:, None]
    return over_users("sum", lambda row: (row == users).astype(jnp.int32), (index,), unrolled)


def _earlier(flags: Array, index: Array, unrolled: bool) -> Array:
    """Flagged users of lower number with the same index, int32[R, B]."""
    users = jnp.arange(index.shape[0], dtype=jnp.int32)[:, None]
    index = jnp.where(flags, index, -1 - users)

    def term(row: Array, user: Array) -> Array:
        return ((row == index) & (users > user)).astype(jnp.int32)

    return over_users("sum", term, (index, users), unrolled)


def phase(weights: Array, state: Assignment, unrolled: bool) -> Assignment:
    """Shortest paths, prices lowered by them, and one PRB moved along each hop of many paths.

    Of each branch of the tree, which starts with a root's first hop, one path is taken: to its
    first user with too few. Paths of different branches share no hop, so all are taken at once,
    as far as roots have PRBs to spare and no two first hops ask for the same PRB. The first of
    each root always passes: an unbalanced lane comes at least one PRB nearer to its quotas.
    """
    num_users = weights.shape[1]
    prices, own, excess = state
    labels, reach, offers = _labels(weights, state, unrolled)
    hop = _hops(weights, labels, offers, own, unrolled)
    open_lane = unbalanced(excess, unrolled)
    short = excess < 0
    inside = (excess <= 0) & (prices - labels <= reach) & open_lane
    parent = jnp.where(inside, hop & _USER, num_users)
    first = lookup(excess, parent, 0, unrolled) > 0
    branch = _branches(parent, first, unrolled)

    winner = short & (_earlier(short, branch, unrolled) == 0)
    entry = lookup(hop, branch, 0, unrolled)  # the first hop
    root = entry & _USER
    spare = lookup(excess, root, 0, unrolled)
    accepted = winner & (_earlier(winner, root, unrolled) < spare)
    accepted = accepted & (_earlier(winner, entry, unrolled) == 0)

    on = _paths(accepted, parent, first, unrolled)
    moved = jnp.where(on, hop >> _USER_BITS, -1)
    prbs = jnp.arange(own.shape[0], dtype=jnp.int32)[:, None]
    for user in range(num_users):
        own = jnp.where(moved[user] == prbs, weights[:, user], own)
    given = _occurrences(jnp.where(accepted, root, -1), unrolled)
    lower = jnp.where(open_lane, jnp.maximum(labels, prices - reach), prices)
    return Assignment(lower, own, excess + accepted - given)
