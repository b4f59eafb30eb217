"""A distributed checkpoint to a Hugging Face directory: file by file, without a model, and resumable.

    .<name>.converting/   conversion.json says what is converted; a file gets its name when it is on the disk, and
                          .done/<file>.json has its digest and the sums of its tensors
    <name>/               the same directory, renamed when all is there

An interrupted conversion is continued: files that are there are verified by their digests and not written again. The
ranks of a world share the files. Memory of each: one parameter of one layer, and the chunk it was written in.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seif_nemo.data.files import sync, write_whole
from seif_nemo.models.architecture import read_json
from seif_nemo.parallel.collectives import any_rank
from seif_nemo.parallel.digest import digest_file, join_digests
from seif_nemo.parallel.tensor_sums import sums_digest, tensor_sums
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.dist_weights import DistWeights, whole_pieces
from seif_nemo.weights.hf_division import Division
from seif_nemo.weights.hf_files import INDEX, WEIGHT_SUFFIXES
from seif_nemo.weights.hf_mapping import Piece
from seif_nemo.weights.safetensors_file import SafetensorsFile

RECORD = "conversion.json"
_DONE = ".done"


class ConversionError(RuntimeError):
    """What was written is not what was read. The message names the file or the digest."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file. `sums`: of each tensor, as it was read (`parallel/tensor_sums.py`)."""

    size: int
    digest: str
    sums: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Outcome:
    written: int  # files of this attempt, by all ranks
    kept: int  # files of an earlier attempt
    digest: str  # of the weights, as `weights/role_digest.py` makes it


def is_converted(out_dir: Path, record: Mapping[str, Any]) -> bool:
    """Whether `out_dir` is a finished conversion of the same source, asked for in the same way, and undamaged.

    Raises ValueError, naming the file, where one of its files is not what was written.
    """
    path = out_dir / RECORD
    if not path.exists():
        return False
    found = read_json(path)
    if found.get("request") != dict(record):
        return False
    for name, file in found["files"].items():
        place = out_dir / name
        if not place.is_file() or place.stat().st_size != file["size"] or digest_file(place) != file["digest"]:
            raise ValueError(f"{place} is not what was converted: give --overwrite to convert again")
    return True


