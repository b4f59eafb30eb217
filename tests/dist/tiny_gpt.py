"""A tiny GPT with the same weights in every layout, for tests that compare layouts."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import build_gpt, padded_vocab_size
from seif_nemo.models.precision import Fp8Plan
from seif_nemo.parallel.topology import Topology

FullWeights = dict[str, np.ndarray]

VOCAB = 61  # padded to 64: three columns of padding
TINY = Architecture(
    family="qwen2",
    num_layers=3,
    hidden_size=32,
    ffn_hidden_size=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=VOCAB,
    max_positions=64,
    tied_embeddings=True,
    qkv_bias=True,
    qk_norm=False,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    eos_ids=(1,),
)


@dataclass(frozen=True, slots=True)
class Layout:
    world: int
    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False
    context: int = 1
    virtual: int = 1
    counts: tuple[int, ...] | None = None  # layers of each chunk

    @property
    def config(self) -> ParallelConfig:
        return ParallelConfig(
            tensor=self.tensor,
            pipeline=self.pipeline,
            sequence=self.sequence,
            context=self.context,
            virtual_pipeline=self.virtual,
            pipeline_layout=None if self.counts is None else list(self.counts),
        )


def build_tiny(
    topology: Topology,
    arch: Architecture = TINY,
    dtype: torch.dtype = torch.float32,
    recompute: Recompute = Recompute.none,
    *,
    with_value_head: bool = False,
    fp8: Fp8Plan | None = None,
) -> list[GPTModel]:
    """The chunks of the model with weights that depend on the parameter's global name and `arch` alone."""
    modules = build_gpt(
        arch,
        topology,
        dtype=dtype,
        max_sequence_length=arch.max_positions,
        recompute=recompute,
        with_value_head=with_value_head,
        fp8=fp8,
    )
    with torch.no_grad():
        for module in modules:
            for name, parameter in module.named_parameters():
                full = _initial(global_name(module, name), _full_shape(name, parameter, topology), arch)
                parameter.copy_(_shard(name, full, parameter, topology))
    return modules


def global_name(model: GPTModel, name: str) -> str:
    """The parameter's name in the undivided model."""
    if name == "output_layer.weight" and model.share_embeddings_and_output_weights:
        return "embedding.word_embeddings.weight"
    parts = name.split(".")
    if parts[:2] == ["decoder", "layers"]:
        layer: Any = model.decoder.layers[int(parts[2])]
        parts[2] = str(layer.layer_number - 1)
    return ".".join(parts)


def local_weights(modules: Sequence[GPTModel]) -> dict[str, np.ndarray]:
    return {
        global_name(module, name): parameter.detach().float().cpu().numpy().copy()
        for module in modules
        for name, parameter in module.named_parameters()
    }


def merge_weights(per_rank: Sequence[tuple[int, Mapping[str, np.ndarray]]], tensor: int) -> FullWeights:
    """Whole weights from (tensor rank, local weights) of all ranks. Asserts that replicas agree to the bit."""
    shards: dict[str, dict[int, np.ndarray]] = {}
    for tensor_rank, weights in per_rank:
        for name, value in weights.items():
            known = shards.setdefault(name, {}).setdefault(tensor_rank, value)
            assert np.array_equal(known, value), f"{name} differs between replicas of tensor rank {tensor_rank}"
    full: FullWeights = {}
    for name, by_rank in shards.items():
        parts = [by_rank[rank] for rank in range(tensor)]
        dim = _partition_dim(name)
        if dim is None:
            assert all(np.array_equal(parts[0], part) for part in parts), f"{name} differs between tensor ranks"
            full[name] = parts[0]
        elif "linear_fc1" in name:
            halves = [np.split(part, 2, axis=0) for part in parts]
            full[name] = np.concatenate([half[side] for side in (0, 1) for half in halves])
        else:
            full[name] = np.concatenate(parts, axis=dim)
    return full


def _initial(name: str, shape: tuple[int, ...], arch: Architecture) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(shape, generator=generator)
    if name.endswith(("layer_norm_weight", "layernorm.weight")):
        return 1 + 0.1 * noise
    if "embedding" in name or "output_layer" in name:
        noise[arch.vocab_size :] = 0
        return 0.3 * noise
    return 0.2 * noise


def _partition_dim(name: str) -> int | None:
    if "layer_norm" in name or "layernorm" in name or name.startswith("value_head."):
        return None
    if "linear_proj" in name or "linear_fc2" in name:
        return 1
    return 0


def _full_shape(name: str, parameter: Tensor, topology: Topology) -> tuple[int, ...]:
    shape = list(parameter.shape)
    dim = _partition_dim(name)
    if dim is not None:
        shape[dim] *= topology.tensor
    return tuple(shape)


def _shard(name: str, full: Tensor, parameter: Tensor, topology: Topology) -> Tensor:
    dim, rank = _partition_dim(name), topology.tensor_rank
    if dim is None:
        return full
    if "linear_fc1" in name:
        return torch.cat([half.chunk(topology.tensor)[rank] for half in full.chunk(2)])
    return full.chunk(topology.tensor, dim)[rank]


assert padded_vocab_size(TINY, 2) == 64
