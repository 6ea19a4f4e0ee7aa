"""The channel cache on disk: memory-mappable, checksummed, written atomically.

Layout, little endian (docs/channel-cache.md): 8 bytes of magic, uint32 format version, uint32
zero, uint64 header length, 32 bytes SHA-256 of the header, the header (UTF-8 JSON), then each
array raw at a multiple of 64 bytes. The header names each array's type, shape, offset from the
file's start, length and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .cache import FORMAT_VERSION, ChannelCache, ChannelCacheError

MAGIC = b"JXRL5GC\n"
_PREFIX = struct.Struct("<8sIIQ32s")
_ALIGNMENT = 64
_TYPES = {"gains": "<i2", "coefficients": "<c8"}


def save(path: str | os.PathLike, cache: ChannelCache) -> None:
    """Write a cache; ``path`` holds either the whole new file or what it held before.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(path)
    arrays = {"gains": np.ascontiguousarray(cache.gains, _TYPES["gains"])}
    if cache.coefficients is not None:
        arrays["coefficients"] = np.ascontiguousarray(cache.coefficients, _TYPES["coefficients"])
    header, offsets = _layout(arrays, dict(cache.header))
    descriptor, name = tempfile.mkstemp(dir=path.parent or ".", prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = hashlib.sha256(header).digest()
            file.write(_PREFIX.pack(MAGIC, FORMAT_VERSION, 0, len(header), digest))
            file.write(header)
            for key, array in arrays.items():
                file.write(b"\0" * (offsets[key] - file.tell()))
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike, verify: bool = True) -> ChannelCache:
    """Map a cache into memory, read-only.

    Args:
        path: the file.
        verify: also check the arrays' checksums, which reads them once.

    Raises:
        ChannelCacheError: missing, not a cache, newer format, truncated, corrupted, or shapes
            that do not fit; one sentence naming the file and the reason.
    """
    path = Path(path)
    header = _read_header(path)
    try:
        entries, provenance = header["arrays"], header["provenance"]
        arrays = {key: _map(path, key, entries[key], verify) for key in _TYPES if key in entries}
        return ChannelCache(arrays["gains"], provenance, arrays.get("coefficients"))
    except ChannelCacheError as error:
        if str(path) in str(error):
            raise
        raise ChannelCacheError(f"{path}: wrong shape: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ChannelCacheError(f"{path}: header lacks or misuses {error}.") from None


def _layout(
    arrays: dict[str, np.ndarray], provenance: dict[str, Any]
) -> tuple[bytes, dict[str, int]]:
    entries: dict[str, Any] = {
        key: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "bytes": array.nbytes,
            "sha256": hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest(),
        }
        for key, array in arrays.items()
    }
    # Offsets are part of the header whose length they depend on: settle by iterating.
    length = 0
    while True:
        position = _PREFIX.size + length
        for key in arrays:
            position += -position % _ALIGNMENT
            entries[key]["offset"] = position
            position += arrays[key].nbytes
        text = json.dumps({"arrays": entries, "provenance": provenance}, sort_keys=True)
        header = text.encode()
        if len(header) == length:
            return header, {key: entries[key]["offset"] for key in arrays}
        length = len(header)


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            prefix = file.read(_PREFIX.size)
            if prefix[: len(MAGIC)] != MAGIC[: len(prefix)] or not prefix:
                raise ChannelCacheError(f"{path}: not a channel cache.")
            if len(prefix) < _PREFIX.size:
                raise ChannelCacheError(f"{path}: truncated within its first bytes.")
            _, version, _, length, digest = _PREFIX.unpack(prefix)
            if version > FORMAT_VERSION:
                raise ChannelCacheError(
                    f"{path}: format version {version} is newer than {FORMAT_VERSION}, the newest "
                    "this jaxrl5g reads; upgrade jaxrl5g."
                )
            if length > path.stat().st_size:
                raise ChannelCacheError(f"{path}: truncated within its header.")
            header = file.read(length)
    except FileNotFoundError:
        raise ChannelCacheError(f"{path}: no such file.") from None
    except OSError as error:
        raise ChannelCacheError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(header) < length:
        raise ChannelCacheError(f"{path}: truncated within its header.")
    if hashlib.sha256(header).digest() != digest:
        raise ChannelCacheError(f"{path}: corrupted: the header does not match its checksum.")
    try:
        return json.loads(header)
    except ValueError:
        raise ChannelCacheError(f"{path}: corrupted: the header is not JSON.") from None


def _map(path: Path, key: str, entry: dict[str, Any], verify: bool) -> np.memmap:
    dtype, shape = np.dtype(_TYPES[key]), tuple(int(size) for size in entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    if (
        entry["dtype"] != dtype.str
        or min(shape, default=0) < 1
        or (count * dtype.itemsize != entry["bytes"])
    ):
        raise ChannelCacheError(
            f"{path}: wrong shape: {key} of type {entry['dtype']} and shape {shape} does not fill "
            f"{entry['bytes']} bytes."
        )
    if path.stat().st_size < entry["offset"] + entry["bytes"]:
        raise ChannelCacheError(
            f"{path}: truncated: {key} needs {entry['offset'] + entry['bytes']} bytes and the "
            f"file has {path.stat().st_size}."
        )
    array = np.memmap(path, dtype, mode="r", offset=entry["offset"], shape=shape)
    if verify:
        digest = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        if digest != entry["sha256"]:
            raise ChannelCacheError(f"{path}: corrupted: {key} does not match its checksum.")
    return array
