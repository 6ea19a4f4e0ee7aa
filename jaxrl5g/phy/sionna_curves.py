"""BLER look-up table of the "sionna" fidelity: Sionna SYS 2.2.0's grid, defects included."""

import functools

import numpy as np
from scipy.interpolate import RectBivariateSpline

from jaxrl5g.phy.bler_data import load_bler_data
from jaxrl5g.phy.mcs import num_mcs

CBS_START, CBS_STEP, CBS_ROWS = 24, 100, 21  # later rows repeat the 2000-bit curve
SNR_START_DB, SNR_STEPS_PER_DB, SNR_COLUMNS = -5.0, 10.0, 351


@functools.cache
def sionna_bler(table: int) -> np.ndarray:
    """BLER on Sionna's grid, float32[M, 21, 351]: CBS 24:2024:100 by SINR -5:30:0.1 dB.

    log10(BLER) is bilinear in (CBS, SINR) with clamped edges. Zeros are read as two decades below
    the MCS's smallest non-zero rate, and results below that rate become 0. The comparison carries
    a tolerance: curves that end exactly on their smallest rate (MCS 28 of table 1 at 0.0043)
    must stay there. MCS without data are +inf.
    """
    data = load_bler_data(table)
    sizes = CBS_START + CBS_STEP * np.arange(CBS_ROWS)
    snr_db = np.arange(SNR_START_DB, 30.01, 0.1)
    grid = np.full((num_mcs(table), CBS_ROWS, SNR_COLUMNS), np.inf)
    for mcs, bler in zip(data.mcs, data.bler, strict=True):
        smallest = np.log10(bler[bler > 0].min())
        with np.errstate(divide="ignore"):
            log_bler = np.where(bler > 0, np.log10(bler), smallest - 2.0)
        spline = RectBivariateSpline(data.code_block_size, data.snr_db, log_bler, kx=1, ky=1)
        fine = spline(sizes, snr_db)
        value = np.where(fine < smallest - 1e-9, 0.0, 10.0**fine)
        grid[mcs] = np.clip(value, 0.0, 1.0)
    return grid.astype(np.float32)


@functools.cache
def sionna_bler_by_column(table: int) -> np.ndarray:
    """`sionna_bler` as [351, 21, M]: all candidates of one SINR share a few kB of cache."""
    return np.ascontiguousarray(sionna_bler(table).transpose(2, 1, 0))


@functools.cache
def available_mcs(table: int) -> np.ndarray:
    """bool[M]: MCS for which Sionna ships error rates (3.. in table 1, 2.. in table 2)."""
    return np.isin(np.arange(num_mcs(table)), load_bler_data(table).mcs)
