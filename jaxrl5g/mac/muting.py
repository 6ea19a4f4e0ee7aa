"""Coordinated muting that lasts: which cells use which PRBs, decided for all cells at once.

A pattern that flickers spoils the CSI of the neighbours, whose MCS follow the interference of the
slot before. This one follows gains and averages alone, not who waits for feedback in a slot, and
may be held; users are chosen anew in every slot, and what a cell does not radiate on muted PRBs it
radiates on the others.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxrl5g import phy
from jaxrl5g.mac.power import budget_left, reference_power
from jaxrl5g.mac.retransmission import Reservation, reserve_retransmissions
from jaxrl5g.mac.schedulers import (
    Number,
    average,
    check_window,
    initial_average,
    largest_metric,
    price,
)
from jaxrl5g.mac.types import Allocation, CellParams, Observation, Scheduler

MAX_PATTERN_CELLS = 6


def cross_snr(observation: Observation) -> jax.Array:
    """What every user hears from every cell, float32[C, U, C, N], linear SNR.

    Raises:
      ValueError: the observation is not of an environment with centralised CSI.
    """
    if observation.cross_snr is None:
        raise ValueError(
            'a centralised scheduler needs an environment with csi="centralised", whose '
            "observation holds cross_snr."
        )
    return observation.cross_snr


def rates_at(levels: jax.Array, observation: Observation, params: CellParams) -> jax.Array:
    """Bits that a PRB would carry for each user if all cells sent at these levels.

    Args:
      levels: float32[C, N], powers in units of the reference power, at least 0.
      observation: with centralised CSI.
      params: the environment's parameters.

    Returns:
      float32[C, U, N], bits per PRB and slot on a flat channel; 0 where the cell is silent.

    Raises:
      ValueError: CSI that is not centralised.
    """
    config = params.config
    received = cross_snr(observation) * levels
    cells = range(config.num_cells)
    own = jnp.stack([received[c, :, c, :] for c in cells])
    # the others alone: own power cancels badly in a difference of float32
    heard = jnp.stack(
        [sum((received[c, :, d] for d in cells if d != c), jnp.zeros_like(own[c])) for c in cells]
    )
    rate = phy.predicted_rate(own / (1.0 + heard), config.mcs_table, config.fidelity)
    return jnp.where(levels[:, None, :] > 0, config.res_per_prb * rate, 0.0)


def muting_levels(weights: jax.Array, observation: Observation, params: CellParams) -> jax.Array:
    """On every PRB the best of the 2^C patterns of cells on and off, with the budgets spent.

    A pattern is worth the sum over its cells of the largest w r among the cell's users at the
    reference power; ties go to fewer cells, then to those of higher index. Each cell then spreads
    its budget over the PRBs it keeps.

    Args:
      weights: float32[C, U], value of a bit.
      observation: with centralised CSI.
      params: the environment's parameters.

    Returns:
      float32[C, N], powers in units of the reference power, in sum at most N a cell; 0 is muted.

    Raises:
      ValueError: more than six cells, or CSI that is not centralised.
    """
    config = params.config
    if config.num_cells > MAX_PATTERN_CELLS:
        raise ValueError(
            f"muting tries every pattern of cells: at most {MAX_PATTERN_CELLS}, "
            f"got {config.num_cells}."
        )
    patterns = sorted(itertools.product((0.0, 1.0), repeat=config.num_cells), key=sum)
    patterns = jnp.asarray(np.array(patterns, np.float32))
    shape = (config.num_cells, config.num_prbs)
    present = observation.mask[..., None]

    def worth(pattern: jax.Array) -> jax.Array:
        rates = rates_at(jnp.broadcast_to(pattern[:, None], shape), observation, params)
        best = jnp.max(jnp.where(present, weights[..., None] * rates, 0.0), axis=1)
        return jnp.sum(best, axis=0)

    best = jnp.argmax(jax.vmap(worth)(patterns), axis=0)
    on = patterns[best].T
    kept = jnp.sum(on, axis=-1, keepdims=True)
    return on * (config.num_prbs / jnp.maximum(kept, 1.0))


def serve(
    metric: jax.Array, levels: jax.Array, reservation: Reservation, params: CellParams
) -> jax.Array:
    """The eligible user of largest metric on every PRB that the cell may use.

    Args:
      metric: float32[C, U, N], at least 0.
      levels: float32[C, N], 0 where the cell is muted.
      reservation: PRBs of retransmissions, which are sent whatever the levels say.
      params: the environment's parameters.

    Returns:
      int32[C, N], retransmissions included; -1 for none.
    """
    chosen = largest_metric(metric, reservation.eligible, params.config)
    chosen = jnp.where(levels > 0, chosen, -1)
    return jnp.where(reservation.owner >= 0, reservation.owner, chosen).astype(jnp.int32)


def spend(owner: jax.Array, levels: jax.Array, held: jax.Array, params: CellParams) -> Allocation:
    """Powers at these levels, scaled down where a cell's budget does not last.

    Args:
      owner: int32[C, N], -1 for none.
      levels: float32[C, N], wanted powers in units of the reference power, at least 0.
      held: bool[C, N], PRBs of retransmissions, sent at the reference power.
      params: the environment's parameters.
    """
    reserved, left = budget_left(held, params)
    wanted = jnp.where(held | (owner < 0), 0.0, levels * reference_power(params))
    scale = jnp.minimum(1.0, left / jnp.maximum(jnp.sum(wanted, axis=-1), 1e-30))
    return Allocation(owner, reserved + wanted * scale[:, None])


def held_on_off(window: Number = 200, period: Number = 10) -> Scheduler:
    """On-off power whose pattern is held, users by proportional fair in every slot.

    Every `period` slots `muting_levels` with w = 1 / T; between, each PRB that a cell may use goes
    to its user of largest r / T under these levels.

    Args:
      window: of the average, at least 1 slot.
      period: slots for which a pattern holds, at least 1.

    Raises:
      ValueError: a number below 1; in use, CSI that is not centralised, or too many cells.
    """
    check_window(window)
    check_period(period)

    def init(params):
        config = params.config
        levels = jnp.zeros((config.num_cells, config.num_prbs), jnp.float32)
        return initial_average(params), levels, jnp.int32(0)

    def apply(key, observation, carry, params):
        del key
        mean, levels, slot = carry
        mean = average(mean, observation.acked_bits, window)
        weights = 1.0 / price(mean, 1.0)
        reservation = reserve_retransmissions(observation, params.config)
        due = slot % jnp.asarray(period, jnp.int32) == 0
        levels = jnp.where(due, muting_levels(weights, observation, params), levels)
        metric = weights[..., None] * rates_at(levels, observation, params)
        owner = serve(metric, levels, reservation, params)
        allocation = spend(owner, levels, reservation.owner >= 0, params)
        return allocation, (mean, levels, slot + 1)

    return Scheduler(init, apply)


def check_period(period: Number) -> Number:
    """Return the period unchanged.

    Raises:
      ValueError: below 1 slot.
    """
    if not isinstance(period, Tracer) and not period >= 1:
        raise ValueError(f"period must be at least 1 slot, got {period!r}.")
    return period
