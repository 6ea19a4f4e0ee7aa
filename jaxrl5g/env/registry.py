"""Named environments: `make(id)` and `registered()`."""

from __future__ import annotations

import dataclasses
import difflib
import os
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl5g import channel as channels
from jaxrl5g.channel import Channel, link_budget
from jaxrl5g.env.downlink import DownlinkEnv
from jaxrl5g.env.reward import peak_cell_rate
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams


class EnvSpec(NamedTuple):
    """A registered environment.

    Attributes:
      description: one line for listings.
      config: overrides of `DownlinkConfig`.
      caches: shipped cache by split, for ray-traced environments.
      channel: analytic channel class, for the others.
      channel_options: overrides of the channel's fields.
    """

    description: str
    config: dict[str, Any]
    caches: dict[str, str] | None = None
    channel: Any = None
    channel_options: dict[str, Any] | None = None

    @property
    def held_out_split(self) -> str | None:
        """The split that evaluation uses: test where there is one, else validation."""
        if self.caches is None:
            return None
        return "test" if "test" in self.caches else "validation"


_SPECS: dict[str, EnvSpec] = {
    "MunichDownlink-v0": EnvSpec(
        "ray-traced munich, one cell, pedestrians and vehicles",
        {},
        {"train": "munich-train", "validation": "munich-validation"},
    ),
    "EtoileDownlink-v0": EnvSpec(
        "ray-traced etoile, one cell, pedestrians, never trained on",
        {},
        {"test": "etoile-test"},
    ),
    "MunichDownlink3Cell-v0": EnvSpec(
        "ray-traced munich, three cells that interfere, pedestrians",
        {"num_cells": 3, "num_users": 8},
        {"train": "munich3-train", "test": "munich3-test"},
    ),
    "RayleighDownlink-v0": EnvSpec(
        "i.i.d. Rayleigh fading in every slot and PRB", {}, channel=channels.RayleighChannel
    ),
    "UMiDownlink-v0": EnvSpec("TR 38.901 UMi street canyon drop", {}, channel=channels.UMiChannel),
    "TinyDownlink-v0": EnvSpec(
        "4 users on 12 PRBs with correlated Rayleigh fading, for tests and tutorials",
        {"num_users": 4, "num_prbs": 12},
        channel=channels.JakesChannel,
        channel_options={"num_taps": 4},
    ),
}


def registered() -> tuple[str, ...]:
    """Ids that `make` accepts."""
    return tuple(_SPECS)


def spec(env_id: str) -> EnvSpec:
    """What is registered under `env_id`.

    Raises:
      ValueError: unknown id; the nearest known name is named.
    """
    if env_id not in _SPECS:
        raise ValueError(_unknown("environment id", str(env_id), _SPECS))
    return _SPECS[env_id]


def _unknown(what: str, name: str, known) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}."
    return f"unknown {what} {name!r}; {hint}"


_LEAVES = {
    field.name
    for field in dataclasses.fields(DownlinkParams)
    if field.name not in ("channel", "config")
}


def _cached_channel(env: EnvSpec, split: str | None, cache) -> Channel:
    if cache is not None:
        return channels.CachedChannel.from_cache(channels.load(os.fspath(cache)))
    assert env.caches is not None
    split = next(iter(env.caches)) if split is None else split
    if split not in env.caches:
        raise ValueError(_unknown("split", str(split), env.caches))
    return channels.CachedChannel.from_cache(channels.shipped(env.caches[split]))


def make_params(config: DownlinkConfig, channel: Channel, **leaves: Any) -> DownlinkParams:
    """Parameters with the project's defaults for everything not given.

    Args:
      config: static sizes and choices.
      channel: source of gains with the same cells and PRBs.
      **leaves: values for fields of `DownlinkParams`.

    Raises:
      ValueError: an unknown field, sizes that do not match, or a value out of its range.
    """
    for name in leaves:
        if name not in _LEAVES:
            raise ValueError(_unknown("parameter", name, sorted(_LEAVES)))
    for size in ("num_cells", "num_prbs"):
        if getattr(channel, size) != getattr(config, size):
            raise ValueError(
                f"{size} must be {getattr(channel, size)}, that of the channel, "
                f"got {getattr(config, size)}."
            )
    share = config.num_prbs / link_budget.REFERENCE_NUM_PRBS
    horizon = 400 if channel.num_slots is None else channel.num_slots
    defaults = {
        # the reference power density at any bandwidth
        "power_budget": link_budget.power_budget_watts() * share,
        "noise_power": link_budget.noise_power(),
        "bler_target": 0.1,
        "olla_step_db": 1.0,
        "throughput_window": 100.0,
        "initial_throughput": 0.01 * peak_cell_rate(config) / config.num_users,
        "throughput_weight": 1.0,
        "fairness_weight": 0.5,
        "fairness_alpha": 1.0,
        "min_users": config.num_users,
        "max_users": config.num_users,
        "tracks": np.full((config.num_cells, config.num_users), -1),
        "start_slot": -1,
        "max_steps_in_episode": horizon,
    }
    values = {**defaults, **leaves}
    _check(values, config, channel)
    integers = ("min_users", "max_users", "tracks", "start_slot", "max_steps_in_episode")
    arrays = {
        name: jnp.asarray(value, jnp.int32 if name in integers else jnp.float32)
        for name, value in values.items()
    }
    return DownlinkParams(channel=channel, config=config, **arrays)


