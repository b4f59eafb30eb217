"""What a Hugging Face directory says about its model, read once and checked."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seif_nemo.models.families import FAMILIES, ExpertKeys, Family

_ROPE_TYPES = ("default", "llama3")


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Stretched rotary frequencies of Llama 3.1 (transformers `_compute_llama3_parameters`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def scale(self, inverse_frequency: float) -> float:
        """The stretched inverse frequency (radians per token)."""
        wavelength = 2 * math.pi / inverse_frequency
        if wavelength < self.original_max_positions / self.high_freq_factor:
            return inverse_frequency
        if wavelength > self.original_max_positions / self.low_freq_factor:
            return inverse_frequency / self.factor
        smooth = (self.original_max_positions / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        return (1 - smooth) * inverse_frequency / self.factor + smooth * inverse_frequency


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
    rope_scaling: Llama3Rope | None
    eos_ids: tuple[int, ...]  # of config.json and generation_config.json, without repeats
    experts: Experts | None = None

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
    theta, scaling = _rope(path, raw)
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
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        norm_eps=float(values["rms_norm_eps"]),
        rope_theta=theta,
        rope_scaling=scaling,
        eos_ids=read_eos_ids(hf_dir),
        experts=None if family.experts is None else _experts(path, values, family.experts),
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


def _rope(path: Path, raw: dict[str, Any]) -> tuple[float, Llama3Rope | None]:
    parameters = raw.get("rope_parameters")
    if parameters is None:
        parameters = {"rope_theta": raw.get("rope_theta", 10000.0), **(raw.get("rope_scaling") or {})}
        key = "rope_scaling"
    else:
        key = "rope_parameters"
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise _unsupported(path, f"{key}.rope_type", kind, _ROPE_TYPES)
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise _unsupported(path, f"{key}.partial_rotary_factor", parameters["partial_rotary_factor"], (1.0,))
    theta = float(parameters.get("rope_theta", raw.get("rope_theta", 10000.0)))
    if kind == "default":
        return theta, None
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [name for name in names if name not in parameters]
    if missing:
        raise ValueError(f"{path}: {key} of type llama3 lacks {', '.join(missing)}")
    return theta, Llama3Rope(
        factor=float(parameters["factor"]),
        low_freq_factor=float(parameters["low_freq_factor"]),
        high_freq_factor=float(parameters["high_freq_factor"]),
        original_max_positions=int(parameters["original_max_position_embeddings"]),
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
