"""Conversions at several layouts: byte for byte there and back, resumed, refused, and read by a run."""

import json
import shutil
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from megatron.core import dist_checkpointing
from transformers import AutoModelForCausalLM

from seif_nemo.checkpointing.manifest import CheckpointError, read_manifest
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.conversion import Conversion, Format, convert
from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.observability.meter import Meter
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import hf_buckets, load_hf_weights
from seif_nemo.weights.hf_files import HfFiles
from seif_nemo.weights.role_digest import RoleSums, digest_of_hf
from tests.dist.harness import run_ranks
from tests.dist.megatron_writer import InProcessSaveStrategy
from tests.tiny_hf import make_tiny_hf

COMBINED = ParallelConfig(tensor=2, pipeline=2, virtual_pipeline=2)
EXPERTS = ParallelConfig(tensor=2, pipeline=2, sequence=True, expert=2, expert_tensor=1)
MODELS: dict[str, tuple[dict[str, Any], ParallelConfig]] = {
    "llama": ({"family": "llama", "shard_size": "40KB", "mlp_bias": True}, COMBINED),
    "qwen2_tied": ({"family": "qwen2", "tie_word_embeddings": True, "dtype": torch.bfloat16}, COMBINED),
    "qwen3_moe": ({"family": "qwen3_moe", "shard_size": "40KB"}, EXPERTS),
}


@dataclass(frozen=True)
class Job:
    request: Conversion
    parallel: ParallelConfig


class Interrupted(Meter):
    """Stops the conversion at a tensor, as a kill would."""

    def __init__(self, at: int) -> None:
        super().__init__(StringIO())
        self.left = at

    def add(self, nbytes: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def _convert(jobs: list[Job]) -> list[str]:
    """What each conversion says, or the error it raises."""
    told: list[str] = []
    for job in jobs:
        topology = build_topology(job.parallel, seed=0, threads=1)
        try:
            told.append(convert(job.request, job.parallel, topology, Meter(StringIO())))
        except ValueError as error:
            told.append(f"refused: {error}")
        shutdown(topology)
    return told


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make_tiny_hf(root / name, seed=i, **spec) for i, (name, (spec, _)) in enumerate(MODELS.items())}


