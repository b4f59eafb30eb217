"""Group `model`: the base model that all roles start from."""

import math
from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    path: str = MISSING  # Hugging Face directory: config.json, safetensors, tokenizer
    dtype: Dtype = Dtype.bfloat16
    max_sequence_length: int = 10240  # prompt + response, tokens
    router_aux_loss_coefficient: float = 0.0  # of the experts' load-balancing loss, policy and critic; 0: off

    def __post_init__(self) -> None:
        if self.max_sequence_length < 2:
            raise ValueError(f"model.max_sequence_length={self.max_sequence_length} must be at least 2")
        if not 0 <= self.router_aux_loss_coefficient < math.inf:
            raise ValueError(f"model.router_aux_loss_coefficient={self.router_aux_loss_coefficient} must be at least 0")
