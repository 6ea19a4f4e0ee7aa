"""The caches that come with the package, unpacked once for mapping."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from .cache import ChannelCache, ChannelCacheError
from .cache_file import load, save
from .codec import decode_gains, encode_gains

PACKED_VERSION = 1
"""Version of the packed format."""

_MAGIC = b"JXRL5GZ\n"
_PREFIX = struct.Struct("<8sIIQ32s")
_SUFFIX = ".jxz"
_PACKAGE = "jaxrl5g.channel"


def shipped_names() -> tuple[str, ...]:
    """Names of the caches that come with the package, sorted."""
    folder = resources.files(_PACKAGE) / "data"
    if not folder.is_dir():
        return ()
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def shipped(name: str) -> ChannelCache:
    """A shipped cache, memory-mapped from the user's cache folder.

    The first call unpacks it there, which takes seconds; processes that do so at the same time
    each write a whole file and the last one stays. A damaged file is unpacked again.

    Raises:
        ChannelCacheError: unknown name (with the nearest one), or a damaged package.
        OSError: the cache folder cannot be written; set JAXRL5G_CACHE_DIR.
    """
    names = shipped_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ChannelCacheError(f"there is no shipped channel cache {name!r}{hint}")
    packed = (resources.files(_PACKAGE) / "data" / (name + _SUFFIX)).read_bytes()
    # The packed file's digest is in the name: an upgrade with other data never meets old files.
    digest = hashlib.sha256(packed).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.channel"
    try:
        return load(path)
    except ChannelCacheError:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, unpack(packed, f"shipped cache {name}"))
        return load(path)


def cache_folder() -> Path:
    """Where shipped caches are unpacked: JAXRL5G_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("JAXRL5G_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("jaxrl5g"))


def pack(cache: ChannelCache) -> bytes:
    """Compress a cache for shipping, without its complex coefficients."""
    content = np.ascontiguousarray(cache.gains).astype("<i2").tobytes()
    header: dict[str, Any] = {
        "shape": list(cache.gains.shape),
        "sha256": hashlib.sha256(content).hexdigest(),
        "provenance": dict(cache.header),
    }
    text = json.dumps(header, sort_keys=True).encode()
    body = len(text).to_bytes(8, "little") + text + encode_gains(np.asarray(cache.gains))
    digest = hashlib.sha256(body).digest()
    return _PREFIX.pack(_MAGIC, PACKED_VERSION, 0, len(body), digest) + body


def unpack(packed: bytes, source: str = "packed cache") -> ChannelCache:
    """Undo `pack`, in memory.

    Raises:
        ChannelCacheError: not a packed cache, newer, truncated or corrupted; names ``source``.
    """
    if len(packed) < _PREFIX.size:
        raise ChannelCacheError(f"{source}: truncated or not a packed channel cache.")
    magic, version, _, length, digest = _PREFIX.unpack_from(packed)
    body = packed[_PREFIX.size :]
    if magic != _MAGIC:
        raise ChannelCacheError(f"{source}: not a packed channel cache.")
    if version > PACKED_VERSION:
        raise ChannelCacheError(
            f"{source}: packed version {version} is newer than {PACKED_VERSION}, the newest this "
            "jaxrl5g reads; upgrade jaxrl5g."
        )
    if len(body) != length:
        raise ChannelCacheError(
            f"{source}: truncated: {len(body)} bytes where {length} were packed."
        )
    if hashlib.sha256(body).digest() != digest:
        raise ChannelCacheError(f"{source}: corrupted: it does not match its checksum.")
    end = 8 + int.from_bytes(body[:8], "little")
    header = json.loads(body[8:end])
    gains = decode_gains(body[end:], tuple(header["shape"]))
    if hashlib.sha256(gains.astype("<i2").tobytes()).hexdigest() != header["sha256"]:
        raise ChannelCacheError(f"{source}: corrupted: the gains do not match their checksum.")
    return ChannelCache(gains, header["provenance"])
