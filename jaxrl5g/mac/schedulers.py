"""Classical PRB schedulers, each with equal power.

All of them reserve retransmissions first, then hand the free PRBs to eligible users: the user
with the largest metric takes the PRB, ties to the lowest index. Rates are predicted bits per PRB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl5g.mac.power import equal_power
from jaxrl5g.mac.rates import per_prb, predicted_rates
from jaxrl5g.mac.retransmission import reserve_retransmissions
from jaxrl5g.mac.types import Allocation, CellConfig, CellParams, Observation, Scheduler


def _allocate(owner: jax.Array, params: CellParams) -> Allocation:
    return Allocation(owner=owner, power=equal_power(owner, params.power_budget))


def _largest_metric(metric: jax.Array, observation: Observation, config: CellConfig) -> jax.Array:
    """Owner of every PRB: reserved, else the eligible user of largest metric >= 0 [C, U, S]."""
    reserved, eligible = reserve_retransmissions(observation, config)
    metric = jnp.where(eligible[..., None], metric, -1.0)
    largest = jnp.max(metric, axis=-2, keepdims=True)
    users = jnp.arange(config.num_users, dtype=jnp.int32)[:, None]
    # two plain reductions: an argmax would be fused with all that computes the metric
    best = jnp.min(jnp.where(metric == largest, users, config.num_users), axis=-2)
    best = jnp.where(largest[..., 0, :] >= 0, best, -1)
    return jnp.where(reserved >= 0, reserved, per_prb(best, config))


def _average(mean: jax.Array, bits: jax.Array, window: jax.Array | float) -> jax.Array:
    """EWMA T <- (1 - 1/window) T + bits/window of acknowledged bits."""
    return mean + (bits - mean) / window


def _initial_average(params: CellParams) -> jax.Array:
    shape = (params.config.num_cells, params.config.num_users)
    return jnp.broadcast_to(jnp.asarray(params.initial_throughput, jnp.float32), shape)


def max_rate() -> Scheduler:
    """Max C/I: each PRB to the user with the highest predicted rate."""

    def apply(key, observation, carry, params):
        del key
        rates = predicted_rates(observation, params)
        return _allocate(_largest_metric(rates, observation, params.config), params), carry

    return Scheduler(lambda params: (), apply)


def _price(mean: jax.Array, exponent: float) -> jax.Array:
    """T^exponent, kept away from 0; a power only where one is needed."""
    mean = jnp.maximum(mean, 1e-6)
    return mean if exponent == 1.0 else mean**exponent


def _fair(exponent: float, window: float, use_rates: bool = True) -> Scheduler:
    """Parallel rule: argmax of r / T^exponent on every PRB (r = 1 without rates)."""

    def apply(key, observation, mean, params):
        del key
        mean = _average(mean, observation.acked_bits, window)
        flat = jnp.ones_like(observation.csi_db)
        rates = predicted_rates(observation, params) if use_rates else flat
        metric = rates / _price(mean, exponent)[..., None]
        return _allocate(_largest_metric(metric, observation, params.config), params), mean

    return Scheduler(_initial_average, apply)


def _sequential_fair(exponent: float, window: float) -> Scheduler:
    """Sequential rule: PRB after PRB, T counting what the slot has handed out so far."""

    def apply(key, observation, mean, params):
        del key
        config = params.config
        mean = _average(mean, observation.acked_bits, window)
        rates = per_prb(predicted_rates(observation, params), config)
        reserved, eligible = reserve_retransmissions(observation, config)

        def prb(mean, column):
            rate, held = column
            metric = jnp.where(eligible, rate / _price(mean, exponent), -jnp.inf)
            best = jnp.where(jnp.any(eligible, -1), jnp.argmax(metric, -1), -1)
            owner = jnp.where(held >= 0, held, best).astype(jnp.int32)
            served = jnp.arange(config.num_users) == owner[:, None]
            return mean + jnp.where(served, rate, 0.0) / window, owner

        columns = (jnp.moveaxis(rates, -1, 0), reserved.T)
        _, owner = jax.lax.scan(prb, mean, columns)
        return _allocate(owner.T, params), mean

    return Scheduler(_initial_average, apply)


def _window(window: float) -> float:
    if not window >= 1:
        raise ValueError(f"window must be at least 1 slot, got {window!r}.")
    return float(window)


def alpha_fair(alpha: float, window: float = 100, sequential: bool = False) -> Scheduler:
    """Alpha-fair rule: argmax of r / T^alpha (0 max rate, 1 proportional fair, large max-min).

    Args:
      alpha: fairness exponent, at least 0.
      window: slots over which the scheduler averages acknowledged bits, at least 1.
      sequential: count each PRB handed out within the slot before the next is.

    Raises:
      ValueError: alpha below 0 or window below 1.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha!r}.")
    window = _window(window)
    return _sequential_fair(alpha, window) if sequential else _fair(alpha, window)


def proportional_fair(window: float = 100, sequential: bool = False) -> Scheduler:
    """Proportional fair: argmax of r / T, parallel over PRBs as in Sionna, or sequential."""
    return alpha_fair(1.0, window, sequential)


def blind_equal_throughput(window: float = 100) -> Scheduler:
    """Blind equal throughput: argmax of 1 / T; rates break no tie."""
    return _fair(1.0, _window(window), use_rates=False)


def round_robin() -> Scheduler:
    """Free PRBs dealt out one by one in user order; the next slot goes on where this one ended."""

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
        reserved, eligible = reserve_retransmissions(observation, config)
        owner, last = jax.vmap(partial(deal, num_users=config.num_users))(
            eligible, reserved < 0, last
        )
        return _allocate(jnp.where(reserved >= 0, reserved, owner), params), last

    return Scheduler(lambda params: jnp.full(params.config.num_cells, -1, jnp.int32), apply)


SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "pf": proportional_fair,
    "rr": round_robin,
    "max_rate": max_rate,
    "alpha_fair": alpha_fair,
    "bet": blind_equal_throughput,
}
"""Short names used on the command line and in results."""
