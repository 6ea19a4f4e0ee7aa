"""Work done only in slots that need it gives what doing it always gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment
from jax.extend.random import threefry_2x32

import jaxrl5g
from jaxrl5g.env import block_uniforms
from jaxrl5g.env.rarely import rarely
from jaxrl5g.env.uniforms import threefry
from jaxrl5g.mac import Allocation


def test_computes_where_due_and_only_then():
    calls = []

    def one(due, x):
        def compute(turn):
            jax.debug.callback(lambda: calls.append(1))
            return {"y": jnp.sin(x + turn)}

        return rarely(due, compute, {"y": x})["y"]

    batch = jax.jit(jax.vmap(one))
    x = jnp.arange(4.0)
    np.testing.assert_array_equal(batch(jnp.zeros(4, bool), x), x)
    jax.effects_barrier()
    assert not calls
    due = jnp.array([False, True, False, True])
    np.testing.assert_allclose(batch(due, x), jnp.where(due, jnp.sin(x), x), rtol=1e-6)
    jax.effects_barrier()
    assert calls


def test_carries_no_gradient():
    def loss(x):
        return rarely(x > 0, lambda turn: x**2 + turn, x) * x

    assert float(jax.grad(loss)(3.0)) == 9.0
    assert float(jax.grad(loss)(-3.0)) == -3.0


@pytest.mark.parametrize("options", [{}, {"fidelity": "sionna", "csi": "perfect"}])
def test_step_is_the_base_classes_step(options):
    # environments of one batch end at different slots: some reset while others go on
    env, params = jaxrl5g.make("TinyDownlink-v0", **options)
    config = params.config
    horizons = jnp.array([3, 5, 7])
    batch = params.replace(max_steps_in_episode=horizons)
    axes = jax.tree.map(lambda _: None, params).replace(max_steps_in_episode=0)
    rng = np.random.default_rng(0)
    shape = (8, 3, config.num_cells, config.num_prbs)
    owner = jnp.asarray(rng.integers(-1, config.num_users, shape), jnp.int32)
    power = jnp.full(shape, params.power_budget / config.num_prbs)

    def run(step):
        def one(key, params, owner, power):
            def slot(state, inputs):
                key, owner, power = inputs
                observation, state, *rest = step(key, state, Allocation(owner, power), params)
                return state, (observation, rest)

            keys = jax.random.split(key, len(owner) + 1)
            _, state = env.reset(keys[0], params)
            return jax.lax.scan(slot, state, (keys[1:], owner, power))

        mapped = jax.vmap(one, in_axes=(0, axes, 1, 1))
        compiled = jax.jit(mapped)
        return compiled(jax.random.split(jax.random.key(3), 3), batch, owner, power)

    ours, theirs = run(env.step), run(partial(environment.Environment.step, env))
    for ours_leaf, theirs_leaf in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if jnp.issubdtype(ours_leaf.dtype, jax.dtypes.prng_key):
            ours_leaf, theirs_leaf = map(jax.random.key_data, (ours_leaf, theirs_leaf))
        np.testing.assert_allclose(ours_leaf, theirs_leaf, rtol=1e-5, atol=1e-6)


def test_uniforms_are_jaxs_own_threefry():
    key = jax.random.key_data(jax.random.key(5))
    first = jnp.arange(300, dtype=jnp.uint32) * jnp.uint32(2654435761)
    second = jnp.arange(300, dtype=jnp.uint32)
    expected = threefry_2x32(key, jnp.stack([first, second]))[0]
    np.testing.assert_array_equal(threefry(key, first, second), expected)


def test_uniforms_are_uniform_and_follow_the_track():
    env, params = jaxrl5g.make("TinyDownlink-v0")
    _, state = jax.jit(env.reset_env)(jax.random.key(0), params)
    slots = jax.vmap(lambda time: block_uniforms(state.replace(time=time)))(jnp.arange(4000))
    values = np.asarray(slots)
    assert values.min() >= 0 and values.max() < 1
    # mean of 4000 per user within 5 standard errors
    assert np.abs(values.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / 4000)
    swapped = state.replace(drop=state.drop.replace(tracks=state.drop.tracks[:, ::-1]))
    np.testing.assert_array_equal(block_uniforms(swapped), block_uniforms(state)[:, ::-1])
