"""What an environment may ask of a channel, cached or analytic."""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Channel(Protocol):
    """A pytree of channel parameters with pure, jit- and vmap-able methods.

    Sizes are static; everything else is a leaf, so a channel travels inside an environment's
    params. A *track* is one user's trajectory; a *drop* fixes which tracks take part and when.
    """

    @property
    def num_cells(self) -> int:
        """C, static."""
        ...

    @property
    def num_prbs(self) -> int:
        """N, static."""
        ...

    @property
    def num_slots(self) -> int | None:
        """Stored slots per track, static; None when the channel goes on for ever."""
        ...

    def draw(self, key: jax.Array, tracks: jax.Array, start: jax.Array, horizon: jax.Array) -> Any:
        """Draw a drop: a pytree with at least ``tracks`` int32[C, U], none of them -1.

        Args:
            key: typed PRNG key.
            tracks: int32[C, U]; -1 = draw this one, anything else is kept.
            start: int32[]; first slot, or -1 to draw it.
            horizon: int32[]; slots the episode will last.
        """
        ...

    def gains(self, drop: Any, slot: jax.Array) -> jax.Array:
        """Power gain, linear, float32[C, U, C, N]: to user (c, u) from cell c' on PRB n.

        ``slot`` int32[] counts from the drop's start.
        """
        ...

    def owner_gains(self, drop: Any, slot: jax.Array, owner: jax.Array) -> jax.Array:
        """Power gain, linear, float32[C, C, N]: to the user of cell c that holds PRB n, from c'.

        The entries of `gains` that a transmission needs; ``owner`` int32[C, N] in 0..U-1.
        """
        ...

    def disjoint_drops(self, num_users: int, num_drops: int) -> np.ndarray:
        """Tracks of independent drops, int32[num_drops, C, num_users] (host side).

        Raises:
            ValueError: the channel has too few tracks for that many disjoint drops.
        """
        ...
