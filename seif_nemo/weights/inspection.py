"""What a directory of weights holds, in rows for a table or for JSON."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.nemo_config import read_nemo_architecture
from seif_nemo.weights.dist_files import DistFiles
from seif_nemo.weights.dist_weights import DistWeights
from seif_nemo.weights.hf_files import HfFiles
from seif_nemo.weights.hf_mapping import expected_shapes, is_ignored
from seif_nemo.weights.sources import Kind, Source


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """Of the weights; of a checkpoint with more in it, `others` are the tensors beside them (optimizer state)."""

    tensors: int
    parameters: int
    dtypes: dict[str, int]  # dtype -> elements
    others: int = 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """`model` is None, with the reason in `model_note`, where nothing beside the weights says what they are."""

    kind: str
    path: str
    model: dict[str, Any] | None
    model_note: str | None
    tensors: TensorSummary
    files: dict[str, int]  # name -> bytes

    @property
    def total_bytes(self) -> int:
        return sum(self.files.values())


def inspect_weights(source: Source) -> Inspection:
    """Read what can be known without reading the weights. Raises ValueError, naming the file, for a damaged source."""
    arch, note = _architecture(source)
    files = {path.name: path.stat().st_size for path in sorted(source.tensors.iterdir()) if path.is_file()}
    tensors = _hf_tensors(source.path) if source.kind is Kind.hf else _dist_tensors(source.tensors, arch)
    model = None if arch is None else _described(arch)
    return Inspection(source.kind.value, str(source.path), model, note, tensors, files)


def check_weights(source: Source) -> str:
    """What was found right: names and shapes if the model is known, else that each tensor can be read.

    Raises ValueError, naming file and tensor, where it is not.
    """
    arch, _ = _architecture(source)
    if source.kind is Kind.hf:
        if arch is None:
            return "nothing"
        with HfFiles(source.path) as files:
            files.check(expected_shapes(arch), {name for name in files.file_of if is_ignored(name)})
        return "names and shapes"
    files = DistFiles(source.tensors)
    if arch is not None:
        DistWeights(files, arch)
    files.read_all()
    return "each tensor can be read" if arch is None else "names and shapes; each tensor can be read"


def _architecture(source: Source) -> tuple[Architecture | None, str | None]:
    try:
        if (source.tensors / "config.json").is_file():
            return read_architecture(source.tensors), None
        if source.context is not None:
            return read_nemo_architecture(source.context), None
    except ValueError as error:
        return None, str(error)
    return None, f"{source.path} has no config.json"


def _described(arch: Architecture) -> dict[str, Any]:
    scaling = arch.rope_scaling
    described: dict[str, Any] = {
        "family": arch.family,
        "layers": arch.num_layers,
        "hidden": arch.hidden_size,
        "heads": f"{arch.num_heads} query, {arch.num_kv_heads} key/value, of {arch.head_dim}",
        "vocabulary": arch.vocab_size,
        "positions": arch.max_positions,
        "tied embeddings": arch.tied_embeddings,
        "rotary": "plain" if scaling is None else type(scaling).__name__.removesuffix("Rope").lower(),
    }
    if arch.experts is not None:
        described["experts"] = f"{arch.experts.count}, {arch.experts.per_token} per token"
    return described


def _hf_tensors(path: Path) -> TensorSummary:
    with HfFiles(path) as files:
        names = [name for name in files.file_of if not is_ignored(name)]
        return _summary([(files.dtype(name).lower(), files.shape(name)) for name in names])


def _dist_tensors(directory: Path, arch: Architecture | None) -> TensorSummary:
    """Sizes are those on disk, where the vocabulary may be padded."""
    files = DistFiles(directory)
    own = [name for name in files.names if files.is_weight(name)]
    listed = [(str(files.dtype(name)).removeprefix("torch."), files.shape(name)) for name in own]
    return _summary(listed, others=len(files.names) - len(own))


def _summary(tensors: Iterable[tuple[str, tuple[int, ...]]], others: int = 0) -> TensorSummary:
    dtypes: Counter[str] = Counter()
    count = 0
    for dtype, shape in tensors:
        count += 1
        dtypes[dtype] += torch.Size(shape).numel()
    return TensorSummary(count, sum(dtypes.values()), dict(dtypes), others)


def conversion_of(directory: Path) -> dict[str, Any] | None:
    """What a conversion that wrote this directory was asked for."""
    path = directory / "conversion.json"
    if not path.is_file():
        return None
    request = json.loads(path.read_text(encoding="utf-8")).get("request", {})
    return {key: value for key, value in request.items() if isinstance(value, str)}
