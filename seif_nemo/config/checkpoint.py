"""Group `checkpoint`: when state is saved and how much of it is kept."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    every_steps: int = 1  # steps of a training phase between saves; a phase's end is always saved
    keep: int = 2  # step checkpoints kept per phase while it runs
    export_hf: bool = True  # write export/follower-NN as Hugging Face safetensors after each round

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise ValueError(f"checkpoint.every_steps={self.every_steps} must be at least 1")
        if self.keep < 1:
            raise ValueError(f"checkpoint.keep={self.keep} must be at least 1")
