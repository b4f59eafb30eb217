"""Weights between Hugging Face directories and a Megatron model, at any tensor, pipeline and expert parallelism."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import chunk_layers, padded_vocab_size
from seif_nemo.models.lora import is_of_adapter, merged_weight
from seif_nemo.models.value_head import is_of_value_head
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf_files import HfFiles, HfWriter
from seif_nemo.weights.hf_mapping import (
    Piece,
    expected_shapes,
    expert_number,
    expert_parameter,
    is_ignored,
    pieces_of_chunk,
)
from seif_nemo.weights.safetensors_file import DTYPES


def load_hf_weights(
    modules: Sequence[GPTModel],
    arch: Architecture,
    topology: Topology,
    hf_dir: str | Path,
    *,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy this rank's shard of a safetensors checkpoint into its chunks' parameters, in place and in their dtype.

    Every rank reads only its slices and nothing is communicated, so every rank finds the same faults by itself.
    A value head, which no such checkpoint has, becomes zero. `report` is told the bytes of each parameter.
    Raises ValueError, naming file and tensor, for missing, extra or misshapen tensors and other dtypes than F32, BF16
    and F16.
    """
    with HfFiles(hf_dir) as files:
        _check(files, arch)
        with torch.no_grad():
            for chunk, module in enumerate(modules):
                for part, shard in own_parts(module, chunk, arch, topology):
                    rank = topology.tensor_rank if part.expert is None else topology.expert_tensor_rank
                    shard.copy_(part.piece.load(files, rank, part.ranks))
                    report(shard.nbytes)
                for name, parameter in module.named_parameters():
                    if is_of_value_head(name):
                        parameter.zero_()


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
    copied; a value head is left out and adapters are merged into their layers. The directory appears whole under its
    name or not at all; one that is there already is replaced.
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
        for name, tensor in hf_tensors(modules, arch, topology):
            if writer is not None and failure is None:
                try:
                    writer.add(name, tensor.to("cpu", DTYPES[source.dtype(name)], copy=True))
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
        if files.dtype(name) not in DTYPES:
            supported = ", ".join(DTYPES)
            raise ValueError(
                f"{files.path / file}: {name} has the unsupported dtype {files.dtype(name)}; supported: {supported}"
            )


@dataclass(frozen=True, slots=True)
class Part:
    """One piece, and who of its pipeline stage holds it: `ranks` neighbours from the stage's rank `first` on."""

    name: str
    piece: Piece
    first: int
    ranks: int
    expert: int | None = None  # its number among those that the rank holds


