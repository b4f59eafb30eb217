"""The model families that are supported, one small table each.

A family says which architecture in config.json it is, what its layers have beyond the common decoder (RMSNorm, rotary
positions, grouped-query attention, SwiGLU), which values transformers assumes for keys that config.json may leave out,
and which keys must hold one of a few values because nothing else is implemented.
Source of the defaults: transformers `configuration_llama.py`, `configuration_qwen2.py`, `configuration_qwen3.py`,
`configuration_mixtral.py`, `configuration_qwen3_moe.py`.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ExpertKeys:
    """Where config.json has the sizes of the experts. Each size may go by one of several names."""

    count: tuple[str, ...]
    ffn_size: str
    always_normalised: bool  # else `norm_topk_prob` says whether the weights of the chosen experts sum to 1


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    architecture: str  # the one entry of `architectures` in config.json
    qkv_bias: bool
    qk_norm: bool  # RMSNorm over each head's query and key
    defaults: dict[str, Any] = field(default_factory=dict)  # what transformers assumes where config.json is silent
    required: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # key -> the values that are implemented
    attention_bias_key: bool = False  # `attention_bias` in config.json adds biases to all projections of attention
    mlp_bias_key: bool = False  # `mlp_bias` in config.json adds biases to all projections of the feed-forward part
    experts: ExpertKeys | None = None  # None: dense feed-forward layers


_COMMON_DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "eos_token_id": None,
    "head_dim": None,  # hidden_size // num_attention_heads
    "num_key_value_heads": None,  # num_attention_heads
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
}
_COMMON_REQUIRED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_dropout": (0.0,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, None),
}

LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    qkv_bias=False,
    qk_norm=False,
    defaults=_COMMON_DEFAULTS,
    required=_COMMON_REQUIRED,
    attention_bias_key=True,
    mlp_bias_key=True,
)
QWEN2 = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    qkv_bias=True,
    qk_norm=False,
    defaults=_COMMON_DEFAULTS,
    required=_COMMON_REQUIRED | {"use_sliding_window": (False,)},
)
QWEN3 = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    qkv_bias=False,
    qk_norm=True,
    defaults=_COMMON_DEFAULTS | {"head_dim": 128},
    required=_COMMON_REQUIRED | {"use_sliding_window": (False,)},
    attention_bias_key=True,
)
# Every layer's feed-forward part is a mixture of experts. Router logits are softmaxed over all experts and the largest
# kept; Mixtral always divides them by their sum.
MIXTRAL = Family(
    name="mixtral",
    architecture="MixtralForCausalLM",
    qkv_bias=False,
    qk_norm=False,
    defaults=_COMMON_DEFAULTS
    | {"rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2, "rope_theta": 1000000.0},
    required=_COMMON_REQUIRED | {"sliding_window": (None,), "router_jitter_noise": (0.0, None)},
    experts=ExpertKeys(count=("num_local_experts",), ffn_size="intermediate_size", always_normalised=True),
)
QWEN3_MOE = Family(
    name="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    qkv_bias=False,
    qk_norm=True,
    defaults=_COMMON_DEFAULTS
    | {"num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": False, "intermediate_size": 6144},
    required=_COMMON_REQUIRED
    | {
        "use_sliding_window": (False,),
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([], None),
    },
    experts=ExpertKeys(
        count=("num_experts", "num_local_experts"), ffn_size="moe_intermediate_size", always_normalised=False
    ),
    attention_bias_key=True,
)

FAMILIES: dict[str, Family] = {family.architecture: family for family in (LLAMA, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE)}
