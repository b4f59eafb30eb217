"""The files of Megatron's `torch_dist` format, written without any communication.

    __<rank>_0.distcp   this rank's pieces, each as torch.save writes a tensor
    .metadata           which piece of which tensor lies where (torch.distributed.checkpoint's index)
    common.pt           what is no tensor: Adam's settings
    metadata.json       the format's name

torch's own planner makes the same index by sending all plans to one rank and back at every save. Its asynchronous
writer, and Megatron's, start processes.
"""

import json
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.checkpointing.pieces import Piece

COMMON_NAME = "common.pt"
INDEX_NAME = ".metadata"
_FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


@dataclass(frozen=True, slots=True)
class Written:
    """Where a piece, or an object that is no tensor, lies: `length` bytes from byte `start` of `file`."""

    key: str
    dtype: torch.dtype | None  # None: an object, which has no shapes
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    start: int
    length: int


def rank_file(rank: int) -> str:
    return f"__{rank}_0.distcp"


def write_pieces(
    path: Path, pieces: Sequence[Piece], tensors: Sequence[torch.Tensor], objects: Mapping[str, bytes]
) -> list[Written]:
    """Write the staged values of pieces, and objects, into a new file, which is on disk for good when this returns.

    Raises OSError, also where torch.save would have made another error of it.
    """
    written: list[Written] = []
    with path.open("xb") as file:
        stream = _Stream(file)
        for piece, tensor in zip(pieces, tensors, strict=True):
            start = file.tell()
            try:
                torch.save(tensor, stream)  # pyright: ignore[reportArgumentType] needs `write` and `flush` alone
            except Exception as error:
                raise stream.error or error from None
            length = file.tell() - start
            shapes = (piece.global_shape, piece.offset, piece.shape)
            written.append(Written(piece.key, tensor.dtype, *shapes, path.name, start, length))
        for key, data in objects.items():
            written.append(Written(key, None, (), (), (), path.name, file.tell(), len(data)))
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return written


def write_shared(directory: Path, common: bytes, index: bytes) -> None:
    """The files that the main rank writes: the index of all ranks' pieces, the rest of the state, the format's name."""
    for name, data in (
        (INDEX_NAME, index),
        (COMMON_NAME, common),
        ("metadata.json", json.dumps(_FORMAT).encode()),
    ):
        with (directory / name).open("xb") as file:
            file.write(data)


class Index:
    """The index of checkpoints of one kind, which all are alike: it is sent and made anew only where one is not."""

    def __init__(self) -> None:
        self._own: list[Written] | None = None
        self._parts: dict[int, list[Written]] = {}
        self._data = b""

    def news(self, written: list[Written]) -> list[Written] | None:
        """What the main rank has to be told of this rank's pieces; None if it is what it was told before."""
        if written == self._own:
            return None
        self._own = written
        return written

    def data(self, news: Sequence[list[Written] | None]) -> bytes:
        """On the main rank, from every rank's news: the file. Raises CheckpointError as `index_of` does."""
        changed = {rank: part for rank, part in enumerate(news) if part is not None}
        if changed:
            self._parts |= changed
            self._data = pickle.dumps(index_of(self._parts[rank] for rank in sorted(self._parts)))
        return self._data


def index_of(parts: Iterable[Sequence[Written]]) -> Metadata:
    """torch.distributed.checkpoint's index. Without its random id and path, so that equal states are equal bytes.

    Raises CheckpointError where the pieces are not each element of each tensor once.
    """
    tensors: dict[str, Any] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for written in (each for part in parts for each in part):
        if written.dtype is None:
            if written.key in tensors:
                raise CheckpointError(f"{written.key}: two ranks write it")
            tensors[written.key] = BytesStorageMetadata()
            places[MetadataIndex(written.key)] = _StorageInfo(written.file, written.start, written.length)
            continue
        size, chunk = torch.Size(written.global_shape), torch.Size(written.offset)
        entry = tensors.setdefault(
            written.key, TensorStorageMetadata(TensorProperties(dtype=written.dtype), size, chunks=[])
        )
        place = MetadataIndex(written.key, chunk)
        if entry.size != size or place in places:
            raise CheckpointError(f"{written.key}: two ranks disagree about the piece at {written.offset}")
        entry.chunks.append(ChunkStorageMetadata(chunk, torch.Size(written.shape)))
        places[place] = _StorageInfo(written.file, written.start, written.length)
    for key, entry in tensors.items():
        if isinstance(entry, BytesStorageMetadata):
            continue
        if (found := sum(prod(chunk.sizes) for chunk in entry.chunks)) != prod(entry.size):
            raise CheckpointError(f"{key}: {found} elements are written of a tensor that has {prod(entry.size)}")
    return Metadata(tensors, storage_data=places, storage_meta=StorageMeta(), version=CURRENT_DCP_VERSION)


class _Stream:
    """Keeps the error of the file below it: torch.save replaces some by its own."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
