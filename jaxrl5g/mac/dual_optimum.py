"""PRBs and power chosen together, by the Lagrangian of one slot in the power budget.

For a price mu of a watt every PRB decides alone, and all of a subband alike: user k is worth
max_p [w_k r(p g_ks) - mu p], the best user takes them. A bisection finds the price at which
the cell's budget is spent (Yu and Lui 2006: with many PRBs the duality gap vanishes). The rate
r is that of a flat channel. A block has one MCS and its PRBs fade differently, so the power is
then dealt out anew for the assignment found, MCS by MCS.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g import phy
from jaxrl5g.mac.numerics import bisect
from jaxrl5g.mac.power import budget_left, reference_power
from jaxrl5g.mac.power_rules import Assignment, knapsack_power
from jaxrl5g.mac.rates import count_in_subbands, per_prb, predicted_rates
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.schedulers import (
    Number,
    average,
    check_alpha,
    check_window,
    initial_average,
    largest_metric,
    price,
)
from jaxrl5g.mac.types import Allocation, CellParams, Observation, Scheduler

_BISECTIONS = 24


@functools.cache
def _rate_hull(table: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the concave hull of efficiency against SINR: (SINR, bits per element) increments.

    The corners are the MCS at the least SINR that keeps a tenth of the blocks in error, starting
    from the origin; float32[J] each, efficiency per SINR falling.
    """
    thresholds, gains = phy.rate_steps(table, "nr")
    points = np.concatenate([[[0.0, 0.0]], np.stack([thresholds, np.cumsum(gains)], axis=1)])
    hull = [points[0]]
    for point in points[1:]:
        while len(hull) > 1 and _left_turn(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    steps = np.diff(np.asarray(hull), axis=0)
    return steps[:, 0].astype(np.float32), steps[:, 1].astype(np.float32)


def _left_turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) >= (b[1] - a[1]) * (c[0] - a[0])


def dual_assignment(
    gains: jax.Array, weights: jax.Array, free: jax.Array, budget: jax.Array, table: int
) -> jax.Array:
    """Owner of the free PRBs of each subband at the price that spends the budget.

    Args:
      gains: float32[C, U, S], SINR per watt; weights: float32[C, U], 0 for users left out.
      free: [C, S], how many PRBs are free; budget: float32[C], watts.
      table: MCS table.

    Returns:
      int32[C, S], -1 where nothing is free or worth its price.
    """
    gains = jnp.maximum(gains, 1e-30)
    weights = weights[..., None]
    # step by step instead of over an axis of steps: one fused pass over users and subbands
    hull = list(zip(*_rate_hull(table), strict=True))

    def decide(log_price: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Best user, its worth on a PRB and its power in every subband at a price [C]."""
        of_sinr = jnp.exp2(log_price)[:, None, None] / gains
        worth, sinr = jnp.zeros_like(gains), jnp.zeros_like(gains)
        for more_sinr, efficiency in hull:
            surplus = weights * efficiency - of_sinr * more_sinr
            worth += jnp.maximum(surplus, 0.0)
            sinr += jnp.where(surplus > 0, more_sinr, 0.0)
        owner = jnp.argmax(worth, axis=1)
        best = jnp.take_along_axis(worth, owner[:, None], axis=1)[:, 0]
        spent = jnp.take_along_axis(sinr / gains, owner[:, None], axis=1)[:, 0]
        return owner, best, jnp.where((free > 0) & (best > 0), free * spent, 0.0)

    # the highest price at which anybody buys, and one at which everything affordable is bought
    slope = jnp.max(weights * gains, axis=(1, 2)) * (hull[0][1] / hull[0][0])
    high = jnp.log2(jnp.maximum(slope, 1e-30))
    low, _ = bisect(
        lambda price: jnp.sum(decide(price)[2], axis=-1) > budget, high - 60.0, high, _BISECTIONS
    )
    owner, best, _ = decide(low)
    return jnp.where((free > 0) & (best > 0), owner, -1).astype(jnp.int32)


def dual_owner(
    observation: Observation, weights: jax.Array, reservation: Reservation, params: CellParams
) -> jax.Array:
    """`dual_assignment` of the PRBs that retransmissions leave free, from what is reported.

    Args:
      observation: of this slot; weights: float32[C, U], value of a bit.
      reservation: of `reserve_retransmissions`.
      params: the environment's parameters.

    Returns:
      int32[C, N], -1 on PRBs that are held, or that nobody gets.
    """
    config = params.config
    free = reservation.owner < 0
    _, left = budget_left(~free, params)
    predicted = phy.to_linear(observation.csi_db - observation.olla_offset_db[..., None])
    owner = dual_assignment(
        predicted / reference_power(params),
        jnp.where(reservation.eligible, weights, 0.0),
        count_in_subbands(free, config),
        left,
        config.mcs_table,
    )
    return jnp.where(free, per_prb(owner, config), -1)


def dual_optimum(alpha: Number = 1.0, window: Number = 100) -> Scheduler:
    """PRBs and power of each slot by Lagrangian duality, with the weights of the alpha-fair rule.

    With perfect CSI it is the strongest rule here that looks at one slot at a time. The assignment
    is compared with that of the alpha-fair rule under the same MCS-aware power, slot by slot, and
    the more valuable one of the two is carried out: the dual's assignment supposes one MCS a PRB.

    Args:
      alpha: fairness exponent, at least 0; window: of the average, at least 1 slot.

    Raises:
      ValueError: alpha below 0 or window below 1; in use, a fidelity other than "nr".
    """
    alpha, window = check_alpha(alpha), check_window(window)

    def apply(key, observation, mean, params):
        del key
        config = params.config
        mean = average(mean, observation.acked_bits, window)
        weights = 1.0 / price(mean, alpha)
        reservation = reserve_retransmissions(observation, config)
        free = reservation.owner < 0
        rates = predicted_rates(observation, params)
        chosen = (
            dual_owner(observation, weights, reservation, params),
            largest_metric(rates * weights[..., None], reservation.eligible, config),
        )

        def with_power(chosen):
            owner = jnp.where(free, chosen, reservation.owner)
            assignment = Assignment(owner, free & (owner >= 0), weights)
            return owner, *knapsack_power(assignment, observation, params)

        (owner, power, value), (other_owner, other_power, other_value) = map(with_power, chosen)
        better = (value >= other_value)[:, None]
        owner = jnp.where(better, owner, other_owner)
        return Allocation(owner, jnp.where(better, power, other_power)), mean

    return Scheduler(initial_average, apply)
