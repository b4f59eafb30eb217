"""Distributed checkpoints as NeMo 2 and Megatron-LM file them, written by megatron-core, read at other layouts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core import dist_checkpointing

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.dist_files import DistFiles
from seif_nemo.weights.dist_weights import DistWeights, load_dist_weights, whole_pieces
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.hf_files import HfFiles
from tests.dist.harness import run_ranks
from tests.dist.megatron_writer import InProcessSaveStrategy
from tests.tiny_hf import make_tiny_hf

MODELS: dict[str, dict[str, Any]] = {
    "llama_biases": {"family": "llama", "attention_bias": True, "mlp_bias": True, "vocab_size": 97},
    "qwen2_tied": {"family": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"family": "qwen3", "dtype": torch.bfloat16},
    "mixtral": {"family": "mixtral"},
    "qwen3_moe_tied": {"family": "qwen3_moe", "tie_word_embeddings": True},
}
# Keyword arguments of GPTModel.sharded_state_dict: what its writers choose.
FILINGS: dict[str, dict[str, Any]] = {
    "nemo": {"prefix": "module.", "metadata": {}},
    "layers alone": {"prefix": "", "metadata": {"non_homogeneous_layers": True}},
    "all alone": {"prefix": "module.", "metadata": {"singleton_local_shards": True}},
}


@dataclass(frozen=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False
    expert: int = 1
    expert_tensor: int | None = None
    virtual_pipeline: int = 1


def _layouts(world: int, with_experts: bool) -> list[Layout]:
    if world == 1:
        return [Layout()]
    if world == 2:
        return [Layout(pipeline=2, virtual_pipeline=2)]
    if with_experts:
        return [Layout(pipeline=2, tensor=2, sequence=True, expert=2, expert_tensor=1), Layout(expert=4)]
    return [Layout(tensor=2, pipeline=2), Layout(tensor=4)]


def _write(models: dict[str, Path], world: int, with_experts: bool, out: Path) -> None:
    """Each model, filed in every way, at the world's first layout."""
    config = ParallelConfig(**asdict(_layouts(world, with_experts)[0]))
    topology = build_topology(config, seed=1, threads=1)
    for name, path in models.items():
        arch = read_architecture(path)
        modules = build_gpt(arch, topology, dtype=_dtype(name), max_sequence_length=64)
        load_hf_weights(modules, arch, topology, path)
        for filing, arguments in FILINGS.items():
            directory = out / f"{name}-{filing}"
            if topology.is_main:
                directory.mkdir()
            torch.distributed.barrier()
            state = {f"model{i}": module.sharded_state_dict(**arguments) for i, module in enumerate(modules)}
            dist_checkpointing.save(state, str(directory), sharded_strategy=InProcessSaveStrategy())
    shutdown(topology)


def _read(models: dict[str, Path], world: int, with_experts: bool, out: Path) -> int:
    """Read each of them at every layout: the parameters are bit for bit those of the Hugging Face directory."""
    compared = 0
    for layout in _layouts(world, with_experts):
        topology = build_topology(ParallelConfig(**asdict(layout)), seed=1, threads=1)
        for name, path in models.items():
            arch = read_architecture(path)
            right, modules = (build_gpt(arch, topology, dtype=_dtype(name), max_sequence_length=64) for _ in range(2))
            load_hf_weights(right, arch, topology, path)
            pairs = [pair for a, b in zip(modules, right, strict=True) for pair in _parameters(a, b)]
            for filing in FILINGS:
                with torch.no_grad():
                    for _, value, _ in pairs:
                        value.fill_(torch.nan)
                load_dist_weights(modules, arch, topology, DistWeights(DistFiles(out / f"{name}-{filing}"), arch))
                for key, value, expected in pairs:
                    assert torch.equal(value, expected), (layout, name, filing, key)
                    compared += 1
        shutdown(topology)
    return compared


def _parameters(module: Any, other: Any) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    for (key, value), expected in zip(module.named_parameters(), other.parameters(), strict=True):
        yield key, value, expected


def _dtype(name: str) -> torch.dtype:
    return MODELS[name].get("dtype", torch.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make_tiny_hf(root / name, seed=i, **spec) for i, (name, spec) in enumerate(MODELS.items())}


@pytest.mark.parametrize("with_experts", [False, True], ids=["dense", "experts"])
def test_every_filing_is_read_at_every_layout(models: dict[str, Path], with_experts: bool, tmp_path: Path) -> None:
    chosen = {name: path for name, path in models.items() if ("mo" in name or "mix" in name) == with_experts}
    assert chosen
    run_ranks(4, _write, chosen, 4, with_experts, tmp_path)
    for world in (1, 2, 4):
        assert min(run_ranks(world, _read, chosen, world, with_experts, tmp_path)) > 0
    for name, path in chosen.items():  # and without a model or a world
        arch = read_architecture(path)
        with HfFiles(path) as files:
            for filing in FILINGS:
                weights = DistWeights(DistFiles(tmp_path / f"{name}-{filing}"), arch)
                tensors = {k: v for key, piece in whole_pieces(arch) for k, v in weights.hf_tensors(key, piece).items()}
                assert tensors.keys() == files.file_of.keys()
                for key, value in tensors.items():
                    assert torch.equal(value, files.read(key, slice(None))), (name, filing, key)
