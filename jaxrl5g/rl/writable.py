"""Whether a run folder can take a run, asked before the first chunk and not after the last."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from jaxrl5g.rl.faults import FolderError


def check_writable(folder: str | Path, needed_bytes: int = 0) -> None:
    """Make `folder` where it is absent, write a scratch file in it, and ask for its free space.

    Args:
        folder: the run folder; its parents are made too.
        needed_bytes: what the run will write, at least 0.

    Raises:
        FolderError: the folder cannot be made or written, or has too little free space.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as scratch:
            scratch.write(bytes(4096))
        free = shutil.disk_usage(folder).free
    except FileExistsError:
        raise FolderError(f"the run folder {folder} cannot be made: a file has its name") from None
    except OSError as error:
        raise FolderError(f"cannot write in the run folder {folder}: {error.strerror}") from error
    if free < needed_bytes:
        raise FolderError(
            f"the disk of {folder} has {_mebibytes(free)} free, and the run needs "
            f"{_mebibytes(needed_bytes)}"
        )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
