"""Weights between Hugging Face directories and a Megatron model, at any tensor and pipeline parallelism."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import chunk_layers, is_first_chunk, is_last_chunk, padded_vocab_size
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf_files import HfFiles, HfWriter
from seif_nemo.weights.hf_mapping import Piece, expected_shapes, is_ignored, pieces_of_chunk

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def load_hf_weights(modules: Sequence[GPTModel], arch: Architecture, topology: Topology, hf_dir: str | Path) -> None:
    """Copy this rank's shard of a safetensors checkpoint into its chunks' parameters, in place and in their dtype.

    Every rank reads only its slices and nothing is communicated, so every rank finds the same faults by itself.
    Raises ValueError, naming file and tensor, for missing, extra or misshapen tensors and other dtypes than F32, BF16
    and F16.
    """
    with HfFiles(hf_dir) as files:
        _check(files, arch)
        for chunk, module in enumerate(modules):
            parameters = dict(module.named_parameters())
            with torch.no_grad():
                for name, piece in _own_pieces(module, chunk, arch, topology):
                    parameters.pop(name).copy_(piece.load(files, topology.tensor_rank, topology.tensor))
            assert not parameters, f"no rule loads {sorted(parameters)}"


def export_hf(
    modules: Sequence[GPTModel],
    arch: Architecture,
    topology: Topology,
    out_dir: str | Path,
    *,
    source_dir: str | Path,
    check_fence: Callable[[], None] = lambda: None,
) -> None:
    """Write the model as a Hugging Face directory. Collective; global rank 0 writes, after `check_fence` lets it.

    Names, dtypes and the division into files are those of `source_dir`; its config, tokenizer and other files are
    copied. The directory appears whole under its name or not at all; one that is there already is replaced.
    Raises ValueError on every rank if `source_dir` does not hold this architecture, and RuntimeError on every rank if
    rank 0 could not write.
    """
    with HfFiles(source_dir) as source:
        _check(source, arch)
        writer: HfWriter | None = None
        failure: Exception | None = None
        if topology.is_main:
            try:
                writer = HfWriter(out_dir, source)
            except OSError as error:
                failure = error
        for name, tensor in _gathered(modules, arch, topology):
            if writer is not None and failure is None:
                try:
                    writer.add(name, tensor.to("cpu", _DTYPES[source.dtype(name)], copy=True))
                except Exception as error:  # the other ranks go on sending: raise when all are done
                    failure = error
        if writer is not None:
            try:
                if failure is None:
                    check_fence()
                    writer.commit()
            except Exception as error:
                failure = error
            finally:
                writer.abort()
    outcome: list[str | None] = [None if failure is None else f"{type(failure).__name__}: {failure}"]
    dist.broadcast_object_list(outcome, src=0, group=topology.world_group, device=topology.device)
    if outcome[0] is not None:
        raise RuntimeError(f"rank 0 could not write {out_dir}: {outcome[0]}") from failure


def _check(files: HfFiles, arch: Architecture) -> None:
    files.check(expected_shapes(arch), {name for name in files.file_of if is_ignored(name)})
    for name, file in files.file_of.items():
        if files.dtype(name) not in _DTYPES:
            supported = ", ".join(_DTYPES)
            raise ValueError(
                f"{files.path / file}: {name} has the unsupported dtype {files.dtype(name)}; supported: {supported}"
            )


def _own_pieces(module: GPTModel, chunk: int, arch: Architecture, topology: Topology) -> Iterator[tuple[str, Piece]]:
    layers = chunk_layers(arch, topology, topology.pipeline_rank, chunk)
    built: Any = module.decoder.layers
    assert [layer.layer_number - 1 for layer in built] == list(layers)
    return pieces_of_chunk(
        arch,
        padded_vocab_size(arch, topology.tensor),
        layers,
        first=is_first_chunk(topology, chunk),
        last=is_last_chunk(topology, chunk),
    )


def _gathered(modules: Sequence[GPTModel], arch: Architecture, topology: Topology) -> Iterator[tuple[str, Tensor]]:
    """On global rank 0: every Hugging Face tensor, whole, on the model's device. On other ranks: sends, yields nothing.

    Only the first data-parallel replica takes part.
    """
    if topology.replica_rank != 0:
        return
    tied_copy = arch.tied_embeddings and not topology.is_first_stage
    dtype = next(modules[0].parameters()).dtype
    for chunk, module in enumerate(modules):
        parameters = dict(module.named_parameters())
        for name, piece in _own_pieces(module, chunk, arch, topology):
            if tied_copy and name == "output_layer.weight":
                continue  # the first stage's copy is written
            whole = _merge(parameters[name].detach(), piece, topology)
            if topology.pipeline_rank == 0:
                yield from whole.items()
            else:
                for tensor in whole.values():
                    dist.send(tensor.contiguous(), dst=0)
    if not topology.is_main:
        return
    for stage in range(1, topology.pipeline):
        for chunk in range(topology.virtual):
            yield from _received(arch, topology, stage, chunk, dtype)


def _merge(shard: Tensor, piece: Piece, topology: Topology) -> dict[str, Tensor]:
    """Whole tensors on tensor rank 0, nothing on the others."""
    if topology.tensor == 1:
        return piece.merge([shard])
    shards = [torch.empty_like(shard) for _ in range(topology.tensor)] if topology.tensor_rank == 0 else None
    dist.gather(
        shard.contiguous(), shards, dst=dist.get_global_rank(topology.tensor_group, 0), group=topology.tensor_group
    )
    return piece.merge(shards) if shards is not None else {}


def _received(
    arch: Architecture, topology: Topology, stage: int, chunk: int, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    sender = dist.get_global_rank(topology.pipeline_group, stage)
    layers = chunk_layers(arch, topology, stage, chunk)
    is_last = stage == topology.pipeline - 1 and chunk == topology.virtual - 1
    pieces = pieces_of_chunk(arch, arch.vocab_size, layers, first=False, last=is_last)
    for name, piece in pieces:
        if arch.tied_embeddings and name == "output_layer.weight":
            continue
        for hf_name, shape in piece.shapes().items():
            tensor = torch.empty(shape, dtype=dtype, device=topology.device)
            dist.recv(tensor, src=sender)
            yield hf_name, tensor
