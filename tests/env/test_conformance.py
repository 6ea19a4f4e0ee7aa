"""Every registered environment keeps the house contract, in every fidelity."""

import jax
import jax.numpy as jnp
import pytest

import jaxrl5g
from jaxrl5g.env import DownlinkEnv, check_env


@pytest.mark.parametrize("env_id", jaxrl5g.registered())
def test_registered_environments(env_id):
    check_env(*jaxrl5g.make(env_id))


@pytest.mark.parametrize(
    "options",
    [
        {"fidelity": "sionna", "csi": "perfect"},
        {"fidelity": "shannon", "reward": "weighted_rate"},
        {
            "num_cells": 2,
            "csi": "centralised",
            "min_users": 1,
            "combining": "incremental",
            "mcs_table": 2,
            "cqi_delay": 7,
            "reward": "alpha_fair",
        },
    ],
)
def test_other_configurations(options):
    check_env(*jaxrl5g.make("TinyDownlink-v0", **options))


def test_a_broken_environment_is_caught():
    class Leaky(DownlinkEnv):
        def step_env(self, key, state, action, params):
            observation, state, reward, done, info = super().step_env(key, state, action, params)
            return observation, state, reward + jnp.nan, done, info

    _, params = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon")
    with pytest.raises(AssertionError, match="reward is not finite"):
        check_env(Leaky(params), params)


def test_jitted_step_needs_no_params():
    env, params = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon")
    observation, state = env.reset(jax.random.key(0))
    action = env.action_space().sample(jax.random.key(1))
    with_default = env.step(jax.random.key(2), state, action)
    given = env.step(jax.random.key(2), state, action, params)
    assert float(with_default[2]) == float(given[2])
