"""What a run is told (settings) and what it works on (material)."""

from dataclasses import dataclass, field
from pathlib import Path

from seif_nemo.config.algorithm import AlgorithmConfig, RoleTrainingConfig
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.config.evolution import EvolutionConfig
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.reward import RewardConfig
from seif_nemo.config.roles import LoraConfig
from seif_nemo.roles.prompts import FollowerTemplate, InstructorTemplate
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.records import Phase, SeedQuestion
from seif_nemo.types.rollouts import SamplingParams


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration groups that the phases read."""

    seed: int
    algorithm: AlgorithmConfig
    generation: GenerationConfig
    reward: RewardConfig
    evolution: EvolutionConfig
    checkpoint: CheckpointConfig
    base_model: Path  # Hugging Face directory
    lora: LoraConfig | None = None  # None: each role has all weights

    def training(self, phase: Phase) -> RoleTrainingConfig:
        return self.algorithm.instructor if phase is Phase.INSTRUCTOR else self.algorithm.follower

    def rollout_sampling(self) -> SamplingParams:
        generation = self.generation
        return SamplingParams(
            generation.max_new_tokens, generation.temperature, top_p=generation.top_p, top_k=generation.top_k
        )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What the run works on."""

    seeds: tuple[SeedQuestion, ...]
    probe_seeds: tuple[SeedQuestion, ...]
    heldout: tuple[Instruction, ...]
    instructor_templates: tuple[InstructorTemplate, ...]
    follower_template: FollowerTemplate
    digests: dict[str, str] = field(default_factory=dict[str, str])  # of the files all this came from
    counts: dict[str, float] = field(default_factory=dict[str, float])  # `data/<file>/<used, or why not>`: rows
