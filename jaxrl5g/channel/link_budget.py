"""The link budget every scene shares: noise, PRB width, and the one frozen transmit power."""

import math

BOLTZMANN_J_PER_K = 1.380649e-23
"""Boltzmann's constant [J/K] (exact in the SI)."""

TEMPERATURE_K = 294.0
"""Noise temperature [K]."""

NOISE_FIGURE_DB = 7.0
"""Receiver noise figure [dB]."""

SUBCARRIERS_PER_PRB = 12
"""Subcarriers in a physical resource block (TS 38.211 4.4.4.1)."""

PRB_BANDWIDTH_HZ = 360e3
"""Width of one PRB at the default 30 kHz subcarrier spacing [Hz]."""

REFERENCE_NUM_PRBS = 51
"""PRBs of the default 20 MHz carrier at 30 kHz (TS 38.101-1 5.3.2)."""

POWER_BUDGET_DBM = 8.0
"""Total transmit power of a cell over its carrier [dBm], frozen for every scene.

Set once so that the munich training tracks' wideband SNR at equal power over 51 PRBs has its
5/50/95 % points near 0/12/25 dB (docs/channel-cache.md).
"""


def noise_power(bandwidth_hz: float = PRB_BANDWIDTH_HZ) -> float:
    """Thermal noise plus noise figure [W] over ``bandwidth_hz`` [Hz].

    Raises:
        ValueError: the bandwidth is not positive.
    """
    if not bandwidth_hz > 0:
        raise ValueError(f"bandwidth_hz must be positive, got {bandwidth_hz}.")
    return BOLTZMANN_J_PER_K * TEMPERATURE_K * bandwidth_hz * 10 ** (NOISE_FIGURE_DB / 10)


def power_budget_watts() -> float:
    """The frozen cell power [W]."""
    return 10 ** ((POWER_BUDGET_DBM - 30) / 10)


def snr_db(gain_db, num_prbs: int = REFERENCE_NUM_PRBS, power_dbm: float = POWER_BUDGET_DBM):
    """SNR [dB] of a link of ``gain_db`` at equal power over ``num_prbs`` PRBs."""
    return gain_db + _offset_db(num_prbs, power_dbm)


def gain_db_for_snr(snr: float, num_prbs: int = REFERENCE_NUM_PRBS) -> float:
    """Power gain [dB] that gives ``snr`` [dB] at the frozen power, equal over ``num_prbs``."""
    return snr - _offset_db(num_prbs, POWER_BUDGET_DBM)


def _offset_db(num_prbs: int, power_dbm: float) -> float:
    noise_dbm = 10 * math.log10(noise_power()) + 30
    return power_dbm - 10 * math.log10(num_prbs) - noise_dbm
