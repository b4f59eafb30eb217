"""Every stretching of rotary positions against transformers' own frequencies."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import inverse_frequencies, softmax_scale
from seif_nemo.models.rope import yarn_attention_factor

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 3.5},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512},
    "llama3, own length": {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn, own length": {"factor": 4.0},
    "yarn, factor of the lengths": {"factor": None, "original_max_position_embeddings": 512},
    "yarn, factor given": {"factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 0.8},
    "yarn, two scales": {
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "beta_fast": 16,
        "beta_slow": 2,
        "truncate": False,
    },
    "yarn, no ramp": {"factor": 2.0, "original_max_position_embeddings": 512, "beta_fast": 2, "beta_slow": 2},
}


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_and_scale_are_those_of_transformers(tmp_path: Path, name: str, theta: float) -> None:
    kind = name.split(",")[0]
    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": kind, "rope_theta": theta, **SCALINGS[name]},
        architectures=["LlamaForCausalLM"],
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    arch = read_architecture(tmp_path)
    right = LlamaRotaryEmbedding(config)
    torch.testing.assert_close(inverse_frequencies(arch), right.inv_freq, rtol=3e-7, atol=0)
    scale = softmax_scale(arch)
    assert (scale or 1 / 8) * 8 == pytest.approx(right.attention_scaling**2, rel=1e-12)
    assert (scale is None) == (right.attention_scaling == 1.0)


def test_the_original_length_beside_the_parameters_goes_first(tmp_path: Path) -> None:
    parameters = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 512}
    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        rope_parameters=parameters,
        original_max_position_embeddings=1024,
        architectures=["LlamaForCausalLM"],
    )
    written = config.to_dict() | {"rope_parameters": parameters}
    (tmp_path / "config.json").write_text(json.dumps(written, default=str))
    right = LlamaRotaryEmbedding(config).inv_freq
    torch.testing.assert_close(inverse_frequencies(read_architecture(tmp_path)), right, rtol=3e-7, atol=0)


def test_yarn_factor_by_hand() -> None:
    assert yarn_attention_factor(1.0, None, None) == 1.0
    assert yarn_attention_factor(4.0, None, None) == pytest.approx(1.138629436)
    assert yarn_attention_factor(4.0, 2.0, 1.0) == pytest.approx(1.277258872 / 1.138629436)
