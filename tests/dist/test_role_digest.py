"""A role has one digest, at every layout and on disk, and every copy of a shard must be equal."""

from pathlib import Path
from typing import Any

import pytest
import torch

from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.role_digest import RoleSums, Views, digest_of_hf
from tests.dist.harness import RankError, run_ranks
from tests.tiny_hf import make_tiny_hf

MODELS: dict[str, dict[str, Any]] = {
    "qwen2_tied": {"family": "qwen2", "tie_word_embeddings": True},  # 99 rows: padded to 104
    "llama_odd": {"family": "llama", "hidden_size": 24, "intermediate_size": 36},  # columns that end inside words
    "qwen3_one_group": {"family": "qwen3", "num_key_value_heads": 1},
    "qwen3_moe": {"family": "qwen3_moe"},
}
TWO = {
    "dp2": ParallelConfig(),
    "cp2": ParallelConfig(context=2),
    "tp2": ParallelConfig(tensor=2, sequence=True),
    "pp2": ParallelConfig(pipeline=2),
    "vpp2": ParallelConfig(pipeline=2, virtual_pipeline=2),
}
FOUR = {
    "tp4": ParallelConfig(tensor=4, sequence=True),
    "tp2pp2": ParallelConfig(tensor=2, sequence=True, pipeline=2),
    "ep2tp2": ParallelConfig(tensor=2, sequence=True, expert=2),
    "ep2etp1dp2": ParallelConfig(tensor=2, sequence=True, expert=2, expert_tensor=1),
    "ep4": ParallelConfig(expert=4),
}


def _sums(config: ParallelConfig, path: Path, dtype: torch.dtype) -> tuple[TrainableModel, RoleSums]:
    topology = build_topology(config, seed=0, threads=1)
    arch = read_architecture(path)
    modules = build_gpt(arch, topology, dtype=dtype, max_sequence_length=64, with_value_head=True)
    load_hf_weights(modules, arch, topology, path)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(), topology)
    return trainable, RoleSums(trainable.modules, arch, topology)


def _views(trainable: TrainableModel) -> Views:
    return trainable.weight_views(trainable.weight_buffers())


def digests(layouts: dict[str, ParallelConfig], models: dict[str, Path]) -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for layout, config in layouts.items():
        for name, path in models.items():
            if config.expert > 1 and name != "qwen3_moe":
                continue
            for dtype in (torch.float32, torch.bfloat16):
                trainable, sums = _sums(config, path, dtype)
                found[layout, name, str(dtype)] = sums.join(sums.of(_views(trainable)))
                shutdown(trainable.topology)
    return found


def changed_on_one_rank(config: ParallelConfig, path: Path, parameter: str, rank: int) -> str:
    trainable, sums = _sums(config, path, torch.bfloat16)
    before = sums.of(_views(trainable))
    if trainable.topology.rank == rank:
        with torch.no_grad():
            trainable.modules[-1].get_parameter(parameter).view(-1)[-1] += 1
        after = sums.of(_views(trainable))
        assert sums.odd_one(before, after).startswith("model.layers.3.")
    try:
        return sums.join(sums.of(_views(trainable)))
    finally:
        shutdown(trainable.topology)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hf")
    return {name: make_tiny_hf(root / name, **options) for name, options in MODELS.items()}


def test_a_model_has_one_digest(models: dict[str, Path]) -> None:
    expected = {
        (name, str(dtype)): digest_of_hf(path, dtype)
        for name, path in models.items()
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(set(expected.values())) == len(expected)
    for world, layouts in ((1, {"one": ParallelConfig()}), (2, TWO), (4, FOUR)):
        chosen = {name: path for name, path in models.items() if name != "llama_odd"} if world == 4 else models
        for found in run_ranks(world, digests, layouts, chosen):
            for (layout, name, dtype), digest in found.items():
                assert digest == expected[name, dtype], (layout, name, dtype)


@pytest.mark.parametrize(
    ("config", "model", "parameter"),
    [
        (ParallelConfig(), "qwen3_moe", "decoder.layers.3.mlp.experts.local_experts.3.linear_fc2.weight"),
        (ParallelConfig(context=2), "qwen2_tied", "decoder.layers.3.self_attention.linear_qkv.bias"),
        (ParallelConfig(tensor=2), "qwen2_tied", "decoder.layers.3.mlp.linear_fc1.layer_norm_weight"),
    ],
)
def test_copies_that_differ_are_named(
    config: ParallelConfig, model: str, parameter: str, models: dict[str, Path]
) -> None:
    with pytest.raises(RankError, match=r"ranks that hold copies of model\.layers\.3\..* hold different weights"):
        run_ranks(2, changed_on_one_rank, config, models[model], parameter, 1)


def test_a_changed_shard_changes_the_digest(models: dict[str, Path]) -> None:
    parameter = "decoder.layers.3.self_attention.linear_proj.weight"
    config = ParallelConfig(tensor=2)
    digest, again = run_ranks(2, changed_on_one_rank, config, models["qwen2_tied"], parameter, 1)
    assert digest == again != digest_of_hf(models["qwen2_tied"], torch.bfloat16)
