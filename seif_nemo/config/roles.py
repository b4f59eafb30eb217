"""Group `roles`: what weights the roles have of their own, and the prompts that they speak with."""

import math
from dataclasses import dataclass, field
from enum import Enum


class RolesMode(Enum):
    full = "full"  # each role has all weights for itself
    lora = "lora"  # each role is an adapter on the one frozen base model (arXiv 2106.09685)


class Projection(Enum):
    """The linear layers of a decoder layer, as Hugging Face and PEFT name them."""

    q_proj = "q_proj"
    k_proj = "k_proj"
    v_proj = "v_proj"
    o_proj = "o_proj"
    gate_proj = "gate_proj"
    up_proj = "up_proj"
    down_proj = "down_proj"


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters: W x + alpha / rank · B A x. For `mode: lora` only."""

    rank: int = 16
    alpha: float = 32.0
    targets: list[Projection] = field(default_factory=lambda: list(Projection))
    adapter: str | None = None  # PEFT directory that all roles start from; null: fresh ones, which change nothing
    export_adapter: bool = True  # write export/follower-NN-adapter, for PEFT and vLLM, beside the merged weights

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"roles.lora.rank={self.rank} must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"roles.lora.alpha={self.alpha} must be positive")
        names = [target.name for target in self.targets]
        if not names:
            raise ValueError("roles.lora.targets is empty: name at least one of " + ", ".join(Projection.__members__))
        if len(set(names)) < len(names):
            raise ValueError(f"roles.lora.targets={names} names a projection twice: name it once")

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / self.rank


@dataclass(kw_only=True, slots=True)
class RolesConfig:
    """Template names are those of `seif_nemo/roles/prompts.py`; one Instructor template is drawn per prompt."""

    mode: RolesMode = RolesMode.full
    lora: LoraConfig = field(default_factory=LoraConfig)
    instructor_templates: list[str] = field(default_factory=lambda: ["many_kinds", "few_hard"])
    follower_template: str = "plain"
    filter_template: str = "contradiction"
    judger_template: str = "single_constraint"
    host_memory_gib: float | None = None  # for the residents' copies outside the model, on each rank; null: all of them
    spill_dir: str | None = None  # where copies that do not fit go: a fast disk of the node

    def __post_init__(self) -> None:
        if not self.instructor_templates:
            raise ValueError("roles.instructor_templates is empty: name at least one template")
        if self.host_memory_gib is not None and not self.host_memory_gib > 0:
            raise ValueError(f"roles.host_memory_gib={self.host_memory_gib} must be positive, or null for no limit")
        if (self.host_memory_gib is None) != (self.spill_dir is None):
            missing = "host_memory_gib" if self.host_memory_gib is None else "spill_dir"
            raise ValueError(f"roles.{missing}=null: roles.host_memory_gib and roles.spill_dir go together, give both")
        if self.mode is RolesMode.full and self.lora != LoraConfig():
            raise ValueError("roles.lora has no effect with roles.mode=full: choose roles.mode=lora")
