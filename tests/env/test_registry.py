"""`make`: what it builds, and one clear sentence for every wrong argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.channel import RayleighChannel
from jaxrl5g.env import DownlinkConfig, make_params, spec


def test_registered_names():
    assert {
        "MunichDownlink-v0",
        "EtoileDownlink-v0",
        "MunichDownlink3Cell-v0",
        "RayleighDownlink-v0",
        "UMiDownlink-v0",
        "TinyDownlink-v0",
    } <= set(jaxrl5g.registered())
    with pytest.raises(ValueError, match="did you mean 'MunichDownlink-v0'"):
        spec("MunichDownlnk-v0")


def test_sizes_of_the_paper_setting():
    _, params = jaxrl5g.make("MunichDownlink-v0")
    config = params.config
    assert (config.num_cells, config.num_users, config.num_prbs) == (1, 16, 51)
    _, params = jaxrl5g.make("MunichDownlink3Cell-v0")
    assert params.config.num_cells == 3
    _, params = jaxrl5g.make("TinyDownlink-v0")
    assert (params.config.num_users, params.config.num_prbs) == (4, 12)


@pytest.mark.parametrize(
    "env_id, options, message",
    [
        ("NoSuchEnv", {}, "unknown environment id 'NoSuchEnv'"),
        ("TinyDownlink-v0", {"fidelty": "nr"}, "did you mean 'fidelity'"),
        ("TinyDownlink-v0", {"fidelity": "5g"}, "fidelity must be one of 'shannon'"),
        ("TinyDownlink-v0", {"csi": "none"}, "csi must be one of 'reported'"),
        ("TinyDownlink-v0", {"mcs_table": 3}, "mcs_table must be one of 1, 2"),
        ("TinyDownlink-v0", {"num_users": 0}, "num_users must be at least 1, got 0"),
        ("TinyDownlink-v0", {"num_users": 2.5}, "num_users must be an integer"),
        ("TinyDownlink-v0", {"num_prbs": 400}, "num_prbs must be from 1 to 275"),
        ("TinyDownlink-v0", {"bler_target": 1.5}, "bler_target must be inside"),
        ("TinyDownlink-v0", {"power_budget": -1.0}, "power_budget must be positive"),
        ("TinyDownlink-v0", {"max_users": 9}, "max_users must be at most 4"),
        ("TinyDownlink-v0", {"min_users": 0}, "min_users must be at least 1"),
        ("TinyDownlink-v0", {"tracks": np.zeros((1, 3))}, r"tracks must have shape .* \(1, 4\)"),
        ("TinyDownlink-v0", {"split": "train"}, "takes no split"),
        ("MunichDownlink-v0", {"split": "tset"}, "unknown split 'tset'"),
        ("MunichDownlink-v0", {"num_prbs": 25}, "num_prbs must be 51, that of the channel"),
        ("MunichDownlink-v0", {"num_users": 10_000}, "num_users must be at most"),
        ("MunichDownlink-v0", {"max_steps_in_episode": 401}, "within the cache's 400 slots"),
        ("MunichDownlink-v0", {"cache": "no/such/file"}, "no/such/file"),
    ],
)
def test_wrong_arguments_are_named(env_id, options, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl5g.make(env_id, **options)
    assert "\n" not in str(error.value)


def test_make_params_checks_names_and_sizes():
    with pytest.raises(ValueError, match="did you mean 'noise_power'"):
        make_params(DownlinkConfig(), RayleighChannel(), noise=1.0)
    with pytest.raises(ValueError, match="num_cells must be 1"):
        make_params(DownlinkConfig(num_cells=2), RayleighChannel())


@pytest.mark.parametrize(
    "owner, power, message",
    [
        (jnp.zeros(12, jnp.int32), jnp.zeros((1, 12)), r"action.owner must have shape"),
        (jnp.zeros((1, 12), jnp.int32), jnp.zeros((1, 13)), r"action.power must have shape"),
        (jnp.zeros((1, 12)), jnp.zeros((1, 12)), "action.owner must hold integers"),
    ],
)
def test_wrong_actions_are_named(owner, power, message):
    env, params = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon")
    _, state = env.reset(jax.random.key(0), params)
    with pytest.raises(ValueError, match=message):
        env.step(jax.random.key(0), state, mac.Allocation(owner, power), params)
    with pytest.raises(ValueError, match="must be an Allocation"):
        env.step(jax.random.key(0), state, owner, params)


def test_params_pin_users_and_start():
    _, params = jaxrl5g.make("MunichDownlink-v0", num_users=3, max_steps_in_episode=50)
    env, params = jaxrl5g.make(
        "MunichDownlink-v0",
        num_users=3,
        max_steps_in_episode=50,
        tracks=[[4, -1, 9]],
        start_slot=17,
    )
    _, state = jax.jit(env.reset)(jax.random.key(3), params)
    tracks = np.asarray(state.drop.tracks)[0]
    assert tracks[0] == 4 and tracks[2] == 9 and tracks[1] not in (4, 9)
    assert int(state.drop.start) == 17


def test_user_count_is_drawn_between_its_bounds():
    env, params = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon", min_users=2, max_users=3)
    reset = jax.jit(jax.vmap(lambda key: env.reset_env(key, params)[0].mask))
    counts = np.asarray(reset(jax.random.split(jax.random.key(0), 200))).sum((1, 2))
    assert set(counts) == {2, 3}
