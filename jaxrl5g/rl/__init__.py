"""RL toolbox that knows no radio: learner, policies, losses, training loop, checkpoints."""

from jaxrl5g.rl.advantages import TwoStage, gae, two_stage_gae
from jaxrl5g.rl.checkpoints import (
    load_checkpoint,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)
from jaxrl5g.rl.distributions import (
    LOG_STD_RANGE,
    Categorical,
    CoherentGaussian,
    DiagonalGaussian,
    LatentDistribution,
    SoftmaxGaussian,
)
from jaxrl5g.rl.faults import (
    CheckpointError,
    FolderError,
    Interrupted,
    NonFiniteError,
    RunError,
)
from jaxrl5g.rl.losses import (
    PolicyStats,
    adapt_kl_coefficient,
    normalise_advantages,
    policy_loss,
    value_loss,
)
from jaxrl5g.rl.mappo import (
    Hyper,
    LearnerState,
    MappoConfig,
    PhaseSettings,
    TrainResult,
    make_train,
)
from jaxrl5g.rl.networks import ACTIVATIONS, MLP, Equivariant, Pooled
from jaxrl5g.rl.normalisers import (
    VARIANCE_FLOOR,
    RunningMoments,
    denormalise,
    init_moments,
    normalise,
    update_moments,
)
from jaxrl5g.rl.optimisers import (
    SCHEDULES,
    OptimiserSettings,
    build_optimiser,
    learning_rate_schedule,
)
from jaxrl5g.rl.trackers import ConsoleTracker, TensorBoardTracker, Tracker, WandbTracker
from jaxrl5g.rl.training_loop import Phase, run_phases
from jaxrl5g.rl.two_turn import Seen, Turn, TwoTurnTask
from jaxrl5g.rl.writable import check_writable

__all__ = [
    "ACTIVATIONS",
    "Categorical",
    "CheckpointError",
    "CoherentGaussian",
    "ConsoleTracker",
    "DiagonalGaussian",
    "Equivariant",
    "FolderError",
    "Hyper",
    "Interrupted",
    "LOG_STD_RANGE",
    "LatentDistribution",
    "LearnerState",
    "MLP",
    "MappoConfig",
    "NonFiniteError",
    "OptimiserSettings",
    "Phase",
    "PhaseSettings",
    "PolicyStats",
    "Pooled",
    "RunError",
    "RunningMoments",
    "SCHEDULES",
    "Seen",
    "SoftmaxGaussian",
    "TensorBoardTracker",
    "Tracker",
    "TrainResult",
    "Turn",
    "TwoStage",
    "TwoTurnTask",
    "VARIANCE_FLOOR",
    "WandbTracker",
    "adapt_kl_coefficient",
    "build_optimiser",
    "check_writable",
    "denormalise",
    "gae",
    "init_moments",
    "learning_rate_schedule",
    "load_checkpoint",
    "make_train",
    "normalise",
    "normalise_advantages",
    "policy_loss",
    "read_checkpoint",
    "read_metadata",
    "run_phases",
    "two_stage_gae",
    "update_moments",
    "value_loss",
    "write_checkpoint",
]
