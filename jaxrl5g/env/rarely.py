"""Work that few slots need, paid for only in slots where some environment needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def rarely(due: jax.Array, compute: Callable[[jax.Array], Tree], otherwise: Tree) -> Tree:
    """`compute(0)` where `due`, else `otherwise`; carries no gradient.

    A loop of at most one turn: under vmap the turn is taken only if some member of the batch is
    due, where `jax.lax.cond` would become a select and compute in every slot.

    Args:
      due: bool[].
      compute: takes the turn, int32[], always 0. What is expensive must depend on it: XLA moves
        what does not out of the loop, and so into every slot.
      otherwise: pytree of the structure, shapes and dtypes of the result.
    """

    def body(carry):
        _, turn, old = carry
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), compute(turn), old)
        return jnp.bool_(False), turn + 1, jax.lax.stop_gradient(fresh)

    start = (due, jnp.int32(0), jax.lax.stop_gradient(otherwise))
    return jax.lax.while_loop(lambda carry: carry[0], body, start)[2]
