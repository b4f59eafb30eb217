"""Adapters on a frozen base: PEFT's function in every layout, trained, saved and given out again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from seif_nemo.config.parallel import Recompute
from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.models.lora import is_of_adapter
from seif_nemo.parallel.topology import shutdown
from seif_nemo.types.training import TrainStats
from seif_nemo.weights.hf import export_hf
from seif_nemo.weights.peft import export_adapter
from tests.dist.harness import run_ranks
from tests.dist.lora_model import ALL, OPTIMIZER, VOCAB, Layout, Model, build, make_actor, pairs, samples
from tests.tiny_hf import make_tiny_hf
from tests.tiny_lora import make_adapter, with_adapter

SOME = LoraConfig(rank=2, alpha=3.0, targets=[Projection.v_proj, Projection.o_proj, Projection.up_proj])


# World size -> layouts. Four tensor-parallel ranks are more than there are key/value groups.
LAYOUTS = {
    1: [Layout("one"), Layout("recompute", recompute=Recompute.full)],
    2: [
        Layout("dp2"),
        Layout("tp2", {"tensor": 2}),
        Layout("tp2 sp", {"tensor": 2, "sequence": True}),
        Layout("tp2 sp recompute", {"tensor": 2, "sequence": True}, Recompute.selective),
        Layout("pp2 vpp2", {"pipeline": 2, "virtual_pipeline": 2}, Recompute.full),
        Layout("cp2", {"context": 2}),
    ],
    4: [
        Layout("tp4", {"tensor": 4}),
        Layout("tp4 sp", {"tensor": 4, "sequence": True}),
        Layout("tp2 sp pp2", {"tensor": 2, "pipeline": 2, "sequence": True}),
    ],
}


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Of two steps from fresh adapters."""

    stats: list[TrainStats]
    names: list[str]  # of what learns
    base_kept: bool
    buffer_bytes: int
    adapter_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    logprobs: list[np.ndarray]  # of a given adapter
    trained: Trained


def run_layouts(
    layouts: Sequence[Layout], base: Path, given: Sequence[tuple[LoraConfig, Path]], out: Path
) -> list[Result]:
    return [
        run_layout(layout, base, *given[number % len(given)], out / layout.name)
        for number, layout in enumerate(layouts)
    ]


def run_layout(layout: Layout, base: Path, lora: LoraConfig, adapter: Path, out: Path) -> Result:
    """A given adapter in, and out as an adapter and as merged weights; then a fresh one that learns."""
    model = build(layout, base, lora, adapter)
    logprobs = make_actor(model).logprobs(pairs(), temperature=1.0)
    export_hf(model.modules, model.arch, model.topology, out / "merged", source_dir=base)
    export_adapter(model.modules, model.arch, model.topology, out / "given", lora, base_dir=base)
    shutdown(model.topology)
    model = build(layout, base, ALL, None)
    trained = train(model)
    export_adapter(model.modules, model.arch, model.topology, out / "trained", ALL, base_dir=base)
    shutdown(model.topology)
    return Result(logprobs, trained)


def train(model: Model) -> Trained:
    named = [pair for module in model.modules for pair in module.named_parameters()]
    frozen = [parameter for name, parameter in named if not is_of_adapter(name)]
    before = [parameter.detach().clone() for parameter in frozen]
    actor = make_actor(model)
    stats = [actor.train_step(samples(step), kl_coefficient=0.05, mini_batches=2, seed=step) for step in (0, 1)]
    return Trained(
        stats=stats,
        names=[name for name, parameter in named if parameter.requires_grad or hasattr(parameter, "main_grad")],
        base_kept=all(torch.equal(a, b) and a.grad is None for a, b in zip(frozen, before, strict=True)),
        buffer_bytes=sum(buffer.nbytes for buffer in model.trainable.weight_buffers()),
        adapter_bytes=sum(parameter.nbytes for name, parameter in named if is_of_adapter(name)),
    )


