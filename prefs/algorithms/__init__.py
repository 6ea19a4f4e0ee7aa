"""Learners from preferences, one file each."""

from prefs.algorithms import dueling_posterior_sampling, pbts, pr_lsvi
from prefs.algorithms.dueling_posterior_sampling import DPSConfig
from prefs.algorithms.links import Judge, Link, Logistic, Probit
from prefs.algorithms.pbts import PbTSConfig
from prefs.algorithms.pr_lsvi import PRLSVIConfig, greedy, practical, theory
from prefs.algorithms.result import Result

__all__ = [
    "DPSConfig",
    "Judge",
    "Link",
    "Logistic",
    "PRLSVIConfig",
    "PbTSConfig",
    "Probit",
    "Result",
    "dueling_posterior_sampling",
    "greedy",
    "pbts",
    "pr_lsvi",
    "practical",
    "theory",
]
