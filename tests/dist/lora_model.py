"""A tiny model with adapters, in any layout, and samples for it to learn from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.config.roles import LoraConfig
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.lora import add_adapters
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology
from seif_nemo.types.training import TrainSample
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.peft import load_adapter

ALL = LoraConfig(rank=3, alpha=6.0)
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-5, max_grad_norm=0.5)
VOCAB = 97


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    parallel: dict[str, Any] = field(default_factory=dict)
    recompute: Recompute = Recompute.none


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    topology: Topology
    arch: Architecture
    trainable: TrainableModel

    @property
    def modules(self) -> list[Any]:
        return self.trainable.modules


def build(
    layout: Layout,
    base: Path,
    lora: LoraConfig,
    adapter: Path | None,
    *,
    dtype: torch.dtype = torch.float32,
    with_value_head: bool = False,
) -> Model:
    topology = build_topology(ParallelConfig(**layout.parallel), seed=0, threads=1, rendezvous_timeout_s=60)
    arch = read_architecture(base)
    modules = build_gpt(
        arch,
        topology,
        dtype=dtype,
        max_sequence_length=64,
        recompute=layout.recompute,
        with_value_head=with_value_head,
    )
    add_adapters(modules, arch, topology, lora, seed=5)
    trainable = TrainableModel(modules, modules[0].config, OPTIMIZER, topology)
    load_hf_weights(modules, arch, topology, base)
    if adapter is not None:
        load_adapter(modules, arch, topology, adapter, lora)
    trainable.after_weights_changed()
    return Model(topology, arch, trainable)


def make_actor(model: Model) -> Actor:
    return Actor(
        model.trainable,
        NoEngine(),  # pyright: ignore[reportArgumentType]
        OnlyPad(),  # pyright: ignore[reportArgumentType]
        model.topology,
        AlgorithmConfig(),
        model.arch,
        micro_batch_tokens=40,
        max_new_tokens=16,
    )


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


def samples(step: int) -> list[TrainSample]:
    rng = np.random.default_rng(step)
    lengths = [(int(rng.integers(1, 9)), int(rng.integers(1, 9))) for _ in range(6)]
    return [
        TrainSample(
            rng.integers(0, VOCAB, prompt),
            rng.integers(0, VOCAB, response),
            rng.normal(-4.2, 0.1, response).astype(np.float32),
            rng.normal(-4.2, 0.1, response).astype(np.float32),
            advantages=np.full(response, rng.normal(), dtype=np.float32),
            group=index,
        )
        for index, (prompt, response) in enumerate(lengths)
    ]


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(sample.prompt_ids, sample.response_ids) for sample in samples(9)]
