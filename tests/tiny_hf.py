"""Tiny random Hugging Face models for tests, made by transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

CONFIGS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "mixtral": MixtralConfig,
    "qwen3_moe": Qwen3MoeConfig,
}
EXPERTS = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True},
}


def make_tiny_hf(
    path: Path,
    family: str = "qwen2",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard_size: str = "50GB",
    **overrides: Any,
) -> Path:
    """Save a random model of a few thousand parameters, large enough weights that every layer matters; returns `path`.

    `overrides` are keys of the family's transformers configuration.
    """
    sizes = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "head_dim": 8,
        "rope_theta": 500.0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "tie_word_embeddings": False,
    }
    if family == "qwen2":
        sizes.pop("head_dim")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[family](**(sizes | EXPERTS.get(family, {}) | overrides)))
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.2
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=scale)
    model.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(path, max_shard_size=shard_size)
    return path
