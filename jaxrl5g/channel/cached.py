"""A channel cache on the device: gathers of stored gains."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from .cache import ChannelCache
from .sampling import draw_ranks

_LOG2_PER_STEP = float(np.log2(10.0) / 1000.0)  # 0.01 dB = 10^(1/1000)


@struct.dataclass
class CachedDrop:
    """tracks: int32[C, U]; start: int32[], first slot."""

    tracks: jax.Array
    start: jax.Array


@struct.dataclass
class CachedChannel:
    """A pool of ray-traced tracks (`Channel`).

    Leaves:
        steps: int16[track, slot, cell, PRB], power gain in steps of 0.01 dB.
        pool: int32[C, M], tracks by serving cell, padded with the cell's last track.
        counts: int32[C], how many of them are real.
        cell_of: int32[track], serving cell. rank_of: int32[track], place in its pool.
    """

    steps: jax.Array
    pool: jax.Array
    counts: jax.Array
    cell_of: jax.Array
    rank_of: jax.Array
    num_cells: int = struct.field(pytree_node=False)
    num_prbs: int = struct.field(pytree_node=False)
    num_slots: int = struct.field(pytree_node=False)

    @classmethod
    def from_cache(cls, cache: ChannelCache) -> CachedChannel:
        """Put a cache's gains on the default device.

        Raises:
            ValueError: a cell of the cache serves no track.
        """
        tracks, slots, cells, prbs = cache.gains.shape
        serving = np.asarray(cache.serving_cell, np.int32)
        counts = np.bincount(serving, minlength=cells).astype(np.int32)
        if counts.min() == 0:
            raise ValueError(f"cell {int(counts.argmin())} of the channel cache serves no track.")
        pool = np.zeros((cells, int(counts.max())), np.int32)
        rank = np.zeros(tracks, np.int32)
        for cell in range(cells):
            members = np.flatnonzero(serving == cell)
            pool[cell] = np.pad(members, (0, pool.shape[1] - members.size), mode="edge")
            rank[members] = np.arange(members.size)
        return cls(
            steps=jnp.asarray(np.asarray(cache.gains)),
            pool=jnp.asarray(pool),
            counts=jnp.asarray(counts),
            cell_of=jnp.asarray(serving),
            rank_of=jnp.asarray(rank),
            num_cells=cells,
            num_prbs=prbs,
            num_slots=slots,
        )

    def draw(
        self, key: jax.Array, tracks: jax.Array, start: jax.Array, horizon: jax.Array
    ) -> CachedDrop:
        """Draw the -1 entries without replacement from each cell's pool; see `Channel.draw`.

        Pinned tracks are kept and never drawn again, in whichever cell they are pinned. A start
        of -1 is uniform over [0, num_slots - horizon].
        """
        tracks = jnp.asarray(tracks, jnp.int32)
        start_key, track_key = jax.random.split(key)
        pinned = tracks.reshape(-1)

        def one_cell(key, row, cell, pool, count):
            here = (pinned >= 0) & (self.cell_of[pinned] == cell)
            taken = jnp.where(here, self.rank_of[pinned], -1)
            drawn = pool[draw_ranks(key, row < 0, taken, count)]
            return jnp.where(row < 0, drawn, row)

        cells = jnp.arange(self.num_cells)
        keys = jax.random.split(track_key, self.num_cells)
        tracks = jax.vmap(one_cell)(keys, tracks, cells, self.pool, self.counts)
        last = jnp.maximum(self.num_slots - jnp.asarray(horizon, jnp.int32), 0)
        drawn = jax.random.randint(start_key, (), 0, last + 1)
        start = jnp.asarray(start, jnp.int32)
        return CachedDrop(tracks=tracks, start=jnp.where(start < 0, drawn, start))

    def gains(self, drop: CachedDrop, slot: jax.Array) -> jax.Array:
        """Linear power gain float32[C, U, C, N]; past the end the last slot repeats."""
        index = jnp.clip(drop.start + slot, 0, self.num_slots - 1)
        steps = self.steps[drop.tracks, index]
        return jnp.exp2(steps.astype(jnp.float32) * _LOG2_PER_STEP)

    def owner_gains(self, drop: CachedDrop, slot: jax.Array, owner: jax.Array) -> jax.Array:
        """Linear power gain float32[C, C, N]; see `Channel.owner_gains`."""
        index = jnp.clip(drop.start + slot, 0, self.num_slots - 1)
        track = jnp.take_along_axis(drop.tracks, owner, axis=1)[:, None, :]
        cells = jnp.arange(self.num_cells)[:, None]
        steps = self.steps[track, index, cells, jnp.arange(self.num_prbs)]
        return jnp.exp2(steps.astype(jnp.float32) * _LOG2_PER_STEP)

    def disjoint_drops(self, num_users: int, num_drops: int) -> np.ndarray:
        """Consecutive groups of each cell's tracks, int32[num_drops, C, num_users].

        Shipped pools are shuffled, so consecutive groups are exchangeable.

        Raises:
            ValueError: a size below 1, or more drops than there are disjoint groups.
        """
        if num_users < 1 or num_drops < 1:
            raise ValueError(
                f"num_users and num_drops must be at least 1, got {num_users} and {num_drops}."
            )
        counts = np.asarray(self.counts)
        available = int(counts.min()) // num_users
        if num_drops > available:
            raise ValueError(
                f"{num_drops} disjoint drops of {num_users} users per cell were asked for, but "
                f"this channel has only {available} ({int(counts.min())} tracks per cell)."
            )
        pool = np.asarray(self.pool)[:, : num_drops * num_users]
        grouped = pool.reshape(self.num_cells, num_drops, num_users)
        return np.ascontiguousarray(grouped.transpose(1, 0, 2)).astype(np.int32)
