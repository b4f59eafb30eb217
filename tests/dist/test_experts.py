"""Training steps of mixture-of-experts models: every layout gives what plain torch gives with transformers' model."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.rollouts import LogProbs
from seif_nemo.types.training import TrainSample, TrainStats
from seif_nemo.weights.hf import export_hf, load_hf_weights
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

VOCAB = 99
FIRST = 3  # token of the samples: behind the padding token, which transformers gives no gradient
EXPERTS, TOP_K = 4, 2
KL = 0.05
# A large epsilon: Adam divides by the gradient's size, which would blow up rounding where gradients nearly cancel.
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-4, max_grad_norm=0.5)


@dataclass(frozen=True, slots=True)
class Case:
    family: str
    aux_loss: float  # coefficient
    micro_batch_tokens: int = 32  # two to four of the samples
    options: tuple[tuple[str, Any], ...] = ()


CASES = {
    "mixtral": Case("mixtral", 0.0),
    "qwen3_moe": Case("qwen3_moe", 0.3),
    "qwen3_moe_shares": Case("qwen3_moe", 0.3, 1, (("norm_topk_prob", False), ("tie_word_embeddings", True))),
}


@dataclass(frozen=True, slots=True)
class Layout:
    world: int
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    sequence: bool = False
    expert: int = 1
    expert_tensor: int | None = None
    virtual_pipeline: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """One update in plain torch."""

    logprobs: list[LogProbs]
    loss: float
    aux_loss: float  # without coefficient, mean over layers
    grad_norm: float
    update_norm: float
    before: dict[str, Tensor]
    after: dict[str, Tensor]


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


def samples() -> list[TrainSample]:
    """Seven of 5 to 17 positions. The log-probs are still to be filled in."""
    rng = np.random.default_rng(5)
    out: list[TrainSample] = []
    for index in range(7):
        response = int(rng.integers(4, 10))
        zeros = np.zeros(response, dtype=np.float32)
        advantages = rng.normal(size=response).astype(np.float32)
        prompt_ids, response_ids = rng.integers(FIRST, VOCAB, 2 + 5 * index % 8), rng.integers(FIRST, VOCAB, response)
        out.append(TrainSample(prompt_ids, response_ids, zeros, zeros, advantages, group=index))
    return out


def scored(chosen: list[TrainSample], logprobs: list[LogProbs]) -> list[TrainSample]:
    """With the model's own log-probs as the old ones: all ratios are 1, and no clip is near."""
    rng = np.random.default_rng(6)
    return [
        replace(sample, old_logprobs=old, reference_logprobs=old + rng.normal(0, 0.2, len(old)).astype(np.float32))
        for sample, old in zip(chosen, logprobs, strict=True)
    ]


def num_positions(sample: TrainSample) -> int:
    return len(sample.prompt_ids) + len(sample.response_ids) - 1


def plain_logprobs(model: Any, sample: TrainSample) -> tuple[Tensor, list[Tensor]]:
    """Log-probs of the response, and the router logits [positions, experts] of each layer."""
    ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.response_ids]))[None, :]
    out = model(ids[:, :-1], output_router_logits=True)
    rows = out.logits[0, len(sample.prompt_ids) - 1 :].log_softmax(1)
    return rows.gather(1, torch.from_numpy(sample.response_ids)[:, None])[:, 0], list(out.router_logits)


def balance(logits_NE: Tensor) -> Tensor:
    """E Σ f P of one sequence: Fedus et al., arXiv 2101.03961, equations 4 to 6, for the top k."""
    shares_NE = logits_NE.softmax(1)
    chosen_NE = F.one_hot(shares_NE.topk(TOP_K, dim=1).indices, EXPERTS).sum(1).float()
    return EXPERTS * (chosen_NE.mean(0) / TOP_K * shares_NE.mean(0)).sum()


