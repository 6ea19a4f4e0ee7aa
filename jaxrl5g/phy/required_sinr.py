"""The error model turned round: which SINR each MCS needs for a target error rate.

The choice of `select_mcs`, split so that a simulator pays for the curves once per grant size and
only compares per user.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy import nr_curves
from jaxrl5g.phy.error_model import nr_row
from jaxrl5g.phy.lookup import highest_true, log1p, one_minus_exp, take, to_linear
from jaxrl5g.phy.mcs import mcs_arrays
from jaxrl5g.phy.transport_block import code_blocks, transport_block_size


def required_sinr(num_re: ArrayLike, bler_target: ArrayLike = 0.1, table: int = 1) -> Array:
    """Smallest linear effective SINR at which each MCS keeps its error rate at the target.

    Inverts `transport_block_error_rate` of the "nr" fidelity, to float32 rounding.

    Args:
        num_re: resource elements of the grant, integers [...], at least 1 (0 reads as 1).
        bler_target: in (0, 1), float[], may be traced.
        table: MCS table, 1 or 2.

    Returns:
        float32 [..., M], linear.

    Raises:
        ValueError: unknown table.
    """
    orders, rates = mcs_arrays(table)
    curves = nr_curves.nr_curves(table)
    resources = jnp.maximum(jnp.asarray(num_re, jnp.int32), 1)[..., None]
    rates = jnp.asarray(rates)
    size, blocks = code_blocks(transport_block_size(resources, jnp.asarray(orders), rates), rates)
    target = jnp.asarray(bler_target, jnp.float32)
    limit = jnp.log10(one_minus_exp(-log1p(-target) / blocks.astype(jnp.float32)))[..., None]
    mcs = jnp.arange(len(orders), dtype=jnp.int32)
    num_rows, num_knots = curves.log_bler.shape[1:]
    curve = take(curves.log_bler.reshape(-1, num_knots), mcs * num_rows + nr_row(size))
    # curves fall, so the knots above the limit come first; the first has BLER 1
    left = jnp.sum(curve > limit, axis=-1, keepdims=True) - 1
    left = jnp.clip(left, 0, num_knots - 2)
    low = jnp.take_along_axis(curve, left, axis=-1)
    high = jnp.take_along_axis(curve, left + 1, axis=-1)
    knot = left.astype(jnp.float32) + (low - limit) / (low - high)
    sinr_db = curves.start_db + curves.step_db * knot[..., 0] - jnp.asarray(curves.shift_db)
    return to_linear(sinr_db)


def highest_mcs(sinr_eff: Array, required: Array) -> Array:
    """Highest MCS whose required SINR is met, else 0.

    Args:
        sinr_eff: linear effective SINR per candidate, float32 [..., M].
        required: as returned by `required_sinr`, broadcastable [..., M].

    Returns:
        int32 [...].
    """
    return jnp.maximum(highest_true(sinr_eff >= required), 0)
