"""Writing one safetensors file tensor by tensor, so that memory holds one tensor and not the file.

Format: 8 bytes of header length, little endian; the header, JSON; the tensors' bytes (safetensors README).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * DTYPES[self.dtype].itemsize


class SafetensorsFile:
    """An open file of which the header is written; tensors follow in any order. Use it as a context manager."""

    def __init__(self, path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None) -> None:
        """Tensors lie as in a file of the safetensors library: by size of element, large first, then by name."""
        self._entries = dict(sorted(entries.items(), key=lambda item: (-DTYPES[item[1].dtype].itemsize, item[0])))
        header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
        self._offsets: dict[str, int] = {}
        end = 0
        for name, entry in self._entries.items():
            header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.nbytes]}
            self._offsets[name] = end
            end += entry.nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._start = 8 + len(text)
        self._missing = set(self._entries)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + end)

    def __enter__(self) -> "SafetensorsFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, name: str, tensor: Tensor) -> None:
        """Cast a whole tensor to the dtype that it has in this file, and write it."""
        entry = self._entries[name]
        assert tuple(tensor.shape) == entry.shape, (name, tensor.shape, entry.shape)
        data = tensor.detach().to("cpu", DTYPES[entry.dtype]).contiguous()
        self._file.seek(self._start + self._offsets[name])
        self._file.write(data.reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def finish(self) -> None:
        """Have it all on the disk. Every tensor must have come."""
        assert not self._missing, f"never written: {sorted(self._missing)}"
        self._file.flush()
        os.fsync(self._file.fileno())
