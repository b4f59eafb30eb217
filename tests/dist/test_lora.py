"""Adapters on a frozen base: PEFT's function in every layout, trained, saved and given out again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.lora import add_adapters, is_of_adapter
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.training import TrainSample, TrainStats
from seif_nemo.weights.hf import export_hf, load_hf_weights
from seif_nemo.weights.peft import export_adapter, load_adapter
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf
from tests.tiny_lora import make_adapter, with_adapter

ALL = LoraConfig(rank=3, alpha=6.0)
SOME = LoraConfig(rank=2, alpha=3.0, targets=[Projection.v_proj, Projection.o_proj, Projection.up_proj])
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-5, max_grad_norm=0.5)
VOCAB = 97


@dataclass(frozen=True, slots=True)
class Layout:
    world: int = 1
    parallel: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "-".join([str(self.world), *(f"{key}{value}" for key, value in self.parallel.items())]).replace(" ", "")


ONE = Layout()
LAYOUTS = [
    Layout(2),
    Layout(2, {"tensor": 2}),
    Layout(2, {"tensor": 2, "sequence": True}),
    Layout(2, {"pipeline": 2}),
    Layout(2, {"pipeline": 2, "virtual_pipeline": 2}),
    Layout(2, {"context": 2}),
    Layout(4, {"tensor": 4, "sequence": True}),  # more ranks than key/value groups
    Layout(4, {"tensor": 2, "pipeline": 2, "sequence": True}),
]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    topology: Topology
    arch: Architecture
    trainable: TrainableModel

    @property
    def modules(self) -> list[Any]:
        return self.trainable.modules


def build(
    layout: Layout, base: Path, lora: LoraConfig, adapter: Path | None, *, recompute: Recompute = Recompute.none
) -> Model:
    topology = build_topology(ParallelConfig(**layout.parallel), seed=0, threads=1, rendezvous_timeout_s=60)
    arch = read_architecture(base)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64, recompute=recompute)
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


# Forward, and the way out


def infer(layout: Layout, base: Path, adapters: Sequence[tuple[LoraConfig, Path]], out: Path) -> list[list[np.ndarray]]:
    """Log-probs of each adapter; its adapter and its merged weights go to `out`."""
    found: list[list[np.ndarray]] = []
    for number, (lora, adapter) in enumerate(adapters):
        model = build(layout, base, lora, adapter)
        found.append(make_actor(model).logprobs(pairs(), temperature=1.0))
        folder = out / f"{layout.name}-{number}"
        export_hf(model.modules, model.arch, model.topology, folder / "merged", source_dir=base)
        export_adapter(model.modules, model.arch, model.topology, folder / "adapter", lora, base_dir=base)
        shutdown(model.topology)
    return found


def plain_logprobs(model: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for prompt, response in pairs():
        ids = torch.from_numpy(np.concatenate([prompt, response]))
        with torch.no_grad():
            rows = model(ids[None]).logits[0].log_softmax(1)[len(prompt) - 1 : -1]
        found.append(rows.gather(1, torch.from_numpy(response)[:, None])[:, 0].numpy())
    return found


def worst(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(actual, expected, strict=True))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_hf(tmp_path_factory.mktemp("base") / "qwen2", tie_word_embeddings=True, vocab_size=VOCAB)


@pytest.fixture(scope="module")
def chosen(base: Path) -> list[tuple[LoraConfig, Path]]:
    return [
        (lora, make_adapter(base.parent / f"adapter-{number}", base, lora)) for number, lora in enumerate((ALL, SOME))
    ]


@pytest.mark.parametrize("layout", [ONE, *LAYOUTS], ids=lambda layout: layout.name)
def test_an_adapter_is_what_peft_means_and_comes_out_as_it_went_in(
    layout: Layout, base: Path, chosen: list[tuple[LoraConfig, Path]], tmp_path: Path
) -> None:
    per_rank = run_ranks(layout.world, infer, layout, base, chosen, tmp_path)
    plain = plain_logprobs(AutoModelForCausalLM.from_pretrained(base))
    for number, (lora, adapter) in enumerate(chosen):
        expected = plain_logprobs(with_adapter(base, adapter, lora))
        assert worst(expected, plain) > 0.5, "the adapter does not matter"
        assert worst(per_rank[0][number], expected) <= 1e-5
        folder = tmp_path / f"{layout.name}-{number}"
        merged = plain_logprobs(AutoModelForCausalLM.from_pretrained(folder / "merged"))
        assert worst(merged, expected) <= 1e-5
        print(layout.name, number, worst(per_rank[0][number], expected), worst(merged, per_rank[0][number]))
        ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (folder / "adapter", adapter))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


# Training


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    stats: list[TrainStats]
    buffers: list[int]  # bytes of the weight buffers and of the moment buffers
    adapter_bytes: int
    kept: bool  # whether the base is what it was, and without gradients
    names: list[str]  # of what learns


def train(layout: Layout, base: Path, lora: LoraConfig, out: Path, recompute: Recompute) -> Trained:
    """Two steps from fresh adapters (A random, B zero), then the adapter is written to `out`."""
    model = build(layout, base, lora, None, recompute=recompute)
    frozen = {name: p for m in model.modules for name, p in m.named_parameters() if not is_of_adapter(name)}
    before = {name: parameter.detach().clone() for name, parameter in frozen.items()}
    actor = make_actor(model)
    stats = [actor.train_step(samples(step), kl_coefficient=0.05, mini_batches=2, seed=step) for step in (0, 1)]
    own = [p for m in model.modules for name, p in m.named_parameters() if is_of_adapter(name)]
    trained = Trained(
        stats,
        [sum(buffer.nbytes for buffer in buffers()) for buffers in buffers_of(model)],
        sum(parameter.nbytes for parameter in own),
        all(torch.equal(frozen[name], value) and not is_learning(frozen[name]) for name, value in before.items()),
        sorted(name for m in model.modules for name, p in m.named_parameters() if is_learning(p)),
    )
    export_adapter(model.modules, model.arch, model.topology, out / layout.name, lora, base_dir=base)
    shutdown(model.topology)
    return trained


def buffers_of(model: Model) -> list[Any]:
    return [model.trainable.weight_buffers, model.trainable.moment_buffers]


def is_learning(parameter: Any) -> bool:
    return parameter.requires_grad or parameter.grad is not None or hasattr(parameter, "main_grad")


def check_training(layout: Layout, base: Path, out: Path, recompute: Recompute = Recompute.none) -> None:
    if not (out / ONE.name).exists():
        train_once(base, out)
    expected = train_once(base, out)
    per_rank = run_ranks(layout.world, train, layout, base, ALL, out, recompute)
    for trained in per_rank:
        assert trained.kept
        assert all(is_of_adapter(name) for name in trained.names)
