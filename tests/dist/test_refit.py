"""Weights into a model of another layout on the same ranks: every pair of layouts, in buckets, checked on arrival."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel import second_layout
from seif_nemo.parallel.second_layout import add_layout
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.refit import Refit
from seif_nemo.weights.role_digest import digest_of_hf, digest_of_model
from tests.dist.harness import RankError, run_ranks
from tests.tiny_hf import make_tiny_hf


@dataclass(frozen=True)
class Case:
    """Training and generation layout. Everything may differ but the ranks."""

    model: str
    train: ParallelConfig
    generate: ParallelConfig


def _p(**values: Any) -> ParallelConfig:
    return ParallelConfig(**({"sequence": values.get("tensor", 1) > 1} | values))


TWO = [
    Case("qwen2_tied", _p(tensor=2), _p()),
    Case("qwen2_tied", _p(), _p(tensor=2)),
    Case("qwen2_tied", _p(pipeline=2), _p(tensor=2)),
    Case("qwen2_tied", _p(tensor=2), _p(pipeline=2)),
    Case("qwen2_tied", _p(pipeline=2, virtual_pipeline=2), _p()),
    Case("qwen3", _p(context=2), _p(tensor=2)),
    Case("qwen3_moe", _p(expert=2), _p()),
    Case("qwen3_moe", _p(), _p(expert=2)),
    Case("qwen3_moe", _p(expert=2), _p(tensor=2)),
    Case("qwen3_moe", _p(tensor=2, expert=2, expert_tensor=1), _p(tensor=2)),
]
FOUR = [
    Case("qwen3", _p(tensor=4), _p(tensor=2)),  # a rank holds half of a group
    Case("qwen2_tied", _p(tensor=2, pipeline=2), _p(tensor=4)),
    Case("qwen2_tied", _p(pipeline=4), _p(tensor=2)),
    Case("qwen3_moe", _p(pipeline=2, expert=2), _p(tensor=2, expert=4, expert_tensor=1)),
]


def refit(cases: list[Case], models: dict[str, Path]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for case in cases:
        path = models[case.model]
        arch = read_architecture(path)
        topology = build_topology(case.train, seed=0, threads=1)
        source = build_gpt(arch, topology, dtype=torch.bfloat16, max_sequence_length=64)
        load_hf_weights(source, arch, topology, path)
        second = add_layout(case.generate, topology)
        with second.in_place():
            target = build_gpt(arch, second.topology, dtype=torch.bfloat16, max_sequence_length=64)
        moves = Refit(source, topology, target, second.topology, arch, bucket_bytes=20_000)
        sent = digest_of_model(source, arch, topology)
        moves.run(sent)
        first = moves.digest()
        with torch.no_grad():
            for module in source:
                for parameter in module.parameters():
                    parameter.mul_(-1.5)
        changed = digest_of_model(source, arch, topology)
        moves.run(changed)  # the same plan
        found.append(
            {"sent": sent, "first": first, "changed": changed, "second": moves.digest(), "n": moves.num_buckets}
        )
        shutdown(topology)
    return found


def lost_slice(case: Case, path: Path) -> str:
    arch = read_architecture(path)
    topology = build_topology(case.train, seed=0, threads=1)
    source = build_gpt(arch, topology, dtype=torch.bfloat16, max_sequence_length=64)
    load_hf_weights(source, arch, topology, path)
    second = add_layout(case.generate, topology)
    with second.in_place():
        target = build_gpt(arch, second.topology, dtype=torch.bfloat16, max_sequence_length=64)
    moves = Refit(source, topology, target, second.topology, arch, bucket_bytes=1 << 20)
    digest = digest_of_model(source, arch, topology)
    moves.run(digest)
    with torch.no_grad():
        for module in source:
            for parameter in module.parameters():
                parameter.add_(1)
    (move,) = moves._moves
    for bucket in move.buckets:  # one parameter stays what it was
        bucket.send_ops = [op for op in bucket.send_ops if "layers.2.mlp.gate" not in op.param_name]
        bucket.recv_ops = [op for op in bucket.recv_ops if "layers.2.mlp.gate" not in op.param_name]
    moves.run(digest_of_model(source, arch, topology))
    return "nobody saw it"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hf")
    return {
        "qwen2_tied": make_tiny_hf(root / "qwen2", "qwen2", tie_word_embeddings=True),
        "qwen3": make_tiny_hf(root / "qwen3", "qwen3"),
        "qwen3_moe": make_tiny_hf(root / "moe", "qwen3_moe"),
    }


@pytest.mark.parametrize(("world", "cases"), [(2, TWO), (4, FOUR)])
def test_the_weights_arrive_in_another_layout(world: int, cases: list[Case], models: dict[str, Path]) -> None:
    for rank in run_ranks(world, refit, cases, models):
        for case, seen in zip(cases, rank, strict=True):
            assert seen["sent"] == seen["first"] == digest_of_hf(models[case.model], torch.bfloat16), case
            assert seen["changed"] == seen["second"] != seen["sent"], case
            assert isinstance(seen["n"], int) and seen["n"] > 2, case


def test_a_slice_that_was_not_sent_is_seen(models: dict[str, Path]) -> None:
    case = Case("qwen3", _p(), _p(tensor=2))
    with pytest.raises(RankError, match=r"RefitError: weights \w+ were sent to the generation layout, \w+ arrived"):
        run_ranks(2, lost_slice, case, models["qwen3"])


def _states(config: ParallelConfig) -> tuple[list[int], list[int], list[int]]:
    topology = build_topology(ParallelConfig(), seed=0, threads=1)
    second = add_layout(config, topology)

    def tensor_ranks() -> list[int]:
        return dist.get_process_group_ranks(second_layout.parallel_state.get_tensor_model_parallel_group())

    before = tensor_ranks()
    with second.in_place():
        inside = tensor_ranks()
    return before, inside, tensor_ranks()


def test_the_first_layout_is_back_after_the_block() -> None:
    for rank, seen in enumerate(run_ranks(2, _states, ParallelConfig(tensor=2))):
        assert seen == ([rank], [0, 1], [rank])
