"""Group `algorithm`: GRPO and its optimizer, one set for each trained role. Defaults are the paper's."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any


class Reference(Enum):
    """The policy that the KL term is measured against."""

    phase_start = "phase_start"  # the role as it entered this phase
    base = "base"  # the base model: an anchor that does not move from round to round


class Advantage(Enum):
    """How rewards become advantages; one file each in algorithms/."""

    grpo = "grpo"  # inside the group, divided by its standard deviation
    dr_grpo = "dr_grpo"  # inside the group, not divided
    rloo = "rloo"  # against the mean of the others
    reinforce_pp = "reinforce_pp"  # over the whole batch
    reinforce_pp_baseline = "reinforce_pp_baseline"  # inside the group, then over the whole batch
    gae = "gae"  # against a critic's values, then over the whole batch


class PolicyLoss(Enum):
    clip = "clip"  # PPO's, with the bounds of DAPO and a dual clip
    gspo = "gspo"  # ratio and clip per sequence
    cispo = "cispo"  # the weight is clipped, the gradient never


class LossMean(Enum):
    """How tokens weigh against one another; see algorithms/means.py."""

    token = "token"
    sequence = "sequence"
    constant = "constant"


class KlEstimator(Enum):
    """See algorithms/kl.py."""

    k1 = "k1"
    k2 = "k2"
    k3 = "k3"


class Correction(Enum):
    """Of the difference between the engine that generates and the model that trains; see algorithms/importance.py."""

    none = "none"
    token_cut = "token_cut"
    token_mask = "token_mask"
    sequence_cut = "sequence_cut"
    sequence_mask = "sequence_mask"


class Decay(Enum):
    """The way from the full learning rate to its final share."""

    linear = "linear"
    cosine = "cosine"


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    learning_rate: float = 1e-6  # the highest of a phase
    warmup_steps: int = 0  # of a phase, in which it rises linearly
    decay: Decay = Decay.linear
    final_learning_rate_share: float = 1.0  # of it at the phase's last step; 1 is constant
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    reset_each_phase: bool = True  # each phase starts with fresh moments, as in the paper

    def check(self, path: str) -> None:
        """Raises ValueError for values that no optimizer can work with. `path` is the key of this group."""
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"{path}.learning_rate={self.learning_rate} must be positive")
        if self.warmup_steps < 0:
            raise ValueError(f"{path}.warmup_steps={self.warmup_steps} must be at least 0")
        if not 0 < self.final_learning_rate_share <= 1:
            raise ValueError(f"{path}.final_learning_rate_share={self.final_learning_rate_share} must be in (0, 1]")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"{path}.weight_decay={self.weight_decay} must be at least 0")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"{path}.beta1={self.beta1} must be in [0, 1)")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"{path}.beta2={self.beta2} must be in [0, 1)")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"{path}.epsilon={self.epsilon} must be positive")
        if not self.max_grad_norm > 0:
            raise ValueError(f"{path}.max_grad_norm={self.max_grad_norm} must be positive (inf: never clip)")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate of step 0, 1, … of a phase of `total_steps`. A resume needs no state for it."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        rest = total_steps - 1 - self.warmup_steps
        progress = (step - self.warmup_steps) / rest if rest > 0 else 0.0
        if self.decay is Decay.cosine:
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.learning_rate * (1 - progress * (1 - self.final_learning_rate_share))


@dataclass(kw_only=True, slots=True)
class RoleTrainingConfig:
    """How one trained role learns. An epoch is one pass over the seeds (Instructor) or over q.parquet (Follower)."""

    epochs: list[int] = field(default_factory=lambda: [1])  # per round; the last value holds for all later rounds
    max_steps: int | None = None  # per phase; cuts the epochs short
    prompts_per_step: int = 384
    group_size: int = 5  # responses per prompt
    mini_batches: int = 4  # optimizer updates per step
    kl_coefficient: float = 0.01
    kl_reference: Reference = Reference.phase_start
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self, path: str, *, min_group_size: int) -> None:
        """Raises ValueError for values that can only be mistakes. `path` is the key of this group."""
        if not self.epochs or min(self.epochs) < 0:
            raise ValueError(f"{path}.epochs={self.epochs} must be a list of numbers ≥ 0, one for each round")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(
                f"{path}.max_steps={self.max_steps} must be at least 1 or null; {path}.epochs=[0] skips the phase"
            )
        if self.prompts_per_step < 1:
            raise ValueError(f"{path}.prompts_per_step={self.prompts_per_step} must be at least 1")
        if self.group_size < min_group_size:
            why = ": an advantage without a critic needs a group" if min_group_size > 1 else ""
            raise ValueError(f"{path}.group_size={self.group_size} must be at least {min_group_size}{why}")
        if not 1 <= self.mini_batches <= self.prompts_per_step:
            raise ValueError(
                f"{path}.mini_batches={self.mini_batches} must be between 1 and "
                f"prompts_per_step={self.prompts_per_step}"
            )
        if not 0 <= self.kl_coefficient < math.inf:
            raise ValueError(f"{path}.kl_coefficient={self.kl_coefficient} must be at least 0")
        self.optimizer.check(f"{path}.optimizer")

    def epochs_in(self, round: int) -> int:
        """Epochs of round 1, 2, …"""
        return self.epochs[min(round, len(self.epochs)) - 1]


class InstructorRewardKind(Enum):
    """What an Instructor is paid for a kept instruction; the formulas are in roles/instructor.py."""

    one_minus_rate = "one_minus_rate"  # the paper's: the harder the better
    band = "band"  # highest where the frozen Follower satisfies half of what is asked
    variance = "variance"  # highest where its answers differ most from one another

    @property
    def min_answers(self) -> int:
        """Answers per instruction below which the formula says nothing about the instruction."""
        return 1 if self is InstructorRewardKind.one_minus_rate else 2


@dataclass(kw_only=True, slots=True)
class InstructorRewardConfig:
    kind: InstructorRewardKind = InstructorRewardKind.one_minus_rate
    diversity_coefficient: float = 0.0  # share of the reward that a demand loses which all others make too; 0: off

    def check(self, path: str) -> None:
        """Raises ValueError for values that can only be mistakes. `path` is the key of this group."""
        if not 0 <= self.diversity_coefficient <= 1:
            raise ValueError(f"{path}.diversity_coefficient={self.diversity_coefficient} must be in [0, 1] (0: off)")


@dataclass(kw_only=True, slots=True)
class CriticConfig:
    """PPO's value model, one for each trained role; for `advantage: gae` only."""

    gamma: float = 1.0  # discount per token
    gae_lambda: float = 0.95
    value_clip: float = 0.2  # how far an update may move a value before its gradient stops; inf: as far as it likes
    warmup_steps: int = 0  # the first of each role's phase in round 1, in which the critic learns and the policy waits
    epochs: int = 1  # passes over the responses of a step
    mini_batches: int = 4  # optimizer updates per pass
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-5))

    def check(self, path: str) -> None:
        """Raises ValueError for values that can only be mistakes. `path` is the key of this group."""
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"{path}.gamma={self.gamma} must be in [0, 1]")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"{path}.gae_lambda={self.gae_lambda} must be in [0, 1]")
        if not self.value_clip > 0:
            raise ValueError(f"{path}.value_clip={self.value_clip} must be positive (inf: never clip)")
        if self.warmup_steps < 0:
            raise ValueError(f"{path}.warmup_steps={self.warmup_steps} must be at least 0")
        if self.epochs < 1:
            raise ValueError(f"{path}.epochs={self.epochs} must be at least 1")
        if self.mini_batches < 1:
            raise ValueError(f"{path}.mini_batches={self.mini_batches} must be at least 1")
        self.optimizer.check(f"{path}.optimizer")


