"""One device and eight make the same learner; run as a program, this file trains both.

The devices are virtual ones of the CPU, which must be asked for before JAX is first used, and
gymnax uses it when it is imported: hence a process of its own, and `START`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl5g.rl.mappo import Hyper, MappoConfig, PhaseSettings
from jaxrl5g.rl.mesh import AXIS, init_learners, make_chunk
from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask

DEVICES, SEEDS, ENVIRONMENTS, CHUNKS = 8, 2, 16, 2
START = f"""
import jax, runpy, sys
jax.config.update("jax_num_cpu_devices", {DEVICES})
runpy.run_path(sys.argv[1], run_name="__main__")
"""
CONFIG = MappoConfig(
    num_envs=ENVIRONMENTS,
    rollout_steps=4,
    epochs=2,
    minibatches=2,
    actor_features=(8, 8),
    critic_features=(8,),
)
PHASE = PhaseSettings(leash=1.0)


class _State(NamedTuple):
    signal: jax.Array  # float32[1, 2], anew in every step
    used: jax.Array  # uint32[2], the key that this environment was last given


class _Plan(NamedTuple):
    state: _State
    latent: jax.Array


def _seen(state: _State, latent: jax.Array) -> Seen:
    return Seen(jnp.stack([state.signal, latent], axis=-1), jnp.ones((1, 2), bool))


def _reset(key: jax.Array, params: Any) -> _State:
    return _State(jax.random.normal(key, (1, 2)), jax.random.key_data(key))


def _step(key, state: _State, plan: _Plan, latent: jax.Array, at_rest: jax.Array, params: Any):
    missed = (plan.latent - state.signal) ** 2 + (plan.latent + latent) ** 2
    following = _reset(key, params)
    over = jnp.mean(state.signal) > 1
    final = _seen(following, jnp.zeros((1, 2)))
    turn = Turn(-jnp.sum(missed), over, jnp.bool_(False), final, {"missed": jnp.sum(missed)})
    return following, turn


TASK = TwoTurnTask(
    _reset,
    lambda state, params: (_seen(state, jnp.zeros((1, 2))), _Plan(state, jnp.zeros((1, 2)))),
    lambda plan, latent, at_rest, params: (
        _seen(plan.state, latent),
        plan._replace(latent=latent),
    ),
    _step,
)


def mesh_of(devices: int) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), (AXIS,))


def train(devices: int, seeds_at_once: int | None) -> dict[str, Any]:
    """Train two seeds of different learning rates for some chunks of one update."""
    mesh = mesh_of(devices)
    hyper = jax.tree.map(lambda number: jnp.full(SEEDS, number, jnp.float32), Hyper())
    hyper = hyper.replace(learning_rate=jnp.asarray([1e-3, 3e-3]))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    state = init_learners(keys, TASK, None, CONFIG, hyper, mesh)
    began = np.asarray(state.environments.signal)
    chunk = make_chunk(1, TASK, CONFIG, mesh, seeds_at_once)
    history = []
    for _ in range(CHUNKS):
        state, metrics = chunk(state, None, PHASE, hyper)
        history.append({name: value.tolist() for name, value in metrics.items()})
    leaves = jax.tree.leaves(state.params)
    shards = [shard.data.shape for shard in state.environments.signal.addressable_shards]
    return {
        "began": began.tolist(),
        "used": np.asarray(state.environments.used).tolist(),
        "metrics": history,
        "params": np.concatenate([np.asarray(leaf).ravel() for leaf in leaves]).tolist(),
        "keys": jax.random.key_data(state.key).tolist(),
        "shards": shards,
        "whole": all(leaf.sharding.is_fully_replicated for leaf in leaves),
        "copies_equal": all(
            np.array_equal(leaf.addressable_shards[0].data, shard.data)
            for leaf in leaves
            for shard in leaf.addressable_shards
        ),
    }


def main() -> None:
    # side by side on one device; one after the other on eight
    found: dict[str, Any] = {"one": train(1, None), "eight": train(DEVICES, 1)}
    hyper = jax.tree.map(lambda number: jnp.full(1, number, jnp.float32), Hyper())
    refused = {"too few": {"num_envs": 12}, "split pairs": {"num_envs": 8, "mirrored": True}}
    for name, changes in refused.items():
        config = MappoConfig(**{**vars(CONFIG), **changes})
        keys = jax.random.split(jax.random.key(0), 1)
        try:
            init_learners(keys, TASK, None, config, hyper, mesh_of(DEVICES))
        except ValueError as error:
            found[name] = str(error)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip(),
        "PYTHONPATH": path,
    }
    done = subprocess.run(
        [sys.executable, "-c", START, __file__],
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_environments_are_split_and_all_else_is_whole(found):
    assert found["one"]["shards"] == [[SEEDS, ENVIRONMENTS, 1, 2]]
    assert found["eight"]["shards"] == [[SEEDS, ENVIRONMENTS // DEVICES, 1, 2]] * DEVICES
    assert found["eight"]["whole"] and found["eight"]["copies_equal"]


def test_every_environment_has_randomness_of_its_own(found):
    for devices in ("one", "eight"):
        used = np.asarray(found[devices]["used"]).reshape(SEEDS * ENVIRONMENTS, 2)
        assert len(np.unique(used, axis=0)) == SEEDS * ENVIRONMENTS
        began = np.asarray(found[devices]["began"]).ravel()
        assert len(np.unique(began)) == SEEDS * ENVIRONMENTS * 2
    # a function of the environment's number, whichever device it is on
    for name in ("used", "began", "keys"):
        assert found["one"][name] == found["eight"][name]


def test_eight_devices_learn_what_one_does(found):
    one, eight = found["one"], found["eight"]
    # sums over devices are rounded in another order, and Adam divides by small numbers
    np.testing.assert_allclose(eight["params"], one["params"], rtol=1e-4, atol=1e-5)
    assert len(one["metrics"]) == CHUNKS
    for here, there in zip(one["metrics"], eight["metrics"], strict=True):
        for name, value in here.items():
            np.testing.assert_allclose(there[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    rewards = np.asarray([row["reward"] for row in one["metrics"]])
    assert len(np.unique(rewards)) == rewards.size  # seeds and updates differ: something happened


def test_environments_that_do_not_divide_are_refused(found):
    assert found["too few"] == "num_envs must be a multiple of 8 on 8 devices, got 12."
    message = "num_envs must be a multiple of 16 on 8 devices with mirrored pairs, got 8."
    assert found["split pairs"] == message


if __name__ == "__main__":
    main()
