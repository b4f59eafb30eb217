"""Time and memory of conversions of a random model: Hugging Face → checkpoint → Hugging Face, at this world's layout.

    python tools/launch.py --ranks 4 -- python tools/bench/conversion.py --out /tmp/c parallel.tensor=2 …

Prints one JSON object per rank: peaks of anonymous memory (memory-mapped pages of files are not counted) above what the
process had before, next to the bytes of its shard and of the largest parameter.
"""

import argparse
import json
import shutil
import time
from io import StringIO
from pathlib import Path

import torch
from omegaconf import OmegaConf

from seif_nemo.components.conversion import Conversion, convert
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.hf_config import config_json
from seif_nemo.models.plain_model import PlainModel
from seif_nemo.observability.anonymous_peak import AnonymousPeak
from seif_nemo.observability.meter import Meter
from seif_nemo.parallel.collectives import barrier
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.hf_division import divide
from seif_nemo.weights.hf_mapping import expected_shapes
from seif_nemo.weights.safetensors_file import SafetensorsFile


def write_random_model(directory: Path, arch: Architecture, *, max_bytes: int) -> None:
    """A bfloat16 Hugging Face directory of random weights, without a tokenizer."""
    directory.mkdir(parents=True)
    division = divide(expected_shapes(arch), torch.bfloat16, like=None, max_bytes=max_bytes)
    for file, entries in division.files.items():
        with SafetensorsFile(directory / file, entries, division.metadata) as out:
            for name, entry in entries.items():
                out.write(name, torch.randn(entry.shape, dtype=torch.bfloat16))
            out.finish()
    index = division.index_text()
    if index is not None:
        (directory / "model.safetensors.index.json").write_text(index)
    (directory / "config.json").write_text(json.dumps(config_json(arch, "bfloat16")))


def random_architecture(layers: int, hidden: int, vocabulary: int) -> Architecture:
    """A Llama of these sizes."""
    return Architecture(
        family="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=4 * hidden,
        num_heads=hidden // 64,
        num_kv_heads=hidden // 256,
        head_dim=64,
        vocab_size=vocabulary,
        max_positions=4096,
        tied_embeddings=False,
        qkv_bias=False,
        qk_norm=False,
        norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=None,
        eos_ids=(2,),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("parallel", nargs="*")
    options = parser.parse_args()
    values = [override.removeprefix("parallel.") for override in options.parallel]
    parallel = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(ParallelConfig), OmegaConf.from_dotlist(values))
    )
    assert isinstance(parallel, ParallelConfig)
    topology = build_topology(parallel, seed=0, threads=1)
    source, checkpoint, back = (options.out / name for name in ("hf", "checkpoint", "back"))
    if topology.is_main:
        shutil.rmtree(options.out, ignore_errors=True)
        write_random_model(
            source, random_architecture(options.layers, options.hidden, options.vocabulary), max_bytes=10**8
        )
    barrier(topology)
    arch = read_architecture(source)
    figures: dict[str, float] = {"rank": topology.rank}
    started = time.monotonic()
    with AnonymousPeak() as peak:
        modules = build_gpt(arch, topology, dtype=torch.bfloat16, max_sequence_length=64)
        load_hf_weights(modules, arch, topology, source)
    figures["load_s"], figures["load_peak_mb"] = time.monotonic() - started, peak.grown / 1e6
    parameters = PlainModel(modules, topology).parameters()
    figures["shard_mb"] = sum(tensor.nbytes for tensor in parameters) / 1e6
    figures["largest_parameter_of_shard_mb"] = max(tensor.nbytes for tensor in parameters) / 1e6
    figures["largest_tensor_mb"] = max(torch.Size(shape).numel() for shape in expected_shapes(arch).values()) * 2 / 1e6
    del modules, parameters
    for key, request in (
        ("to_checkpoint", Conversion(source, checkpoint)),
        ("to_hf", Conversion(checkpoint, back)),
    ):
        barrier(topology)
        started = time.monotonic()
        with AnonymousPeak() as peak:
            convert(request, parallel if key == "to_checkpoint" else ParallelConfig(), topology, Meter(StringIO()))
        figures[f"{key}_s"], figures[f"{key}_peak_mb"] = time.monotonic() - started, peak.grown / 1e6
    figures["model_mb"] = sum(file.stat().st_size for file in source.glob("*.safetensors")) / 1e6
    print(json.dumps({key: round(value, 2) for key, value in figures.items()}), flush=True)
    shutdown(topology)


if __name__ == "__main__":
    main()
