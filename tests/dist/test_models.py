"""Every layout computes what transformers computes, and gives the weights back unchanged."""

import itertools
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.weights.hf import export_hf, load_hf_weights
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500.0,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
}
YARN_SCALED = YARN | {"mscale": 0.7, "mscale_all_dim": 0.3, "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}
MODELS = {
    "llama": {"family": "llama", "rope_parameters": LLAMA3, "shard_size": "40KB"},
    "llama_tied": {"family": "llama", "tie_word_embeddings": True, "vocab_size": 97},
    "qwen2": {"family": "qwen2", "num_hidden_layers": 3},
    "qwen2_tied": {"family": "qwen2", "tie_word_embeddings": True},
    "qwen2_bf16": {"family": "qwen2", "dtype": torch.bfloat16},
    "qwen3": {"family": "qwen3", "shard_size": "40KB", "head_dim": 16},
    "llama_biases": {"family": "llama", "attention_bias": True, "mlp_bias": True, "rope_parameters": YARN},
    "qwen2_linear": {"family": "qwen2", "rope_parameters": LINEAR},
    "qwen3_bias": {"family": "qwen3", "attention_bias": True, "rope_parameters": YARN_SCALED},
    "qwen3_one_group": {"family": "qwen3", "num_key_value_heads": 1, "tie_word_embeddings": True},
}
EXPERT_MODELS = {
    "mixtral": {"family": "mixtral", "num_hidden_layers": 3, "shard_size": "40KB"},
    "qwen3_moe": {"family": "qwen3_moe", "shard_size": "40KB"},
    "qwen3_moe_shares": {"family": "qwen3_moe", "norm_topk_prob": False, "tie_word_embeddings": True},
    "qwen3_moe_bias": {"family": "qwen3_moe", "attention_bias": True, "rope_parameters": YARN},
}


@dataclass(frozen=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False
    expert: int = 1
    expert_tensor: int | None = None
    virtual_pipeline: int = 1


def _tokens() -> torch.Tensor:
    return torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(7))


def _forward(modules: list[Any], topology: Topology, tokens_BS: torch.Tensor, hidden: int) -> torch.Tensor | None:
    """Logits [B, S, whole padded vocabulary] on the last stage, through every chunk of every stage in turn."""
    batch, length = tokens_BS.shape
    positions = torch.arange(length).expand(batch, length)
    rows = length // topology.tensor if topology.sequence else length
    stride = topology.world_size // topology.pipeline
    before, after = ((topology.rank + step) % topology.world_size for step in (-stride, stride))
    for chunk, model in enumerate(modules):
        if not (topology.is_first_stage and chunk == 0):
            received = torch.empty(rows, batch, hidden)
            dist.recv(received, src=before)
            model.set_input_tensor(received)
        out = model(tokens_BS, positions, None, runtime_gather_output=True)
        if topology.is_last_stage and chunk == topology.virtual - 1:
            return out
        dist.send(out.contiguous(), dst=after)
    return None


def _check_layouts(layouts: list[Layout], models: dict[str, Path], expected: dict[str, torch.Tensor], out: Path) -> int:
    checked = 0
    for number, layout in enumerate(layouts):
        config = ParallelConfig(**asdict(layout))
        topology = build_topology(config, seed=1, threads=1)
        for name, path in models.items():
            arch = read_architecture(path)
            modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
            load_hf_weights(modules, arch, topology, path)
            with torch.no_grad():
                logits = _forward([module.eval() for module in modules], topology, _tokens(), arch.hidden_size)
            if logits is not None:
                _close(logits, expected[name], arch, f"{name} {layout}")
            export_hf(modules, arch, topology, out / f"{topology.world_size}-{number}-{name}", source_dir=path)
            checked += 1
        shutdown(topology)
    return checked


def _close(logits: torch.Tensor, expected: torch.Tensor, arch: Architecture, label: str) -> None:
    worst = (logits[..., : arch.vocab_size] - expected).abs().max().item()
    assert worst <= 1e-5 * max(1.0, expected.abs().max().item()), f"{label}: logits differ by {worst}"
    assert (logits[..., arch.vocab_size :] == -1e9).all(), label


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    specs = MODELS | EXPERT_MODELS
    return {name: make_tiny_hf(root / name, seed=i, **spec) for i, (name, spec) in enumerate(specs.items())}


@pytest.fixture(scope="module")
def expected(models: dict[str, Path]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {
            name: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(_tokens()).logits
            for name, path in models.items()
        }


LAYOUTS = {
    1: [Layout()],
    2: [Layout(tensor=2), Layout(tensor=2, sequence=True), Layout(pipeline=2)],
    4: [Layout(tensor=4), Layout(tensor=2, pipeline=2, sequence=True)],
}
VIRTUAL = [Layout(pipeline=2, virtual_pipeline=2)]  # of models with four layers
EXPERT_VIRTUAL = [Layout(pipeline=2, virtual_pipeline=2, tensor=2, sequence=True, expert=2, expert_tensor=1)]
EXPERT_LAYOUTS = {
    1: [Layout()],
    2: [
        Layout(tensor=2, sequence=True),
        Layout(expert=2),
        Layout(tensor=2, sequence=True, expert=2, expert_tensor=1),
        Layout(pipeline=2),
    ],
    4: [
        Layout(tensor=2, sequence=True, expert=2),
        Layout(expert=2, expert_tensor=2),
        Layout(pipeline=2, expert=2),
        Layout(pipeline=2, tensor=2, sequence=True, expert=2, expert_tensor=1),
    ],
}
CASES = [(size, layouts, MODELS) for size, layouts in LAYOUTS.items()] + [
    (size, layouts, EXPERT_MODELS) for size, layouts in EXPERT_LAYOUTS.items()
]
CASES += [
    (2, VIRTUAL, {name: spec for name, spec in MODELS.items() if "num_hidden_layers" not in spec}),
    (4, EXPERT_VIRTUAL, {name: spec for name, spec in EXPERT_MODELS.items() if "num_hidden_layers" not in spec}),
]


@pytest.mark.parametrize(
    "world_size, layouts, chosen",
    CASES,
    ids=[f"{size}-{len(layouts)}-{next(iter(chosen))}" for size, layouts, chosen in CASES],
)
def test_logits_equal_transformers_and_export_equals_the_source(
    world_size: int,
    layouts: list[Layout],
    chosen: dict[str, Any],
    models: dict[str, Path],
    expected: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    models = {name: models[name] for name in chosen}
    checked = run_ranks(world_size, _check_layouts, layouts, models, expected, tmp_path)
    assert checked == [len(layouts) * len(models)] * world_size
    for number, name in itertools.product(range(len(layouts)), models):
        _same_directory(models[name], tmp_path / f"{world_size}-{number}-{name}")


def _same_directory(source: Path, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == sorted(path.name for path in source.iterdir())
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            assert (exported / path.name).read_bytes() == path.read_bytes()
            continue
        with safe_open(path, "pt") as a, safe_open(exported / path.name, "pt") as b:
            assert sorted(a.keys()) == sorted(b.keys())
            for name in a.keys():  # noqa: SIM118 - safe_open is no mapping
                left, right = a.get_tensor(name), b.get_tensor(name)
                assert left.dtype == right.dtype
                assert torch.equal(left, right), name


def _faults(good: Path, bad: dict[str, Path], blocked: Path) -> dict[str, str]:
    """What each rank is told about each fault."""
    topology = build_topology(ParallelConfig(tensor=2), seed=1, threads=1)
    arch = read_architecture(good)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
    told = {}
    for name, path in bad.items():
        with pytest.raises(ValueError) as error:
            load_hf_weights(modules, arch, topology, path)
        told[name] = str(error.value)
    matrices = [parameter for parameter in modules[0].parameters() if parameter.dim() == 2]
    assert all(bool(matrix.isnan().all()) for matrix in matrices), "a refused checkpoint changes nothing"
    load_hf_weights(modules, arch, topology, good)
    with pytest.raises(RuntimeError) as failure:
        export_hf(modules, arch, topology, blocked, source_dir=good)
    told["export"] = str(failure.value)
    with pytest.raises(ValueError) as error:
        export_hf(modules, arch, topology, blocked, source_dir=bad["missing"])
    told["source"] = str(error.value)
    shutdown(topology)
    return told


def test_every_rank_is_told_of_a_fault_and_none_waits(tmp_path: Path) -> None:
    good = make_tiny_hf(tmp_path / "good", vocab_size=96)
    tensors = load_file(good / "model.safetensors")
    norm = "model.norm.weight"
    changed = {
        "missing": {name: tensor for name, tensor in tensors.items() if name != norm},
        "extra": tensors | {"model.layers.9.extra": torch.ones(1)},
        "shape": tensors | {norm: torch.ones(31)},
        "dtype": tensors | {norm: torch.ones(32, dtype=torch.int32)},
    }
    for name, content in changed.items():
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / "model.safetensors")
    (tmp_path / "file").write_text("in the way")
    bad = {name: tmp_path / name for name in changed}
    per_rank = run_ranks(2, _faults, good, bad, tmp_path / "file" / "out")
    assert per_rank[0] == per_rank[1]
    told = per_rank[0]
    assert told["missing"] == f"{tmp_path}/missing lacks {norm}, which config.json calls for"
    assert told["extra"].startswith(f"{tmp_path}/extra/model.safetensors holds model.layers.9.extra, which")
    assert told["shape"] == f"{tmp_path}/shape/model.safetensors: {norm} has shape [31], config.json says [32]"
    assert f"{norm} has the unsupported dtype I32; supported: F32, BF16, F16" in told["dtype"]
    assert told["source"] == told["missing"]
    assert re.match(r"rank 0 could not write .*out: (NotADirectory|FileExists)Error", told["export"])
