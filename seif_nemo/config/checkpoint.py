"""Group `checkpoint`: when state is saved, how, and how much of it is kept."""

from dataclasses import dataclass
from enum import Enum


class Resume(Enum):
    """What to do where a checkpoint that the run goes on from is damaged or missing."""

    strict = "strict"  # stop and name the file
    latest_good = "latest_good"  # go back to the newest one before it that is whole, and redo what followed


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    every_steps: int = 1  # steps of a training phase between saves; a phase's end is always saved
    keep: int = 2  # step checkpoints kept per phase while it runs; says how far back resume=latest_good can go
    asynchronous: bool = True  # training goes on while a checkpoint is written
    write_timeout_s: float = 1800.0  # for writing one; a longer one is a failure
    min_free_gib: float = 1.0  # room that must be left on the file system after a save
    resume: Resume = Resume.strict
    export_hf: bool = True  # write export/follower-NN as Hugging Face safetensors after each round

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise ValueError(f"checkpoint.every_steps={self.every_steps} must be at least 1")
        if self.keep < 1:
            raise ValueError(f"checkpoint.keep={self.keep} must be at least 1")
        if not self.write_timeout_s > 0:
            raise ValueError(f"checkpoint.write_timeout_s={self.write_timeout_s} must be more than 0 seconds")
        if not self.min_free_gib >= 0:
            raise ValueError(f"checkpoint.min_free_gib={self.min_free_gib} must be at least 0")