def _parts(arch: Architecture, topology: Topology, stage: int, chunk: int) -> Iterator[Part]:
    """What a chunk is made of, in the order of Hugging Face files. The first of all copies of a part is meant."""
    pieces = pieces_of_chunk(
        arch,
        padded_vocab_size(arch, topology.tensor),
        chunk_layers(arch, topology, stage, chunk),
        first=stage == chunk == 0,
        last=stage == topology.pipeline - 1 and chunk == topology.virtual - 1,
    )
    for name, piece in pieces:
        number = expert_number(name)
        if number is None:
            yield Part(name, piece, 0, topology.tensor)
            continue
        assert arch.experts is not None
        block, local = divmod(number, arch.experts.count // topology.expert)
        yield Part(name, piece, block * topology.expert_tensor, topology.expert_tensor, local)


def own_parts(module: GPTModel, chunk: int, arch: Architecture, topology: Topology) -> Iterator[tuple[Part, Tensor]]:
    """The parts of which this rank holds a shard, and that shard, a parameter of the chunk."""
    layers = chunk_layers(arch, topology, topology.pipeline_rank, chunk)
    built: Any = module.decoder.layers
    assert [layer.layer_number - 1 for layer in built] == list(layers)
    parameters = dict(module.named_parameters())
    parameters = {n: value for n, value in parameters.items() if not (is_of_value_head(n) or is_of_adapter(n))}
    grouped = any(name.endswith("experts.linear_fc1.weight0") for name in parameters)
    for part in _parts(arch, topology, topology.pipeline_rank, chunk):
        if part.expert is None:
            yield part, parameters.pop(part.name)
        elif part.first == topology.expert_rank * topology.expert_tensor:
            yield part, parameters.pop(expert_parameter(part.name, part.expert, grouped=grouped))
    assert not parameters, f"no rule loads {sorted(parameters)}"


def hf_tensors(modules: Sequence[GPTModel], arch: Architecture, topology: Topology) -> Iterator[tuple[str, Tensor]]:
    """The model tensor by tensor, under its Hugging Face names: for exports and for engines outside this world.

    On global rank 0: `(name, tensor)` of every tensor, whole, on the model's device and in its dtype, in the order of
    the layers; a tensor may share memory with the model. The other ranks send their shards and yield nothing.
    Collective: every rank runs its iterator to the end (`for _ in hf_tensors(…): pass`), in step with rank 0. A tied
    output projection and a value head are left out. Only the first copy of each shard takes part.
    Memory: beside the model, one parameter of one layer (query, key and value are one; so are gate and up).
    """
    dtype = next(modules[0].parameters()).dtype
    stage_rank = topology.rank % topology.stage_size
    for stage, chunk in itertools.product(range(topology.pipeline), range(topology.virtual)):
        own: dict[str, Tensor] = {}
        if stage == topology.pipeline_rank:
            own = {part.name: shard.detach() for part, shard in own_parts(modules[chunk], chunk, arch, topology)}
        elif not topology.is_main:
            continue
        for part in _parts(arch, topology, stage, chunk):
            if arch.tied_embeddings and part.name == "output_layer.weight":
                continue  # the copy of the first chunk is written
            holder = stage * topology.stage_size + part.first
            whole: dict[str, Tensor] = {}
            if stage == topology.pipeline_rank and part.first <= stage_rank < part.first + part.ranks:
                whole = _merge(merged_weight(modules[chunk], part.name, own[part.name]), part, topology)
            if topology.is_main:
                yield from (whole if holder == 0 else _received(part.piece, holder, dtype, topology)).items()
            else:
                for tensor in whole.values():
                    dist.send(tensor.contiguous(), dst=0)


def hf_buckets(
    modules: Sequence[GPTModel], arch: Architecture, topology: Topology, *, max_bytes: int
) -> Iterator[list[tuple[str, Tensor]]]:
    """`hf_tensors` in groups that hold up to `max_bytes` of memory of their own, one group at a time.

    A tensor that is larger is a group by itself. Collective as `hf_tensors`. Tensors own their memory.
    """
    bucket: list[tuple[str, Tensor]] = []
    held = 0
    for name, tensor in hf_tensors(modules, arch, topology):
        if bucket and held + tensor.nbytes > max_bytes:
            yield bucket
            bucket, held = [], 0
        bucket.append((name, tensor.clone(memory_format=torch.contiguous_format)))
        held += tensor.nbytes
    if bucket:
        yield bucket


def _merge(shard: Tensor, part: Part, topology: Topology) -> dict[str, Tensor]:
    """Whole tensors on the first of the ranks that hold the part, nothing on the others."""
    if part.ranks == 1:
        return part.piece.merge([shard])
    group = topology.tensor_group if part.expert is None else topology.expert_tensor_group
    shards = [torch.empty_like(shard) for _ in range(part.ranks)] if dist.get_rank(group) == 0 else None
    dist.gather(shard.contiguous(), shards, dst=dist.get_global_rank(group, 0), group=group)
    return part.piece.merge(shards) if shards is not None else {}


def _received(piece: Piece, sender: int, dtype: torch.dtype, topology: Topology) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, shape in piece.shapes().items():
        tensors[name] = torch.empty(shape, dtype=dtype, device=topology.device)
        dist.recv(tensors[name], src=sender)
    return tensors
