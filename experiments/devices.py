"""Devices of a process, chosen before JAX looks for them."""

import os

import jax


def one_cpu_device_per_core() -> None:
    """Make a virtual device of every usable core, where JAX's platform turns out to be the CPU.

    Programs then run when they are called: dispatched ahead, a learner's first program on one of
    two CPU devices was seen to wait for ever (JAX 0.10.2).
    Without effect in a process that has used a device already, as importing gymnax does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    except RuntimeError:  # too late
        return
