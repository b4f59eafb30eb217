"""Group `data`: seed questions and the held-out set."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass(kw_only=True, slots=True)
class DataConfig:
    seeds: str = MISSING  # parquet, jsonl, json, csv or txt
    seed_column: str = "prompt"
    max_seed_characters: int = 6000  # longer seeds are dropped and counted, never cut
    max_seeds: int | None = None  # use only the first so many
    heldout: str | None = None  # parquet with seed_question, constraint, instruction_id_list, kwargs
    probe_seeds: str | None = None  # seeds on which the Instructor is probed; default: the training seeds
    max_probe_seeds: int = 240
    max_heldout_prompts: int | None = None
