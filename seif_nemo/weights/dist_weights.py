"""Weights of Megatron distributed checkpoints: ours, NeMo's and Megatron-LM's, by the names that they have there.

The parameters are those of `hf_mapping.py`, whole: query, key and value interleaved by group, the gate above the up
projection. What differs among writers is how they are filed:
    layers     stacked, `decoder.layers.<rest>` [L, …] (megatron-core's default), or alone, `decoder.layers.7.<rest>`
    experts    `mlp.experts.experts.<rest>` [E, …] behind L; one by one only where the layers are
    gate, up   one tensor, or `weight_w` and `weight_v` (megatron-core's `singleton_local_shards`)
    prefix     none (ours, Megatron-LM), `module.` (NeMo 2) or `model.`
Shapes: L layers, E experts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import chunk_layers
from seif_nemo.models.value_head import is_of_value_head
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.dist_files import DistFiles
from seif_nemo.weights.hf import own_parts
from seif_nemo.weights.hf_mapping import Columns, Piece, QueryKeyValue, Replicated, Rows, Vocabulary, pieces_of_chunk

_EMBEDDING = "embedding.word_embeddings.weight"
_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")
_LOCAL_EXPERT = re.compile(r"\.experts\.local_experts\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a parameter is filed: its names (two, if gate and up are apart) and its layer and expert in them."""

    names: tuple[str, ...]
    index: tuple[int, ...]


class DistWeights:
    """The parameters of one model in a distributed checkpoint.

    Raises ValueError, naming the checkpoint and the tensors, where it does not hold exactly what `arch` calls for.
    """

    def __init__(self, files: DistFiles, arch: Architecture) -> None:
        self.files = files
        self.arch = arch
        self._names = set(files.names)
        found = [name for name in files.names if name.endswith(_EMBEDDING) and files.is_weight(name)]
        if len(found) != 1:
            raise ValueError(
                f"{files.path} has {len(found)} tensors named {_EMBEDDING}: this is no GPT model's checkpoint"
            )
        self._prefix = found[0].removesuffix(_EMBEDDING)
        self._check()

    def dtype(self) -> torch.dtype:
        return self.files.dtype(self._prefix + _EMBEDDING)

    def load(self, name: str, piece: Piece, tensor_rank: int, tensor: int) -> Tensor:
        """The shard of `tensor_rank` of `tensor` ranks; `name` as in `hf_mapping.pieces_of_chunk`, layers global."""
        place = self._place(name)
        match piece:
            case Replicated():
                return self._read(place, slice(None))
            case Vocabulary():
                per_rank = piece.padded // tensor
                start = min(tensor_rank * per_rank, piece.rows)
                real = self._read(place, slice(start, min(start + per_rank, piece.rows)))
                if len(real) == per_rank:
                    return real
                return torch.cat([real, real.new_zeros(per_rank - len(real), piece.columns)])
            case Rows():
                part = piece.rows // tensor
                starts = [number * piece.rows + tensor_rank * part for number in range(len(piece.names))]
                return torch.cat([self._read(place, slice(start, start + part)) for start in starts])
            case Columns():
                part = piece.columns // tensor
                return self._read(place, slice(None), slice(tensor_rank * part, (tensor_rank + 1) * part))
            case QueryKeyValue():
                part = _rows(piece) // tensor
                return self._read(place, slice(tensor_rank * part, (tensor_rank + 1) * part))
            case _:
                raise AssertionError(f"{name}: no rule for {type(piece).__name__}")

    def hf_tensors(self, name: str, piece: Piece) -> dict[str, Tensor]:
        """The whole Hugging Face tensors that a parameter is made of. `piece` without padding of the vocabulary."""
        return piece.merge([self.load(name, piece, 0, 1)])

    def value_head(self) -> dict[str, Tensor]:
        """A critic's own parameters, by their names in the model; empty for other models."""
        heads = [name.removeprefix(self._prefix) for name in self.files.names if name.startswith(self._prefix)]
        return {name: self.files.read(self._prefix + name) for name in heads if is_of_value_head(name)}

    def _read(self, place: _Place, rows: slice, columns: slice | None = None) -> Tensor:
        fixed = [slice(number, number + 1) for number in place.index]
        rest = [] if columns is None else [columns]
        name = place.names[0]
        if len(place.names) == 2:  # gate and up apart: no caller's rows lie in both
            height = self.files.shape(name)[len(fixed)]
            which, start = divmod(rows.start, height)
            name, rows = place.names[which], slice(start, start + rows.stop - rows.start)
        part = self.files.read(name, *fixed, rows, *rest)
        return part.reshape(part.shape[len(fixed) :])

    def _place(self, name: str) -> _Place:
        """Where a parameter is; raises KeyError with its usual name there if it is nowhere."""
        if self.arch.tied_embeddings and name == "output_layer.weight":
            name = _EMBEDDING
        layer = _LAYER.match(name)
        if layer is None:
            candidates = [(name, ())]
        else:
            rest, number = name[layer.end() :], int(layer[1])
            expert = _LOCAL_EXPERT.search(rest)
            candidates: list[tuple[str, tuple[int, ...]]] = []
            if expert is None:
                candidates = [(f"decoder.layers.{rest}", (number,)), (name, ())]
            else:
                shared = _LOCAL_EXPERT.sub(".experts.experts.", rest)
                alone = _LOCAL_EXPERT.sub(rf".experts.experts.{expert[1]}.", rest)
                candidates = [
                    (f"decoder.layers.{shared}", (number, int(expert[1]))),
                    (f"decoder.layers.{number}.{shared}", (int(expert[1]),)),
                    (f"decoder.layers.{number}.{alone}", ()),
                ]
        for filed, index in candidates:
            for names in ((filed,), (f"{filed}_w", f"{filed}_v")):
                whole = tuple(self._prefix + part for part in names)
                if set(whole) <= self._names:
                    return _Place(whole, index)
        raise KeyError(self._prefix + candidates[0][0])

    def _check(self) -> None:
        used: set[str] = set()
        missing: dict[str, None] = {}
        for name, piece in whole_pieces(self.arch):
            try:
                place = self._place(name)
            except KeyError as error:
                missing[str(error.args[0])] = None
                continue
            used.update(place.names)
            self._check_shape(place, piece)
        where = self.files.path
        if missing:
            raise ValueError(f"{where} lacks {_some(list(missing))}, which the model's configuration calls for")
        used |= {self._prefix + name for name in self.value_head()}
        extra = [name for name in self.files.names if name not in used and self.files.is_weight(name)]
        if extra:
            raise ValueError(f"{where} holds {_some(extra)}, which the model's configuration does not have")

    def _check_shape(self, place: _Place, piece: Piece) -> None:
        leading = len(place.index)
        found = [self.files.shape(name) for name in place.names]
        counts = [self.arch.num_layers] if leading else []
        if leading and self.arch.experts is not None and ".experts.experts." in place.names[0]:
            counts = [self.arch.num_layers, self.arch.experts.count][-leading:]
        whole = (*found[0][:leading], sum(shape[leading] for shape in found), *found[0][leading + 1 :])
        expected = (*counts, *_shape(piece))
        if isinstance(piece, Vocabulary) and whole[0] > piece.rows:  # padded, by whatever its writer chose
            whole = (piece.rows, *whole[1:])
        if whole != expected:
            raise ValueError(
                f"{self.files.path}: {place.names[0]} has shape {list(whole)}, the model's configuration says "
                f"{list(expected)}"
            )


