"""Centralised rivals for several cells: they see every gain and decide for all cells at once."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g.mac.muting import MAX_PATTERN_CELLS, cross_snr, spend
from jaxrl5g.mac.numerics import bisect
from jaxrl5g.mac.retransmission import reserve_retransmissions
from jaxrl5g.mac.schedulers import (
    Number,
    average,
    check_window,
    initial_average,
    price,
)
from jaxrl5g.mac.types import Allocation, Scheduler

_HALVINGS = 30


def _diagonal(values: jax.Array) -> jax.Array:
    """From each cell to its own users: [C, ..., C, N] -> [C, ..., N]."""
    return jnp.stack([values[c, ..., c, :] for c in range(values.shape[0])])


def _finish(reservation, owner: jax.Array, levels: jax.Array, params) -> Allocation:
    """Retransmissions keep their PRBs; the cell stays within budget (`spend`)."""
    held = reservation.owner >= 0
    return spend(jnp.where(held, reservation.owner, owner), levels, held, params)


def _values(
    cross: jax.Array, weights: jax.Array, eligible: jax.Array, levels: jax.Array
) -> jax.Array:
    """Weighted log2(1 + SINR) of every user and PRB, float32[C, U, N]; -1 for the ineligible.

    `levels` float32[C, N] are the cells' powers in units of the reference power.
    """
    received = cross * levels
    own = _diagonal(received)
    sinr = own / (1.0 + jnp.sum(received, axis=2) - own)
    return jnp.where(eligible[..., None], weights[..., None] * jnp.log2(1.0 + sinr), -1.0)


def on_off(window: Number = 100) -> Scheduler:
    """Binary power control: on every PRB the best of the 2^C patterns of cells on and off.

    Each cell that is on serves its user of largest w log2(1 + SINR) at the reference power,
    w = 1 / T; the pattern of largest sum wins. With two cells binary power is optimal for the sum
    rate (Gjendemsjo et al. 2008). At most six cells.

    Raises:
      ValueError: window below 1; in use, CSI that is not centralised, or too many cells.
    """
    check_window(window)

    def apply(key, observation, mean, params):
        del key
        config = params.config
        if config.num_cells > MAX_PATTERN_CELLS:
            raise ValueError(
                f"on_off tries every pattern of cells: at most {MAX_PATTERN_CELLS}, "
                f"got {config.num_cells}."
            )
        cross = cross_snr(observation)
        mean = average(mean, observation.acked_bits, window)
        weights = 1.0 / price(mean, 1.0)
        reservation = reserve_retransmissions(observation, config)
        held = reservation.owner >= 0
        patterns = np.asarray(list(itertools.product((0, 1), repeat=config.num_cells)), bool)

        def try_pattern(pattern):
            # a retransmission is on the air whatever the pattern says
            on = pattern[:, None] | held
            values = _values(cross, weights, reservation.eligible, on.astype(jnp.float32))
            owner = jnp.argmax(values, axis=1)
            best = jnp.max(values, axis=1)
            counts = on & ~held & (best > 0)
            return jnp.where(counts, owner, -1), jnp.sum(jnp.where(counts, best, 0.0), axis=0)

        owners, totals = jax.vmap(try_pattern)(jnp.asarray(patterns))
        best = jnp.argmax(totals, axis=0)
        owner = jnp.take_along_axis(owners, best[None, None, :], axis=0)[0].astype(jnp.int32)
        return _finish(reservation, owner, jnp.ones(owner.shape), params), mean

    return Scheduler(initial_average, apply)


def wmmse_power(
    heard: jax.Array, weights: jax.Array, budget: jax.Array, iterations: int
) -> jax.Array:
    """Powers that locally maximise sum_cn w_cn log(1 + SINR_cn) with a budget per cell.

    The weighted MMSE iteration (Shi et al. 2011) for scalar links: receiver, MSE weight and
    transmit amplitude in turn; the budgets' multipliers by bisection. Monotone in the objective.

    Args:
      heard: float32[C, C, N], SNR of the user served by c from cell c' at power 1.
      weights: float32[C, N], 0 where nobody is served.
      budget: float32[C], sum of powers a cell may use.
      iterations: at least 1.

    Returns:
      float32[C, N], at least 0, in sum at most the budget a cell.
    """
    own = _diagonal(heard)
    served = (weights > 0) & (own > 0)
    start = jnp.where(served, 1.0, 0.0)
    start = start * (budget / jnp.maximum(jnp.sum(start, axis=-1), 1.0))[:, None]

    def transmit(numerator, denominator):
        """Amplitudes numerator / (denominator + mu), mu >= 0 the least that keeps the budget."""

        def amplitude(mu):
            return numerator / jnp.maximum(denominator + mu[:, None], 1e-30)

        def spends(mu):
            return jnp.sum(amplitude(mu) ** 2, axis=-1)

        # with mu at this bound even a zero denominator keeps the budget
        high = jnp.sqrt(jnp.sum(numerator**2, axis=-1) / jnp.maximum(budget, 1e-30))
        zero = jnp.zeros_like(high)
        _, high = bisect(lambda mu: spends(mu) > budget, zero, high, _HALVINGS)
        mu = jnp.where(spends(zero) <= budget, 0.0, high)
        return amplitude(mu)

    def iterate(_, amplitude):
        total = 1.0 + jnp.sum(heard * (amplitude**2)[None], axis=1)
        receiver = jnp.sqrt(own) * amplitude / total
        mse = jnp.maximum(1.0 - receiver * jnp.sqrt(own) * amplitude, 1e-12)
        mse_weight = jnp.where(served, weights, 0.0) / mse
        numerator = mse_weight * receiver * jnp.sqrt(own)
        # what amplitude of cell c' costs the receivers of all cells
        denominator = jnp.einsum("cn,cdn->dn", mse_weight * receiver**2, heard)
        return transmit(numerator, denominator)

    amplitude = jax.lax.fori_loop(0, iterations, iterate, jnp.sqrt(start))
    return jnp.where(served, amplitude**2, 0.0)


def wmmse(window: Number = 100, iterations: int = 20, rounds: int = 2) -> Scheduler:
    """Weighted MMSE power over all cells and PRBs, users chosen anew between rounds.

    In each round every PRB goes to the user of largest w log2(1 + SINR) under the present powers,
    w = 1 / T, then `wmmse_power` shares each cell's budget over its PRBs.

    Args:
      window: of the average, at least 1 slot; iterations: of WMMSE per round; rounds: at least 1.

    Raises:
      ValueError: a number below 1; in use, CSI that is not centralised.
    """
    check_window(window)
    for name, number in (("iterations", iterations), ("rounds", rounds)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}.")

    def apply(key, observation, mean, params):
        del key
        config = params.config
        cross = cross_snr(observation)
        mean = average(mean, observation.acked_bits, window)
        weights = 1.0 / price(mean, 1.0)
        reservation = reserve_retransmissions(observation, config)
        held = reservation.owner >= 0
        fixed = held.astype(jnp.float32)
        budget = config.num_prbs - jnp.sum(fixed, axis=-1)
        owner = jnp.full(held.shape, -1, jnp.int32)
        levels = jnp.ones(held.shape)
        for _ in range(rounds):
            # a muted PRB is judged as if its cell used the least of the reference power
            values = _values(cross, weights, reservation.eligible, jnp.maximum(levels, 1e-3))
            owner = jnp.where(jnp.max(values, axis=1) > 0, jnp.argmax(values, axis=1), -1)
            index = jnp.maximum(jnp.where(held, reservation.owner, owner), 0)
            heard = jnp.take_along_axis(cross, index[:, None, None, :], axis=1)[:, 0]
            own = _diagonal(heard)
            noise = 1.0 + jnp.einsum("cdn,dn->cn", heard, fixed) - own * fixed
            at_owner = jnp.take_along_axis(weights, index, axis=-1)
            served = (owner >= 0) & ~held
            share = wmmse_power(
                heard / noise[:, None], jnp.where(served, at_owner, 0.0), budget, iterations
            )
            levels = jnp.where(held, 1.0, share)
        owner = jnp.where(levels > 1e-6, owner, -1).astype(jnp.int32)
        return _finish(reservation, owner, levels, params), mean

    return Scheduler(initial_average, apply)
