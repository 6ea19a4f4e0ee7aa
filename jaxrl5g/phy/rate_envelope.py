"""Concave rate curves that no transport block beats, whatever PRBs and powers it is made of.

EESM averages exp(-s/b), so for a block of n PRBs at one MCS 1 - exp(-s_eff/b) is the mean of
1 - exp(-s/b) over its PRBs. Hence, if height * (1 - exp(-s/b)) lies above the goodput per PRB of
that MCS on a flat channel, the sum of it over the PRBs lies above the block's goodput. HARQ
raises the height (`jaxrl5g.phy.harq_height`): what counts is expected bits against the expected
sum over all transmissions actually made. Proofs are in docs/bounds.md.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g.phy import nr_curves, sionna_curves
from jaxrl5g.phy.effective_sinr import eesm_beta
from jaxrl5g.phy.error_model import bler_at_row, incremental_redundancy_shift_db
from jaxrl5g.phy.grants import grants
from jaxrl5g.phy.harq import COMBINING
from jaxrl5g.phy.harq_height import BlockCurve, harq_height, single_height
from jaxrl5g.phy.mcs import max_spectral_efficiency, num_mcs
from jaxrl5g.phy.options import check_fidelity, check_table

_GRID_DB = np.arange(-30.0, 30.0 + 0.005, 0.01)  # the range of an effective SINR
_ROUNDING = 3e-4  # float32 error rates and decibels, relative


class RateEnvelope(NamedTuple):
    """r(s) = floor + max over m of height_m (1 - exp(-s/beta_m)), or Shannon's rate.

    Attributes:
      floor: bits per PRB that even a PRB without SINR may be credited with.
      height: float64[M], bits per PRB; all 0 for Shannon's rate.
      beta: float64[M], linear SINR.
      shannon_res: resource elements per PRB of Shannon's rate, 0 for the other form.
      shannon_cap: bits per resource element at which Shannon's rate ends.
    """

    floor: float
    height: np.ndarray
    beta: np.ndarray
    shannon_res: float
    shannon_cap: float

    @property
    def top(self) -> float:
        """Least upper bound of r, bits per PRB."""
        return max(self.floor + float(self.height.max()), self.shannon_res * self.shannon_cap)

    @property
    def steepest(self) -> float:
        """Slope of the concave envelope of r at s = 0, bits per PRB and unit of linear SINR."""
        return max(float(np.max(self.height / self.beta)), self.shannon_res / math.log(2.0))

    def rate(self, sinr: np.ndarray) -> np.ndarray:
        """Bits per PRB and slot at linear SINR of any shape, float64 (NumPy)."""
        sinr = np.asarray(sinr, np.float64)
        shannon = self.shannon_res * np.minimum(np.log2(1.0 + sinr), self.shannon_cap)
        curves = -np.expm1(-sinr[..., None] / self.beta) * self.height
        return self.floor + np.maximum(curves.max(axis=-1), shannon)

    def conjugate(self, price: np.ndarray) -> np.ndarray:
        """Maximum over s >= 0 of r(s) - price * s, float64, price > 0 of any shape (NumPy).

        The same for r and for its concave envelope; convex and non-increasing in the price.
        """
        price = np.asarray(price, np.float64)
        if self.shannon_res > 0:
            sinr = self.shannon_res / (math.log(2.0) * price) - 1.0
            sinr = np.clip(sinr, 0.0, 2.0**self.shannon_cap - 1.0)
            return self.rate(sinr) - price * sinr
        relative = np.minimum(price[..., None] * self.beta / np.maximum(self.height, 1e-30), 1.0)
        # the maximum is at s = -beta ln(relative)
        value = self.height * (1.0 - relative + relative * np.log(relative))
        return self.floor + value.max(axis=-1)


@functools.cache
def rate_envelope(
    num_prbs: int,
    res_per_prb: int,
    table: int = 1,
    fidelity: str = "nr",
    combining: str = "chase",
    max_transmissions: int = 4,
    floor_share: float = 0.0,
) -> RateEnvelope:
    """The envelope for grants of 1 to N PRBs: about a second, then cached.

    Args:
      num_prbs: N, at least 1; res_per_prb: resource elements per PRB, at least 1.
      table: MCS table, 1 or 2.
      fidelity: "nr": HARQ with soft combining; "sionna": one transmission, Sionna's own curves;
        "shannon": min(log2(1 + s), largest spectral efficiency), exact.
      combining: "chase" or "incremental"; max_transmissions: at least 1. Used by "nr".
      floor_share: floor as a share of the most bits a PRB can carry, in [0, 1): a charge for air
        time. A larger floor is worse at low SINR and better at high SINR; "shannon" has none.

    Returns:
      r such that the expected bits of a transport block never exceed the expected sum of r(s)
      over all PRBs of all its transmissions, s the SINR of each.

    Raises:
      ValueError: a size below 1, a share outside [0, 1), unknown fidelity, table or combining.
    """
    check_fidelity(fidelity)
    check_table(table)
    sizes = {
        "num_prbs": num_prbs,
        "res_per_prb": res_per_prb,
        "max_transmissions": max_transmissions,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not 0.0 <= floor_share < 1.0:
        raise ValueError(f"floor_share must be in [0, 1), got {floor_share}.")
    if combining not in COMBINING:
        listed = " or ".join(repr(name) for name in COMBINING)
        raise ValueError(f"combining must be {listed}, got {combining!r}.")
    beta = np.asarray(eesm_beta(table), np.float64)
    if fidelity == "shannon":
        cap = max_spectral_efficiency(table)
        return RateEnvelope(0.0, np.zeros_like(beta), beta, float(res_per_prb), cap)

    blocks = _block_curves(num_prbs, res_per_prb, table, fidelity)
    curves = [block for of_mcs in blocks for block in of_mcs]
    floor = max(block.bits * (1.0 - block.error[0]) for block in curves)
    floor = max(floor, floor_share * max(block.bits for block in curves))
    attempts = max_transmissions if fidelity == "nr" else 1
    height = np.zeros_like(beta)
    for mcs, of_mcs in enumerate(blocks):
        shift = _rate_shift(mcs, attempts, table, combining)
        singles = [single_height(block, beta[mcs], floor) for block in of_mcs]
        # the likely largest first: the others then only have to be checked against it
        for index in np.argsort(singles)[::-1]:
            single = singles[index]
            if attempts == 1:
                height[mcs] = max(height[mcs], single)
            else:
                start = max(height[mcs], single, 1e-3)
                height[mcs] = harq_height(of_mcs[index], beta[mcs], floor, start, attempts, shift)
    return RateEnvelope(floor, height * (1.0 + _ROUNDING), beta, 0.0, 0.0)


def _rate_shift(mcs: int, attempts: int, table: int, combining: str) -> np.ndarray | None:
    """Linear gain in SINR of the code rate R/j, j = 1..A; None for chase combining."""
    if combining == "chase":
        return None
    with jax.ensure_compile_time_eval():
        shift_db = incremental_redundancy_shift_db(mcs, np.arange(1, attempts + 1), table)
    return 10.0 ** (np.asarray(shift_db, np.float64) / 10.0)


@functools.cache
def _block_curves(
    num_prbs: int, res_per_prb: int, table: int, fidelity: str
) -> list[list[BlockCurve]]:
    """For every MCS, one curve for each pair (row, code blocks) among the grants."""
    tables = grants(num_prbs, res_per_prb, table, fidelity)
    sinr = 10.0 ** (_GRID_DB / 10.0)
    curves = []
    for mcs in range(num_mcs(table)):
        best: dict[tuple[int, int], float] = {}  # most bits per PRB
        for count in range(1, num_prbs + 1):
            pair = (int(tables.row[count, mcs]), int(tables.blocks[count, mcs]))
            bits = float(tables.block_bits[count, mcs]) / count
            best[pair] = max(best.get(pair, 0.0), bits)
        by_row = _row_curves(mcs, table, fidelity)
        curves.append(
            [
                BlockCurve(bits, sinr, 1.0 - (1.0 - by_row[row]) ** blocks)
                for (row, blocks), bits in best.items()
            ]
        )
    return curves


def _row_curves(mcs: int, table: int, fidelity: str) -> np.ndarray:
    """Code-block error rate on the grid for every row of the fidelity's curves, float64[R, S]."""
    rows = nr_curves.CBS_ROWS if fidelity == "nr" else sionna_curves.CBS_ROWS
    with jax.ensure_compile_time_eval():
        bler = _bler_on_grid(jnp.int32(mcs), rows, table, fidelity)
    # MCS without data are +inf; falling to rounding, whose lower side is the safe one
    return np.minimum.accumulate(np.minimum(np.asarray(bler, np.float64), 1.0), axis=1)


@functools.partial(jax.jit, static_argnames=("rows", "table", "fidelity"))
def _bler_on_grid(mcs: jax.Array, rows: int, table: int, fidelity: str) -> jax.Array:
    sinr = jnp.asarray(10.0 ** (_GRID_DB / 10.0), jnp.float32)
    row, sinr = jnp.broadcast_arrays(jnp.arange(rows, dtype=jnp.int32)[:, None], sinr)
    return bler_at_row(jnp.full_like(row, mcs), row, sinr, table, fidelity)
