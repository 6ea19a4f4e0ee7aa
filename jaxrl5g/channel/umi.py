"""A TR 38.901 UMi street-canyon drop: path loss, shadowing and frequency-selective fading."""

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
)
from .link_budget import PRB_BANDWIDTH_HZ
from .umi_statistics import (
    delay_spread_s,
    los_probability,
    path_loss_los_db,
    path_loss_nlos_db,
    rician_factor_db,
    shadowing_db,
)


@struct.dataclass
class UMiDrop:
    """One drop's parameters.

    tracks: int32[C, U]; start: int32[]; position: float32[C, U, 2] [m];
    mean_gain: float32[C, U, C], linear; los: bool[C, U, C]; rician: float32[C, U, C], linear,
    0 without line of sight; delay_spread: float32[C, U, C] [s];
    los_angle, los_phase: float32[C, U, C] [rad];
    angles, phases: float32[C, U, C, taps, sinusoids] [rad].
    """

    tracks: jax.Array
    start: jax.Array
    position: jax.Array
    mean_gain: jax.Array
    los: jax.Array
    rician: jax.Array
    delay_spread: jax.Array
    los_angle: jax.Array
    los_phase: jax.Array
    angles: jax.Array
    phases: jax.Array


@struct.dataclass
class UMiChannel:
    """Users uniform in a disc around their site; TR 38.901 tables 7.4.1-1, 7.4.2-1 and 7.5-6.

    Sites lie on a hexagonal grid. A user of cell c is the first of a few candidates around site
    c whose strongest cell is c. Fading is Rayleigh or Rician taps with an exponential power
    delay profile and Clarke Doppler: a function of (drop parameters, slot). Shadowing and delay
    spread are drawn per link, without spatial correlation.

    Leaves:
        radius_m, min_distance_m: disc's outer and inner radius [m], horizontal.
        inter_site_distance_m: hexagonal grid [m].
        extra_loss_db: fixed loss [dB] beside path loss, e.g. penetration. None by default: the
            median user of the default disc is near 12 dB mean SNR at the frozen power.
        carrier_hz, doppler_hz, slot_seconds, prb_bandwidth_hz: [Hz], [Hz], [s], [Hz].
        site_height_m, user_height_m: antenna heights [m].
    """

    radius_m: jax.Array | float = struct.field(default_factory=lambda: np.float32(100.0))
    min_distance_m: jax.Array | float = struct.field(default_factory=lambda: np.float32(10.0))
    inter_site_distance_m: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(200.0)
    )
    extra_loss_db: jax.Array | float = struct.field(default_factory=lambda: np.float32(0.0))
    carrier_hz: jax.Array | float = struct.field(default_factory=lambda: np.float32(3.5e9))
    doppler_hz: jax.Array | float = struct.field(default_factory=lambda: np.float32(17.5))
    slot_seconds: jax.Array | float = struct.field(default_factory=lambda: np.float32(0.5e-3))
    prb_bandwidth_hz: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(PRB_BANDWIDTH_HZ)
    )
    site_height_m: jax.Array | float = struct.field(default_factory=lambda: np.float32(10.0))
    user_height_m: jax.Array | float = struct.field(default_factory=lambda: np.float32(1.5))
    num_cells: int = struct.field(pytree_node=False, default=1)
    num_prbs: int = struct.field(pytree_node=False, default=51)
    num_taps: int = struct.field(pytree_node=False, default=8)
    num_sinusoids: int = struct.field(pytree_node=False, default=8)
    num_candidates: int = struct.field(pytree_node=False, default=8)
    num_slots: None = struct.field(pytree_node=False, default=None)

    def sites(self) -> jax.Array:
        """Site positions float32[C, 2] [m]: a spiral over a hexagonal grid from the origin."""
        return self.inter_site_distance_m * jnp.asarray(_hexagonal_spiral(self.num_cells))

    def draw(
        self, key: jax.Array, tracks: jax.Array, start: jax.Array, horizon: jax.Array
    ) -> UMiDrop:
        """See `Channel.draw`; a start of -1 is slot 0, ``horizon`` is not used."""
        del horizon
        tracks = resolve_tracks(tracks)
        cells = jnp.broadcast_to(jnp.arange(self.num_cells)[:, None], tracks.shape)
        sites = self.sites()

        def user(key, cell):
            place, fade, place_normal, fade_normal = self._random(key)
            position, gain, los = self._place(place, place_normal, cell, sites)
            return position, gain, los, *self._fading(fade, fade_normal, los)

        drawn = jax.vmap(jax.vmap(user))(track_keys(key, tracks), cells)
        return UMiDrop(tracks, jnp.maximum(jnp.asarray(start, jnp.int32), 0), *drawn)

    def gains(self, drop: UMiDrop, slot: jax.Array) -> jax.Array:
        """Linear power gain float32[C, U, C, N]."""
        seconds = (drop.start + slot) * self.slot_seconds
        real, imag = sum_of_sinusoids(drop.angles, drop.phases, self.doppler_hz, seconds)
        scattered = jnp.sqrt(1 / ((drop.rician + 1) * self.num_taps))[..., None]
        los_real, los_imag = sum_of_sinusoids(
            drop.los_angle[..., None], drop.los_phase[..., None], self.doppler_hz, seconds
        )
        direct = jnp.sqrt(drop.rician / (drop.rician + 1))
        real = (real * scattered).at[..., 0].add(direct * los_real)
        imag = (imag * scattered).at[..., 0].add(direct * los_imag)
        delays = self._delays(drop)
        power = prb_power(real, imag, delays, self.num_prbs, self.prb_bandwidth_hz)
        return drop.mean_gain[..., None] * power

    def owner_gains(self, drop: UMiDrop, slot: jax.Array, owner: jax.Array) -> jax.Array:
        """Linear power gain float32[C, C, N]; see `Channel.owner_gains`."""
        return select_owners(self.gains(drop, slot), owner)

    def disjoint_drops(self, num_users: int, num_drops: int) -> np.ndarray:
        """Tracks 0..C*U-1 for every drop; see `Channel.disjoint_drops`."""
        return arange_drops(self.num_cells, num_users, num_drops)

    def _delays(self, drop: UMiDrop) -> jax.Array:
        # A strong direct tap narrows the profile; stretch so that the whole keeps the rms
        # spread that table 7.5-6 gives for the channel including its direct path.
        unit = exponential_delays(self.num_taps)
        scattered = 1 / (drop.rician + 1)
        mean = scattered * unit.mean()
        rms = jnp.sqrt(scattered * np.mean(unit**2) - mean**2)
        return (
            (drop.delay_spread / rms)[..., None] * unit
            if self.num_taps > 1
            else (jnp.zeros((*drop.rician.shape, 1)))
        )

    def _random(self, key: jax.Array) -> list[jax.Array]:
        """All of one user's randomness: uniforms to place and fade, normals to place and fade."""
        tries = self.num_candidates if self.num_cells > 1 else 1
        per_tap = self.num_taps * (1 + self.num_sinusoids)
        uniform_shapes = ((tries, 2 + self.num_cells), (self.num_cells, 2 + per_tap))
        normal_shapes = ((tries, self.num_cells), (2, self.num_cells))
        uniform_key, normal_key = jax.random.split(key)
        uniforms = sum(int(np.prod(shape)) for shape in uniform_shapes)
        normals = sum(int(np.prod(shape)) for shape in normal_shapes)
        return [
            *split_up(jax.random.uniform(uniform_key, (uniforms,)), *uniform_shapes),
            *split_up(jax.random.normal(normal_key, (normals,)), *normal_shapes),
        ]

    def _place(self, uniform: jax.Array, normal: jax.Array, cell: jax.Array, sites: jax.Array):
        """Position [2], gain to every cell [C] and line of sight [C] of one user."""
        position, gain, los = self._candidates(uniform, normal, sites[cell], sites)
        own = gain[:, cell]
        others = jnp.where(jnp.arange(self.num_cells) == cell, 0.0, gain)
        margin = own / jnp.maximum(jnp.max(others, axis=1), 1e-30)
        # The first that is strongest at home, else the one that comes nearest to it.
        chosen = jnp.where(jnp.any(margin > 1), jnp.argmax(margin > 1), jnp.argmax(margin))
        return position[chosen], gain[chosen], los[chosen]

    def _candidates(self, uniform: jax.Array, normal: jax.Array, home: jax.Array, sites: jax.Array):
        """Positions [K, 2], gains [K, C] and lines of sight [K, C] of K possible places."""
        inner, outer = self.min_distance_m**2, self.radius_m**2
        distance = jnp.sqrt(inner + (outer - inner) * uniform[:, 0])
        turn = 2 * jnp.pi * uniform[:, 1]
        away = distance[:, None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], axis=1)
        position = home + away
        flat = jnp.sqrt(jnp.sum((position[:, None] - sites) ** 2, -1))
        flat = jnp.maximum(flat, self.min_distance_m)
        los = uniform[:, 2:] < los_probability(flat)
        heights = (self.site_height_m, self.user_height_m)
        loss = jnp.where(
            los,
            path_loss_los_db(flat, self.carrier_hz, *heights),
            path_loss_nlos_db(flat, self.carrier_hz, *heights),
        )
        loss = loss + shadowing_db(los) * normal + self.extra_loss_db
        return position, 10 ** (-loss / 10), los

    def _fading(self, uniform: jax.Array, normal: jax.Array, los: jax.Array):
        """Rician factor, delay spread, direct angle and phase [C], taps' angles and phases."""
        spread = delay_spread_s(los, self.carrier_hz, normal[0])
        rician = jnp.where(los, 10 ** (rician_factor_db(normal[1]) / 10), 0.0)
        direct = 2 * jnp.pi * uniform[:, :2]
        taps = uniform[:, 2:].reshape(self.num_cells, self.num_taps, 1 + self.num_sinusoids)
        waves = sinusoids(taps[..., 0], taps[..., 1:])
        return rician, spread, direct[:, 0], direct[:, 1], *waves


def _hexagonal_spiral(count: int) -> np.ndarray:
    """The ``count`` points of a unit triangular lattice nearest the origin, float32[count, 2]."""
    reach = int(np.ceil(np.sqrt(count))) + 1
    a, b = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    points = np.stack([a + 0.5 * b, np.sqrt(3) / 2 * b], -1).reshape(-1, 2)
    order = np.lexsort((np.arctan2(points[:, 1], points[:, 0]), np.round((points**2).sum(-1), 6)))
    return points[order[:count]].astype(np.float32)
