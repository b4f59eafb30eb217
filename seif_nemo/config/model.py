"""Group `model`: the base model that all roles start from."""

import math
from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Precision(Enum):
    """What the linear layers of the transformer multiply in. Weights, and all else, are in `model.dtype`."""

    float32 = "float32"
    bf16 = "bf16"
    fp8_hybrid = "fp8_hybrid"  # Transformer Engine: e4m3 forward, e5m2 gradients
    fp8_e4m3 = "fp8_e4m3"  # Transformer Engine: e4m3 throughout
    fp8_emulated = "fp8_emulated"  # as fp8_hybrid, rounded in software: any machine, slow
    fp8_emulated_e4m3 = "fp8_emulated_e4m3"

    @property
    def is_fp8(self) -> bool:
        return self not in (Precision.float32, Precision.bf16)

    @property
    def is_emulated(self) -> bool:
        return self in (Precision.fp8_emulated, Precision.fp8_emulated_e4m3)


_NEEDED_DTYPE = {
    Precision.float32: Dtype.float32,
    Precision.bf16: Dtype.bfloat16,
    Precision.fp8_hybrid: Dtype.bfloat16,
    Precision.fp8_e4m3: Dtype.bfloat16,
}


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    path: str = MISSING  # Hugging Face directory: config.json, safetensors, tokenizer
    dtype: Dtype = Dtype.bfloat16  # of weights and activations
    precision: Precision | None = None  # null: float32 or bf16, as `dtype`
    max_sequence_length: int = 10240  # prompt + response, tokens
    router_aux_loss_coefficient: float = 0.0  # of the experts' load-balancing loss, policy and critic; 0: off

    def __post_init__(self) -> None:
        if self.max_sequence_length < 2:
            raise ValueError(f"model.max_sequence_length={self.max_sequence_length} must be at least 2")
        if not 0 <= self.router_aux_loss_coefficient < math.inf:
            raise ValueError(f"model.router_aux_loss_coefficient={self.router_aux_loss_coefficient} must be at least 0")
        precision = self.precision
        if precision in _NEEDED_DTYPE and self.dtype is not _NEEDED_DTYPE[precision]:
            raise ValueError(
                f"model.precision={precision.name} needs model.dtype={_NEEDED_DTYPE[precision].name}, not "
                f"{self.dtype.name}: choose that, or model.precision={'fp8_emulated' if precision.is_fp8 else 'null'}"
            )

    @property
    def uses_fp8(self) -> bool:
        return self.precision is not None and self.precision.is_fp8
