"""Devices of a process, chosen before JAX looks for them."""

import os

import jax


def one_cpu_device_per_core() -> None:
    """Make a virtual device of every usable core, where JAX's platform turns out to be the CPU.

    Without effect in a process that has used a device already, as importing gymnax does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:  # too late
        return