def convert_to_hf(
    weights: DistWeights,
    division: Division,
    out_dir: Path,
    topology: Topology,
    *,
    record: Mapping[str, Any],
    texts: Mapping[str, str],
    config_dir: Path | None,
    expected_digest: str | None,
    report: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Write `out_dir`, or continue to. Collective.

    `record` is what decides the result (JSON); a directory that was begun with another one is refused. `texts` are
    files written beside the weights, over those that are copied from `config_dir`. `expected_digest`: what the weights
    must turn out to be. `report` is told the bytes of each tensor. An existing `out_dir` is replaced at the end.
    Raises ValueError for a directory begun with another record, and ConversionError on every rank where the digest
    differs or a rank failed.
    """
    work = out_dir.with_name(f".{out_dir.name}.converting")
    _together(topology, lambda: _begin(work, record) if topology.is_main else None)
    own = list(division.files)[topology.rank :: topology.world_size]
    done: list[bool] = []

    def write() -> None:
        for file in own:
            done.append(_is_done(work, file))
            if not done[-1]:
                _write_file(weights, division, work, file, report)

    _together(topology, write)
    counts = torch.tensor([done.count(False), done.count(True)], device=topology.device)
    dist.all_reduce(counts, group=topology.world_group)
    digest = ""

    def finish() -> None:
        nonlocal digest
        written = {file: _read_done(work, file) for file in division.files}
        digest = _digest(weights, written)
        if expected_digest not in (None, digest):
            raise ConversionError(f"{out_dir}: the weights read have the digest {digest}, {expected_digest} were saved")
        if topology.is_main:
            _publish(work, out_dir, division, written, record=record, texts=texts, config_dir=config_dir)

    _together(topology, finish)
    return Outcome(int(counts[0]), int(counts[1]), digest)


def _begin(work: Path, record: Mapping[str, Any]) -> None:
    path = work / RECORD
    if path.exists():
        begun = read_json(path).get("request")
        if begun != dict(record):
            different = [key for key in record if not isinstance(begun, dict) or begun.get(key) != record[key]]
            raise ValueError(
                f"{work} holds an unfinished conversion with another {', '.join(different)}: give --overwrite to start "
                "again"
            )
    (work / _DONE).mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"request": dict(record)}, indent=1))


def _is_done(work: Path, file: str) -> bool:
    path = work / file
    if not (work / _DONE / f"{file}.json").exists() or not path.exists():
        return False
    written = _read_done(work, file)
    return path.stat().st_size == written.size and digest_file(path) == written.digest


def _read_done(work: Path, file: str) -> WrittenFile:
    return WrittenFile(**read_json(work / _DONE / f"{file}.json"))


def _write_file(weights: DistWeights, division: Division, work: Path, file: str, report: Callable[[int], None]) -> None:
    entries = division.files[file]
    temporary = work / f"{file}.partial"
    sums: dict[str, list[int]] = {}
    with SafetensorsFile(temporary, entries, division.metadata) as out:
        for name, piece in _pieces(weights, entries):
            for tensor_name, tensor in weights.hf_tensors(name, piece).items():
                if tensor_name not in entries:
                    continue
                whole = tensor.contiguous()
                sums[tensor_name] = tensor_sums(tensor_name, whole).tolist()
                out.write(tensor_name, whole)
                report(whole.nbytes)
        out.finish()
    os.replace(temporary, work / file)
    sync(work)
    written = WrittenFile((work / file).stat().st_size, digest_file(work / file), sums)
    write_whole(work / _DONE / f"{file}.json", json.dumps(asdict(written)))


def _pieces(weights: DistWeights, entries: Mapping[str, object]) -> list[tuple[str, Piece]]:
    return [
        (name, piece) for name, piece in whole_pieces(weights.arch) if not entries.keys().isdisjoint(piece.shapes())
    ]


def _digest(weights: DistWeights, written: Mapping[str, WrittenFile]) -> str:
    sums = {name: row for file in written.values() for name, row in file.sums.items()}
    for name, tensor in weights.value_head().items():  # it is part of what was saved, and of no Hugging Face model
        sums[name] = tensor_sums(name, tensor).tolist()
    rows: Tensor = torch.tensor(list(sums.values()), dtype=torch.int64)
    return sums_digest(list(sums), rows, weights.dtype())


def _publish(
    work: Path,
    out_dir: Path,
    division: Division,
    written: Mapping[str, WrittenFile],
    *,
    record: Mapping[str, Any],
    texts: Mapping[str, str],
    config_dir: Path | None,
) -> None:
    copied: dict[str, bytes] = {} if config_dir is None else _files_beside(config_dir)
    copied |= {name: text.encode() for name, text in texts.items()}
    index = division.index_text()
    if index is None:
        copied.pop(INDEX, None)
    elif INDEX not in copied or not _says_the_same(copied[INDEX], index):
        copied[INDEX] = index.encode()
    for name, content in copied.items():
        (work / name).write_bytes(content)
        sync(work / name)
    records = {name: {"size": file.size, "digest": file.digest} for name, file in written.items()}
    write_whole(work / RECORD, json.dumps({"request": dict(record), "files": records}, indent=1))
    shutil.rmtree(work / _DONE)
    for leftover in work.glob("*.partial"):
        leftover.unlink()
    sync(work)
    replace_directory(work, out_dir)


def _says_the_same(index: bytes, own: str) -> bool:
    """Whether an index that was copied fits what was written."""
    found, right = json.loads(index), json.loads(own)
    size = found.get("metadata", {}).get("total_size", right["metadata"]["total_size"])
    return found["weight_map"] == right["weight_map"] and size == right["metadata"]["total_size"]


def replace_directory(new: Path, out_dir: Path) -> None:
    """Give a finished directory its name, over an older one of that name if there is one."""
    retired = out_dir.with_name(f".{out_dir.name}.replaced-{join_digests([str(new)])[:8]}")
    if out_dir.exists():
        os.rename(out_dir, retired)
    os.rename(new, out_dir)
    sync(out_dir.parent)
    if retired.exists():
        shutil.rmtree(retired)


def _files_beside(config_dir: Path) -> dict[str, bytes]:
    """Everything of a Hugging Face directory (or of a checkpoint that carries it) that is no weight."""
    found: dict[str, bytes] = {}
    for path in sorted(config_dir.iterdir()):
        if path.is_file() and is_beside(path.name):
            found[path.name] = path.read_bytes()
    return found


def is_beside(name: str) -> bool:
    """Whether a file of a Hugging Face directory goes along with converted weights: no weights, no hidden file."""
    of_checkpoints = {"manifest.json", "metadata.json", RECORD}
    path = Path(name)
    return path.suffix not in WEIGHT_SUFFIXES and not name.startswith(".") and name not in of_checkpoints


def _together(topology: Topology, action: Callable[[], None]) -> None:
    """Run `action` on every rank; if it fails on some, all raise: those their own error, the others the first one."""
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    if any_rank(failure is not None, topology):
        told: list[str | None] = [None] * topology.world_size
        dist.all_gather_object(told, None if failure is None else str(failure), group=topology.world_group)
        if failure is not None:
            raise failure
        rank, message = next((rank, text) for rank, text in enumerate(told) if text is not None)
        raise ConversionError(f"rank {rank}: {message}")
