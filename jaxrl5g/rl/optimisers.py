"""AdamW with gradient clipping, a learning-rate schedule, and leaves that may be frozen."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("constant", "linear", "cosine")
"""How the learning rate goes from its first value to its last."""


@dataclasses.dataclass(frozen=True)
class OptimiserSettings:
    """Settings of `build_optimiser`. Every number may be a traced scalar instead.

    Attributes:
      learning_rate: of the first step, at least 0.
      end_learning_rate: of the last step and all after it, unless the schedule is constant.
      schedule: "constant", "linear" or "cosine".
      max_grad_norm: above 0; gradients of a larger global norm are scaled down to it. inf for no
        clipping.
      b1: Adam's decay of the first moment, in [0, 1).
      b2: Adam's decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, above 0.
      weight_decay: decoupled (AdamW), of every trainable leaf, per unit of learning rate.
    """

    learning_rate: float = 3e-4
    end_learning_rate: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: float = 0.5
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-5
    weight_decay: float = 0.0


Trainable = Any
"""Pytree of bools (traced ones too), or a function from the parameters to one; a prefix of their
tree will do."""


def build_optimiser(
    settings: OptimiserSettings,
    trainable: Trainable | None = None,
    *,
    steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip by global norm, Adam, decay, scale by the scheduled learning rate.

    Frozen leaves stay bit-equal under `optax.apply_updates`, whatever their gradients, NaN
    included: these are left out before the norm is taken, nothing decays them, and their moments
    do not move. (But for subnormal numbers, which an addition may flush to 0.) The state's
    structure does not depend on what is frozen, so a phase that freezes other leaves may keep the
    state or start anew.

    Building costs nothing, so traced settings (a learning rate that is vmapped) are given by
    building inside the traced function. Source: Loshchilov and Hutter, Decoupled weight decay
    regularisation (2019).

    Args:
      settings: numbers and schedule.
      trainable: which leaves to train, all by default.
      steps: updates until `end_learning_rate` is reached; needed unless the schedule is constant.

    Raises:
      ValueError: unknown schedule, a concrete setting out of range, or `steps` missing or below 1;
        from `init` and `update`, if `trainable` holds anything but bools.
    """
    core = optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_learning_rate(learning_rate_schedule(settings, steps)),
    )
    return optax.with_extra_args_support(core) if trainable is None else _freeze(core, trainable)


def learning_rate_schedule(settings: OptimiserSettings, steps: int | None = None) -> optax.Schedule:
    """The learning rate as a function of the updates done before (int32[...], from 0).

    Raises:
      ValueError: as `build_optimiser`.
    """
    _check_settings(settings, steps)
    if settings.schedule == "constant" or steps is None:
        return optax.constant_schedule(settings.learning_rate)
    if settings.schedule == "linear":
        remaining = optax.linear_schedule(1.0, 0.0, steps)
    else:
        remaining = optax.cosine_decay_schedule(1.0, steps)
    last = settings.end_learning_rate
    return lambda count: last + (settings.learning_rate - last) * remaining(count)


def _freeze(
    core: optax.GradientTransformation, trainable: Trainable
) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> Any:
        _as_tree(trainable, params)
        return core.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del extra_args
        mask = _as_tree(trainable, updates if params is None else params)
        updates = jax.tree.map(lambda m, g: jnp.where(m, g, 0.0), mask, updates)
        updates, moved = core.update(updates, state, params)
        # -0, not 0: only x + (-0) is x bit by bit, also where x is -0
        updates = jax.tree.map(lambda m, u: jnp.where(m, u, -0.0), mask, updates)
        # the mask, spread over every copy of the parameters' tree that the state holds
        moves = optax.tree_map_params(
            core, lambda _, m: m, state, mask, transform_non_params=lambda _: True
        )
        return updates, jax.tree.map(
            lambda m, new, old: jnp.where(m, new, old), moves, moved, state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _as_tree(trainable: Trainable, params: Any) -> Any:
    """One bool for every leaf of `params`."""
    given = trainable(params) if callable(trainable) else trainable
    for leaf in jax.tree.leaves(given):
        array = isinstance(leaf, jax.Array) and leaf.dtype == jnp.bool_ and leaf.ndim == 0
        if not (array or isinstance(leaf, bool)):
            raise ValueError(f"trainable must hold only bools, got {leaf!r}.")
    return jax.tree.broadcast(given, params)


def _check_settings(settings: OptimiserSettings, steps: int | None) -> None:
    if settings.schedule not in SCHEDULES:
        raise ValueError(
            f"schedule must be one of {', '.join(SCHEDULES)}, got {settings.schedule!r}."
        )
    if settings.schedule != "constant" and (steps is None or steps < 1):
        raise ValueError(f"a {settings.schedule} schedule needs steps of at least 1, got {steps}.")
    allowed = {
        "learning_rate": (lambda x: x >= 0, "at least 0"),
        "end_learning_rate": (lambda x: x >= 0, "at least 0"),
        "max_grad_norm": (lambda x: x > 0, "above 0"),
        "b1": (lambda x: 0 <= x < 1, "in [0, 1)"),
        "b2": (lambda x: 0 <= x < 1, "in [0, 1)"),
        "eps": (lambda x: x > 0, "above 0"),
        "weight_decay": (lambda x: x >= 0, "at least 0"),
    }
    for name, (holds, range_) in allowed.items():
        value = getattr(settings, name)
        if isinstance(value, int | float) and not holds(value):
            raise ValueError(f"{name} must be {range_}, got {value}.")
