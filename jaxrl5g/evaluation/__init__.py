"""Evaluation on matched realisations: rollouts, metrics, statistics."""

from jaxrl5g.evaluation.metrics import Metrics
from jaxrl5g.evaluation.rollout import WARM_UP_SLOTS, drop_tracks, evaluate, record_episode
from jaxrl5g.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap

__all__ = [
    "WARM_UP_SLOTS",
    "Interval",
    "Metrics",
    "bootstrap_interval",
    "drop_tracks",
    "evaluate",
    "paired_bootstrap",
    "record_episode",
]
