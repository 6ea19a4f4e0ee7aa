"""Find out whether Dr.Jit would load an LLVM that works, before it aborts the process."""

from __future__ import annotations

import ctypes.util
import glob
import os
import re
import subprocess
import sys
from pathlib import Path

MINIMUM_LLVM = 19
"""Oldest major version that works; with 15 and 16 sionna-rt kills the process."""

_DIRECTORIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/wsl/lib",
)
_ADVICE = (
    f"install LLVM {MINIMUM_LLVM} or newer (Debian and Ubuntu: apt install libllvm19), or set "
    "DRJIT_LIBLLVM_PATH to its libLLVM.so"
)


def find_llvm(directories: tuple[str, ...] = _DIRECTORIES) -> Path | None:
    """The library that Dr.Jit would load on a CPU, or None.

    In Dr.Jit's order: DRJIT_LIBLLVM_PATH, the linker's ``libLLVM.so``, then the last by version
    of ``libLLVM*.so.*`` in ``directories``, links only if there is nothing else.
    """
    chosen = os.environ.get("DRJIT_LIBLLVM_PATH")
    if chosen:
        return Path(chosen)
    for directory in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        plain = Path(directory) / "libLLVM.so"
        if directory and plain.exists():
            return plain
    for directory in directories:
        if (plain := Path(directory) / "libLLVM.so").exists():
            return plain
    found = [
        Path(name)
        for directory in directories
        for name in glob.glob(f"{glob.escape(directory)}/libLLVM*.so.*")
    ]
    files = [path for path in found if not path.is_symlink()] or found
    return max(files, key=_natural_key, default=None)


def llvm_version(path: Path) -> int | None:
    """Major version of an LLVM library, from its name or else by asking it; None if unknown."""
    for name in (path.name, path.resolve().name):
        if match := re.search(r"libLLVM(?:-C)?[-.](?:so\.)?(\d+)", name):
            return int(match.group(1))
    # In another process: the library must not stay loaded in this one.
    code = (
        "import ctypes,sys;m=ctypes.c_uint();"
        "ctypes.CDLL(sys.argv[1]).LLVMGetVersion(ctypes.byref(m),None,None);print(m.value)"
    )
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
        )
        return int(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def cuda_available() -> bool:
    """Whether Dr.Jit could use an NVIDIA GPU: then no LLVM is needed."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    driver = os.environ.get("DRJIT_LIBCUDA_PATH") or ctypes.util.find_library("cuda")
    return bool(driver) and os.path.exists("/dev/nvidiactl")


def check_llvm(directories: tuple[str, ...] = _DIRECTORIES) -> None:
    """Make sure that sionna-rt can run here; imports nothing.

    Raises:
        RuntimeError: no LLVM, an unreadable one, or one older than 19, and no NVIDIA GPU.
    """
    if cuda_available():
        return
    path = find_llvm(directories)
    if path is None:
        raise RuntimeError(f"Ray tracing on a CPU needs LLVM and none was found: {_ADVICE}.")
    if not path.exists():
        raise RuntimeError(f"Ray tracing would load {path}, which does not exist: {_ADVICE}.")
    version = llvm_version(path)
    if version is None:
        raise RuntimeError(f"Ray tracing would load {path}, which is no readable LLVM: {_ADVICE}.")
    if version < MINIMUM_LLVM:
        raise RuntimeError(
            f"Ray tracing would load {path}, LLVM {version}, which is too old and would abort "
            f"the process: {_ADVICE}."
        )


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
