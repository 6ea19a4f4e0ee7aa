"""Channels: caches of ray-traced tracks, the tracer that fills them, and analytic fading."""

from . import link_budget
from .cache import ChannelCache, ChannelCacheError
from .cache_file import load, save
from .cached import CachedChannel, CachedDrop
from .figures import snr_figure, track_snr_db
from .jakes import JakesChannel, JakesDrop
from .llvm import check_llvm
from .protocol import Channel
from .rayleigh import RayleighChannel, RayleighDrop
from .shipped import pack, shipped, shipped_names, unpack
from .sites import Site
from .trace_config import TraceConfig
from .tracer import run_trace, trace
from .umi import UMiChannel, UMiDrop

__all__ = [
    "CachedChannel",
    "CachedDrop",
    "Channel",
    "ChannelCache",
    "ChannelCacheError",
    "JakesChannel",
    "JakesDrop",
    "RayleighChannel",
    "RayleighDrop",
    "Site",
    "TraceConfig",
    "UMiChannel",
    "UMiDrop",
    "check_llvm",
    "link_budget",
    "load",
    "pack",
    "run_trace",
    "save",
    "shipped",
    "shipped_names",
    "snr_figure",
    "trace",
    "track_snr_db",
    "unpack",
]