@dataclass(kw_only=True, slots=True)
class AdaptiveKlConfig:
    """Steers the KL to a target by its coefficient, from `kl_coefficient` on in each phase; see adaptive_kl.py."""

    target: float | None = None  # of train/kl, in nats per token; null: the coefficient stays
    horizon: float = 10_000.0  # responses in which the coefficient changes by a fifth at most

    def check(self, path: str) -> None:
        """Raises ValueError for values that can only be mistakes. `path` is the key of this group."""
        if self.target is not None and not 0 < self.target < math.inf:
            raise ValueError(f"{path}.target={self.target} must be positive or null (off)")
        if not 0 < self.horizon < math.inf:
            raise ValueError(f"{path}.horizon={self.horizon} must be positive")


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    advantage: Advantage = Advantage.grpo
    policy_loss: PolicyLoss = PolicyLoss.clip
    loss_mean: LossMean = LossMean.token
    kl_estimator: KlEstimator = KlEstimator.k3
    kl_in_reward: bool = False  # take the KL term off the reward instead of adding it to the loss
    entropy_coefficient: float = 0.0  # of a bonus for the entropy of the policy
    correction: Correction = Correction.none
    correction_bound: float = 2.0  # weights above it are cut, or masked above it and below 1 / it
    max_staleness: int = 0  # 1: sample a step before the update of the step before it; needs a correction
    overlong_buffer_tokens: int = 0  # DAPO: answers this near to max_new_tokens lose reward, up to 1; 0: off
    max_skipped_updates: int = 10  # in a row, because gradients are not finite; then the run stops and keeps the batch
    dynamic_sampling_draws: int = 1  # DAPO: times that a step draws prompts until enough have unequal rewards; 1: off
    clip_low: float = 0.2
    clip_high: float = 0.3
    dual_clip: float = 3.0  # bound on ratio × advantage for negative advantages
    micro_batch_tokens: int | None = None  # packed into a micro-batch; null: model.max_sequence_length
    replay_share: float = 0.0  # share of the Follower's prompts drawn from earlier rounds' q.parquet
    critic: CriticConfig = field(default_factory=CriticConfig)
    adaptive_kl: AdaptiveKlConfig = field(default_factory=AdaptiveKlConfig)
    instructor_reward: InstructorRewardConfig = field(default_factory=InstructorRewardConfig)
    instructor: RoleTrainingConfig = field(default_factory=RoleTrainingConfig)
    follower: RoleTrainingConfig = field(default_factory=lambda: RoleTrainingConfig(epochs=[3, 1, 1]))

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low <= 1:
            raise ValueError(f"algorithm.clip_low={self.clip_low} must be in [0, 1] (1: no bound)")
        if not self.clip_high >= 0:
            raise ValueError(f"algorithm.clip_high={self.clip_high} must be at least 0")
        if not self.dual_clip > 1:
            raise ValueError(f"algorithm.dual_clip={self.dual_clip} must be above 1")
        if not 0 <= self.replay_share < 1:
            raise ValueError(f"algorithm.replay_share={self.replay_share} must be in [0, 1)")
        if not 0 <= self.entropy_coefficient < math.inf:
            raise ValueError(f"algorithm.entropy_coefficient={self.entropy_coefficient} must be at least 0")
        if not self.correction_bound >= 1:
            raise ValueError(f"algorithm.correction_bound={self.correction_bound} must be at least 1")
        if self.max_staleness not in (0, 1):
            raise ValueError(f"algorithm.max_staleness={self.max_staleness} must be 0 (off) or 1")
        if self.max_staleness and self.correction is Correction.none:
            raise ValueError(
                "algorithm.max_staleness=1 learns from rollouts of older weights, which algorithm.correction=none does "
                "not correct for: choose algorithm.correction=token_cut, or algorithm.max_staleness=0"
            )
        if self.overlong_buffer_tokens < 0:
            raise ValueError(f"algorithm.overlong_buffer_tokens={self.overlong_buffer_tokens} must be at least 0 (off)")
        if self.max_skipped_updates < 1:
            raise ValueError(f"algorithm.max_skipped_updates={self.max_skipped_updates} must be at least 1")
        if self.dynamic_sampling_draws < 1:
            raise ValueError(f"algorithm.dynamic_sampling_draws={self.dynamic_sampling_draws} must be at least 1 (off)")
        self._check_without_effect()
        self.instructor_reward.check("algorithm.instructor_reward")
        min_group_size = 1 if self.advantage is Advantage.gae else 2
        self.instructor.check("algorithm.instructor", min_group_size=min_group_size)
        self.follower.check("algorithm.follower", min_group_size=min_group_size)
        self.critic.check("algorithm.critic")
        self.adaptive_kl.check("algorithm.adaptive_kl")
        if self.advantage is not Advantage.gae:
            _refuse_changed(
                "algorithm.critic",
                self.critic,
                CriticConfig(),
                f"algorithm.advantage={self.advantage.name}: choose gae",
            )
        if self.adaptive_kl.target is None:
            _refuse_changed(
                "algorithm.adaptive_kl",
                self.adaptive_kl,
                AdaptiveKlConfig(),
                "algorithm.adaptive_kl.target=null: choose a target",
            )
        for name, role in (("algorithm.instructor", self.instructor), ("algorithm.follower", self.follower)):
            self._check_role(name, role)

    def _check_without_effect(self) -> None:
        """Raises ValueError for a value that the choices made elsewhere leave without effect."""
        usual = {each.name: each.default for each in fields(self)}
        if self.policy_loss is not PolicyLoss.clip and self.dual_clip != usual["dual_clip"]:
            raise ValueError(
                f"algorithm.dual_clip={self.dual_clip} has no effect with "
                f"algorithm.policy_loss={self.policy_loss.name}: choose clip"
            )
        if self.correction is Correction.none and self.correction_bound != usual["correction_bound"]:
            raise ValueError(
                f"algorithm.correction_bound={self.correction_bound} has no effect with algorithm.correction=none: "
                "choose a correction"
            )
        if self.dynamic_sampling_draws > 1:
            for key, learns_from_all in (
                (f"advantage={self.advantage.name}", self.advantage in (Advantage.gae, Advantage.reinforce_pp)),
                ("kl_in_reward=true", self.kl_in_reward),
            ):
                if learns_from_all:
                    raise ValueError(
                        f"algorithm.dynamic_sampling_draws={self.dynamic_sampling_draws} draws again for groups of "
                        f"equal rewards, and algorithm.{key} learns from those too: choose 1"
                    )

    def _check_role(self, path: str, role: RoleTrainingConfig) -> None:
        critic, horizon = self.critic, self.adaptive_kl.horizon
        if self.advantage is Advantage.gae and critic.mini_batches > role.prompts_per_step:
            raise ValueError(
                f"algorithm.critic.mini_batches={critic.mini_batches} must be at most "
                f"{path}.prompts_per_step={role.prompts_per_step}"
            )
        if role.max_steps is not None and critic.warmup_steps >= role.max_steps:
            raise ValueError(
                f"algorithm.critic.warmup_steps={critic.warmup_steps} must be less than "
                f"{path}.max_steps={role.max_steps}, or nothing is left for the policy"
            )
        if self.adaptive_kl.target is None:
            return
        if role.kl_coefficient == 0:
            raise ValueError(f"{path}.kl_coefficient=0 stays 0: algorithm.adaptive_kl.target needs a value to start at")
        if horizon < role.prompts_per_step * role.group_size:
            raise ValueError(
                f"algorithm.adaptive_kl.horizon={horizon} must be at least the responses of a step, "
                f"{path}.prompts_per_step={role.prompts_per_step} times group_size={role.group_size}"
            )


def _refuse_changed(path: str, group: Any, default: Any, why: str) -> None:
    """Raises ValueError for the first key of a group without effect that is not at its default."""
    for each in fields(default):
        value, usual = getattr(group, each.name), getattr(default, each.name)
        if is_dataclass(usual):
            _refuse_changed(f"{path}.{each.name}", value, usual, why)
        elif value != usual:
            raise ValueError(f"{path}.{each.name}={value} has no effect with {why}")
