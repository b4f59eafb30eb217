"""Group `evolution`: rounds and what each round makes."""

import math
from dataclasses import dataclass
from enum import Enum


class GateRules(Enum):
    """What the gate's rules ask of an Instructor's output. The model Filter and solvability have keys of their own."""

    full = "full"  # it parses, has the right count, no repetition, no non-constraint, no provable conflict
    parse_only = "parse_only"  # it parses and has the right count: as the paper has it, and for ablations


@dataclass(kw_only=True, slots=True)
class EvolutionConfig:
    rounds: int = 3
    samples_per_seed: int = 1  # synthesis: Instructor outputs per seed
    synthesis_batch: int = 384  # synthesis: seeds per step; a step is what a kill can lose
    gate: GateRules = GateRules.full
    solvability_samples: int = 0  # answers of the frozen evaluator, one of which must satisfy everything; 0: not asked
    min_kept_share: float = 0.05  # of gate decisions; below it the run stops instead of training on scraps
    evaluation_temperature: float = 1.0
    evaluation_samples: int = 1  # answers per held-out prompt
    samples_logged_per_step: int = 4  # rollouts of each training step kept in samples.jsonl

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"evolution.rounds={self.rounds} must be at least 1")
        if self.samples_per_seed < 1:
            raise ValueError(f"evolution.samples_per_seed={self.samples_per_seed} must be at least 1")
        if self.synthesis_batch < 1:
            raise ValueError(f"evolution.synthesis_batch={self.synthesis_batch} must be at least 1")
        if self.solvability_samples < 0:
            raise ValueError(f"evolution.solvability_samples={self.solvability_samples} must be at least 0 (0: off)")
        if self.evaluation_samples < 1:
            raise ValueError(f"evolution.evaluation_samples={self.evaluation_samples} must be at least 1")
        if not 0 <= self.evaluation_temperature < math.inf:
            raise ValueError(f"evolution.evaluation_temperature={self.evaluation_temperature} must be at least 0")
        if self.samples_logged_per_step < 0:
            raise ValueError(f"evolution.samples_logged_per_step={self.samples_logged_per_step} must be at least 0")
        if not 0 <= self.min_kept_share <= 1:
            raise ValueError(f"evolution.min_kept_share={self.min_kept_share} must be in [0, 1]")
