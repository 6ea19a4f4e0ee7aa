"""Evaluation on matched realisations: rollouts, metrics, statistics, frontier and bounds."""

from jaxrl5g.evaluation.bounds import EpisodeBound, episode_bound
from jaxrl5g.evaluation.comparisons import (
    ENDPOINTS,
    Comparison,
    Endpoint,
    compare,
    exchange_test,
    holm,
    interquartile_mean,
    probability_of_improvement,
)
from jaxrl5g.evaluation.frontier import (
    MatchedGain,
    concave_majorant,
    matched_jain_gain,
    mean_jain_gain,
)
from jaxrl5g.evaluation.metrics import Metrics
from jaxrl5g.evaluation.rollout import (
    WARM_UP_SLOTS,
    Always,
    drop_tracks,
    evaluate,
    evaluate_family,
    evaluate_stack,
    record_episode,
)
from jaxrl5g.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    hierarchical_bootstrap,
    paired_bootstrap,
    paired_hierarchical_bootstrap,
)

__all__ = [
    "ENDPOINTS",
    "WARM_UP_SLOTS",
    "Always",
    "Comparison",
    "Endpoint",
    "EpisodeBound",
    "Interval",
    "MatchedGain",
    "Metrics",
    "bootstrap_interval",
    "compare",
    "concave_majorant",
    "drop_tracks",
    "episode_bound",
    "evaluate",
    "evaluate_family",
    "evaluate_stack",
    "exchange_test",
    "hierarchical_bootstrap",
    "holm",
    "interquartile_mean",
    "matched_jain_gain",
    "mean_jain_gain",
    "paired_bootstrap",
    "paired_hierarchical_bootstrap",
    "probability_of_improvement",
    "record_episode",
]
