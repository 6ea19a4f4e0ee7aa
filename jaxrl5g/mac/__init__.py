"""Scheduling: observations, allocations, PRB schedulers and power rules."""

from jaxrl5g.mac.power import equal_power
from jaxrl5g.mac.rates import per_prb, predicted_rates
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.schedulers import (
    SCHEDULERS,
    alpha_fair,
    blind_equal_throughput,
    max_rate,
    proportional_fair,
    round_robin,
)
from jaxrl5g.mac.types import Allocation, CellConfig, CellParams, Observation, Scheduler

__all__ = [
    "SCHEDULERS",
    "Allocation",
    "CellConfig",
    "CellParams",
    "Observation",
    "Reservation",
    "Scheduler",
    "alpha_fair",
    "blind_equal_throughput",
    "equal_power",
    "max_rate",
    "per_prb",
    "predicted_rates",
    "proportional_fair",
    "reserve_retransmissions",
    "round_robin",
]