def train_plainly(path: Path, case: Case) -> tuple[list[TrainSample], Expected]:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, experts_implementation="eager")
    with torch.no_grad():
        logprobs = [plain_logprobs(model, sample)[0].numpy() for sample in samples()]
    chosen = scored(samples(), logprobs)
    tokens = sum(len(sample.response_ids) for sample in chosen)
    positions = sum(map(num_positions, chosen))
    policy, balanced = torch.zeros(()), torch.zeros(())
    for sample in chosen:
        new, router_logits = plain_logprobs(model, sample)
        gap = torch.from_numpy(sample.reference_logprobs) - new
        ratio = (new - torch.from_numpy(sample.old_logprobs)).exp()
        policy = policy + (KL * (gap.exp() - 1 - gap) - torch.from_numpy(sample.advantages) * ratio).sum() / tokens
        weight = num_positions(sample) / positions
        balanced = balanced + weight * torch.stack([balance(logits) for logits in router_logits]).sum()
    (policy + case.aux_loss * balanced).backward()
    parameters = list(model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(parameters, OPTIMIZER.max_grad_norm).item()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": OPTIMIZER.weight_decay},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
    )
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    changes = [(new.detach() - old).square().sum() for new, old in zip(parameters, before, strict=True)]
    updated = path.with_name(f"{path.name}-updated")
    model.save_pretrained(updated)
    layers = model.config.num_hidden_layers
    expected = Expected(
        logprobs,
        policy.item(),
        balanced.item() / layers if case.aux_loss else 0.0,
        norm,
        torch.stack(changes).sum().sqrt().item(),
        load_file(path / "model.safetensors"),
        load_file(updated / "model.safetensors"),
    )
    return chosen, expected


def build(layout: Layout) -> Topology:
    sizes = {key: value for key, value in asdict(layout).items() if key != "world"}
    return build_topology(ParallelConfig(**sizes), seed=0, threads=1, rendezvous_timeout_s=60)


def build_actor(
    topology: Topology,
    path: Path,
    case: Case,
    dtype: torch.dtype = torch.float32,
    recompute: Recompute = Recompute.none,
) -> tuple[TrainableModel, Actor]:
    arch = read_architecture(path)
    modules = build_gpt(
        arch,
        topology,
        dtype=dtype,
        max_sequence_length=64,
        recompute=recompute,
        router_aux_loss_coefficient=case.aux_loss,
    )
    trainable = TrainableModel(modules, modules[0].config, OPTIMIZER, topology)
    load_hf_weights(modules, arch, topology, path)
    trainable.after_weights_changed()
    actor = Actor(
        trainable,
        NoEngine(),  # pyright: ignore[reportArgumentType]
        OnlyPad(),  # pyright: ignore[reportArgumentType]
        topology,
        AlgorithmConfig(),
        arch,
        micro_batch_tokens=case.micro_batch_tokens,
        max_new_tokens=16,
    )
    return trainable, actor


def train(
    layout: Layout, models: dict[str, Path], chosen: dict[str, list[TrainSample]], out: Path
) -> dict[str, tuple[list[LogProbs], TrainStats]]:
    topology = build(layout)
    results: dict[str, tuple[list[LogProbs], TrainStats]] = {}
    for name, path in models.items():
        trainable, actor = build_actor(topology, path, CASES[name])
        logprobs = actor.logprobs([(sample.prompt_ids, sample.response_ids) for sample in chosen[name]])
        stats = actor.train_step(chosen[name], kl_coefficient=KL, mini_batches=1, seed=3)
        export_hf(trainable.modules, read_architecture(path), topology, out / name, source_dir=path)
        results[name] = logprobs, stats
    shutdown(topology)
    return results


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("experts")
    return {
        name: make_tiny_hf(root / name, case.family, seed=3, num_hidden_layers=4, **dict(case.options))
        for name, case in CASES.items()
    }


@pytest.fixture(scope="module")
def expected(models: dict[str, Path]) -> dict[str, tuple[list[TrainSample], Expected]]:
    return {name: train_plainly(path, CASES[name]) for name, path in models.items()}


