"""Learners from preferences: one module a learner, each with a config and a `make_train`."""

from prefs.algorithms import (
    bc,
    cpl,
    cpl_bc,
    cpl_kl,
    cpl_rank,
    dueling_posterior_sampling,
    pbts,
    percent_bc,
    pr_lsvi,
    preference_iql,
    reward_planning,
    reward_soft_policy,
    sft,
)
from prefs.algorithms.bc import BCConfig
from prefs.algorithms.cpl import CPLConfig
from prefs.algorithms.cpl_bc import CPLBCConfig
from prefs.algorithms.cpl_kl import CPLKLConfig
from prefs.algorithms.cpl_rank import CPLRankConfig
from prefs.algorithms.dueling_posterior_sampling import DPSConfig
from prefs.algorithms.pbts import PbTSConfig
from prefs.algorithms.percent_bc import PercentBCConfig
from prefs.algorithms.policies import (
    CategoricalMLP,
    GaussianMLP,
    Policy,
    TabularSoftmax,
    policy_for,
)
from prefs.algorithms.pr_lsvi import PRLSVIConfig
from prefs.algorithms.preference_iql import PIQLConfig
from prefs.algorithms.result import Result
from prefs.algorithms.reward_planning import RewardPlanningConfig
from prefs.algorithms.reward_soft_policy import RewardSoftPolicyConfig
from prefs.algorithms.sft import SFTConfig

__all__ = [
    "BCConfig",
    "CPLBCConfig",
    "CPLConfig",
    "CPLKLConfig",
    "CPLRankConfig",
    "CategoricalMLP",
    "DPSConfig",
    "GaussianMLP",
    "PIQLConfig",
    "PRLSVIConfig",
    "PbTSConfig",
    "PercentBCConfig",
    "Policy",
    "Result",
    "RewardPlanningConfig",
    "RewardSoftPolicyConfig",
    "SFTConfig",
    "TabularSoftmax",
    "bc",
    "cpl",
    "cpl_bc",
    "cpl_kl",
    "cpl_rank",
    "dueling_posterior_sampling",
    "pbts",
    "percent_bc",
    "policy_for",
    "pr_lsvi",
    "preference_iql",
    "reward_planning",
    "reward_soft_policy",
    "sft",
]
