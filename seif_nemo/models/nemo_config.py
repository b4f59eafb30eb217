"""The model that a NeMo 2 checkpoint says it holds: `context/model.yaml`, read without NeMo and without running code.

The file has the model's `config`, a megatron-core TransformerConfig with NeMo's additions, under its class name in
`_target_` and with all defaults written out (NeMo `lightning/io/mixin.py`). `context/io.json` holds only what was set
by hand, so it does not say what a class of a given size has; it is not read.
Sources: NeMo `collections/llm/gpt/model/` llama.py, qwen2.py, qwen3.py, mixtral.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seif_nemo.models.architecture import Architecture, Experts
from seif_nemo.models.rope import Llama3Rope


@dataclass(frozen=True, slots=True)
class _NemoFamily:
    """A family by how its configuration classes' names begin; the longest beginning counts."""

    prefix: str
    name: str
    scaled_rope: bool = False  # Llama 3.1 and later: frequencies stretched by `scale_factor`


_FAMILIES = (
    _NemoFamily("Llama31", "llama", scaled_rope=True),
    _NemoFamily("Llama32", "llama", scaled_rope=True),
    _NemoFamily("Llama", "llama"),
    _NemoFamily("CodeLlama", "llama"),
    _NemoFamily("Qwen2", "qwen2"),
    _NemoFamily("Qwen3", "qwen3"),
    _NemoFamily("Mixtral", "mixtral"),
)
# What the supported families have, and megatron-core's models may not: key -> value.
_REQUIRED = {
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "add_bias_linear": False,
    "position_embedding_type": "rope",
    "rotary_percent": 1.0,
    "rotary_interleaved": False,
    "layernorm_zero_centered_gamma": False,
    "multi_latent_attention": False,
    "moe_layer_freq": 1,
    "moe_shared_expert_intermediate_size": None,
    "seq_len_interpolation_factor": None,
}


def read_nemo_architecture(context: str | Path) -> Architecture:
    """The architecture that `context/model.yaml` describes; its end tokens are not known.

    Raises ValueError, naming the file and the key, where it is missing, of another family, leaves the vocabulary open
    (as NeMo does where the tokenizer decides it), or has something that is not implemented.
    """
    path = Path(context) / "model.yaml"
    config = _config(path)
    target = str(config.get("_target_", ""))
    family = _family(path, target.rpartition(".")[2])
    for key, value in _REQUIRED.items():
        if key in config and config[key] != value:
            raise ValueError(f"{path}: config.{key}={config[key]!r} is not supported; supported: {value!r}")
    heads, hidden = _size(path, config, "num_attention_heads"), _size(path, config, "hidden_size")
    positions = "max_position_embeddings" if config.get("max_position_embeddings") else "seq_length"
    experts = _experts(path, config, family.name)
    name = "qwen3_moe" if family.name == "qwen3" and experts is not None else family.name
    return Architecture(
        family=name,
        num_layers=_size(path, config, "num_layers"),
        hidden_size=hidden,
        ffn_hidden_size=_size(path, config, "ffn_hidden_size"),
        num_heads=heads,
        num_kv_heads=_size(path, config, "num_query_groups") if config.get("num_query_groups") else heads,
        head_dim=_size(path, config, "kv_channels") if config.get("kv_channels") else hidden // heads,
        vocab_size=_size(path, config, "vocab_size"),
        max_positions=_size(path, config, positions),
        tied_embeddings=bool(_value(path, config, "share_embeddings_and_output_weights")),
        qkv_bias=bool(_value(path, config, "add_qkv_bias")),
        qk_norm=bool(_value(path, config, "qk_layernorm")),
        norm_eps=float(_value(path, config, "layernorm_epsilon")),
        rope_theta=float(_value(path, config, "rotary_base")),
        rope_scaling=_rope(path, config) if family.scaled_rope else None,
        eos_ids=(),
        experts=experts,
    )


def check_nemo_agrees(context: str | Path, arch: Architecture) -> None:
    """Raise ValueError, naming file and key, where model.yaml says something else than `arch`, which another file gave.

    How Mixtral weighs its experts is not compared: NeMo's classes say `moe_router_pre_softmax`, which
    Hugging Face's model does not have, of weights that NeMo has taken from there. A missing model.yaml says nothing.
    """
    path = Path(context) / "model.yaml"
    if not path.exists():
        return
    config = _config(path)
    experts = arch.experts
    told: dict[str, Any] = {
        "num_layers": arch.num_layers,
        "hidden_size": arch.hidden_size,
        "num_attention_heads": arch.num_heads,
        "num_query_groups": arch.num_kv_heads,
        "share_embeddings_and_output_weights": arch.tied_embeddings,
        "add_qkv_bias": arch.qkv_bias,
        "qk_layernorm": arch.qk_norm,
        "layernorm_epsilon": arch.norm_eps,
        "rotary_base": arch.rope_theta,
        "num_moe_experts": None if experts is None else experts.count,
        "moe_router_topk": None if experts is None else experts.per_token,
    }
    for key, value in told.items():
        if value is not None and config.get(key) is not None and config[key] != value:
            raise ValueError(f"{path}: config.{key}={config[key]!r}, but the configuration given says {value!r}")


def _config(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: say what the model is with --config HF_DIR") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not plain YAML: {str(error).splitlines()[0]}") from error
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise ValueError(f"{path} has no config of a model: say what the model is with --config HF_DIR")
    return config


def _family(path: Path, class_name: str) -> _NemoFamily:
    fits = [family for family in _FAMILIES if class_name.startswith(family.prefix)]
    if not fits:
        names = ", ".join(f"{family.prefix}…" for family in _FAMILIES)
        raise ValueError(f"{path}: config._target_={class_name!r} is not supported; supported: {names}")
    return max(fits, key=lambda family: len(family.prefix))


def _experts(path: Path, config: dict[str, Any], family: str) -> Experts | None:
    if not config.get("num_moe_experts"):
        return None
    pre_softmax = bool(config.get("moe_router_pre_softmax"))
    if family == "mixtral" and pre_softmax:
        raise ValueError(
            f"{path}: config.moe_router_pre_softmax=true weighs experts by their shares of all experts, Hugging Face's "
            "Mixtral by their shares of the chosen ones: say that the model is the latter with --config HF_DIR"
        )
    key = "moe_ffn_hidden_size" if config.get("moe_ffn_hidden_size") else "ffn_hidden_size"
    per_token = _size(path, config, "moe_router_topk")
    return Experts(_size(path, config, "num_moe_experts"), per_token, _size(path, config, key), not pre_softmax)


def _rope(path: Path, config: dict[str, Any]) -> Llama3Rope:
    return Llama3Rope(
        factor=float(_value(path, config, "scale_factor")),
        low_freq_factor=float(_value(path, config, "low_freq_factor")),
        high_freq_factor=float(_value(path, config, "high_freq_factor")),
        original_max_positions=_size(path, config, "old_context_len"),
    )


def _value(path: Path, config: dict[str, Any], key: str) -> Any:
    if config.get(key) is None:
        raise ValueError(f"{path}: config.{key} is not given: say what the model is with --config HF_DIR")
    return config[key]


def _size(path: Path, config: dict[str, Any], key: str) -> int:
    value = _value(path, config, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path}: config.{key}={value!r} must be a positive integer")
    return value
