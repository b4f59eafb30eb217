"""Group `data`: seed questions and the held-out set."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass(kw_only=True, slots=True)
class DataConfig:
    seeds: str = MISSING  # parquet, jsonl, json, csv or txt
    seed_column: str = "prompt"
    max_seed_characters: int = 6000  # longer seeds are dropped and counted, never cut
    max_seeds: int | None = None  # use only the first so many
    heldout: str | None = None  # parquet with seed_question and constraint
    probe_seeds: str | None = None  # seeds on which the Instructor is probed; default: the training seeds
    max_probe_seeds: int = 240
    max_heldout_prompts: int | None = None

    def __post_init__(self) -> None:
        for key in ("max_seed_characters", "max_seeds", "max_probe_seeds", "max_heldout_prompts"):
            limit = getattr(self, key)
            if limit is not None and limit < 1:
                raise ValueError(f"data.{key}={limit} must be at least 1")
