"""Hugging Face safetensors directories: reading slices, and writing a directory that appears whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seif_nemo.data.files import sync
from seif_nemo.models.architecture import read_json
from seif_nemo.weights.hf_mapping import is_ignored

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".distcp", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"}


class HfFiles:
    """An open safetensors checkpoint, in one file or several with an index. Use it as a context manager.

    Raises ValueError, naming the file, where one is missing or is not safetensors, and where the index and the files
    disagree.
    """

    def __init__(self, hf_dir: str | Path) -> None:
        self.path = Path(hf_dir)
        self._stack = contextlib.ExitStack()
        self.file_of = self._read_layout()  # tensor name -> file name
        try:
            names = list(dict.fromkeys(self.file_of.values()))
            self._files = {name: self._stack.enter_context(_open(self.path / name)) for name in names}
            self._check_index()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> "HfFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._stack.close()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[self.file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors names it: "F32", "BF16", …"""
        return self._files[self.file_of[name]].get_slice(name).get_dtype()

    def metadata(self, file: str) -> dict[str, str] | None:
        return self._files[file].metadata()

    def read(self, name: str, rows: slice, columns: slice | None = None) -> Tensor:
        """Rows (and columns) of a tensor, in its own dtype, on the CPU. Nothing else of it is read."""
        part = self._files[self.file_of[name]].get_slice(name)
        return part[rows] if columns is None else part[rows, columns]

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: set[str]) -> None:
        """Raise ValueError, naming tensors and file, unless the checkpoint holds exactly `expected` (and `ignored`)."""
        missing = [name for name in expected if name not in self.file_of]
        if missing:
            raise ValueError(f"{self.path} lacks {_some(missing)}, which config.json calls for")
        extra = [name for name in self.file_of if name not in expected and name not in ignored]
        if extra:
            file = self.path / self.file_of[extra[0]]
            raise ValueError(f"{file} holds {_some(extra)}, which the architecture in config.json does not have")
        for name, shape in expected.items():
            if self.shape(name) != shape:
                file = self.path / self.file_of[name]
                raise ValueError(f"{file}: {name} has shape {list(self.shape(name))}, config.json says {list(shape)}")

    def _read_layout(self) -> dict[str, str]:
        index = self.path / INDEX
        if index.exists():
            return read_weight_map(index)
        with _open(self.path / SINGLE) as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def _check_index(self) -> None:
        for file, handle in self._files.items():
            claimed = {name for name, place in self.file_of.items() if place == file}
            held = set(handle.keys())
            if claimed != held:
                names = sorted(claimed ^ held)
                raise ValueError(f"{self.path / INDEX} and {self.path / file} disagree about {_some(names)}")


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name of an index. Raises ValueError unless they are names of safetensors files beside it."""
    layout = read_json(index).get("weight_map")
    if not isinstance(layout, dict) or not layout:
        raise ValueError(f"{index} has no weight_map")
    for name, file in layout.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{index}: {name} is in {file!r}, which is no safetensors file beside it")
    return dict(layout)


class HfWriter:
    """Writes a Hugging Face directory beside its place and moves it there when it is whole.

    The files are laid out as in `source`, and everything of the source directory that is no weight (config, tokenizer,
    index) is copied. A file is written as soon as its last tensor came, so memory holds about one file.

    A kill leaves `.<name>.tmp-<token>` or `.<name>.old-<token>` beside the place. Below a run's root the next start of
    the run removes the one and puts the other back where it is missing, as it does for checkpoints: the names are
    those that `checkpointing/store.py` looks for.
    """

    def __init__(self, out_dir: str | Path, source: HfFiles) -> None:
        self._out = Path(out_dir)
        self._source = source
        self._waiting: dict[str, dict[str, Tensor]] = {}
        files = dict.fromkeys(source.file_of.values())
        self._names: dict[str, set[str]] = {file: set() for file in files}
        self._constants: dict[str, set[str]] = {file: set() for file in files}  # no weights: taken from the source
        for name, file in source.file_of.items():
            (self._constants if is_ignored(name) else self._names)[file].add(name)
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=f".{self._out.name}.tmp-", dir=self._out.parent))
        self._temporary.chmod(0o755)
        for path in sorted(source.path.iterdir()):
            if path.is_file() and path.suffix not in WEIGHT_SUFFIXES:
                shutil.copyfile(path, self._temporary / path.name)

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a whole tensor on the CPU, in the dtype it shall have on disk."""
        file = self._source.file_of[name]
        waiting = self._waiting.setdefault(file, {})
        assert name not in waiting, name
        waiting[name] = tensor.contiguous()
        if len(waiting) == len(self._names[file]):
            self._save(file)

    def _save(self, file: str) -> None:
        tensors = self._waiting.pop(file, {})
        tensors |= {name: self._source.read(name, slice(None)) for name in self._constants[file]}
        save_file(tensors, self._temporary / file, metadata=self._source.metadata(file))
        (self._temporary / file).chmod(0o644)  # safetensors makes it private
        self._names.pop(file)

    def commit(self) -> None:
        """Flush everything to disk and put the directory in its place, over an older one if there is one."""
        for file in [file for file, names in self._names.items() if not names]:
            self._save(file)
        assert not self._names, f"never written: {sorted(self._names)}"
        for path in self._temporary.iterdir():
            sync(path)
        sync(self._temporary)
        if self._out.exists():
            token = self._temporary.name.removeprefix(f".{self._out.name}.tmp-")
            retired = self._out.with_name(f".{self._out.name}.old-{token}")
            os.rename(self._out, retired)
            os.rename(self._temporary, self._out)
            shutil.rmtree(retired)
        else:
            os.rename(self._temporary, self._out)
        sync(self._out.parent)

    def abort(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._temporary, ignore_errors=True)


def _open(path: Path) -> safe_open:
    if not path.exists():
        raise ValueError(f"{path} does not exist: model.path must hold safetensors")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
