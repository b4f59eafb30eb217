import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.models.architecture import read_architecture
from seif_nemo.weights.peft import load_adapter
from tests.tiny_hf import make_tiny_hf
from tests.tiny_lora import make_adapter
from tests.unit.topologies import make_topology

LORA = LoraConfig(rank=2, alpha=3.0, targets=[Projection.q_proj, Projection.up_proj])
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_hf(tmp_path_factory.mktemp("base") / "base", num_hidden_layers=1)


def load(base: Path, adapter: Path, lora: LoraConfig = LORA) -> None:
    """All checks, and no model."""
    load_adapter([], read_architecture(base), make_topology(), adapter, lora)


def change_config(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, "use_dora=True is not supported; supported: False"),
        ({"use_rslora": True}, "use_rslora=True is not supported; supported: False"),
        ({"peft_type": "IA3"}, "peft_type='IA3' is not supported; supported: 'LORA'"),
        ({"bias": "all"}, "bias='all' is not supported; supported: 'none'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\] is not supported; supported: None"),
        ({"rank_pattern": {"q_proj": 4}}, r"rank_pattern=\{'q_proj': 4\} is not supported; supported: \{\}"),
        ({"r": 8}, r"^roles\.lora\.rank=2 is not the r of .*adapter_config\.json: choose 8$"),
        ({"lora_alpha": 16}, r"^roles\.lora\.alpha=3\.0 is not the lora_alpha of .*: choose 16$"),
    ],
)
def test_settings_that_are_more_or_other_than_ours_are_refused(
    base: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, LORA)
    load(base, adapter)
    change_config(adapter, **values)
    with pytest.raises(ValueError, match=message):
        load(base, adapter)


def test_tensors_must_be_those_of_the_targets_and_the_layers(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, LORA)
    with pytest.raises(ValueError, match=r"choose roles\.lora\.targets=\[q_proj,up_proj\]$"):
        load(base, adapter, LoraConfig(rank=2, alpha=3.0, targets=[Projection.q_proj]))
    deeper = make_tiny_hf(tmp_path / "deeper", num_hidden_layers=2)
    with pytest.raises(ValueError, match=r"lacks base_model\.model\.model\.layers\.1\..* \(4 such tensors\)"):
        load(deeper, adapter)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {FIRST: torch.zeros(2, 31)}, path)
    with pytest.raises(ValueError, match=rf"{FIRST} has shape \[2, 31\], model\.path and roles\.lora say \[2, 32\]"):
        load(base, adapter)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load(base, adapter)
    path.unlink()
    with pytest.raises(ValueError, match=r"roles\.lora\.adapter must hold a PEFT adapter in safetensors"):
        load(base, adapter)
    with pytest.raises(ValueError, match=r"roles\.lora\.adapter must be a directory that PEFT saved"):
        load(base, tmp_path)