def plain_logprobs(model: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for prompt, response in pairs():
        ids = torch.from_numpy(np.concatenate([prompt, response]))
        with torch.no_grad():
            rows = model(ids[None]).logits[0].log_softmax(1)[len(prompt) - 1 : -1]
        found.append(rows.gather(1, torch.from_numpy(response)[:, None])[:, 0].numpy())
    return found


def distance(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Relative to the largest log-prob."""
    size = max(float(np.abs(b).max()) for b in expected)
    return max(float(np.abs(a - b).max()) for a, b in zip(actual, expected, strict=True)) / size


def adapter_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_hf(tmp_path_factory.mktemp("base") / "qwen2", tie_word_embeddings=True, vocab_size=VOCAB)


@pytest.fixture(scope="module")
def given(base: Path) -> list[tuple[LoraConfig, Path]]:
    return [
        (lora, make_adapter(base.parent / f"adapter-{number}", base, lora)) for number, lora in enumerate((ALL, SOME))
    ]


@pytest.fixture(scope="module")
def expected(base: Path, given: list[tuple[LoraConfig, Path]]) -> list[list[np.ndarray]]:
    plain = plain_logprobs(AutoModelForCausalLM.from_pretrained(base))
    logprobs = [plain_logprobs(with_adapter(base, adapter, lora)) for lora, adapter in given]
    assert all(distance(each, plain) > 0.05 for each in logprobs), "the adapter does not matter"
    return logprobs


@pytest.fixture(scope="module")
def one(base: Path, given: list[tuple[LoraConfig, Path]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Where one process wrote, and what it saw, of each layout for it."""
    out = tmp_path_factory.mktemp("one")
    (results,) = run_ranks(1, run_layouts, LAYOUTS[1], base, given, out)
    return out, results


@pytest.mark.parametrize("world", LAYOUTS)
def test_every_layout_computes_peft_s_function_and_learns_as_one_process(
    world: int,
    base: Path,
    given: list[tuple[LoraConfig, Path]],
    expected: list[list[np.ndarray]],
    one: tuple[Path, Any],
    tmp_path: Path,
) -> None:
    out, results = one
    reference, learned = results[0].trained.stats, adapter_of(out / "one" / "trained")
    per_rank = [results]
    if world > 1:
        out = tmp_path
        per_rank = run_ranks(world, run_layouts, LAYOUTS[world], base, given, out)
    for number, layout in enumerate(LAYOUTS[world]):
        index = number % len(given)
        found = per_rank[0][number].logprobs
        assert distance(found, expected[index]) <= 1e-6, layout
        merged = AutoModelForCausalLM.from_pretrained(out / layout.name / "merged")
        assert distance(plain_logprobs(merged), found) <= 1e-6, layout
        assert_same(adapter_of(out / layout.name / "given"), adapter_of(given[index][1]))
        for rank in per_rank:
            check_trained(rank[number].trained, reference, layout)
        for name, tensor in adapter_of(out / layout.name / "trained").items():
            # Adam divides by the gradient's size, which makes rounding larger where gradients nearly cancel.
            torch.testing.assert_close(tensor, learned[name], rtol=0, atol=4e-6, msg=f"{layout}: {name}")
    assert all(tensor.abs().max() > 1e-3 for tensor in learned.values())


def check_trained(trained: Trained, reference: Sequence[TrainStats], layout: Layout) -> None:
    assert trained.base_kept, layout
    assert trained.names, layout
    assert all(is_of_adapter(name) for name in trained.names), layout
    assert trained.adapter_bytes <= trained.buffer_bytes <= trained.adapter_bytes + 4096, layout  # and alignment
    for a, b in zip(trained.stats, reference, strict=True):
        for key in ("loss", "policy_loss", "kl", "entropy", "grad_norm", "update_norm"):
            assert getattr(a, key) == pytest.approx(getattr(b, key), rel=1e-5, abs=1e-6), (layout, key)
        assert a.grad_norm > OPTIMIZER.max_grad_norm, "clipping must be at work"


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
