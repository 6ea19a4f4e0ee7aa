"""Independent Rayleigh fading in every slot, on every track and PRB."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from .analytic import arange_drops, resolve_tracks, select_owners, track_keys, uniform_mean_gains
from .link_budget import gain_db_for_snr


@struct.dataclass
class RayleighDrop:
    """tracks: int32[C, U]; start: int32[]; key; mean_gain: float32[C, U, C], linear."""

    tracks: jax.Array
    start: jax.Array
    key: jax.Array
    mean_gain: jax.Array


@struct.dataclass
class RayleighChannel:
    """I.i.d. unit-mean exponential power per slot, track, cell and PRB, times a mean gain.

    Leaves:
        mean_gain_db_low, mean_gain_db_high: range [dB] of a track's uniform mean gain; the
            defaults give 0..25 dB mean SNR at the frozen power over 51 PRBs.
        isolation_db: how much weaker [dB] the other cells are on average.
    """

    mean_gain_db_low: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(gain_db_for_snr(0.0))
    )
    mean_gain_db_high: jax.Array | float = struct.field(
        default_factory=lambda: np.float32(gain_db_for_snr(25.0))
    )
    isolation_db: jax.Array | float = struct.field(default_factory=lambda: np.float32(15.0))
    num_cells: int = struct.field(pytree_node=False, default=1)
    num_prbs: int = struct.field(pytree_node=False, default=51)
    num_slots: None = struct.field(pytree_node=False, default=None)

    def draw(
        self, key: jax.Array, tracks: jax.Array, start: jax.Array, horizon: jax.Array
    ) -> RayleighDrop:
        """See `Channel.draw`; a start of -1 is slot 0, ``horizon`` is not used."""
        del horizon
        tracks = resolve_tracks(tracks)
        mean_key, fade_key = jax.random.split(key)
        cells = jnp.broadcast_to(jnp.arange(self.num_cells)[:, None], tracks.shape)

        def mean_gains(key, cell):
            return uniform_mean_gains(
                jax.random.uniform(key),
                cell,
                self.num_cells,
                self.mean_gain_db_low,
                self.mean_gain_db_high,
                self.isolation_db,
            )

        return RayleighDrop(
            tracks=tracks,
            start=jnp.maximum(jnp.asarray(start, jnp.int32), 0),
            key=fade_key,
            mean_gain=jax.vmap(jax.vmap(mean_gains))(track_keys(mean_key, tracks), cells),
        )

    def gains(self, drop: RayleighDrop, slot: jax.Array) -> jax.Array:
        """Linear power gain float32[C, U, C, N], keyed by (drop key, slot, track)."""
        slot_key = jax.random.fold_in(drop.key, drop.start + slot)
        shape = (self.num_cells, self.num_prbs)
        keys = track_keys(slot_key, drop.tracks)
        fading = jax.vmap(jax.vmap(lambda key: jax.random.exponential(key, shape)))(keys)
        return drop.mean_gain[..., None] * fading

    def owner_gains(self, drop: RayleighDrop, slot: jax.Array, owner: jax.Array) -> jax.Array:
        """Linear power gain float32[C, C, N]; see `Channel.owner_gains`."""
        return select_owners(self.gains(drop, slot), owner)

    def disjoint_drops(self, num_users: int, num_drops: int) -> np.ndarray:
        """Tracks 0..C*U-1 for every drop; see `Channel.disjoint_drops`."""
        return arange_drops(self.num_cells, num_users, num_drops)
