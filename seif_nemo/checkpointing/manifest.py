"""The manifest of a checkpoint: what is in it and the digest of each of its files. It is written last.

A directory without a whole manifest is no checkpoint. `manifest.json` has "format", "manifest" and "digest"; the digest
is of the inner object, so that damage to the manifest itself is seen too.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seif_nemo.parallel.digest import digest_file, join_digests
from seif_nemo.parallel.topology import Topology

MANIFEST_NAME = "manifest.json"
FORMAT = 4


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or is not what was saved. The message names the file."""


class WriteError(CheckpointError):
    """A checkpoint was not written. What was there before still is; the run can go on from it later."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the model was spread over ranks when it was saved."""

    tensor: int
    pipeline: int
    data: int
    context: int
    virtual: int
    pipeline_layout: tuple[int, ...] | None
    expert: int
    expert_tensor: int


def layout_of(topology: Topology) -> Layout:
    """The layout of this world."""
    return Layout(
        tensor=topology.tensor,
        pipeline=topology.pipeline,
        data=topology.data,
        context=topology.context,
        virtual=topology.virtual,
        pipeline_layout=topology.pipeline_layout,
        expert=topology.expert,
        expert_tensor=topology.expert_tensor,
    )


@dataclass(frozen=True, slots=True)
class FileRecord:
    name: str
    size: int  # bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`origin`, `updates` and `weights_digest` are the role bank's."""

    role: str
    origin: str
    updates: int
    weights_digest: str
    layout: Layout
    step_count: int | None  # None: saved without optimizer state
    learning_rate: float | None
    base_digest: str | None  # of the frozen base model, where the weights are adapters on it; None: they are whole
    files: tuple[FileRecord, ...]

    @property
    def has_optimizer(self) -> bool:
        return self.step_count is not None

    @property
    def digest(self) -> str:
        """Digest of everything in the checkpoint, bit for bit."""
        return join_digests([json.dumps(asdict(self), sort_keys=True)])


def record_file(path: Path) -> FileRecord:
    """Size and digest of a file, which is on the disk for good when this returns."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileRecord(path.name, path.stat().st_size, digest_file(path))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    path = directory / MANIFEST_NAME
    with path.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "manifest": asdict(manifest), "digest": manifest.digest}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(directory: Path) -> Manifest:
    """Raises CheckpointError if it is missing, damaged or of another format."""
    path = directory / MANIFEST_NAME
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {document['format']}, this version reads format {FORMAT}")
        manifest = _manifest_from_json(document["manifest"])
        stored = document["digest"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: no whole checkpoint was written there") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if manifest.digest != stored:
        raise CheckpointError(f"{path} is damaged: its digest is {manifest.digest}, it says {stored}")
    return manifest


def verify_files(directory: Path, records: Sequence[FileRecord]) -> None:
    """Raises CheckpointError naming the first file that is missing, of another size or of other content."""
    for record in records:
        path = directory / record.name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if path.stat().st_size != record.size:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, {record.size} were saved")
        if (found := digest_file(path)) != record.digest:
            raise CheckpointError(f"{path} is damaged: digest {found}, {record.digest} was saved")


def _manifest_from_json(row: dict[str, Any]) -> Manifest:
    return Manifest(
        **{key: value for key, value in row.items() if key not in ("layout", "files")},
        layout=_layout_from_json(row["layout"]),
        files=tuple(FileRecord(**record) for record in row["files"]),
    )


def _layout_from_json(row: dict[str, Any]) -> Layout:
    counts = row["pipeline_layout"]
    return Layout(**{**row, "pipeline_layout": None if counts is None else tuple(counts)})
