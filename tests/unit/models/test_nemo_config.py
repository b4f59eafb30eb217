"""context/model.yaml of NeMo 2, written here as NeMo's own writer does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from seif_nemo.models.architecture import Experts
from seif_nemo.models.nemo_config import check_nemo_agrees, read_nemo_architecture
from seif_nemo.models.rope import Llama3Rope

LLAMA: dict[str, Any] = {
    "_target_": "nemo.collections.llm.gpt.model.llama.Llama31Config8B",
    "num_layers": 4,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": None,
    "vocab_size": 99,
    "seq_length": 128,
    "share_embeddings_and_output_weights": False,
    "add_qkv_bias": False,
    "qk_layernorm": False,
    "layernorm_epsilon": 1.0e-05,
    "rotary_base": 500000,
    "rotary_percent": 1.0,
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "add_bias_linear": False,
    "position_embedding_type": "rope",
    "num_moe_experts": None,
    "scale_factor": 8,
    "low_freq_factor": 1,
    "high_freq_factor": 4,
    "old_context_len": 64,
    "activation_func": {"_target_": "torch.nn.functional.silu", "_call_": False},
    "params_dtype": {"_target_": "torch.bfloat16", "_call_": False},
}
MOE = LLAMA | {
    "_target_": "nemo.collections.llm.gpt.model.qwen3.Qwen3Config30B_A3B",
    "qk_layernorm": True,
    "kv_channels": 16,
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 24,
    "moe_router_pre_softmax": False,
    "max_position_embeddings": 256,
}


def _write(directory: Path, config: dict[str, Any], *drop: str) -> Path:
    kept = {key: value for key, value in config.items() if key not in drop}
    model = {"_target_": "nemo.collections.llm.gpt.model.llama.LlamaModel", "config": kept, "tokenizer": None}
    (directory / "model.yaml").write_text(yaml.safe_dump(model))
    return directory


def test_a_dense_model(tmp_path: Path) -> None:
    arch = read_nemo_architecture(_write(tmp_path, LLAMA))
    assert (arch.family, arch.num_layers, arch.hidden_size, arch.ffn_hidden_size) == ("llama", 4, 32, 48)
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.vocab_size) == (4, 2, 8, 99)
    assert (arch.max_positions, arch.norm_eps, arch.rope_theta) == (128, 1e-5, 500000.0)
    assert arch.rope_scaling == Llama3Rope(8.0, 1.0, 4.0, 64)
    assert (arch.tied_embeddings, arch.qkv_bias, arch.qk_norm, arch.experts) == (False, False, False, None)
    plain = read_nemo_architecture(_write(tmp_path, LLAMA | {"_target_": "a.b.Llama3Config8B"}))
    assert plain == replace(arch, rope_scaling=None)


def test_a_model_with_experts(tmp_path: Path) -> None:
    arch = read_nemo_architecture(_write(tmp_path, MOE))
    assert (arch.family, arch.head_dim, arch.qk_norm, arch.max_positions) == ("qwen3_moe", 16, True, 256)
    assert (arch.experts, arch.rope_scaling) == (Experts(4, 2, 24, normalised=True), None)
    shares = read_nemo_architecture(_write(tmp_path, MOE | {"moe_router_pre_softmax": True}))
    assert shares.experts == Experts(4, 2, 24, normalised=False)


@pytest.mark.parametrize(
    "changes, drop, message",
    [
        ({"vocab_size": None}, (), r"config\.vocab_size is not given: say what the model is with --config HF_DIR"),
        ({}, ("rotary_base",), r"config\.rotary_base is not given"),
        ({"_target_": "a.Gemma2Config"}, (), r"config\._target_='Gemma2Config' is not supported; supported: Llama31…"),
        (
            {"normalization": "LayerNorm"},
            (),
            r"config\.normalization='LayerNorm' is not supported; .* 'RMSNorm'",
        ),
        ({"add_bias_linear": True}, (), r"config\.add_bias_linear=True is not supported"),
        ({"num_layers": "4"}, (), r"config\.num_layers='4' must be a positive integer"),
    ],
)
def test_refusals_name_file_and_key(
    tmp_path: Path, changes: dict[str, Any], drop: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"model\.yaml: {message}"):
        read_nemo_architecture(_write(tmp_path, LLAMA | changes, *drop))


def test_mixtral_must_be_told_apart_from_hugging_faces(tmp_path: Path) -> None:
    mixtral = MOE | {"_target_": "a.MixtralConfig8x7B", "qk_layernorm": False, "moe_router_pre_softmax": True}
    with pytest.raises(ValueError, match=r"config\.moe_router_pre_softmax=true weighs experts by"):
        read_nemo_architecture(_write(tmp_path, mixtral))
    arch = read_nemo_architecture(_write(tmp_path, mixtral | {"moe_router_pre_softmax": False}))
    assert (arch.family, arch.experts) == ("mixtral", Experts(4, 2, 24, normalised=True))
    _write(tmp_path, mixtral)
    check_nemo_agrees(tmp_path, arch)  # where another file says it is Hugging Face's, it is


def test_a_file_that_contradicts_the_configuration_given(tmp_path: Path) -> None:
    arch = read_nemo_architecture(_write(tmp_path, LLAMA))
    check_nemo_agrees(tmp_path, arch)
    _write(tmp_path, LLAMA | {"num_layers": 5})
    with pytest.raises(ValueError, match=r"model\.yaml: config\.num_layers=5, but the configuration given says 4"):
        check_nemo_agrees(tmp_path, arch)
    check_nemo_agrees(tmp_path / "absent", arch)


def test_files_that_are_no_such_description(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.yaml does not exist: say what the model is with --config"):
        read_nemo_architecture(tmp_path)
    (tmp_path / "model.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not plain YAML"):
        read_nemo_architecture(tmp_path)
    (tmp_path / "model.yaml").write_text("!!python/object/apply:os.mkdir [broken_in]")
    with pytest.raises(ValueError, match="is not plain YAML"):
        read_nemo_architecture(tmp_path)
    (tmp_path / "model.yaml").write_text("tokenizer: null")
    with pytest.raises(ValueError, match="has no config of a model"):
        read_nemo_architecture(tmp_path)
