"""Group `evolution`: rounds and what each round makes."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class EvolutionConfig:
    rounds: int = 3
    samples_per_seed: int = 1  # synthesis: Instructor outputs per seed
    max_instructions: int | None = None  # synthesis: kept instructions per round at most
    min_kept_share: float = 0.05  # of gate decisions; below it the run stops instead of training on scraps

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"evolution.rounds={self.rounds} must be at least 1")
        if self.samples_per_seed < 1:
            raise ValueError(f"evolution.samples_per_seed={self.samples_per_seed} must be at least 1")
        if not 0 <= self.min_kept_share <= 1:
            raise ValueError(f"evolution.min_kept_share={self.min_kept_share} must be in [0, 1]")