def load_dist_weights(
    modules: Sequence[GPTModel],
    arch: Architecture,
    topology: Topology,
    weights: DistWeights,
    *,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy this rank's shard of a distributed checkpoint into its chunks' parameters, in place and in their dtype.

    As `hf.load_hf_weights`: every rank reads its slices only, nothing is communicated, a value head becomes zero.
    """
    with torch.no_grad():
        for chunk, module in enumerate(modules):
            layers = chunk_layers(arch, topology, topology.pipeline_rank, chunk)
            for part, shard in own_parts(module, chunk, arch, topology):
                local = _LAYER.match(part.name)
                name = part.name
                if local is not None:
                    name = f"decoder.layers.{layers[int(local[1])]}.{name[local.end() :]}"
                rank = topology.tensor_rank if part.expert is None else topology.expert_tensor_rank
                shard.copy_(weights.load(name, part.piece, rank, part.ranks))
                report(shard.nbytes)
            for name, parameter in module.named_parameters():
                if is_of_value_head(name):
                    parameter.zero_()


def whole_pieces(arch: Architecture) -> list[tuple[str, Piece]]:
    """Every parameter of the model, with global layer numbers and without padding of the vocabulary."""
    return list(pieces_of_chunk(arch, arch.vocab_size, range(arch.num_layers), first=True, last=True))


def _rows(piece: QueryKeyValue) -> int:
    return piece.groups * (piece.heads_per_group + 2) * piece.head_dim


def _shape(piece: Piece) -> tuple[int, ...]:
    """Of the whole parameter."""
    match piece:
        case QueryKeyValue():
            return (_rows(piece),) if piece.columns is None else (_rows(piece), piece.columns)
        case Rows():
            rows = len(piece.names) * piece.rows
            return (rows,) if piece.columns is None else (rows, piece.columns)
        case _:
            return next(iter(piece.shapes().values()))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
