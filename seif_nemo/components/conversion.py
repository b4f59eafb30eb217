"""Weights from one format to another: Hugging Face directories and Megatron distributed checkpoints.

    Hugging Face → checkpoint     each rank builds its shard, reads its slices, writes them: any layout
    checkpoint → Hugging Face     no model: the ranks share the files (`weights/to_hf.py`)
    checkpoint → checkpoint       NeMo's or Megatron-LM's into ours, as the first

The weights' digest is made of what was read and compared with that of what was loaded or written.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seif_nemo.checkpointing.manifest import CheckpointError, layout_of, read_manifest, verify_files
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import Architecture, read_json
from seif_nemo.models.builder import build_gpt, with_layer_counts
from seif_nemo.models.plain_model import PlainModel
from seif_nemo.observability.meter import Meter
from seif_nemo.parallel.collectives import barrier, broadcast_int
from seif_nemo.parallel.tensor_sums import LANES, sums_digest, tensor_sums
from seif_nemo.parallel.topology import Topology
from seif_nemo.types.residents import Resident
from seif_nemo.weights.dist_files import DistFiles
from seif_nemo.weights.dist_weights import DistWeights, load_dist_weights, whole_pieces
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.hf_division import divide
from seif_nemo.weights.hf_files import HfFiles
from seif_nemo.weights.hf_mapping import expected_shapes
from seif_nemo.weights.role_digest import RoleSums
from seif_nemo.weights.safetensors_file import DTYPES
from seif_nemo.weights.sources import Described, Kind, Source, describe, find_source, fingerprint
from seif_nemo.weights.to_hf import RECORD, ConversionError, convert_to_hf, is_beside, is_converted

_POSITIONS = 8  # the model runs nothing


class Format(Enum):
    hf = "hf"
    megatron = "megatron"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is asked for. `target_format` None: the other one. `dtype` None: that of the source."""

    source: Path
    target: Path
    config_dir: Path | None = None
    target_format: Format | None = None
    dtype: torch.dtype | None = None
    max_file_bytes: int = 5 * 10**9  # of a safetensors file, where no directory says how they are divided
    overwrite: bool = False


def convert(request: Conversion, parallel: ParallelConfig, topology: Topology, meter: Meter) -> str:
    """Convert, and say in one line what was done. Collective.

    Raises ValueError, naming file or option, for input that cannot be converted, and ConversionError where the weights
    written are not those read.
    """
    source = find_source(request.source)
    target_format = request.target_format or (Format.megatron if source.kind is Kind.hf else Format.hf)
    if source.kind is Kind.hf and target_format is Format.hf:
        raise ValueError(f"{source.path} is a Hugging Face directory already: give --format megatron")
    if request.target.resolve() in (source.path.resolve(), *source.path.resolve().parents):
        raise ValueError(f"--to {request.target} holds the source: choose another place")
    described = describe(source, request.config_dir)
    if target_format is Format.megatron:
        return _to_megatron(request, source, described, topology, meter)
    if parallel != ParallelConfig(backend=parallel.backend, collective_timeout_s=parallel.collective_timeout_s):
        raise ValueError(
            "parallel.* divides Megatron checkpoints, and --to becomes a Hugging Face directory: leave it out"
        )
    return _to_hf(request, source, described, topology, meter)


