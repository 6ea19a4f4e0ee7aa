"""Shared by tests of whole experiments."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """Runs this small take a moment however they are compiled; compiling well takes longer."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
