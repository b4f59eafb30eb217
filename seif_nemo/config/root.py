"""The whole configuration. Only `cli` and `evolution.build` see it; a component gets its own group."""

from dataclasses import dataclass, field

from seif_nemo.config.algorithm import AlgorithmConfig
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.config.cluster import ClusterConfig
from seif_nemo.config.data import DataConfig
from seif_nemo.config.evolution import EvolutionConfig
from seif_nemo.config.fp8 import Fp8Config, Fp8Recipe
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.model import Dtype, ModelConfig
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.config.reward import RewardConfig
from seif_nemo.config.roles import RolesConfig, RolesMode
from seif_nemo.config.run import RunConfig


@dataclass(kw_only=True, slots=True)
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    fp8: Fp8Config = field(default_factory=Fp8Config)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    roles: RolesConfig = field(default_factory=RolesConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        kind = self.algorithm.instructor_reward.kind
        if self.reward.answers_per_instruction < kind.min_answers:
            raise ValueError(
                f"algorithm.instructor_reward.kind={kind.name} compares several answers to one instruction: "
                f"reward.answers_per_instruction={self.reward.answers_per_instruction} must be at least "
                f"{kind.min_answers}"
            )
        if self.parallel.optimizer_offload and self.model.dtype is Dtype.float32:
            raise ValueError("parallel.optimizer_offload=true needs model.dtype=bfloat16: choose that, or false")
        self._check_fp8()
        buffer_tokens, limit = self.algorithm.overlong_buffer_tokens, self.generation.max_new_tokens
        if buffer_tokens > limit:
            raise ValueError(
                f"algorithm.overlong_buffer_tokens={buffer_tokens} must be at most generation.max_new_tokens={limit}"
            )
        tokens, longest = self.algorithm.micro_batch_tokens, self.model.max_sequence_length
        if tokens is not None and tokens < longest:
            raise ValueError(
                f"algorithm.micro_batch_tokens={tokens} must be at least model.max_sequence_length={longest}: "
                "the longest sequence has to fit into a micro-batch"
            )

    def _check_fp8(self) -> None:
        precision = self.model.precision
        if not self.model.uses_fp8:
            if self.fp8.changed:
                raise ValueError(
                    f"fp8.{self.fp8.changed[0]} has no effect with model.precision="
                    f"{'null' if precision is None else precision.name}: choose model.precision=fp8_hybrid (or "
                    "fp8_emulated), or leave it out"
                )
            return
        assert precision is not None
        for key in ("tensor", "pipeline", "expert"):
            own = getattr(self.generation, key)
            if self.fp8.recipe is Fp8Recipe.delayed and own not in (None, getattr(self.parallel, key)):
                raise ValueError(
                    f"generation.{key}={own} does not go with fp8.recipe=delayed, whose scales do not reach "
                    "another layout: choose null, or fp8.recipe=blockwise"
                )
        if self.fp8.recipe is Fp8Recipe.delayed and self.roles.mode is RolesMode.lora:
            raise ValueError(
                "roles.mode=lora does not go with fp8.recipe=delayed, whose scales follow gradients that the frozen "
                "layers do not have: choose fp8.recipe=blockwise, or roles.mode=full"
            )
        recompute = self.parallel.recompute
        if precision.is_emulated and self.fp8.recipe is Fp8Recipe.delayed and recompute is not Recompute.none:
            raise ValueError(
                f"parallel.recompute={recompute.name} does not go with model.precision={precision.name} and "
                "fp8.recipe=delayed, whose scales move between the two passes: choose parallel.recompute=none or "
                "fp8.recipe=tensorwise"
            )
