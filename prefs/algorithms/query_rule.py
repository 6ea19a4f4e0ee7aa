"""When to ask, and how often that can happen (Wu and Sun, 2023, equation (2) and its analysis).

The rule asks about two trajectories if two independent draws theta_0, theta_1 ~ N(m, sigma^2 V^-1)
of the reward are expected to disagree on their difference x by more than eps. As
theta_0 - theta_1 ~ N(0, 2 sigma^2 V^-1), that expectation is (2 sigma / sqrt(pi)) ||x||_{V^-1}.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prefs.algorithms.links import Number

QUERIES = ("active", "always", "random")
_NEWTON_STEPS = 40


def disagreement(sigma: Number, width: Number) -> jax.Array:
    """E |<x, theta_0 - theta_1>| for width = ||x||_{V^-1}; shapes broadcast."""
    return 2 / jnp.sqrt(jnp.pi) * sigma * jnp.asarray(width)


def wants_query(
    query: str,
    draw: jax.Array,
    expected: jax.Array,
    eps: Number,
    differs: jax.Array,
    left: jax.Array,
    remaining: jax.Array,
) -> jax.Array:
    """Whether to ask about this episode's two trajectories, bool[].

    Args:
      query: "active" asks where `expected` > eps; "always" where the features differ at all;
        "random" picks `left` of the `remaining` episodes, all subsets alike (selection sampling:
        Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S).
      draw: [], uniform in [0, 1), for "random".
      expected: [], see `disagreement`.
      eps: [], threshold.
      differs: bool[], whether x is not zero.
      left: [], queries of the budget not yet made, at most `remaining`.
      remaining: [], episodes left, this one included.
    """
    if query == "active":
        return expected > eps
    if query == "always":
        return differs
    return draw * remaining < left


def query_bound(
    eps: Number, sigma: Number, ridge: Number, dimension: int, reach: Number
) -> jax.Array:
    """The most queries the rule can make, whatever happens and for however long.

    Every query multiplies det V by more than 1 + c, c = pi eps^2 / (4 sigma^2), and N queries by at
    most (1 + N reach / (ridge d))^d, so N is at most the positive root of

      N log(1 + c) = d log(1 + N reach / (ridge d)).

    Args:
      eps: [], threshold; at 0 or below the bound is infinite.
      sigma: [], scale of the draws; at 0 nothing is ever asked.
      ridge: [], V before the first query is ridge I.
      dimension: d.
      reach: [], at least every ||x||^2.

    Returns:
      [], not rounded down.
    """
    sigma, reach = jnp.asarray(sigma, float), jnp.asarray(reach, float)
    gain = jnp.log1p(jnp.pi * jnp.square(eps / jnp.where(sigma > 0, sigma, 1)) / 4)
    rate = reach / (ridge * dimension)
    finite = (eps > 0) & (sigma > 0) & (gain > 0)
    gain = jnp.where(finite, gain, 1)

    def newton(_, n):
        excess = n * gain - dimension * jnp.log1p(n * rate)
        slope = gain - dimension * rate / (1 + n * rate)
        return jnp.where(slope > 0, jnp.maximum(n - excess / slope, 0), n)

    # log(1 + y) <= sqrt(y) puts the start right of the root, from where a convex function's Newton
    # iteration only falls
    start = dimension**2 * rate / jnp.square(gain)
    bound = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start)
    return jnp.where(finite, bound, jnp.where((eps > 0) & (sigma <= 0), 0, jnp.inf))
