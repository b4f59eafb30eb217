import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.hf_config import config_json
from tests.tiny_hf import make_tiny_hf

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 500.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500.0,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3, "attention_bias": True, "eos_token_id": [2, 5]},
    "qwen2": {"rope_parameters": YARN, "tie_word_embeddings": True},
    "qwen3": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    "mixtral": {},
    "qwen3_moe": {"norm_topk_prob": False},
}


@pytest.mark.parametrize("family", MODELS)
def test_what_is_written_is_read_back(tmp_path: Path, family: str) -> None:
    path = make_tiny_hf(tmp_path / "hf", family, num_hidden_layers=1, **MODELS[family])
    arch = read_architecture(path)
    written = config_json(arch, "float32")
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_architecture(tmp_path) == arch
    own, original = AutoConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(path)
    assert type(own) is type(original)
    for key in written.keys() - {"eos_token_id", "rope_parameters", "head_dim"}:
        assert getattr(own, key) == getattr(original, key), key


def test_a_model_without_end_tokens_has_no_key_for_them(tmp_path: Path) -> None:
    arch = read_architecture(make_tiny_hf(tmp_path, num_hidden_layers=1))
    silent: Architecture = replace(arch, eos_ids=())
    assert "eos_token_id" not in config_json(silent, "bfloat16")
    assert config_json(arch, "bfloat16")["eos_token_id"] == 2
