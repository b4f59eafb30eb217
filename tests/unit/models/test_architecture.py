import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from seif_nemo.models.architecture import Experts, read_architecture, read_eos_ids
from seif_nemo.models.rope import Llama3Rope

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 387,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_theta": 20000.0,
    "use_sliding_window": False,
    "sliding_window": 4096,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def _write(path: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> Path:
    config = {key: value for key, value in (QWEN2 | changes).items() if key not in drop}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_reads_sizes_and_switches(tmp_path: Path) -> None:
    arch = read_architecture(_write(tmp_path))
    assert (arch.family, arch.num_layers, arch.hidden_size, arch.ffn_hidden_size) == ("qwen2", 3, 96, 256)
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.heads_per_group) == (4, 2, 24, 2)
    assert (arch.vocab_size, arch.max_positions, arch.norm_eps, arch.rope_theta) == (387, 512, 1e-5, 20000.0)
    assert (arch.tied_embeddings, arch.qkv_bias, arch.qk_norm, arch.rope_scaling) == (True, True, False, None)


@pytest.mark.parametrize(
    "name, qkv_bias, qk_norm, head_dim",
    [
        ("LlamaForCausalLM", False, False, 24),
        ("Qwen2ForCausalLM", True, False, 24),
        ("Qwen3ForCausalLM", False, True, 128),
    ],
)
def test_families_differ_as_transformers_says(
    tmp_path: Path, name: str, qkv_bias: bool, qk_norm: bool, head_dim: int
) -> None:
    arch = read_architecture(
        _write(tmp_path, architectures=[name], drop=("tie_word_embeddings", "num_key_value_heads"))
    )
    assert (arch.qkv_bias, arch.qk_norm, arch.head_dim) == (qkv_bias, qk_norm, head_dim)
    assert (arch.tied_embeddings, arch.num_kv_heads) == (False, 4)


@pytest.mark.parametrize(
    "changes, drop, theta, scaled",
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, ("rope_theta",), 7.0, False),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 7.0, **LLAMA3}}, ("rope_theta",), 7.0, True),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, (), 20000.0, True),
        ({"rope_scaling": {"type": "llama3", **LLAMA3}}, (), 20000.0, True),
        ({"rope_scaling": None}, (), 20000.0, False),
        ({}, ("rope_theta",), 10000.0, False),
    ],
)
def test_both_spellings_of_rotary_settings(
    tmp_path: Path, changes: dict[str, Any], drop: tuple[str, ...], theta: float, scaled: bool
) -> None:
    arch = read_architecture(_write(tmp_path, drop=drop, **changes))
    assert arch.rope_theta == theta
    assert arch.rope_scaling == (Llama3Rope(8.0, 1.0, 4.0, 64) if scaled else None)


def test_llama3_rope_by_hand_and_as_in_transformers() -> None:
    rope = Llama3Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
    assert rope.scale(1.0) == 1.0  # wavelength 6.28 < 64 / 4
    assert rope.scale(0.01) == 0.00125  # wavelength 628 > 64 / 1
    # Wavelength 32: smooth = (64 / 32 - 1) / (4 - 1) = 1/3, so 2/3 of the way to an eighth.
    frequency = 2 * math.pi / 32
    assert rope.scale(frequency) == pytest.approx(frequency * (2 / 3 / 8 + 1 / 3))
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=2, rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}
    )
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 500.0 ** (torch.arange(0, 32, 2).float() / 32)
    torch.testing.assert_close(torch.tensor([rope.scale(float(value)) for value in plain]), expected)


def test_end_tokens_of_both_files(tmp_path: Path) -> None:
    assert read_eos_ids(tmp_path) == ()
    _write(tmp_path, eos_token_id=4)
    assert read_eos_ids(tmp_path) == (4,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 4]}')
    assert read_architecture(tmp_path).eos_ids == (9, 4)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(ValueError, match=r"generation_config\.json: eos_token_id='</s>'"):
        read_eos_ids(tmp_path)


