"""config.json of an architecture: what `read_architecture` reads, for models that come without a directory of it."""

from typing import Any

from seif_nemo.models.architecture import Architecture
from seif_nemo.models.families import FAMILIES
from seif_nemo.models.rope import LinearRope, Llama3Rope, RopeScaling, YarnRope

_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "mixtral": "mixtral", "qwen3_moe": "qwen3_moe"}


def config_json(arch: Architecture, dtype: str) -> dict[str, Any]:
    """The content of config.json, with rotary settings as transformers 5 writes them. `dtype` as torch names it."""
    family = next(family for family in FAMILIES.values() if family.name == arch.family)
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": _MODEL_TYPES[arch.family],
        "dtype": dtype,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.ffn_hidden_size,
        "num_hidden_layers": arch.num_layers,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "head_dim": arch.head_dim,
        "vocab_size": arch.vocab_size,
        "max_position_embeddings": arch.max_positions,
        "tie_word_embeddings": arch.tied_embeddings,
        "rms_norm_eps": arch.norm_eps,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_parameters": _rope_parameters(arch.rope_theta, arch.rope_scaling),
    }
    if arch.eos_ids:
        config["eos_token_id"] = arch.eos_ids[0] if len(arch.eos_ids) == 1 else list(arch.eos_ids)
    if family.attention_bias_key:
        config["attention_bias"] = arch.output_bias
    if family.mlp_bias_key:
        config["mlp_bias"] = arch.mlp_bias
    if "use_sliding_window" in family.required:
        config["use_sliding_window"] = False
    if "sliding_window" in family.required:
        config["sliding_window"] = None
    if arch.experts is not None:
        assert family.experts is not None
        config[family.experts.count[0]] = arch.experts.count
        config[family.experts.ffn_size] = arch.experts.ffn_hidden_size
        config["num_experts_per_tok"] = arch.experts.per_token
        if not family.experts.always_normalised:
            config["norm_topk_prob"] = arch.experts.normalised
    return config


def _rope_parameters(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    match scaling:
        case None:
            return {"rope_type": "default", "rope_theta": theta}
        case LinearRope():
            return {"rope_type": "linear", "rope_theta": theta, "factor": scaling.factor}
        case Llama3Rope():
            return {
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
        case YarnRope():
            return {
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_max_positions,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.truncate,
            }
