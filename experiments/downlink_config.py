"""Options of the `downlink` experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VARIANTS = ("full", "prb_only", "power_only", "no_curriculum", "shared_critic")


@dataclass(frozen=True)
class Scenario:
    """Where controllers are trained, chosen and tested."""

    train_env: str = "MunichDownlink-v0"
    """Environment to train in."""
    train_split: str | None = "train"
    """Its tracks to train on; None for an analytic channel."""
    validation_split: str | None = "validation"
    """Its tracks on which the best state of a training run is chosen."""
    validation_drops: int = 8
    """Drops of each validation."""
    test_env: str = "EtoileDownlink-v0"
    """Environment to test in, on tracks that nothing was tuned on."""
    test_drops: int = 32
    """Disjoint drops to test on."""
    slots: int = 400
    """Slots per episode, in training and test; a multiple of the decision period."""
    residual_reward: Literal["alpha_fair", "weighted_rate", "fairness"] = "alpha_fair"
    """Training reward of `residual`: growth of alpha-fair utility, its slope along the bits that a
    slot sends with `fairness_weight` times that of Jain's index (`weighted_rate`), or as
    `paper_reward`."""
    weighted_reward: Literal["alpha_fair", "weighted_rate", "fairness"] = "weighted_rate"
    """Training reward of `weighted`, as `residual_reward`."""
    paper_reward: Literal["alpha_fair", "weighted_rate", "fairness"] = "fairness"
    """Training reward of `paper`: cell throughput and Jain's index, smoothed, as in the paper."""
    coordinated_reward: Literal["alpha_fair", "weighted_rate", "fairness"] = "alpha_fair"
    """Training reward of `coordinated`, as `residual_reward`."""
    reward_window: float = 100.0
    """Slots of the average of throughput in training rewards."""
    fairness_weight: float = 0.3
    """Of Jain's index, against cell throughput over its peak in the reward "fairness", against
    mean log throughput in "weighted_rate"."""
    fairness_alpha: float = 1.0
    """Alpha of the rewards "alpha_fair" and "weighted_rate": 1 for mean log throughput."""


@dataclass(frozen=True)
class Decisions:
    """What the agents decide, and how often."""

    period: int = 10
    """Slots for which a decision holds: 1, 10, 100."""
    window: float = 400.0
    """Slots of the controller's own average of throughput: what was tuned for knapsack power."""


@dataclass(frozen=True)
class Training:
    """MAPPO and its curriculum."""

    seeds: int = 5
    """Trainings of each variant."""
    num_envs: int = 128
    """Environments of each."""
    rollout_steps: int = 20
    """Decisions of every environment between updates."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 4
    """Parts of a rollout."""
    actor_features: tuple[int, ...] = (32, 32)
    """Hidden layers of each agent; none, with `actor_linear`, for a linear map alone."""
    actor_linear: bool = False
    """Add a linear map of what an agent sees to its network's output."""
    critic_features: tuple[int, ...] = (64, 64)
    """Hidden layers of each critic."""
    mirrored: bool = True
    """Environments in pairs of equal luck that explore in opposite directions."""
    rejoined: bool = False
    """Both of a pair go on from the first one's state after every decision; for a `trace` of 0."""
    phase_updates: tuple[int, int, int] = (40, 40, 40)
    """Updates of the three phases; every variant gets their sum."""
    warm_up: int = 4
    """Updates at the start of a phase in which only the critics learn."""
    updates_per_chunk: int = 4
    """Updates between returns to the host; must divide the phases."""
    learning_rate: float = 1e-3
    """Of Adam."""
    joint_learning_rate: float = 0.3
    """Factor on it in the joint phase."""
    log_std: float = -1.0
    """Logarithm of the policies' standard deviation at first."""
    discount: float = 0.95
    """Per decision."""
    trace: float = 0.9
    """Lambda of GAE between decisions."""
    inner_trace: float = 0.9
    """Lambda from the power agent's turn back to the PRB agent's."""
    clip: float = 0.2
    """Clip of each agent's ratio."""
    entropy: float = 0.0
    """Weight of the entropy."""
    leash: float = 0.5
    """First weight of KL from the policies of phase 2 in the joint phase; 0 for none."""
    leash_target: float = 0.05
    """KL in nats that the leash adapts to."""
    devices: int = 0
    """Devices to split environments over; 0 for all, on a CPU one per core."""
    seeds_at_once: int = 1
    """Trainings side by side in a program: 1 is best on a CPU, all of them on an accelerator."""


@dataclass(frozen=True)
class Rivals:
    """What controllers are compared with."""

    alphas: tuple[float, ...] = (0.5, 0.8, 0.9, 1.0, 1.25)
    """Exponents of the alpha-fair frontier, at equal and at knapsack power; 1 among them."""
    bound_drops: int = 8
    """Drops whose certified bound is computed; 0 for none."""
    bound_steps: int = 10
    """Frank-Wolfe steps of each."""
    csi_delays: tuple[int, ...] = ()
    """CQI delays in slots at which the full controllers are tested once more."""


@dataclass(frozen=True)
class Downlink:
    """Train the two agents through the curriculum, and test them against the classical field."""

    parametrisations: tuple[Literal["residual", "weighted", "paper", "coordinated"], ...] = (
        "residual",
        "paper",
    )
    """What decisions mean; each is trained. `coordinated`, for several cells, sees all gains."""
    variants: tuple[
        Literal["full", "prb_only", "power_only", "no_curriculum", "shared_critic"], ...
    ] = VARIANTS
    """The full curriculum and its ablations; `full` among them."""
    ablated: tuple[Literal["residual", "weighted", "paper", "coordinated"], ...] = (
        "residual",
        "paper",
    )
    """Parametrisations whose ablations are trained; of others the full curriculum alone."""
    seed: int = 0
    """Of everything that is random."""
    scenario: Scenario = field(default_factory=Scenario)
    decisions: Decisions = field(default_factory=Decisions)
    training: Training = field(default_factory=Training)
    rivals: Rivals = field(default_factory=Rivals)

    def variants_of(self, parametrisation: str) -> tuple[str, ...]:
        """Return the variants that are trained of a parametrisation."""
        return self.variants if parametrisation in self.ablated else ("full",)

    def __post_init__(self):
        _require("full" in self.variants, "variants must name full", self.variants)
        _require(bool(self.parametrisations), "parametrisations must name one", ())
        training, scenario = self.training, self.scenario
        for updates in training.phase_updates:
            _require(
                updates >= 1 and updates % training.updates_per_chunk == 0,
                f"training.phase_updates must be multiples of updates_per_chunk = "
                f"{training.updates_per_chunk}",
                training.phase_updates,
            )
        _require(
            self.decisions.period >= 1 and scenario.slots % self.decisions.period == 0,
            f"scenario.slots must be a multiple of decisions.period = {self.decisions.period}",
            scenario.slots,
        )
        _require(1.0 in self.rivals.alphas, "rivals.alphas must name 1", self.rivals.alphas)
        _require(training.seeds >= 1, "training.seeds must be at least 1", training.seeds)
        _require(
            0 <= self.rivals.bound_drops <= scenario.test_drops,
            "rivals.bound_drops must be from 0 to scenario.test_drops",
            self.rivals.bound_drops,
        )


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {got}.")
