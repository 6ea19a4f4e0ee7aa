"""Rayleigh fading correlated in time (Jakes, Clarke) and in frequency (exponential profile)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from .analytic import (
    arange_drops,
    exponential_delays,
    prb_power,
    resolve_tracks,
    select_owners,
    sinusoids,
    split_up,
    sum_of_sinusoids,
    track_keys,
    uniform_mean_gains,
)
from .link_budget import PRB_BANDWIDTH_HZ, gain_db_for_snr


@struct.dataclass
class JakesDrop:
    """One drop's parameters.

    tracks: int32[C, U]; start: int32[]; mean_gain: float32[C, U, C], linear;
    angles, phases: float32[C, U, C, taps, sinusoids] [rad].
    """

    tracks: jax.Array
    start: jax.Array
    mean_gain: jax.Array
    angles: jax.Array
    phases: jax.Array


@struct.dataclass
class JakesChannel:
    """Sum-of-sinusoids Rayleigh taps with E[h(t) h*(t + tau)] = J0(2 pi f_D tau).

    Clarke's model of uniform arrival angles; equal-power taps at the quantiles of an exponential
    power delay profile. A function of (drop parameters, slot): nothing is carried between slots.

    Leaves:
        doppler_hz: largest Doppler shift f_D = v f_c / c [Hz].
        delay_spread_s: rms delay spread [s].
        slot_seconds: slot duration [s].
        prb_bandwidth_hz: spacing of PRB centres [Hz].
        mean_gain_db_low, mean_gain_db_high, isolation_db: as in `RayleighChannel`.
    """

    doppler_hz: jax.Array | float = struct.field(default_factory=lambda: np.float32(17.5))
    delay_spread_s: jax.Array | float = struct.field(default_factory=lambda: np.float32(100e-9))
    slot_seconds: jax.Array | float = struct.field(default_factory=lambda: np.float32(0.5e-3))
    prb_bandwidth_hz: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(PRB_BANDWIDTH_HZ)
    )
    mean_gain_db_low: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(gain_db_for_snr(0.0))
    )
    mean_gain_db_high: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(gain_db_for_snr(25.0))
    )
    isolation_db: jax.Array | float = struct.field(default_factory=lambda: np.float32(15.0))
    num_cells: int = struct.field(pytree_node=False, default=1)
    num_prbs: int = struct.field(pytree_node=False, default=51)
    num_taps: int = struct.field(pytree_node=False, default=8)
    num_sinusoids: int = struct.field(pytree_node=False, default=8)
    num_slots: None = struct.field(pytree_node=False, default=None)

    def draw(
        self, key: jax.Array, tracks: jax.Array, start: jax.Array, horizon: jax.Array
    ) -> JakesDrop:
        """See `Channel.draw`; a start of -1 is slot 0, ``horizon`` is not used."""
        del horizon
        tracks = resolve_tracks(tracks)
        cells = jnp.broadcast_to(jnp.arange(self.num_cells)[:, None], tracks.shape)

        taps = (self.num_cells, self.num_taps)
        shapes = ((), taps, (*taps, self.num_sinusoids))
        count = sum(int(np.prod(shape)) for shape in shapes)

        def parameters(key, cell):
            level, offset, phase = split_up(jax.random.uniform(key, (count,)), *shapes)
            mean = uniform_mean_gains(
                level,
                cell,
                self.num_cells,
                self.mean_gain_db_low,
                self.mean_gain_db_high,
                self.isolation_db,
            )
            return mean, *sinusoids(offset, phase)

        mean, angles, phases = jax.vmap(jax.vmap(parameters))(track_keys(key, tracks), cells)
        start = jnp.maximum(jnp.asarray(start, jnp.int32), 0)
        return JakesDrop(tracks=tracks, start=start, mean_gain=mean, angles=angles, phases=phases)

    def taps(self, drop: JakesDrop, slot: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Unit-power tap gains (real, imaginary), float32[C, U, C, taps] each."""
        seconds = (drop.start + slot) * self.slot_seconds
        return sum_of_sinusoids(drop.angles, drop.phases, self.doppler_hz, seconds)

    def gains(self, drop: JakesDrop, slot: jax.Array) -> jax.Array:
        """Linear power gain float32[C, U, C, N]."""
        real, imag = self.taps(drop, slot)
        scale = 1 / np.sqrt(self.num_taps)
        delays = exponential_delays(self.num_taps) * self.delay_spread_s
        power = prb_power(real * scale, imag * scale, delays, self.num_prbs, self.prb_bandwidth_hz)
        return drop.mean_gain[..., None] * power

    def owner_gains(self, drop: JakesDrop, slot: jax.Array, owner: jax.Array) -> jax.Array:
        """Linear power gain float32[C, C, N]; see `Channel.owner_gains`."""
        return select_owners(self.gains(drop, slot), owner)

    def disjoint_drops(self, num_users: int, num_drops: int) -> np.ndarray:
        """Tracks 0..C*U-1 for every drop; see `Channel.disjoint_drops`."""
        return arange_drops(self.num_cells, num_users, num_drops)