@pytest.mark.parametrize(
    "changes, drop, message",
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            (),
            r"architectures=\['GPT2LMHeadModel'\] is not supported; supported: 'Llama",
        ),
        ({}, ("architectures",), r"architectures=\[\] is not supported"),
        ({"use_sliding_window": True}, (), r"use_sliding_window=True is not supported; supported: False"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            (),
            "layer_types=.*sliding_attention.*'full_attention'",
        ),
        ({"hidden_act": "gelu"}, (), "hidden_act='gelu' is not supported; supported: 'silu'"),
        ({"quantization_config": {"bits": 4}}, (), "quantization_config="),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            (),
            r"rope_scaling\.rope_type='dynamic' .* depend on the length of each sequence; supported: .*'yarn'",
        ),
        ({"rope_parameters": {"rope_type": "longrope"}}, (), r"rope_parameters\.rope_type='longrope' .* depend on"),
        ({"rope_parameters": {"rope_type": "axial"}}, (), r"rope_type='axial'.*'default', 'linear', 'llama3', 'yarn'"),
        ({"rope_scaling": {"type": "yarn"}}, (), "rope_scaling of type yarn lacks factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, (), "lacks low_freq_factor, high_freq_factor"),
        ({"num_key_value_heads": 3}, (), "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"hidden_size": 98}, (), "num_attention_heads=4 must divide hidden_size=98"),
        ({"vocab_size": 0}, (), "vocab_size=0 must be a positive integer"),
        ({}, ("intermediate_size",), "intermediate_size is missing"),
    ],
)
def test_what_is_not_supported_names_file_key_and_choices(
    tmp_path: Path, changes: dict[str, Any], drop: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        read_architecture(_write(tmp_path, drop=drop, **changes))


@pytest.mark.parametrize(
    "name, qkv, output, mlp",
    [
        ("LlamaForCausalLM", True, True, True),
        ("Qwen2ForCausalLM", True, False, False),
        ("Qwen3ForCausalLM", True, True, False),
    ],
)
def test_biases_are_those_that_transformers_gives_the_family(
    tmp_path: Path, name: str, qkv: bool, output: bool, mlp: bool
) -> None:
    """The keys are read where transformers reads them and have no effect where it does not."""
    arch = read_architecture(_write(tmp_path, architectures=[name], attention_bias=True, mlp_bias=True))
    assert (arch.qkv_bias, arch.output_bias, arch.mlp_bias) == (qkv, output, mlp)


def test_mixtral_without_rope_theta_has_that_of_transformers(tmp_path: Path) -> None:
    arch = read_architecture(
        _write(tmp_path, architectures=["MixtralForCausalLM"], sliding_window=None, drop=("rope_theta",))
    )
    assert arch.rope_theta == MixtralConfig().rope_parameters["rope_theta"] == 1e6


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json does not exist: model\.path"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        read_architecture(tmp_path)


def _write_experts(path: Path, name: str, *, drop: tuple[str, ...] = (), **changes: Any) -> Path:
    sizes = {"num_experts": 8} if name.startswith("Qwen3") else {"num_local_experts": 8}
    shared = {"architectures": [name], "sliding_window": None, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    return _write(path, drop=drop, **(shared | sizes | changes))


def test_experts_of_both_families(tmp_path: Path) -> None:
    mixtral = read_architecture(_write_experts(tmp_path, "MixtralForCausalLM"))
    assert mixtral.experts == Experts(count=8, per_token=2, ffn_hidden_size=256, normalised=True)
    qwen = read_architecture(_write_experts(tmp_path, "Qwen3MoeForCausalLM"))
    assert qwen.experts == Experts(count=8, per_token=2, ffn_hidden_size=64, normalised=False)
    assert (qwen.qk_norm, mixtral.qk_norm) == (True, False)
    renamed = _write_experts(
        tmp_path, "Qwen3MoeForCausalLM", drop=("num_experts",), num_local_experts=4, norm_topk_prob=True
    )
    assert read_architecture(renamed).experts == Experts(count=4, per_token=2, ffn_hidden_size=64, normalised=True)
    assert read_architecture(_write(tmp_path)).experts is None


@pytest.mark.parametrize(
    "name, changes, drop, message",
    [
        ("Qwen3MoeForCausalLM", {"decoder_sparse_step": 2}, (), "decoder_sparse_step=2 is not supported; supported: 1"),
        ("Qwen3MoeForCausalLM", {"mlp_only_layers": [0]}, (), r"mlp_only_layers=\[0\] is not supported"),
        ("Qwen3MoeForCausalLM", {"use_sliding_window": True}, (), "use_sliding_window=True is not supported"),
        ("MixtralForCausalLM", {"sliding_window": 4096}, (), "sliding_window=4096 is not supported; supported: None"),
        ("MixtralForCausalLM", {"router_jitter_noise": 0.1}, (), "router_jitter_noise=0.1 is not supported"),
        ("MixtralForCausalLM", {"num_experts_per_tok": 9}, (), "num_experts_per_tok=9 must be at most num_local"),
        ("MixtralForCausalLM", {"num_experts_per_tok": 1}, (), "num_experts_per_tok=1 .* without a gradient"),
        ("Qwen3MoeForCausalLM", {"num_local_experts": 4}, (), "num_experts and num_local_experts must be the same"),
        ("Qwen3MoeForCausalLM", {}, ("num_experts",), "num_experts is missing"),
    ],
)
def test_experts_that_are_not_supported(
    tmp_path: Path, name: str, changes: dict[str, Any], drop: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        read_architecture(_write_experts(tmp_path, name, drop=drop, **changes))
