"""Figures about channel caches."""

from __future__ import annotations

import os

import numpy as np

from .cache import ChannelCache
from .link_budget import POWER_BUDGET_DBM, snr_db


def track_snr_db(cache: ChannelCache, power_dbm: float = POWER_BUDGET_DBM) -> np.ndarray:
    """Wideband SNR [dB] of each track from its serving cell at equal power, float64[track].

    Averaged in linear over slots and PRBs.
    """
    return np.asarray(snr_db(cache.mean_gain_db(), cache.num_prbs, power_dbm))


def snr_figure(cache: ChannelCache, path: str | os.PathLike, title: str = "") -> None:
    """Draw the distribution of the tracks' wideband SNR, with its 5/50/95 % points, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    snr = np.sort(track_snr_db(cache))
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(snr, (np.arange(snr.size) + 0.5) / snr.size, color="#1f5fa8", linewidth=1.6)
    for percent in (5, 50, 95):
        value = float(np.percentile(snr, percent))
        axes.plot([value], [percent / 100], "o", color="#c2410c", markersize=5)
        side = "right" if percent == 95 else "left"
        axes.annotate(
            f"{percent} %: {value:.1f} dB",
            (value, percent / 100),
            xytext=(-7 if side == "right" else 7, -3),
            textcoords="offset points",
            ha=side,
            fontsize=8,
        )
    axes.set_xlabel(f"wideband SNR of a track [dB], {POWER_BUDGET_DBM:g} dBm per cell")
    axes.set_ylabel("share of tracks")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    if title:
        axes.set_title(f"{title} ({snr.size} tracks)", fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
