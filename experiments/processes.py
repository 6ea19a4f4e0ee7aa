"""Measurements in processes of their own: virtual devices and peak memory start afresh."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any


def run_apart(
    module: str, setting: Any, devices: int = 1, variables: Mapping[str, str] | None = None
) -> Any:
    """Run `python -m MODULE SETTING` and return the JSON it prints last.

    Args:
        module: takes the setting as JSON.
        setting: a dataclass.
        devices: virtual CPU devices; 1 leaves the process those of the machine.
        variables: of its environment, besides those of this process.

    Raises:
        RuntimeError: the process failed; its last line of output is the message.
    """
    environment = {**os.environ, **(variables or {})}
    if devices > 1:
        flag = f"--xla_force_host_platform_device_count={devices}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
    command = [sys.executable, "-m", module, json.dumps(asdict(setting))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"measuring {setting} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
