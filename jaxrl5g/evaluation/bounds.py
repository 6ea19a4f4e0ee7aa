"""What no policy can exceed over a whole episode: certified bounds of alpha-fair throughput.

Duality slot by slot, then a Frank-Wolfe certificate over the episode: the weighted bits of any
policy are at most the sum of the slots' bounds, whatever it knows, in expectation over HARQ. The
theorem, its assumptions and its proof are in docs/bounds.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl5g.env import DownlinkConfig, DownlinkEnv, DownlinkParams
from jaxrl5g.evaluation.rollout import WARM_UP_SLOTS, drop_tracks
from jaxrl5g.evaluation.slot_bound import ConjugateTable, conjugate_table, slot_bound
from jaxrl5g.phy.rate_envelope import RateEnvelope, rate_envelope

FLOOR_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7)
_FIRST_STEPS, _LATER_STEPS = 18, 6
_FIRST_BRACKET, _LATER_BRACKET = 1e8, 1.5  # ratios: how far the price of power may be off
_SHARING_DECAY, _LEAST_SHARING = 0.8, 0.01
_LAST_CHOICE = 12  # users keep their envelopes from this step on, so that the rest converges
_LEAST_THROUGHPUT = 1e-4  # of the mean: weights stay finite
_BUDGET_ROUNDING = 1.0 + 2e-5  # what the projection lets pass
_SLOTS_AT_ONCE = 16
_LARGEST_ALPHA = 8.0  # float32 holds no larger range of weights
_SAFETY = 1.0 + 5e-5  # against float32 rounding of sums over slots and users


class EpisodeBound(NamedTuple):
    """Bounds of D drops, NumPy float64.

    Attributes:
      value: [D], bit/s: no policy's alpha-fair mean (mean_u x_u^(1-alpha))^(1/(1-alpha)) of user
        throughput x exceeds it in expectation; alpha 1: the geometric mean, alpha 0: the mean.
      history: [D, steps + 1], the bound after each Frank-Wolfe step, not monotone; `value` is the
        smallest.
      throughput: [D, C, U], bit/s, what the maximiser of the relaxed problem gives each user at
        `value`, NaN for absent users. A good start for other bounds on the same drops.
      users: int[D], users present in all cells.
    """

    value: np.ndarray
    history: np.ndarray
    throughput: np.ndarray
    users: np.ndarray

    @property
    def cell_throughput(self) -> np.ndarray:
        """[D], bit/s per cell that `value` allows; only with alpha = 0 does it bound it."""
        return self.value * self.users / self.throughput.shape[1]


class _Slots(struct.PyTreeNode):
    """Budget SINRs float32[T, C, U, N] of a drop's slots and who is present, bool[C, U]."""

    snr: jax.Array
    mask: jax.Array


def counted_slots(
    config: DownlinkConfig, num_slots: int, warm_up: int, lead: int | None = None
) -> range:
    """Slots whose transmissions can be acknowledged in the slots that metrics count.

    Args:
      num_slots: horizon. warm_up: slots that metrics leave out.
      lead: slots before the first of these in which counted blocks may have been sent first; None:
        (max_transmissions - 1) * feedback_delay, which is right for every policy that answers a
        NACK in the slot in which it arrives; `num_slots` leaves nothing out for any policy.
    """
    if config.fidelity != "nr":
        return range(warm_up, num_slots)
    delay = config.feedback_delay
    if lead is None:
        lead = (config.max_transmissions - 1) * delay
    return range(max(warm_up - delay + 1 - lead, 0), max(num_slots - delay + 1, 0))


def envelopes(config: DownlinkConfig) -> tuple[RateEnvelope, ...]:
    """Envelopes of a configuration, one for each of `FLOOR_SHARES` (a user takes one of them)."""
    shares = (0.0,) if config.fidelity == "shannon" else FLOOR_SHARES
    return tuple(
        rate_envelope(
            config.num_prbs,
            config.res_per_prb,
            config.mcs_table,
            config.fidelity,
            config.combining,
            config.max_transmissions,
            share,
        )
        for share in shares
    )


@functools.partial(jax.jit, static_argnames=("env", "first", "count"))
def _slots(env, key, tracks, params, first: int, count: int) -> _Slots:
    """The drop that `evaluate` plays with this key, own cell only: others are taken as silent."""
    config = params.config
    params = params.replace(tracks=tracks)
    reset_key, _ = jax.random.split(key)
    _, state = env.reset_env(reset_key, params)
    own = np.arange(config.num_cells)
    scale = params.power_budget * _BUDGET_ROUNDING / params.noise_power

    def slot(index):
        return params.channel.gains(state.drop, index)[own, :, own] * scale

    return _Slots(
        jax.lax.map(slot, first + jnp.arange(count), batch_size=_SLOTS_AT_ONCE), state.mask
    )


