"""Equal shares of PRBs by exact quotas: round robin that knows the channel."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl5g.mac.apportionment import apportion
from jaxrl5g.mac.quota_resolver import resolve_quotas
from jaxrl5g.mac.rates import per_prb, predicted_rates
from jaxrl5g.mac.retransmission import reserve_retransmissions
from jaxrl5g.mac.schedulers import allocate, check_power
from jaxrl5g.mac.types import Scheduler


def equal_quotas(power: str = "equal") -> Scheduler:
    """Equal PRB quotas for all eligible users, assigned so that the sum of rates is largest.

    The PRBs that retransmissions leave free are apportioned evenly and given out by
    `resolve_quotas` on predicted rates, warm-started from the last slot's dual.

    Args:
      power: rule of `POWER_RULES`.

    Raises:
      ValueError: unknown power rule.
    """
    power = check_power(power)

    def init(params):
        return jnp.zeros((params.config.num_cells, params.config.num_users), jnp.float32)

    def apply(key, observation, dual, params):
        del key
        config = params.config
        reservation = reserve_retransmissions(observation, config)
        rates = per_prb(predicted_rates(observation, params), config)

        def cell(rates, eligible, held, dual):
            free = held < 0
            quotas = apportion(eligible.astype(jnp.float32), jnp.sum(free), eligible)
            owner, dual, _ = resolve_quotas(quotas, rates, dual, available=free)
            return owner, dual

        owner, dual = jax.vmap(cell)(rates, reservation.eligible, reservation.owner, dual)
        weights = jnp.ones_like(observation.throughput)
        return allocate(reservation, owner, weights, observation, params, power), dual

    return Scheduler(init, apply)
