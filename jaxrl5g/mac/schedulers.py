"""Classical PRB schedulers, each with a power rule.

All of them reserve retransmissions first, then hand the free PRBs to eligible users: the user
with the largest metric takes the PRB, ties to the lowest index. Rates are predicted bits per PRB.
The weights that a rule maximises, 1 / T^alpha, are also what the power rule values a bit at.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxrl5g.mac.power_rules import POWER_RULES, Assignment
from jaxrl5g.mac.rates import per_prb, predicted_rates
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.types import Allocation, CellConfig, CellParams, Observation, Scheduler

Number = jax.Array | float


def allocate(
    reservation: Reservation,
    chosen: jax.Array,
    weights: jax.Array,
    observation: Observation,
    params: CellParams,
    power: str,
) -> Allocation:
    """Reserved PRBs to their holders, the others to `chosen` int32[C, N]; power by rule.

    Args:
      weights: float32[C, U], value of a bit to each user.
      power: name in `POWER_RULES`.
    """
    free = reservation.owner < 0
    owner = jnp.where(free, chosen, reservation.owner)
    assignment = Assignment(owner, free & (owner >= 0), weights)
    return Allocation(owner, POWER_RULES[power](assignment, observation, params))


def largest_metric(metric: jax.Array, eligible: jax.Array, config: CellConfig) -> jax.Array:
    """The eligible user of largest metric >= 0 on every PRB, int32[C, N]; -1 without any.

    Args:
      metric: float32[C, U, S]; eligible: bool[C, U].
    """
    metric = jnp.where(eligible[..., None], metric, -1.0)
    largest = jnp.max(metric, axis=-2, keepdims=True)
    users = jnp.arange(config.num_users, dtype=jnp.int32)[:, None]
    # plain reductions: an argmax would be fused with all that computes the metric, which may be
    # computed a second time and be rounded otherwise: then nobody equals the largest
    best = jnp.min(jnp.where(metric == largest, users, config.num_users), axis=-2)
    near = jnp.min(jnp.where(metric > 0.9999 * largest, users, config.num_users), axis=-2)
    best = jnp.where(best < config.num_users, best, near)
    return per_prb(jnp.where(largest[..., 0, :] >= 0, best, -1), config)


def average(mean: jax.Array, bits: jax.Array, window: Number) -> jax.Array:
    """EWMA T <- (1 - 1/window) T + bits/window of acknowledged bits."""
    return mean + (bits - mean) / window


def initial_average(params: CellParams) -> jax.Array:
    """The environment's initial throughput for every user, float32[C, U], bits per slot."""
    shape = (params.config.num_cells, params.config.num_users)
    return jnp.broadcast_to(jnp.asarray(params.initial_throughput, jnp.float32), shape)


def max_rate(power: str = "equal") -> Scheduler:
    """Max C/I: each PRB to the user with the highest predicted rate.

    Args:
      power: rule of `POWER_RULES`.

    Raises:
      ValueError: unknown power rule.
    """
    power = check_power(power)

    def apply(key, observation, carry, params):
        del key
        reservation = reserve_retransmissions(observation, params.config)
        rates = predicted_rates(observation, params)
        chosen = largest_metric(rates, reservation.eligible, params.config)
        weights = jnp.ones_like(observation.throughput)
        return allocate(reservation, chosen, weights, observation, params, power), carry

    return Scheduler(lambda params: (), apply)


def price(mean: jax.Array, exponent: Number) -> jax.Array:
    """T^exponent, kept away from 0; a power only where one is needed."""
    mean = jnp.maximum(mean, 1e-6)
    return mean if _known(exponent) and exponent == 1.0 else mean**exponent


def _fair(exponent: Number, window: Number, power: str, use_rates: bool = True) -> Scheduler:
    """Parallel rule: argmax of r / T^exponent on every PRB (r = 1 without rates)."""

    def apply(key, observation, mean, params):
        del key
        mean = average(mean, observation.acked_bits, window)
        reservation = reserve_retransmissions(observation, params.config)
        flat = jnp.ones_like(observation.csi_db)
        rates = predicted_rates(observation, params) if use_rates else flat
        cost = price(mean, exponent)
        chosen = largest_metric(rates / cost[..., None], reservation.eligible, params.config)
        return allocate(reservation, chosen, 1.0 / cost, observation, params, power), mean

    return Scheduler(initial_average, apply)


