"""Loss, gradient norm and updated weights of two optimizer steps are those of one process, in every layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from safetensors.torch import load_file

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.weights.hf import export_hf, load_hf_weights
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

BATCH, LENGTH, MICRO = 8, 16, 2


@dataclass(frozen=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False


@dataclass(frozen=True)
class Trace:
    """Of both steps: mean loss over the whole batch and gradient norm before clipping."""

    losses: list[float]
    norms: list[float]


def _tokens() -> torch.Tensor:
    return torch.randint(0, 99, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(3))


def _train(topology: Topology, path: Path, out: Path) -> Trace:
    arch = read_architecture(path)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=LENGTH)
    (model,) = modules
    load_hf_weights(modules, arch, topology, path)
    config: Any = model.config
    config.finalize_model_grads_func = finalize_model_grads
    ddp = DistributedDataParallel(config, DistributedDataParallelConfig(use_distributed_optimizer=True), model)
    settings = OptimizerConfig(
        optimizer="adam", lr=1e-3, adam_eps=1e-3, weight_decay=0.0, clip_grad=0.5, use_distributed_optimizer=True
    )
    optimizer: Any = get_megatron_optimizer(settings, [ddp], use_gloo_process_groups=False)
    mine = _tokens().chunk(topology.data)[topology.data_rank]
    trace = Trace([], [])
    for _ in range(2):
        ddp.zero_grad_buffer()
        optimizer.zero_grad()
        run: Any = get_forward_backward_func()
        losses = run(
            forward_step_func=_forward_step,
            data_iterator=iter(mine.split(MICRO)),
            model=ddp,
            num_microbatches=len(mine) // MICRO,
            seq_length=LENGTH,
            micro_batch_size=MICRO,
            forward_only=False,
        )
        _, norm, _ = optimizer.step()
        trace.norms.append(float(norm))
        mean = torch.tensor(sum(entry["loss"] for entry in losses) / len(losses) if losses else 0.0)
        dist.broadcast(mean, topology.last_stage_rank, group=topology.pipeline_group)
        dist.all_reduce(mean, group=topology.data_group)
        trace.losses.append(float(mean) / topology.data)
    export_hf(modules, arch, topology, out, source_dir=path)
    return trace


def _forward_step(data: Any, model: Any) -> Any:
    tokens_BS = next(data)
    positions = torch.arange(LENGTH).expand(MICRO, LENGTH)
    output = model(tokens_BS[:, :-1], positions, None, labels=tokens_BS[:, 1:])

    def loss(losses_BS: torch.Tensor) -> Any:
        return losses_BS.mean(), {"loss": losses_BS.detach().mean().item()}

    return output, loss


def _train_layouts(layouts: list[Layout], models: list[Path], out: Path) -> list[Trace]:
    traces = []
    for number, layout in enumerate(layouts):
        config = ParallelConfig(tensor=layout.tensor, pipeline=layout.pipeline, sequence=layout.sequence)
        topology = build_topology(config, seed=1, threads=1)
        for path in models:
            traces.append(_train(topology, path, out / f"{topology.world_size}-{number}-{path.name}"))
        shutdown(topology)
    return traces


LAYOUTS = {
    2: [Layout(), Layout(tensor=2), Layout(tensor=2, sequence=True), Layout(pipeline=2)],
    8: [Layout(tensor=2, pipeline=2), Layout(tensor=2, pipeline=2, sequence=True)],
}


def test_every_layout_trains_as_one_process(tmp_path: Path) -> None:
    models = [
        make_tiny_hf(tmp_path / "qwen2", "qwen2", tie_word_embeddings=True),
        make_tiny_hf(tmp_path / "qwen3", "qwen3", num_hidden_layers=3),
    ]
    (single,) = run_ranks(1, _train_layouts, [Layout()], models, tmp_path)
    weights = [load_file(tmp_path / f"1-0-{path.name}" / "model.safetensors") for path in models]
    for path, trained in zip(models, weights, strict=True):
        before = load_file(path / "model.safetensors")
        assert all((trained[name] - before[name]).abs().max() > 1e-5 for name in before)
    assert all(norm > 0.5 for trace in single for norm in trace.norms), "clipping must be at work"
    for world_size, layouts in LAYOUTS.items():
        per_rank = run_ranks(world_size, _train_layouts, layouts, models, tmp_path, timeout_s=240)
        assert all(traces == per_rank[0] for traces in per_rank), "every rank reports the same"
        for number, layout in enumerate(layouts):
            for index, path in enumerate(models):
                label = f"{layout} on {world_size} ranks, {path.name}"
                trace = per_rank[0][number * len(models) + index]
                torch.testing.assert_close(trace.losses, single[index].losses, rtol=1e-5, atol=0, msg=label)
                torch.testing.assert_close(trace.norms, single[index].norms, rtol=1e-4, atol=0, msg=label)
                exported = load_file(tmp_path / f"{world_size}-{number}-{path.name}" / "model.safetensors")
                for name, expected in weights[index].items():
                    torch.testing.assert_close(exported[name], expected, rtol=0, atol=2e-6, msg=f"{label}: {name}")
