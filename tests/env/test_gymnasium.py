"""Gymnasium views pass Gymnasium's own checker and agree with the environment."""

import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode

import jaxrl5g
from jaxrl5g.env import GymnasiumDownlink, GymnasiumVectorDownlink

ENV, PARAMS = jaxrl5g.make("TinyDownlink-v0", fidelity="shannon", max_steps_in_episode=3)


def test_single_environment_passes_gymnasiums_checker():
    gymnasium_check(GymnasiumDownlink(ENV, PARAMS), skip_render_check=True)


def test_single_environment_matches_the_pure_one():
    view = GymnasiumDownlink(ENV, PARAMS)
    observation, _ = view.reset(seed=5)
    _, key = jax.random.split(jax.random.key(5))
    expected, state = ENV.reset(key, PARAMS)
    np.testing.assert_allclose(observation["csi_db"], expected.csi_db, rtol=1e-5)
    view.action_space.seed(0)
    for slot in range(3):
        observation, reward, terminated, truncated, _ = view.step(view.action_space.sample())
        assert view.observation_space.contains(observation)
        assert not terminated and truncated == (slot == 2)
    assert np.isfinite(reward)


def test_vector_environment_resets_in_the_same_step():
    view = GymnasiumVectorDownlink(ENV, PARAMS, num_envs=4)
    assert view.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    observation, _ = view.reset(seed=1)
    assert view.observation_space.contains(observation)
    view.action_space.seed(0)
    for slot in range(3):
        observation, reward, terminated, truncated, infos = view.step(view.action_space.sample())
        assert reward.shape == (4,) and not terminated.any()
        assert truncated.all() == (slot == 2)
        np.testing.assert_array_equal(infos["_final_obs"], truncated)
    # a fresh episode begins with its initial average, its last observation did not
    initial = float(PARAMS.initial_throughput)
    np.testing.assert_allclose(observation["throughput"], initial)
    assert not np.allclose(infos["final_obs"]["throughput"], initial)


def test_bad_input_is_named():
    view = GymnasiumDownlink(ENV, PARAMS)
    with pytest.raises(RuntimeError, match="reset"):
        view.step(view.action_space.sample())
    view.reset(seed=0)
    action = view.action_space.sample()
    with pytest.raises(ValueError, match="must not hold NaN"):
        view.step({**action, "power": np.full((1, 12), np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"action\['owner'\] must have shape"):
        view.step({**action, "owner": np.zeros(12, np.int32)})
    with pytest.raises(ValueError, match="must hold integers"):
        view.step({**action, "owner": np.zeros((1, 12))})
    with pytest.raises(ValueError, match="keys 'owner' and 'power'"):
        view.step({"owner": action["owner"]})
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        GymnasiumVectorDownlink(ENV, PARAMS, num_envs=0)
