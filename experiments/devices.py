"""Cores and devices of a process, the latter chosen before JAX looks for them."""

import os

import jax


def usable_cores() -> int | None:
    """Return the cores that this process may use; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def one_cpu_device_per_core() -> None:
    """Make a virtual device of every usable core, where JAX's platform turns out to be the CPU.

    Without effect in a process that has used a device already, as importing gymnax does.
    """
    try:
        jax.config.update("jax_num_cpu_devices", usable_cores() or 1)
    except RuntimeError:  # too late
        return
