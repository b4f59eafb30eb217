"""Tensors of a Megatron distributed checkpoint (`torch_dist`), read by slices, without a process group.

A checkpoint is untrusted: its index is a pickle, of which only the classes of torch's own format are taken, and its
tensors are read with `weights_only`. Objects that are no tensors (`common.pt`, FP8 state) are not read at all.
Format: torch `distributed/checkpoint/filesystem.py`; metadata.json is megatron-core's.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.utils import _create_file_view  # pyright: ignore[reportPrivateUsage] as torch's reader

from seif_nemo.models.architecture import read_json

_INDEX = ".metadata"
_NO_WEIGHT = re.compile(r"(^|\.)(optimizer|chained_\d+|rotary_pos_emb)\.|_extra_state|^(rng_state|rerun_state)")
_CLASSES = {
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
}


class DistFiles:
    """The tensors of the checkpoint in a directory that holds `.metadata`.

    Raises ValueError, naming the file, where it is missing, damaged, of another backend, or holds objects that the
    format does not have.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)
        described = self.path / "metadata.json"
        if described.exists():
            backend = read_json(described).get("sharded_backend")
            if backend != "torch_dist":
                raise ValueError(f"{described}: sharded_backend={backend!r} is not supported; supported: 'torch_dist'")
        index = _read_index(self.path / _INDEX)
        self._tensors = {
            name: tensor
            for name, tensor in index.state_dict_metadata.items()
            if isinstance(tensor, TensorStorageMetadata)
        }
        self._places: dict[Any, Any] = index.storage_data

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    @staticmethod
    def is_weight(name: str) -> bool:
        """Whether this is a tensor of a model and not of an optimizer or of what a library keeps beside it."""
        return _NO_WEIGHT.search(name) is None

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].size)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].properties.dtype

    def read(self, name: str, *ranges: slice) -> Tensor:
        """A part of a tensor, on the CPU, in its own dtype; dimensions without a range are whole.

        Memory: the part, and one of the chunks in which the tensor was written unless it holds all of the part.
        Raises ValueError, naming the file, where a chunk is missing or damaged.
        """
        shape = self.shape(name)
        bounds = [part.indices(size)[:2] for part, size in zip(ranges, shape, strict=False)]
        bounds += [(0, size) for size in shape[len(ranges) :]]
        out: Tensor | None = None
        filled, wanted = 0, torch.Size(end - start for start, end in bounds)
        for chunk in self._tensors[name].chunks:
            overlap = [
                (max(start, offset), min(end, offset + size))
                for (start, end), offset, size in zip(bounds, chunk.offsets, chunk.sizes, strict=True)
            ]
            if any(start >= end for start, end in overlap):
                continue
            source = self._chunk(name, chunk.offsets, chunk.sizes)
            part = source[
                tuple(
                    slice(start - offset, end - offset)
                    for (start, end), offset in zip(overlap, chunk.offsets, strict=True)
                )
            ]
            if part.shape == wanted:
                return part
            if out is None:
                out = torch.empty(wanted, dtype=self.dtype(name))
            target = tuple(
                slice(start - first, end - first) for (start, end), (first, _) in zip(overlap, bounds, strict=True)
            )
            out[target] = part
            filled += part.numel()
        if filled != wanted.numel():
            raise ValueError(f"{self.path / _INDEX}: {name} has {filled} of {wanted.numel()} elements asked for")
        return torch.empty(wanted, dtype=self.dtype(name)) if out is None else out

    def read_all(self) -> None:
        """Read every chunk and drop it. Raises ValueError as `read` does."""
        for name, tensor in self._tensors.items():
            for chunk in tensor.chunks:
                self._chunk(name, chunk.offsets, chunk.sizes)

    def _chunk(self, name: str, offsets: torch.Size, sizes: torch.Size) -> Tensor:
        place = self._places.get(_index_of(name, offsets))
        if place is None:
            raise ValueError(f"{self.path / _INDEX} does not say where {name} at {list(offsets)} is")
        if getattr(place, "transform_descriptors", None):
            raise ValueError(
                f"{self.path / _INDEX}: {name} was written with {place.transform_descriptors}: not supported"
            )
        path = self.path / place.relative_path
        if path.resolve().parent != self.path.resolve():
            raise ValueError(f"{self.path / _INDEX}: {name} is outside the checkpoint, at {place.relative_path}")
        try:
            with path.open("rb") as file:
                view: Any = _create_file_view(file, place.offset, place.length)
                tensor = torch.load(view, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing, which holds {name}") from None
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path} is damaged: {name} at {list(offsets)} cannot be read: {_first_line(error)}"
            ) from error
        if not isinstance(tensor, Tensor) or tensor.shape != sizes:
            raise ValueError(f"{path}: {name} at {list(offsets)} is not what {_INDEX} says")
        return tensor


def checkpoint_directory(path: str | Path) -> Path | None:
    """Where the tensors of a Megatron or NeMo checkpoint lie; None if this is no such checkpoint.

    `path` is the directory itself, a NeMo 2 checkpoint (`weights/`), or Megatron-LM's folder of all iterations, of
    which the latest is taken.
    """
    path = Path(path)
    latest = path / "latest_checkpointed_iteration.txt"
    candidates = [path, path / "weights"]
    if latest.is_file():
        text = latest.read_text(encoding="utf-8").strip()
        candidates.append(path / (f"iter_{int(text):07d}" if text.isdigit() else text))
    return next((place for place in candidates if (place / _INDEX).is_file()), None)


def _index_of(name: str, offsets: torch.Size) -> Any:
    from torch.distributed.checkpoint.metadata import MetadataIndex

    return MetadataIndex(name, offsets)


def _read_index(path: Path) -> Metadata:
    try:
        index = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: this is no Megatron distributed checkpoint") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the index of a torch_dist checkpoint: {_first_line(error)}") from error
    if not isinstance(index, Metadata):
        raise ValueError(f"{path} is not the index of a torch_dist checkpoint: it holds a {type(index).__name__}")
    return index


class _Opaque:
    """What stands for an object of a class that is not needed: it takes everything and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __setstate__(self, state: object) -> None: ...


class _Unpickler(pickle.Unpickler):
    """Knows the classes of torch's format and no others, so that a file cannot call anything.

    megatron-core's own writer puts the plans of its ranks beside the index: such objects become `_Opaque`.
    """

    def find_class(self, module: str, name: str) -> Any:
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if module.startswith(("torch.distributed.checkpoint.", "megatron.core.dist_checkpointing.")):
            return _Opaque
        raise pickle.UnpicklingError(f"it names {module}.{name}, which the format does not have")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
