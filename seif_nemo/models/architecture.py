"""What a Hugging Face directory says about its model, read once and checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seif_nemo.models.families import FAMILIES, ExpertKeys, Family
from seif_nemo.models.rope import LinearRope, Llama3Rope, RopeScaling, YarnRope, yarn_attention_factor

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Experts:
    """Sizes and routing of the mixtures of experts that take the place of every feed-forward layer.

    config.json's own load-balancing coefficient is that of pre-training and is not read: see
    `model.router_aux_loss_coefficient`.
    """

    count: int
    per_token: int
    ffn_hidden_size: int  # of one expert
    normalised: bool  # the weights of a token's experts sum to 1; else they are their shares of all experts' softmax


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes and switches of a decoder. Sizes are whole, before any parallel division."""

    family: str
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int  # of a dense feed-forward layer; not used where there are experts
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int  # rows of the embedding on disk; may exceed the tokenizer's vocabulary
    max_positions: int
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    eos_ids: tuple[int, ...]  # of config.json and generation_config.json, without repeats
    experts: Experts | None = None
    output_bias: bool = False  # of attention's output projection
    mlp_bias: bool = False  # of all three projections of a dense feed-forward layer

    @property
    def heads_per_group(self) -> int:
        return self.num_heads // self.num_kv_heads


