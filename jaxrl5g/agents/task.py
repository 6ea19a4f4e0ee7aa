"""The downlink as a task of two agents in turn, for `jaxrl5g.rl.mappo`."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxrl5g.agents.controller import ControllerConfig, see, see_assignment
from jaxrl5g.agents.decisions import agree, allot, assign, fair_assignment, find, value
from jaxrl5g.agents.slots import Slot, coordinate, prepare
from jaxrl5g.env import DownlinkEnv
from jaxrl5g.env.reward import jain_index
from jaxrl5g.mac import Observation
from jaxrl5g.mac.schedulers import average, initial_average
from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask


class _Episode(NamedTuple):
    """An episode under way: the environment, and the controller's average."""

    environment: Any
    observation: Observation
    mean: jax.Array


class _State(NamedTuple):
    """An episode before a decision, and what the PRB agent will find and see."""

    episode: _Episode
    slot: Slot
    seen: Seen


class _Plan(NamedTuple):
    """A slot being worked through; `owner` and `latent` once the PRB agent has decided or rests."""

    episode: _Episode
    slot: Slot
    seen: Seen
    owner: jax.Array
    latent: jax.Array
    rest: jax.Array


def downlink_task(
    env: DownlinkEnv, config: ControllerConfig, reward_scale: float = 1.0
) -> TwoTurnTask:
    """The controller's decisions as a `TwoTurnTask`; one step is `decision_period` slots.

    The reward of a step is the mean of its slots' rewards, times `reward_scale`. The horizon
    must be a multiple of the decision period, so that an episode ends with a step.

    Args:
      env: its parameters are the task's: `params` of every function is a `DownlinkParams`.
      config: parametrisation, period and window.
      reward_scale: factor on the environment's reward.

    Raises:
      ValueError: from the functions, if the horizon is known and not a multiple of the period.
    """
    period, kind = config.decision_period, config.parametrisation

    def look(observation: Observation, mean: jax.Array, params: Any) -> tuple[Slot, Seen]:
        slot = find(observation, mean, params, kind)
        return slot, see(slot, observation, params, config)

    def reset(key: jax.Array, params: Any) -> _State:
        check_horizon(params, period)
        observation, environment = env.reset_env(key, params)
        mean = average(initial_average(params), observation.acked_bits, config.window)
        return _State(_Episode(environment, observation, mean), *look(observation, mean, params))

    def first(state: _State, params: Any) -> tuple[Seen, _Plan]:
        del params
        episode, slot, seen = state
        nobody = jnp.zeros_like(episode.mean)
        return seen, _Plan(episode, slot, seen, slot.fair_owner, nobody, jnp.bool_(False))

    def assigned(slot: Slot, latent: jax.Array, rest: jax.Array, params: Any) -> jax.Array:
        return jnp.where(rest, fair_assignment(slot), assign(slot, latent, params, kind))

    def second(
        plan: _Plan, latent: jax.Array, at_rest: jax.Array, params: Any
    ) -> tuple[Seen, _Plan]:
        observation = plan.episode.observation
        latent = jnp.where(at_rest, 0.0, latent)
        levels = agree(plan.slot, latent, observation, params)
        slot = coordinate(plan.slot, levels, observation, params)
        slot = value(slot, latent, params, kind)
        owner = assigned(slot, latent, at_rest, params)
        seen = see_assignment(plan.seen, slot, owner, observation, params)
        return seen, plan._replace(slot=slot, owner=owner, latent=latent, rest=at_rest)

    def step(
        key: jax.Array,
        state: _State,
        plan: _Plan,
        latent: jax.Array,
        at_rest: jax.Array,
        params: Any,
    ) -> tuple[_State, Turn]:
        power_latent = jnp.where(at_rest, 0.0, latent)

        def play(episode: _Episode, slot: Slot, owner: jax.Array, slot_key: jax.Array):
            allocation = allot(slot, owner, power_latent, episode.observation, params, kind)
            observation, environment, reward, terminated, truncated, info = env.step(
                slot_key, episode.environment, allocation, params
            )
            final = info["final_observation"]
            final_mean = average(episode.mean, final.acked_bits, config.window)
            over = terminated | truncated
            before = jnp.where(over, initial_average(params), episode.mean)
            mean = average(before, observation.acked_bits, config.window)
            told = {
                "bits": jnp.sum(info["acked_bits"]),
                "jain": jain_index(final.throughput, final.mask),
                "log_throughput": jnp.sum(
                    jnp.where(final.mask, jnp.log(jnp.maximum(final.throughput, 1.0)), 0.0)
                )
                / jnp.sum(final.mask),
            }
            end = (final, final_mean, reward, terminated, truncated, told)
            return _Episode(environment, observation, mean), end

        def slot_and_assignment(carry: tuple[_Episode, Slot, jax.Array], slot_key: jax.Array):
            episode, slot, owner = carry
            episode, end = play(episode, slot, owner, slot_key)
            slot = prepare(episode.observation, episode.mean, params)
            slot = coordinate(slot, plan.slot.levels, episode.observation, params)
            slot = value(slot, plan.latent, params, kind)
            owner = assigned(slot, plan.latent, plan.rest, params)
            return (episode, slot, owner), end

        if period == 1:
            episode, (final, final_mean, reward, terminated, truncated, told) = play(
                state.episode, plan.slot, plan.owner, key
            )
        else:
            # the last slot's assignment is not used: cheaper than a second program for that slot
            keys = jax.random.split(key, period)
            carry = (state.episode, plan.slot, plan.owner)
            (episode, _, _), ends = jax.lax.scan(slot_and_assignment, carry, keys)
            finals, final_means, rewards, terminations, truncations, told = ends
            final, final_mean, terminated, truncated = jax.tree.map(
                lambda leaf: leaf[-1], (finals, final_means, terminations, truncations)
            )
            reward, told = jnp.mean(rewards), jax.tree.map(jnp.mean, told)
        # once where the episode goes on; looking is long to compile, so both times are one program
        ends, begins = (final, final_mean), (episode.observation, episode.mean)

        def look_once(carry: Any) -> Any:
            count, end, _ = carry
            observation, mean = jax.tree.map(partial(jnp.where, count == 0), ends, begins)
            slot, seen = look(observation, mean, params)
            end = jax.tree.map(partial(jnp.where, count == 0), seen, end)
            return count + 1, end, (slot, seen)

        looks = jnp.where(terminated | truncated, 2, 1)
        before = (state.slot, state.seen)
        _, seen, following = jax.lax.while_loop(
            lambda carry: carry[0] < looks, look_once, (jnp.int32(0), state.seen, before)
        )
        turn = Turn(reward_scale * reward, terminated, truncated, seen, told)
        return _State(episode, *following), turn

    return TwoTurnTask(reset, first, second, step)


def check_horizon(params: Any, period: int) -> None:
    """Raise `ValueError` if the horizon, where it is known, is not a multiple of the period."""
    horizon = params.max_steps_in_episode
    if not isinstance(horizon, Tracer) and int(horizon) % period:
        raise ValueError(
            f"the horizon of {int(horizon)} slots must be a multiple of the decision period, "
            f"{period}."
        )
