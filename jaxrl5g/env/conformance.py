"""A conformance test that every environment of this kind must pass; for third parties too."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl5g.mac import Allocation


def _same_form(name: str, one: Any, other: Any) -> None:
    first, second = jax.tree.structure(one), jax.tree.structure(other)
    if first != second:
        raise AssertionError(f"{name} changes its structure: {first} against {second}.")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(
                f"{name} changes a leaf from {a.dtype}{a.shape} to {b.dtype}{b.shape}."
            )


def _finite(name: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise AssertionError(f"{name}{jax.tree_util.keystr(path)} is not finite.")


def _equal(name: str, one: Any, other: Any) -> None:
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(one),
        jax.tree_util.tree_leaves_with_path(other),
        strict=True,
    ):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        close = np.allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-4)
        if not close:
            raise AssertionError(f"{name}: leaf {jax.tree_util.keystr(path)} differs.")


def check_env(env: Any, params: Any = None, num_steps: int = 12, seed: int = 0) -> None:
    """Raises AssertionError, saying what is wrong, unless `env` keeps the house contract.

    Checked on random actions: six-value step; fixed structures, shapes and dtypes; observations
    inside their space and finite; power within budget, one owner a PRB and nothing for masked
    users; unsound actions survived and counted; truncation at the horizon, never termination;
    same-step autoreset with the final observation; determinism; one trace; and the same numbers
    under jit, vmap and scan.

    Args:
      env: a gymnax >= 1.0 environment whose actions are `Allocation`s.
      params: its parameters, by default `env.default_params`.
      num_steps: horizon used for the check.
      seed: of the actions.
    """
    params = env.default_params if params is None else params
    params = params.replace(max_steps_in_episode=jnp.int32(num_steps))
    config = params.config
    key = jax.random.key(seed)
    space = env.action_space(params)

    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(env.step, n=1))
    reset = jax.jit(chex.assert_max_traces(env.reset, n=1))
    sample = jax.jit(space.sample)
    sampled_well = jax.jit(space.contains)
    seen_well = jax.jit(env.observation_space(params).contains)

    observation, state = reset(key, params)
    again, _ = reset(key, params)
    _equal("reset with the same key", observation, again)
    first_state, first_observation = state, observation
    mask = np.asarray(observation.mask)
    for index in range(num_steps):
        action = sample(jax.random.fold_in(key, index))
        if not bool(sampled_well(action)):
            raise AssertionError("a sampled action lies outside the action space.")
        if not bool(seen_well(observation)):
            raise AssertionError(f"observation {index} lies outside its space.")
        result = step(jax.random.fold_in(key, 1000 + index), state, action, params)
        if len(result) != 6:
            raise AssertionError(f"step returned {len(result)} values, not 6.")
        observation, state, reward, terminated, truncated, info = result
        _same_form("state", first_state, state)
        _same_form("observation", first_observation, observation)
        _finite("observation", observation)
        _finite("final_observation", info["final_observation"])
        _finite("reward", reward)
        if bool(terminated):
            raise AssertionError("a downlink must not terminate, only truncate.")
        if bool(truncated) != (index == num_steps - 1):
            raise AssertionError(f"truncated is {bool(truncated)} after {index + 1} slots.")
        spent = np.asarray(info["radiated"], np.float64).sum(-1)
        if (spent > float(params.power_budget) * (1 + 1e-5)).any():
            raise AssertionError(f"{spent} W were radiated with {params.power_budget} W.")
        if np.asarray(info["acked_bits"])[~mask].any() or (
            np.asarray(info["num_prbs"])[~mask].any()
        ):
            raise AssertionError("a masked user was served.")
        if (np.asarray(info["num_prbs"]).sum(-1) > config.num_prbs).any():
            raise AssertionError("more PRBs were used than there are.")
    if int(state.time) != 0:
        raise AssertionError("the step that truncates must return the state after a reset.")

    shape = (config.num_cells, config.num_prbs)
    unsound = Allocation(
        owner=jnp.full(shape, config.num_users + 7, jnp.int32).at[:, 0].set(0),
        power=jnp.full(shape, jnp.nan, jnp.float32).at[:, 0].set(1e9).at[:, 1].set(1.0),
    )
    observation, _, reward, *_, info = step(key, first_state, unsound, params)
    _finite("observation after an unsound action", observation)
    _finite("reward after an unsound action", reward)
    for name in ("bad_power", "bad_owner", "over_budget"):
        if not np.asarray(info[name]).all():
            raise AssertionError(f"info[{name!r}] does not report an unsound action.")

    _check_transforms(env, params, key, step, reset, sample)


def _check_transforms(env, params, key, step, reset, sample) -> None:
    """Same numbers step by step, under vmap, and under scan."""
    length, batch = 3, 3
    keys = jax.random.split(key, batch)

    def rollout(key, params):
        def body(state, step_key):
            action = sample(step_key)
            observation, state, reward, *_, info = env.step(step_key, state, action, params)
            return state, (observation, reward, info["acked_bits"])

        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, length))[1]

    batched = jax.jit(jax.vmap(rollout, (0, None)))(keys, params)
    _, state = reset(keys[1], params)
    for index, step_key in enumerate(jax.random.split(keys[1], length)):
        observation, state, reward, *_, info = step(step_key, state, sample(step_key), params)
        _equal(
            "vmap and scan against single steps",
            jax.tree.map(lambda leaf, index=index: leaf[1, index], batched),
            (observation, reward, info["acked_bits"]),
        )