def read_architecture(hf_dir: str | Path) -> Architecture:
    """Read config.json (and the end tokens of generation_config.json) of a Hugging Face directory.

    Reads both spellings of the rotary settings: `rope_parameters` (transformers 5), `rope_theta` with `rope_scaling`.
    Raises ValueError, naming the file, the key and what is supported, for an unknown architecture, a missing or
    inconsistent size, and any feature that is not implemented.
    """
    path = Path(hf_dir) / "config.json"
    raw = read_json(path)
    family = _family(path, raw)
    for key, allowed in family.required.items():
        if key in raw and raw[key] not in allowed:
            raise _unsupported(path, key, raw[key], allowed)
    layer_types = raw.get("layer_types")
    if layer_types and set(layer_types) != {"full_attention"}:
        raise _unsupported(path, "layer_types", sorted(set(layer_types)), ("full_attention",))
    values = {**family.defaults, **raw}
    hidden_size = _size(path, values, "hidden_size")
    num_heads = _size(path, values, "num_attention_heads")
    num_kv_heads = num_heads if values["num_key_value_heads"] is None else _size(path, values, "num_key_value_heads")
    if num_heads % num_kv_heads:
        raise ValueError(f"{path}: num_key_value_heads={num_kv_heads} must divide num_attention_heads={num_heads}")
    if values["head_dim"] is None and hidden_size % num_heads:
        raise ValueError(
            f"{path}: num_attention_heads={num_heads} must divide hidden_size={hidden_size} where head_dim is absent"
        )
    theta, scaling = _rope(path, values)
    attention_bias = family.attention_bias_key and bool(values["attention_bias"])
    return Architecture(
        family=family.name,
        num_layers=_size(path, values, "num_hidden_layers"),
        hidden_size=hidden_size,
        ffn_hidden_size=_size(path, values, "intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=hidden_size // num_heads if values["head_dim"] is None else _size(path, values, "head_dim"),
        vocab_size=_size(path, values, "vocab_size"),
        max_positions=_size(path, values, "max_position_embeddings"),
        tied_embeddings=bool(values["tie_word_embeddings"]),
        qkv_bias=family.qkv_bias or attention_bias,
        qk_norm=family.qk_norm,
        norm_eps=float(values["rms_norm_eps"]),
        rope_theta=theta,
        rope_scaling=scaling,
        eos_ids=read_eos_ids(hf_dir),
        experts=None if family.experts is None else _experts(path, values, family.experts),
        output_bias=attention_bias,
        mlp_bias=family.mlp_bias_key and bool(values["mlp_bias"]),
    )


def read_eos_ids(hf_dir: str | Path) -> tuple[int, ...]:
    """The end tokens that config.json and generation_config.json name, without repeats. Either file may be absent."""
    ids: dict[int, None] = {}
    for name in ("generation_config.json", "config.json"):
        path = Path(hf_dir) / name
        value = read_json(path).get("eos_token_id") if path.exists() else None
        for token in value if isinstance(value, list) else [value]:
            if token is None:
                continue
            if not isinstance(token, int) or token < 0:
                raise ValueError(f"{path}: eos_token_id={value!r} must be a token id or a list of token ids")
            ids[token] = None
    return tuple(ids)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError, naming the file, where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: model.path must be a Hugging Face model directory") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return value


def _family(path: Path, raw: dict[str, Any]) -> Family:
    names = raw.get("architectures") or []
    if len(names) != 1 or names[0] not in FAMILIES:
        raise _unsupported(path, "architectures", names, tuple(FAMILIES))
    return FAMILIES[names[0]]


def _experts(path: Path, values: dict[str, Any], keys: ExpertKeys) -> Experts:
    present = [key for key in keys.count if key in values]
    if not present:
        raise ValueError(f"{path}: {keys.count[0]} is missing")
    counts = {_size(path, values, key) for key in present}
    if len(counts) > 1:
        raise ValueError(f"{path}: {' and '.join(present)} must be the same number")
    count, per_token = counts.pop(), _size(path, values, "num_experts_per_tok")
    normalised = keys.always_normalised or bool(values["norm_topk_prob"])
    if per_token > count:
        raise ValueError(f"{path}: num_experts_per_tok={per_token} must be at most {present[0]}={count}")
    if normalised and per_token == 1:
        raise ValueError(
            f"{path}: num_experts_per_tok=1 with weights that sum to 1 leaves the router without a gradient; "
            "supported: at least 2"
        )
    return Experts(count, per_token, _size(path, values, keys.ffn_size), normalised)


def _rope(path: Path, values: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    parameters, key = values.get("rope_parameters"), "rope_parameters"
    if parameters is None:
        parameters, key = values.get("rope_scaling") or {}, "rope_scaling"
    parameters = {"rope_theta": values["rope_theta"], **parameters}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind in _LENGTH_DEPENDENT:
        raise ValueError(
            f"{path}: {key}.rope_type={kind!r} is not supported: its frequencies depend on the length of each "
            f"sequence; supported: {', '.join(map(repr, _ROPE_TYPES))}"
        )
    if kind not in _ROPE_TYPES:
        raise _unsupported(path, f"{key}.rope_type", kind, _ROPE_TYPES)
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise _unsupported(path, f"{key}.partial_rotary_factor", parameters["partial_rotary_factor"], (1.0,))
    theta = float(parameters["rope_theta"])
    if kind == "default":
        return theta, None
    needed = ("factor", "low_freq_factor", "high_freq_factor") if kind == "llama3" else ("factor",)
    missing = [name for name in needed if name not in parameters]
    if missing:
        raise ValueError(f"{path}: {key} of type {kind} lacks {', '.join(missing)}")
    if kind == "linear":
        return theta, LinearRope(float(parameters["factor"]))
    # transformers: the key beside `rope_parameters` goes first, and without any it is the model's own length.
    length_key = "original_max_position_embeddings"
    default = parameters.get(length_key, _size(path, values, "max_position_embeddings"))
    original = int(values.get(length_key, default))
    if kind == "yarn":
        return theta, _yarn(path, values, parameters, original)
    return theta, Llama3Rope(
        factor=float(parameters["factor"]),
        low_freq_factor=float(parameters["low_freq_factor"]),
        high_freq_factor=float(parameters["high_freq_factor"]),
        original_max_positions=original,
    )


def _yarn(path: Path, values: dict[str, Any], parameters: dict[str, Any], original: int) -> YarnRope:
    factor = parameters["factor"]
    if factor is None:
        factor = _size(path, values, "max_position_embeddings") / original
    attention_factor = parameters.get("attention_factor")
    if attention_factor is None:
        attention_factor = yarn_attention_factor(
            float(factor), parameters.get("mscale"), parameters.get("mscale_all_dim")
        )
    return YarnRope(
        factor=float(factor),
        original_max_positions=original,
        beta_fast=float(parameters.get("beta_fast") or 32),
        beta_slow=float(parameters.get("beta_slow") or 1),
        attention_factor=float(attention_factor),
        truncate=bool(parameters.get("truncate", True)),
    )


def _size(path: Path, values: dict[str, Any], key: str) -> int:
    if key not in values:
        raise ValueError(f"{path}: {key} is missing")
    value = values[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path}: {key}={value!r} must be a positive integer")
    return value


def _unsupported(path: Path, key: str, value: object, allowed: tuple[Any, ...]) -> ValueError:
    choices = ", ".join(map(repr, allowed))
    return ValueError(f"{path}: {key}={value!r} is not supported; supported: {choices}")
