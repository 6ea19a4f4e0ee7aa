"""Learners in batches, one after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl5g.rl.mesh import _map_in_batches


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_batches_are_what_vmap_gives_for_empty_leaves_too(size):
    stacked = {
        "key": jax.random.split(jax.random.key(0), 5),
        "number": jnp.arange(5.0),
        "nothing": jnp.zeros((5, 0, 3)),
    }

    def one(member):
        drawn = jax.random.normal(member["key"], (2,))
        return {**member, "drawn": member["number"] + drawn}

    found = jax.jit(partial(_map_in_batches, one, size=size))(stacked)
    expected = jax.jit(jax.vmap(one))(stacked)
    assert found["nothing"].shape == (5, 0, 3)
    np.testing.assert_allclose(found["drawn"], expected["drawn"], rtol=1e-6)
    np.testing.assert_array_equal(
        jax.random.key_data(found["key"]), jax.random.key_data(stacked["key"])
    )