@pytest.fixture(scope="module")
def checkpoints(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each model as a checkpoint that four ranks wrote."""
    root = tmp_path_factory.mktemp("checkpoints")
    jobs = [Job(Conversion(path, root / name), MODELS[name][1]) for name, path in models.items()]
    told = run_ranks(4, _convert, [*jobs, jobs[0]])
    assert told[0] == told[3]
    for name, line in zip(models, told[0], strict=False):
        assert line.startswith(f"{root / name}: "), line
    assert told[0][-1] == f"{root / 'llama'} is this conversion already: nothing to do"
    return {name: root / name for name in models}


def _same_files(source: Path, exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {path.name for path in source.iterdir()} | {"conversion.json"}
    for path in source.iterdir():
        assert (exported / path.name).read_bytes() == path.read_bytes(), path.name


def test_there_and_back_is_the_same_directory(
    models: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for name, path in checkpoints.items():
        manifest = read_manifest(path)
        digest = digest_of_hf(models[name], MODELS[name][0].get("dtype", torch.float32))
        assert (manifest.role, manifest.step_count, manifest.weights_digest) == ("base", None, digest)
        assert manifest.origin == f"base-{digest[:12]}@0"
    jobs = [Job(Conversion(path, tmp_path / name), ParallelConfig()) for name, path in checkpoints.items()]
    told = run_ranks(2, _convert, jobs)[0]
    for name, line in zip(checkpoints, told, strict=True):
        assert line.endswith(f"weights {read_manifest(checkpoints[name]).weights_digest} as its manifest says")
        _same_files(models[name], tmp_path / name)


def _load_into_a_run(path: Path, hf_dir: Path) -> list[bool]:
    topology = build_topology(ParallelConfig(pipeline=2), seed=0, threads=1)
    arch = read_architecture(path)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(), topology)
    for buffer in trainable.weight_buffers():
        buffer.zero_()
    bank = RoleBank(trainable, RoleSums(trainable.modules, arch, topology))
    bank.add("base", trained=False)
    CheckpointStore(path.parent / "no_run", topology).load(trainable, bank, "base", path)
    loaded = [parameter.clone() for module in modules for parameter in module.parameters()]
    load_hf_weights(modules, arch, topology, hf_dir)
    right = [parameter for module in modules for parameter in module.parameters()]
    same = [torch.equal(a, b) for a, b in zip(loaded, right, strict=True)]
    shutdown(topology)
    return same


def test_a_run_loads_it_at_another_layout(models: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    for same in run_ranks(2, _load_into_a_run, checkpoints["llama"], models["llama"]):
        assert same and all(same)


def _interrupt(source: Path, target: Path, other: Path) -> list[str]:
    topology = build_topology(ParallelConfig(), seed=0, threads=1)
    request = Conversion(source, target)

    def attempt(request: Conversion, meter: Meter) -> str:
        try:
            return convert(request, ParallelConfig(), topology, meter)
        except (KeyboardInterrupt, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    told = [attempt(request, Interrupted(at=45))]
    work = target.with_name(f".{target.name}.converting")
    finished = sorted(path.name for path in work.glob("*.safetensors"))
    told.append(" ".join(finished))
    told.append(attempt(replace(request, source=other), Meter(StringIO())))
    (work / finished[0]).write_bytes(b"x" + (work / finished[0]).read_bytes()[1:])  # the first byte of its length
    told.append(attempt(request, Meter(StringIO())))
    told.append(attempt(request, Meter(StringIO())))
    told.append(attempt(replace(request, source=other), Meter(StringIO())))
    with (target / finished[1]).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    told.append(attempt(request, Meter(StringIO())))
    told.append(attempt(replace(request, overwrite=True), Meter(StringIO())))
    shutdown(topology)
    return told


def test_an_interrupted_conversion_continues(
    models: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source, out = checkpoints["llama"], tmp_path / "out"
    (told,) = run_ranks(1, _interrupt, source, out, checkpoints["qwen3_moe"])
    stopped, finished, other, continued, again, elsewhere, damaged, overwritten = told
    assert stopped == "KeyboardInterrupt: "
    assert 2 <= len(finished.split()) < len(list(models["llama"].glob("*.safetensors")))
    assert f"{tmp_path}/.out.converting holds an unfinished conversion with another source, files, config" in other
    kept = len(finished.split()) - 1  # one of them was damaged since: it is written again
    assert f", {kept} of them from an earlier attempt; weights" in continued
    assert again == f"{out} is this conversion already: nothing to do"
    assert elsewhere == f"ValueError: {out} exists and is not this conversion: give --overwrite to replace it"
    assert (
        damaged
        == f"ValueError: {out / finished.split()[1]} is not what was converted: give --overwrite to convert again"
    )
    assert "from an earlier attempt" not in overwritten
    _same_files(models["llama"], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def _write_nemo(hf_dir: Path, out: Path) -> None:
    """A NeMo 2 checkpoint by megatron-core's own writer, at two pipeline stages."""
    topology = build_topology(ParallelConfig(pipeline=2), seed=0, threads=1)
    arch = read_architecture(hf_dir)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
    load_hf_weights(modules, arch, topology, hf_dir)
    state = {"state_dict": modules[0].sharded_state_dict(prefix="module.")}
    dist_checkpointing.save(state, str(out / "weights"), sharded_strategy=InProcessSaveStrategy())
    shutdown(topology)


def _nemo_context(directory: Path, hf_dir: Path, **changes: Any) -> None:
    arch = read_architecture(hf_dir)
    config = {
        "_target_": "nemo.collections.llm.gpt.model.qwen2.Qwen2Config7B",
        "num_layers": arch.num_layers,
        "hidden_size": arch.hidden_size,
        "ffn_hidden_size": arch.ffn_hidden_size,
        "num_attention_heads": arch.num_heads,
        "num_query_groups": arch.num_kv_heads,
        "vocab_size": arch.vocab_size,
        "seq_length": arch.max_positions,
        "share_embeddings_and_output_weights": arch.tied_embeddings,
        "add_qkv_bias": True,
        "qk_layernorm": False,
        "layernorm_epsilon": arch.norm_eps,
        "rotary_base": arch.rope_theta,
    }
    directory.mkdir(exist_ok=True)
    (directory / "model.yaml").write_text(yaml.safe_dump({"config": config | changes}))


def test_nemo_checkpoints(tmp_path: Path) -> None:
    hf = make_tiny_hf(tmp_path / "hf", "qwen2", seed=8)
    nemo = tmp_path / "nemo"
    (nemo / "weights").mkdir(parents=True)
    run_ranks(2, _write_nemo, hf, nemo)
    wrong, plain = tmp_path / "wrong", tmp_path / "plain"
    wrong.mkdir()
    (wrong / "weights").symlink_to(nemo / "weights")
    plain.symlink_to(nemo / "weights")
    _nemo_context(nemo / "context", hf)
    _nemo_context(wrong / "context", hf, num_layers=5)
    own = Conversion(nemo, tmp_path / "own", target_format=Format.megatron)
    jobs = [
        Job(Conversion(nemo, tmp_path / "to_hf"), ParallelConfig()),
        Job(Conversion(nemo, tmp_path / "with_config", config_dir=hf), ParallelConfig()),
        Job(own, ParallelConfig(tensor=2)),
        Job(Conversion(tmp_path / "own", tmp_path / "back"), ParallelConfig()),
        Job(Conversion(wrong, tmp_path / "none", config_dir=hf), ParallelConfig()),
        Job(Conversion(wrong, tmp_path / "none"), ParallelConfig()),
        Job(Conversion(plain, tmp_path / "none"), ParallelConfig()),
        Job(Conversion(plain, tmp_path / "of_plain", config_dir=hf, dtype=torch.bfloat16), ParallelConfig()),
        Job(Conversion(hf, tmp_path / "none"), ParallelConfig(tensor=4)),
        Job(Conversion(nemo, tmp_path / "none"), ParallelConfig(tensor=2)),
        Job(Conversion(hf, tmp_path / "none", target_format=Format.hf), ParallelConfig()),
    ]
    told = run_ranks(2, _safe_convert, jobs)[0]
    assert not (tmp_path / "none").exists()
    with HfFiles(hf) as right:
        for name in ("to_hf", "with_config", "back"):
            with HfFiles(tmp_path / name) as files:
                assert files.file_of.keys() == right.file_of.keys()
                for key in files.file_of:
                    assert torch.equal(files.read(key, slice(None)), right.read(key, slice(None))), (name, key)
        with HfFiles(tmp_path / "of_plain") as files:
            key = "model.layers.1.self_attn.k_proj.weight"
            assert torch.equal(files.read(key, slice(None)), right.read(key, slice(None)).bfloat16())
    _same_files(hf, tmp_path / "with_config")
    assert json.loads((tmp_path / "of_plain" / "config.json").read_text())["dtype"] == "bfloat16"
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        logits, expected = (
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(tokens).logits
            for path in (tmp_path / "to_hf", hf)
        )
    assert torch.equal(logits, expected)  # the configuration written from model.yaml means the same model
    assert told[4] == f"refused: {wrong}/context/model.yaml: config.num_layers=5, but the configuration given says 4"
    assert "layer_norm_weight has shape [4, 32], the model's configuration says [5, 32]" in told[5]
    assert told[6] == f"refused: {plain} does not say what its model is: give --config with its Hugging Face directory"
    assert told[8].startswith(
        "refused: parallel.tensor=4 times parallel.context=1 times parallel.pipeline=1 is 4, which"
    )
    assert told[9].startswith("refused: parallel.* divides Megatron checkpoints")
    assert told[10] == f"refused: {hf} is a Hugging Face directory already: give --format megatron"


def _safe_convert(jobs: list[Job]) -> list[str]:
    told: list[str] = []
    for job in jobs:
        try:
            told += _convert([job])
        except ValueError as error:  # the world cannot be built so
            told.append(f"refused: {error}")
    return told


def _publish(path: Path, max_bytes: int) -> list[list[tuple[str, Any]]]:
    topology = build_topology(ParallelConfig(tensor=2, pipeline=2), seed=0, threads=1)
    arch = read_architecture(path)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
    load_hf_weights(modules, arch, topology, path)
    buckets = list(hf_buckets(modules, arch, topology, max_bytes=max_bytes))
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.zero_()  # a bucket that shared memory with the model would see it
    shutdown(topology)
    return [[(name, tensor.numpy()) for name, tensor in bucket] for bucket in buckets]


def test_buckets_hold_every_tensor_and_no_more_memory_than_asked(models: dict[str, Path]) -> None:
    limit = 8000
    first, *others = run_ranks(4, _publish, models["llama"], limit)
    assert others == [[], [], []]
    sizes = [sum(tensor.nbytes for _, tensor in bucket) for bucket in first]
    assert all(size <= limit or len(bucket) == 1 for size, bucket in zip(sizes, first, strict=True))
    assert max(map(len, first)) > 1 and max(sizes) > limit  # both kinds occur
    found = {name: tensor for bucket in first for name, tensor in bucket}
    with HfFiles(models["llama"]) as files:
        assert found.keys() == files.file_of.keys()
        for name, tensor in found.items():
            assert (tensor == files.read(name, slice(None)).numpy()).all(), name


def _convert_damaged(source: Path, target: Path) -> str:
    topology = build_topology(ParallelConfig(), seed=0, threads=1)
    try:
        return convert(Conversion(source, target), ParallelConfig(), topology, Meter(StringIO()))
    except CheckpointError as error:
        return str(error)
    finally:
        shutdown(topology)


def test_a_damaged_file_of_the_source_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkpoints["llama"], source)
    file = max(source.glob("*.distcp"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for told in run_ranks(2, _convert_damaged, source, tmp_path / "out"):
        assert told.startswith(f"{file} is damaged: digest ")
    assert not (tmp_path / "out").exists()
