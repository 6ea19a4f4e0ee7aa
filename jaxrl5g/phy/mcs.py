"""Modulation and coding schemes (TS 38.214 tables 5.1.3.1-1 and 5.1.3.1-2)."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy.lookup import take
from jaxrl5g.phy.options import check_table

# modulation order -> code rate * 1024
_TABLES = {
    1: {
        2: (120, 157, 193, 251, 308, 379, 449, 526, 602, 679),
        4: (340, 378, 434, 490, 553, 616, 658),
        6: (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948),
    },
    2: {
        2: (120, 193, 308, 449, 602),
        4: (378, 434, 490, 553, 616, 658),
        6: (466, 517, 567, 616, 666, 719, 772, 822, 873),
        8: (682.5, 711, 754, 797, 841, 885, 916.5, 948),
    },
}


@functools.cache
def mcs_arrays(table: int) -> tuple[np.ndarray, np.ndarray]:
    """NumPy (modulation order int32[M], code rate float32[M]) of one table."""
    check_table(table)
    rows = [(order, rate) for order, rates in _TABLES[table].items() for rate in rates]
    orders, rates = zip(*rows, strict=True)
    return np.asarray(orders, np.int32), np.asarray(rates, np.float32) / np.float32(1024)


def num_mcs(table: int = 1) -> int:
    """Number of MCS indices: 29 in table 1, 28 in table 2 (reserved indices left out)."""
    return len(mcs_arrays(table)[0])


def mcs_parameters(mcs_index: ArrayLike, table: int = 1) -> tuple[Array, Array]:
    """Modulation order and target code rate of an MCS index (TS 38.214 5.1.3.1).

    Args:
        mcs_index: integers of any shape, 0..28 in table 1, 0..27 in table 2. An index outside the
            table reads its nearest end, because a traced value cannot be refused.
        table: 1 (up to 64QAM) or 2 (up to 256QAM).

    Returns:
        `(modulation_order int32, code_rate float32)`, each shaped like `mcs_index`; bits per
        symbol in {2, 4, 6, 8} and rate in (0, 1), an exact multiple of 1/2048.

    Raises:
        ValueError: unknown table.
    """
    orders, rates = mcs_arrays(table)
    index = jnp.asarray(mcs_index, jnp.int32)
    return take(orders, index), take(rates, index)


def spectral_efficiency(mcs_index: ArrayLike, table: int = 1) -> Array:
    """Information bits per resource element, Qm*R, float32, shaped like `mcs_index`.

    Not monotone in table 1: MCS 17 (2.566) carries less than MCS 16 (2.570).
    """
    order, rate = mcs_parameters(mcs_index, table)
    return order * rate


def max_spectral_efficiency(table: int = 1) -> float:
    """Largest Qm*R of a table in bits per resource element: 5.5547 (1) or 7.4063 (2)."""
    orders, rates = mcs_arrays(table)
    return float(np.max(orders * rates))