def _sequential_fair(exponent: Number, window: Number, power: str) -> Scheduler:
    """Sequential rule: PRB after PRB, T counting what the slot has handed out so far."""

    def apply(key, observation, mean, params):
        del key
        config = params.config
        mean = average(mean, observation.acked_bits, window)
        rates = per_prb(predicted_rates(observation, params), config)
        reservation = reserve_retransmissions(observation, config)
        eligible = reservation.eligible

        def prb(mean, column):
            rate, held = column
            metric = jnp.where(eligible, rate / price(mean, exponent), -jnp.inf)
            best = jnp.where(jnp.any(eligible, -1), jnp.argmax(metric, -1), -1)
            owner = jnp.where(held >= 0, held, best).astype(jnp.int32)
            served = jnp.arange(config.num_users) == owner[:, None]
            return mean + jnp.where(served, rate, 0.0) / window, owner

        columns = (jnp.moveaxis(rates, -1, 0), reservation.owner.T)
        _, owner = jax.lax.scan(prb, mean, columns)
        weights = 1.0 / price(mean, exponent)
        return allocate(reservation, owner.T, weights, observation, params, power), mean

    return Scheduler(initial_average, apply)


def _known(number: Number) -> bool:
    """Not a tracer: many windows or exponents can be evaluated by one compiled program."""
    return not isinstance(number, Tracer)


def check_window(window: Number) -> Number:
    """Return the window unchanged.

    Raises:
      ValueError: below 1 slot.
    """
    if _known(window) and not window >= 1:
        raise ValueError(f"window must be at least 1 slot, got {window!r}.")
    return window


def check_alpha(alpha: Number) -> Number:
    """Return the fairness exponent unchanged.

    Raises:
      ValueError: below 0.
    """
    if _known(alpha) and not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha!r}.")
    return alpha


def check_power(power: str) -> str:
    """Return the name of a power rule unchanged.

    Raises:
      ValueError: not one of `POWER_RULES`.
    """
    if power not in POWER_RULES:
        raise ValueError(f"power must be one of {', '.join(POWER_RULES)}, got {power!r}.")
    return power


def alpha_fair(
    alpha: Number, window: Number = 100, sequential: bool = False, power: str = "equal"
) -> Scheduler:
    """Alpha-fair rule: argmax of r / T^alpha (0 max rate, 1 proportional fair, large max-min).

    Args:
      alpha: fairness exponent, at least 0; may be traced.
      window: slots over which the scheduler averages acknowledged bits, at least 1; may be traced.
      sequential: count each PRB handed out within the slot before the next is.
      power: rule of `POWER_RULES`, with 1 / T^alpha as the value of a bit.

    Raises:
      ValueError: alpha below 0, window below 1, or unknown power rule.
    """
    kind = _sequential_fair if sequential else _fair
    return kind(check_alpha(alpha), check_window(window), check_power(power))


def proportional_fair(
    window: Number = 100, sequential: bool = False, power: str = "equal"
) -> Scheduler:
    """Proportional fair: argmax of r / T, parallel over PRBs as in Sionna, or sequential."""
    return alpha_fair(1.0, window, sequential, power)


def blind_equal_throughput(window: Number = 100, power: str = "equal") -> Scheduler:
    """Blind equal throughput: argmax of 1 / T; rates break no tie."""
    return _fair(1.0, check_window(window), check_power(power), use_rates=False)


def round_robin(power: str = "equal") -> Scheduler:
    """Free PRBs dealt out one by one in user order; the next slot goes on where this one ended."""
    power = check_power(power)

    def deal(eligible, free, last, num_users):
        users = jnp.arange(num_users)
        turn = (users - last - 1) % num_users
        earlier = eligible[None, :] & (turn[None, :] < turn[:, None])
        rank = jnp.where(eligible, jnp.sum(earlier, axis=-1), -1)
        count = jnp.sum(eligible)
        position = jnp.where(free, (jnp.cumsum(free) - 1) % jnp.maximum(count, 1), -2)
        owner = jnp.argmax(rank[:, None] == position, axis=0)
        owner = jnp.where(free & (count > 0), owner, -1).astype(jnp.int32)
        final = (jnp.sum(free) - 1) % jnp.maximum(count, 1)
        dealt = (count > 0) & jnp.any(free)
        return owner, jnp.where(dealt, jnp.argmax(rank == final), last).astype(jnp.int32)

    def apply(key, observation, last, params):
        del key
        config = params.config
        reservation = reserve_retransmissions(observation, config)
        owner, last = jax.vmap(partial(deal, num_users=config.num_users))(
            reservation.eligible, reservation.owner < 0, last
        )
        weights = jnp.ones_like(observation.throughput)
        return allocate(reservation, owner, weights, observation, params, power), last

    return Scheduler(lambda params: jnp.full(params.config.num_cells, -1, jnp.int32), apply)