def _alpha_mean(x: np.ndarray, alpha: float) -> np.ndarray:
    """(mean of x^(1 - alpha))^(1 / (1 - alpha)) over the last axis, the geometric mean at 1."""
    exponent = 1.0 - alpha
    log = np.log(x)
    centre = log.mean(axis=-1, keepdims=True)
    if abs(exponent) < 1e-9:
        return np.exp(centre[..., 0])
    spread = np.log1p(np.expm1(exponent * (log - centre)).mean(axis=-1))
    return np.exp(centre[..., 0] + spread / exponent)


class _Point(NamedTuple):
    """State of the iteration: throughput float32[C, U] relative to its mean, prices float32[T, C]
    and envelopes int32[C, U].
    """

    throughput: jax.Array
    price: jax.Array
    choice: jax.Array


def _step(
    slots: _Slots, table: ConjugateTable, alpha: jax.Array, counted: jax.Array, at: _Point, index
) -> tuple[_Point, tuple[jax.Array, jax.Array, jax.Array]]:
    """The next point, and of this one the bounds of its slots summed, its maximiser and itself."""
    mask = slots.mask
    weights = jnp.where(mask, jnp.exp(-alpha * jnp.log(at.throughput)), 0.0)
    # the price is unknown at first, and moves little later
    width = jnp.where(index == 0, _FIRST_BRACKET, _LATER_BRACKET)
    steps = jnp.where(index == 0, _FIRST_STEPS, _LATER_STEPS)
    sharing = jnp.maximum(_SHARING_DECAY**index, _LEAST_SHARING)
    every_cell = jax.vmap(slot_bound, in_axes=(None, 0, 0, 0, 0, 0, None, None))

    def slot(carried):
        snr, price = carried
        start = jnp.where(index == 0, jnp.max(weights, axis=1) * price, price)
        low, high = start / width, start * jnp.minimum(width, _LATER_BRACKET)
        return every_cell(table, snr, weights, at.choice, low, high, sharing, steps)

    bounds, best, price = jax.lax.map(slot, (slots.snr, at.price), batch_size=_SLOTS_AT_ONCE)
    rates = jnp.sum(best.rates, axis=0) / counted
    present = jnp.sum(mask)
    mean = jnp.sum(jnp.where(mask, rates, 0.0)) / present
    wanted = jnp.maximum(rates / jnp.maximum(mean, 1e-30), _LEAST_THROUGHPUT)
    # a step in the logarithm, as long as the sharing makes the maximiser smooth
    move = sharing / (sharing + alpha) * jnp.log(wanted / at.throughput)
    throughput = at.throughput * jnp.exp(jnp.clip(move, -1.0, 1.0))
    throughput = throughput / (jnp.sum(jnp.where(mask, throughput, 0.0)) / present)
    throughput = jnp.where(mask, jnp.maximum(throughput, _LEAST_THROUGHPUT), 1.0)

    charge = jnp.sum(best.charge, axis=0)
    lowest = jnp.argmin(charge, axis=1).astype(jnp.int32)
    served = jnp.max(charge, axis=1) > 0
    choice = jnp.where(served & (index < _LAST_CHOICE), lowest, at.choice)
    return _Point(throughput, price, choice), (jnp.sum(bounds), rates, at.throughput)