def _to_hf(request: Conversion, source: Source, described: Described, topology: Topology, meter: Meter) -> str:
    weights = DistWeights(DistFiles(source.tensors), described.arch)
    shapes = expected_shapes(described.arch)
    dtype = request.dtype
    if dtype is None and not _has_dtypes(described.config_dir, weights.dtype()):
        dtype = weights.dtype()
    division = divide(shapes, dtype, like=described.config_dir, max_bytes=request.max_file_bytes)
    record = {
        "source": fingerprint(source.tensors),
        "files": {file: {name: entry.dtype for name, entry in part.items()} for file, part in division.files.items()},
        "config": None if described.config_dir is None else _digest_of(described.config_dir / "config.json"),
    }
    if _is_there(request, record, topology):
        return f"{request.target} is this conversion already: nothing to do"
    written = next(iter(division.entries.values())).dtype
    manifest = read_manifest(source.tensors) if source.kind is Kind.own else None
    sizes = [entry.nbytes for entry in division.entries.values()]
    meter.start("writing", len(sizes) // topology.world_size, sum(sizes) // topology.world_size)
    try:
        outcome = convert_to_hf(
            weights,
            division,
            request.target,
            topology,
            record=record,
            texts=_texts(described, str(DTYPES[written]).removeprefix("torch.")),
            config_dir=described.config_dir,
            expected_digest=None if manifest is None else manifest.weights_digest,
            report=meter.add,
        )
    except ConversionError:
        if manifest is not None:
            verify_files(source.tensors, manifest.files)  # names the file, if one of them is damaged
        raise
    kept = f", {outcome.kept} of them from an earlier attempt" if outcome.kept else ""
    files = f"{len(division.files)} safetensors file{'s' * (len(division.files) > 1)}{kept}"
    checked = " as its manifest says" if manifest is not None else ""
    return f"{request.target}: {len(sizes)} tensors, {files}; weights {outcome.digest}{checked}"


def _to_megatron(request: Conversion, source: Source, described: Described, topology: Topology, meter: Meter) -> str:
    arch = described.arch
    layout = json.loads(json.dumps(asdict(layout_of(with_layer_counts(arch, topology)))))  # tuples become lists
    with _open(source, arch) as opened:
        dtype = request.dtype or opened.dtype
        if dtype is torch.float16:
            raise ValueError(f"{source.path} is float16, which no run trains: give --dtype bfloat16 or --dtype float32")
        record = {"source": fingerprint(source.tensors), "dtype": str(dtype).removeprefix("torch."), "layout": layout}
        if _is_there(request, record, topology):
            return f"{request.target} is this conversion already: nothing to do"
        modules = build_gpt(arch, topology, dtype=dtype, max_sequence_length=_POSITIONS)
        model = PlainModel(modules, topology)
        sizes = [parameter.nbytes for parameter in model.parameters()]
        meter.start("reading", len(sizes), sum(sizes))
        opened.load(modules, topology, meter.add)
        meter.start("checking", len(opened.units[:: topology.world_size]), sum(sizes))
        expected = _digest_of_units(opened, arch, dtype, topology, meter.add)
    sums = RoleSums(modules, arch, topology)
    digest = sums.join(sums.of((parameter, parameter) for parameter in model.parameters()))
    if digest != expected:
        raise ConversionError(f"{source.path}: the weights loaded have the digest {digest}, those read {expected}")
    meter.close()
    _clear_leftovers(request.target, topology)
    store = CheckpointStore(request.target, topology)
    bare: Any = model  # without optimizer state no more of a model is asked for
    store.save(
        bare,
        _Base(digest),
        request.target,
        with_optimizer=False,
        write_beside=lambda directory: _write_beside(directory, described, record),
    )
    return f"{request.target}: {len(opened.units)} parameters in {record['dtype']}; weights {digest} as those read"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A source of weights: how a model's shard is loaded from it, and how the whole of it is read in `units`."""

    dtype: torch.dtype
    load: Callable[[list[Any], Topology, Callable[[int], None]], None]
    units: list[Callable[[], dict[str, Tensor]]]


@contextmanager
def _open(source: Source, arch: Architecture) -> Iterator[_Opened]:
    if source.kind is not Kind.hf:
        weights = DistWeights(DistFiles(source.tensors), arch)
        units = [partial(weights.hf_tensors, name, piece) for name, piece in whole_pieces(arch)]
        yield _Opened(
            weights.dtype(),
            lambda modules, topology, report: load_dist_weights(modules, arch, topology, weights, report=report),
            units,
        )
        return
    with HfFiles(source.path) as files:
        found = {files.dtype(name) for name in expected_shapes(arch) if name in files.file_of}
        if not found <= DTYPES.keys():
            raise ValueError(f"{source.path} holds {', '.join(sorted(found))}; supported: {', '.join(DTYPES)}")

        def read(name: str) -> dict[str, Tensor]:
            return {name: files.read(name, slice(None))}

        yield _Opened(
            # Of several the widest loses nothing.
            max((DTYPES[name] for name in found), key=lambda dtype: dtype.itemsize, default=torch.float32),
            lambda modules, topology, report: load_hf_weights(modules, arch, topology, source.path, report=report),
            [partial(read, name) for name in expected_shapes(arch)],
        )


def _digest_of_units(
    opened: _Opened, arch: Architecture, dtype: torch.dtype, topology: Topology, report: Callable[[int], None]
) -> str:
    """The digest of all that the source holds, in `dtype`; each rank reads its share of the units. Collective."""
    names = list(expected_shapes(arch))
    numbers = {name: number for number, name in enumerate(names)}
    sums = torch.zeros(len(names), LANES, dtype=torch.int64)
    for unit in opened.units[topology.rank :: topology.world_size]:
        for name, tensor in unit().items():
            sums[numbers[name]] = tensor_sums(name, tensor.to(dtype).contiguous())
        report(0)
    total = sums.to(topology.device)
    dist.all_reduce(total, group=topology.world_group)
    return sums_digest(names, total.cpu(), dtype)


class _Base:
    """What `CheckpointStore.save` asks of a role bank: the base model, frozen."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    @property
    def resident_name(self) -> str:
        return Resident.BASE

    def is_trained(self, name: str) -> bool:
        return False

    def digest(self, name: str) -> str:
        return self._digest

    def digest_in_model(self) -> str:
        return self._digest

    def origin(self, name: str) -> str:
        return f"{Resident.BASE}-{self._digest[:12]}@0"  # another model's base is not the one of the run that loads it

    def updates(self, name: str) -> int:
        return 0

    def refill(self, name: str, load: Callable[[], None], *, origin: str, updates: int) -> None:
        raise AssertionError("a conversion loads no checkpoint")


def _write_beside(directory: Path, described: Described, record: dict[str, Any]) -> None:
    """Into the checkpoint: what makes a Hugging Face directory of its weights again, and where they are from."""
    if described.config_dir is not None:
        for path in sorted(described.config_dir.iterdir()):
            if path.is_file() and is_beside(path.name) and not path.name.startswith("__"):
                shutil.copyfile(path, directory / path.name)
    for name, text in _texts(described, record["dtype"]).items():
        (directory / name).write_text(text, encoding="utf-8")
    (directory / RECORD).write_text(json.dumps({"request": record}, indent=1), encoding="utf-8")


def _texts(described: Described, dtype: str) -> dict[str, str]:
    """config.json, where none is at hand or where the weights get another dtype than it says."""
    if described.config_dir is None:
        return {"config.json": described.config_text(dtype)}
    raw = read_json(described.config_dir / "config.json")
    key = "torch_dtype" if "torch_dtype" in raw else "dtype"
    if raw.get(key, dtype) == dtype:
        return {}
    return {"config.json": json.dumps(raw | {key: dtype}, indent=2) + "\n"}


def _is_there(request: Conversion, record: dict[str, Any], topology: Topology) -> bool:
    """Whether the target is this very conversion, finished. Collective.

    Raises ValueError on every rank where something else is in the way and may not be overwritten.
    """
    answer, refusal = 0, ""
    if topology.is_main:
        try:
            answer = int(_look(request, record))
        except (ValueError, OSError) as error:
            answer, refusal = 2, str(error)
    answer = broadcast_int(answer, topology)
    if answer == 2:
        told = [refusal]
        dist.broadcast_object_list(told, src=0, group=topology.world_group, device=topology.device)
        raise ValueError(told[0])
    return bool(answer)


def _look(request: Conversion, record: dict[str, Any]) -> bool:
    target = request.target
    if request.overwrite:
        shutil.rmtree(target.with_name(f".{target.name}.converting"), ignore_errors=True)
        return False
    if not target.exists():
        return False
    if (target / "manifest.json").exists():
        try:
            manifest = read_manifest(target)
            verify_files(target, manifest.files)
        except CheckpointError as error:
            raise ValueError(f"{error}: give --overwrite to convert again") from error
        same = (target / RECORD).exists() and read_json(target / RECORD).get("request") == record
    else:
        same = is_converted(target, record)
    if not same:
        raise ValueError(f"{target} exists and is not this conversion: give --overwrite to replace it")
    return True


def _clear_leftovers(target: Path, topology: Topology) -> None:
    """Remove what a killed conversion to this very place left."""
    if topology.is_main:
        for leftover in target.parent.glob(f".{target.name}.tmp-*"):
            shutil.rmtree(leftover)
    barrier(topology)


def _has_dtypes(config_dir: Path | None, dtype: torch.dtype) -> bool:
    """Whether a directory holds weights of which no dtype is narrower than `dtype`: then they are kept as they are."""
    if config_dir is None or not any(config_dir.glob("*.safetensors")):
        return False
    with HfFiles(config_dir) as files:
        found = {files.dtype(name) for name in files.file_of}
    return found <= DTYPES.keys() and all(DTYPES[name].itemsize <= dtype.itemsize for name in found)


def _digest_of(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