LAYOUTS = {
    "one": Layout(1),
    "ep2": Layout(2, expert=2),
    "tp2": Layout(2, tensor=2, sequence=True),
    "tp2-ep2-etp1": Layout(2, tensor=2, sequence=True, expert=2, expert_tensor=1),
    "cp2-ep2": Layout(2, context=2, expert=2),
    "dp4-ep2": Layout(4, expert=2),
    "dp4-ep2-etp2": Layout(4, expert=2, expert_tensor=2),
    "tp2-dp2-ep2": Layout(4, tensor=2, sequence=True, expert=2),
    "tp2-pp2-ep2-etp1": Layout(4, pipeline=2, tensor=2, sequence=True, expert=2, expert_tensor=1),
    "pp2-vpp2-ep2": Layout(4, pipeline=2, virtual_pipeline=2, expert=2),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_step_equals_plain_torch(
    layout: Layout,
    models: dict[str, Path],
    expected: dict[str, tuple[list[TrainSample], Expected]],
    tmp_path: Path,
) -> None:
    chosen = {name: each[0] for name, each in expected.items()}
    ranks = run_ranks(layout.world, train, layout, models, chosen, tmp_path)
    for name, (_, right) in expected.items():
        logprobs, stats = ranks[0][name]
        for other in ranks[1:]:
            assert other[name][1] == stats, name
        for a, b in zip(logprobs, right.logprobs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
        assert stats.loss == pytest.approx(right.loss, rel=1e-5, abs=1e-5), name
        assert stats.router_aux_loss == pytest.approx(right.aux_loss, rel=1e-5), name
        assert stats.grad_norm == pytest.approx(right.grad_norm, rel=2e-5), name
        assert stats.update_norm == pytest.approx(right.update_norm, rel=1e-4), name
        actual = load_file(tmp_path / name / "model.safetensors")
        assert actual.keys() == right.after.keys()
        for key, value in right.after.items():
            change = value - right.before[key]
            worst = (actual[key] - value).abs().max() / change.abs().max()
            assert worst <= 2e-3, (name, key, worst)


def train_again(path: Path, chosen: list[TrainSample]) -> list[tuple[TrainStats, list[np.ndarray]]]:
    topology = build(LAYOUTS["ep2"])
    results: list[tuple[TrainStats, list[np.ndarray]]] = []
    for recompute in Recompute:
        trainable, actor = build_actor(topology, path, CASES["qwen3_moe"], recompute=recompute)
        stats = actor.train_step(chosen, kl_coefficient=KL, mini_batches=1, seed=3)
        results.append((stats, [buffer.numpy().copy() for buffer in trainable.weight_buffers()]))
    shutdown(topology)
    return results


def test_recomputation_changes_nothing(
    models: dict[str, Path], expected: dict[str, tuple[list[TrainSample], Expected]]
) -> None:
    for plain, *others in run_ranks(2, train_again, models["qwen3_moe"], expected["qwen3_moe"][0]):
        assert len(others) == 2
        for stats, weights in others:
            assert stats == plain[0]
            assert all(np.array_equal(a, b) for a, b in zip(weights, plain[1], strict=True))


def train_packed(layout: Layout, path: Path, chosen: list[TrainSample]) -> list[TrainStats]:
    topology = build(layout)
    results: list[TrainStats] = []
    for budget in (1, 64):
        _, actor = build_actor(topology, path, replace(CASES["qwen3_moe"], micro_batch_tokens=budget))
        results.append(actor.train_step(chosen, kl_coefficient=KL, mini_batches=1, seed=3))
    shutdown(topology)
    return results


@pytest.mark.parametrize("layout", ["one", "cp2-ep2", "tp2-ep2-etp1"])
def test_packing_changes_nothing(
    layout: str, models: dict[str, Path], expected: dict[str, tuple[list[TrainSample], Expected]]
) -> None:
    chosen, right = expected["qwen3_moe"]
    alone, packed = run_ranks(LAYOUTS[layout].world, train_packed, LAYOUTS[layout], models["qwen3_moe"], chosen)[0]
    assert alone.num_micro_batches > packed.num_micro_batches
    for stats in (alone, packed):
        assert stats.router_aux_loss == pytest.approx(right.aux_loss, rel=1e-5)
        assert stats.grad_norm == pytest.approx(right.grad_norm, rel=2e-5)