@functools.partial(jax.jit, static_argnames=("steps",))
def _iterate(
    slots: _Slots,
    table: ConjugateTable,
    start: jax.Array,
    alpha: jax.Array,
    counted: jax.Array,
    steps: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """At steps + 1 points: the slots' bounds summed float32[S], their maximisers in bits per slot
    and the points themselves, relative to their means, float32[S, C, U].
    """
    num_prbs = slots.snr.shape[-1]
    capacity = jnp.mean(jnp.log2(1.0 + slots.snr / num_prbs), axis=(0, 3))
    throughput = jnp.where(start > 0, start, capacity)
    mean = jnp.sum(jnp.where(slots.mask, throughput, 0.0)) / jnp.sum(slots.mask)
    relative = jnp.maximum(throughput / mean, _LEAST_THROUGHPUT)
    at = _Point(
        throughput=jnp.where(slots.mask, relative, 1.0),
        # the bits of a slot; times the largest weight, no price of the budget is higher
        price=jnp.full(slots.snr.shape[:2], jnp.max(table.rate) * num_prbs),
        choice=jnp.zeros(slots.mask.shape, jnp.int32),
    )
    body = functools.partial(_step, slots, table, alpha, counted)
    return jax.lax.scan(body, at, jnp.arange(steps + 1))[1]


def episode_bound(
    env: DownlinkEnv,
    params: DownlinkParams,
    key: jax.Array,
    drops: Sequence[int],
    *,
    alpha: float = 1.0,
    steps: int = 20,
    warm_up: int = WARM_UP_SLOTS,
    lead: int | None = None,
    reference_throughput: np.ndarray | None = None,
) -> EpisodeBound:
    """Upper bounds of what any policy reaches in drops of `evaluate` with the same key.

    They hold under perfect knowledge of the channel, for every fidelity, CSI mode and power rule,
    in expectation over HARQ luck. Several cells are taken as free of interference: loose.

    Args:
      env, params, key, warm_up: as given to `evaluate`.
      drops: which drops, counted as `evaluate` counts them, e.g. `range(8)`.
      alpha: of the alpha-fair mean, 0 to 8; 1 bounds the geometric mean of user throughput,
        0 the mean, and so cell throughput.
      steps: Frank-Wolfe steps, at least 0; more never loosen the bound.
      lead: see `counted_slots`; None is right for policies that answer a NACK at once.
      reference_throughput: bit/s [D, C, U], where to start, such as a scheduler's
        `Metrics.user_throughput`; NaN and 0 are replaced by a guess.

    Returns:
      `EpisodeBound` of NumPy arrays.

    Raises:
      ValueError: alpha out of range, a negative number of steps, drop or lead, no drops, no slots
        left to count, or a reference of another shape.
    """
    config = params.config
    drops = [int(drop) for drop in drops]
    shape = (len(drops), config.num_cells, config.num_users)
    _check(drops, alpha, steps, lead)
    num_slots = int(params.max_steps_in_episode)
    if not 0 <= warm_up < num_slots:
        raise ValueError(
            f"warm_up must leave slots to count: at least 0 and below the horizon of {num_slots}, "
            f"got {warm_up}."
        )
    start = np.zeros(shape) if reference_throughput is None else np.asarray(reference_throughput)
    if start.shape != shape:
        raise ValueError(
            f"reference_throughput must have shape [drops, cells, users] = {shape}, "
            f"got {start.shape}."
        )
    start = np.nan_to_num(start).astype(np.float32)
    slots = counted_slots(config, num_slots, warm_up, lead)
    table = conjugate_table(envelopes(config))
    tracks = drop_tracks(params, max(drops) + 1)
    counted = num_slots - warm_up

    history, throughput, masks = [], [], []
    for row, drop in enumerate(drops):
        seen = _slots(
            env,
            jax.random.fold_in(key, drop),
            jnp.asarray(tracks[drop]),
            params,
            slots.start,
            len(slots),
        )
        total, rates, points = _iterate(
            seen, table, jnp.asarray(start[row]), jnp.float32(alpha), jnp.float32(counted), steps
        )
        present = np.asarray(seen.mask)
        bounds = _bounds(np.asarray(total), np.asarray(points)[:, present], alpha)
        bounds = bounds / (counted * config.slot_seconds)
        best = np.asarray(rates, np.float64)[np.argmin(bounds)] / config.slot_seconds
        history.append(bounds)
        masks.append(present)
        throughput.append(np.where(present, best, np.nan))
    return EpisodeBound(
        value=np.min(history, axis=1),
        history=np.asarray(history),
        throughput=np.asarray(throughput),
        users=np.sum(masks, axis=(1, 2)),
    )


def _bounds(total: np.ndarray, points: np.ndarray, alpha: float) -> np.ndarray:
    """Bounds of the alpha-fair mean from W(w) float32[S] at w = x^-alpha, x float32[S, K]."""
    x = points.astype(np.float64)
    share = _alpha_mean(x, alpha) / np.sum(x ** (1.0 - alpha), axis=-1)
    return total.astype(np.float64) * share * _SAFETY


def _check(drops: list[int], alpha: float, steps: int, lead: int | None) -> None:
    if not drops or min(drops) < 0:
        raise ValueError(f"drops must be some drop indices, 0 or more, got {drops}.")
    if not 0 <= alpha <= _LARGEST_ALPHA:
        raise ValueError(f"alpha must be from 0 to {_LARGEST_ALPHA}, got {alpha}.")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}.")
    if lead is not None and lead < 0:
        raise ValueError(f"lead must be None or at least 0 slots, got {lead}.")
