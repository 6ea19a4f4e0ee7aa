"""What every learner hands back."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


class Result(struct.PyTreeNode):
    """The end of one training run; every leaf's shape is known before it starts.

    Attributes:
      params: the learner's final state.
      policy: the learned policy, as the learner says.
      metrics: by name, arrays whose shapes the learner says.
    """

    params: Any
    policy: Any
    metrics: dict[str, jax.Array]
