"""Contrastive preference learning of one table in PyTorch, one run after the other.

The straightforward loop that `benchmark prefs` times beside `prefs.algorithms.cpl`; used nowhere
else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.names import UsageError
from prefs.algorithms.cpl import CPLConfig
from prefs.feedback.segments import PreferenceData


class Trained(NamedTuple):
    """A run's end.

    Attributes:
        policy: float32[S, A], probabilities.
        loss: of the last update, before it.
    """

    policy: np.ndarray
    loss: float


def import_torch():
    """Return the module torch.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(
            "the rivals need PyTorch, which is not installed: `pip install torch`, or --no-rivals."
        ) from None
    return torch


def train(data: PreferenceData, shape: tuple[int, int], config: CPLConfig) -> Trained:
    """Clone all segments, then minimise CPL's loss, both by full-batch Adam from zero logits.

    Args:
        data: segments without padding, comparisons that all count.
        shape: (S, A).
        config: `bc_steps`, `steps`, both learning rates, `alpha` and `conservative_bias` are
            heeded; discount 1, no minibatches and no warm-up are taken for granted.

    Raises:
        UsageError: PyTorch is not installed.
    """
    torch = import_torch()
    from torch.nn.functional import log_softmax, softplus

    segments, pairs = data.segments, data.pairs
    numbers = np.asarray(segments.observations) * shape[1] + np.asarray(segments.actions)
    steps = torch.as_tensor(numbers, dtype=torch.int64)
    first, second = (torch.as_tensor(np.array(side)).long() for side in (pairs.first, pairs.second))
    label = torch.as_tensor(np.array(pairs.label))
    logits = torch.zeros(shape, requires_grad=True)
    bias = float(config.conservative_bias)

    def log_probs():
        return log_softmax(logits, -1).flatten().take(steps)

    def cloning():
        return -log_probs().mean()

    def contrast():
        z = float(config.alpha) * log_probs().sum(-1)
        z1, z2 = z[first], z[second]
        return torch.mean(label * softplus(bias * z2 - z1) + (1 - label) * softplus(bias * z1 - z2))

    loss = torch.tensor(torch.nan)
    phases = (
        (cloning, config.bc_steps, config.bc_learning_rate),
        (contrast, config.steps, config.learning_rate),
    )
    for objective, updates, rate in phases:
        optimiser = torch.optim.Adam([logits], lr=float(rate))
        for _ in range(updates):
            optimiser.zero_grad()
            cost = objective()
            cost.backward()
            optimiser.step()
            loss = cost.detach()
    return Trained(torch.softmax(logits.detach(), -1).numpy(), float(loss))