def _check(values: dict[str, Any], config: DownlinkConfig, channel: Channel) -> None:
    v = {name: np.asarray(value) for name, value in values.items()}
    positive = ("power_budget", "noise_power", "olla_step_db", "initial_throughput")
    for name in positive:
        if not (np.isfinite(v[name]) & (v[name] > 0)).all():
            raise ValueError(f"{name} must be positive, got {values[name]}.")
    rules = [
        ("bler_target", (v["bler_target"] > 0) & (v["bler_target"] < 1), "inside (0, 1)"),
        ("throughput_window", v["throughput_window"] >= 1, "at least 1 slot"),
        ("throughput_weight", np.isfinite(v["throughput_weight"]), "finite"),
        ("fairness_weight", np.isfinite(v["fairness_weight"]), "finite"),
        ("fairness_alpha", v["fairness_alpha"] >= 0, "at least 0"),
        ("min_users", v["min_users"] >= 1, "at least 1"),
        ("max_users", v["max_users"] <= config.num_users, f"at most {config.num_users}"),
        ("max_users", v["max_users"] >= v["min_users"], "at least min_users"),
        ("max_steps_in_episode", v["max_steps_in_episode"] >= 1, "at least 1"),
    ]
    if channel.num_slots is not None:
        longest = channel.num_slots
        fits = v["max_steps_in_episode"] + np.maximum(v["start_slot"], 0) <= longest
        rules.append(("max_steps_in_episode", fits, f"within the cache's {longest} slots"))
    for name, holds, wanted in rules:
        if not np.all(holds):
            raise ValueError(f"{name} must be {wanted}, got {values[name]}.")
    shape = (config.num_cells, config.num_users)
    if v["tracks"].shape != shape:
        raise ValueError(
            f"tracks must have shape [cells, users] = {shape}, got {v['tracks'].shape}."
        )


def make(
    env_id: str,
    *,
    split: str | None = None,
    cache: str | os.PathLike | None = None,
    **overrides: Any,
) -> tuple[DownlinkEnv, DownlinkParams]:
    """A registered environment and its parameters.

    Args:
      env_id: one of `registered()`.
      split: which shipped cache a ray-traced environment draws from, e.g. "train" (the default
        where there is one), "validation" or "test".
      cache: a cache file of your own in place of the shipped one.
      **overrides: fields of `DownlinkConfig` (`fidelity="sionna"`, `csi="perfect"`,
        `num_users=8`, ...), of `DownlinkParams` (`bler_target=0.05`, `start_slot=0`, ...) or of
        an analytic channel (`doppler_hz=50.0`, ...).

    Returns:
      (env, params); `params` carries the channel and goes into every call.

    Raises:
      ValueError: unknown id, split or key (the nearest name is given), or a value out of range.
    """
    env = spec(env_id)
    config_fields = {field.name for field in dataclasses.fields(DownlinkConfig)}
    analytic = env.channel is not None
    if analytic and (split is not None or cache is not None):
        given = "split" if split is not None else "cache"
        raise ValueError(f"{env_id} has an analytic channel and takes no {given}.")
    channel_fields = (
        {f.name for f in dataclasses.fields(env.channel)} - config_fields if analytic else set()
    )
    known = config_fields | _LEAVES | channel_fields
    for key in overrides:
        if key not in known:
            raise ValueError(_unknown(f"{env_id} option", key, sorted(known)))
    settings = dict(env.config)
    settings.update({k: v for k, v in overrides.items() if k in config_fields})
    if analytic:
        config = DownlinkConfig(**settings)
        options = dict(env.channel_options or {})
        options.update({k: v for k, v in overrides.items() if k in channel_fields})
        if "slot_seconds" in {f.name for f in dataclasses.fields(env.channel)}:
            options["slot_seconds"] = np.float32(config.slot_seconds)
        channel = env.channel(num_cells=config.num_cells, num_prbs=config.num_prbs, **options)
    else:
        channel = _cached_channel(env, split, cache)
        if cache is not None:
            settings = {
                "num_cells": channel.num_cells,
                "num_prbs": channel.num_prbs,
                **{k: v for k, v in settings.items() if k not in ("num_cells", "num_prbs")},
            }
        config = DownlinkConfig(**settings)
        available = int(np.asarray(channel.counts).min())  # pyright: ignore[reportAttributeAccessIssue]
        if config.num_users > available:
            raise ValueError(
                f"num_users must be at most {available}, the tracks per cell of the cache, "
                f"got {config.num_users}."
            )
    leaves = {k: v for k, v in overrides.items() if k in _LEAVES}
    params = make_params(config, channel, **leaves)
    return DownlinkEnv(params), params
