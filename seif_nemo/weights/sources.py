"""What a directory of weights is, and how to tell it from another one."""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.hf_config import config_json
from seif_nemo.models.nemo_config import check_nemo_agrees, read_nemo_architecture
from seif_nemo.weights.dist_files import checkpoint_directory
from seif_nemo.weights.hf_files import INDEX, SINGLE

_WHOLE_BYTES = 1 << 20
_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16


class Kind(Enum):
    hf = "Hugging Face directory"
    own = "seif_nemo checkpoint"
    nemo = "NeMo 2 checkpoint"
    megatron = "Megatron checkpoint"


@dataclass(frozen=True, slots=True)
class Source:
    """`tensors`: the directory that holds the weights' files; `context`: NeMo's, of a NeMo 2 checkpoint."""

    kind: Kind
    path: Path
    tensors: Path
    context: Path | None = None


def find_source(path: str | Path) -> Source:
    """Raises ValueError, naming the path, where it holds no weights of a supported kind."""
    path = Path(path)
    directory = checkpoint_directory(path)
    if directory is None:
        if (path / INDEX).is_file() or (path / SINGLE).is_file():
            return Source(Kind.hf, path, path)
        if not path.is_dir():
            raise ValueError(f"{path} does not exist or is no directory")
        raise ValueError(
            f"{path} holds neither {SINGLE} (or its index) nor a Megatron distributed checkpoint (.metadata, in it or "
            "in weights/)"
        )
    if (directory / "manifest.json").is_file():
        return Source(Kind.own, path, directory)
    context = directory.parent / "context"
    if directory.name == "weights" and context.is_dir():
        return Source(Kind.nemo, directory.parent, directory, context)
    return Source(Kind.megatron, path, directory)


@dataclass(frozen=True, slots=True)
class Described:
    """What a model is, and the Hugging Face directory (or checkpoint with one's files) that says so, if one does."""

    arch: Architecture
    config_dir: Path | None

    def config_text(self, dtype: str) -> str:
        """config.json where no directory has one. `dtype` as torch names it."""
        return json.dumps(config_json(self.arch, dtype), indent=2) + "\n"


def describe(source: Source, config_dir: Path | None) -> Described:
    """The architecture of a source: from `config_dir`, its own config.json or NeMo's model.yaml, in this order.

    Raises ValueError where nothing says it, and where what says it cannot be read or NeMo's file contradicts it.
    """
    if config_dir is None and (source.tensors / "config.json").is_file():
        config_dir = source.tensors
    if config_dir is not None:
        arch = read_architecture(config_dir)
        if source.context is not None:
            check_nemo_agrees(source.context, arch)
        return Described(arch, config_dir)
    if source.context is not None:
        return Described(read_nemo_architecture(source.context), None)
    raise ValueError(f"{source.path} does not say what its model is: give --config with its Hugging Face directory")


def fingerprint(directory: Path) -> str:
    """Hex digest of a directory's files: names, sizes and contents, of large files samples spread over them.

    It tells two checkpoints apart; it does not prove that no byte changed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
