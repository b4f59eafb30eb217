"""Adapters between PEFT's directories and a Megatron model, exact both ways and at any layout.

Format: https://huggingface.co/docs/peft, `LoraConfig`, saved by PEFT 0.5 and later: adapter_config.json and
adapter_model.safetensors with `base_model.model.<module>.lora_A.weight` [R, in] and `.lora_B.weight` [out, R].
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.data.files import sync
from seif_nemo.models.architecture import Architecture, read_json
from seif_nemo.models.lora import LINEARS, adapters, projection_path
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf_mapping import Columns, Piece, QueryKeyValue, Replicated, Rows

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"  # ours: dtype and digest of the base model that the adapter was trained on
# What makes an adapter more than B A on linear layers, and the values with which it does not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
}


def load_adapter(
    modules: Sequence[GPTModel],
    arch: Architecture,
    topology: Topology,
    adapter_dir: str | Path,
    lora: LoraConfig,
    *,
    base_digest: str | None = None,
) -> None:
    """Copy this rank's shards of a PEFT adapter into the chunks' adapters, in place and in their dtype.

    Nothing is communicated: every rank finds the same faults by itself. Raises ValueError, naming file and key, for
    settings that are not implemented, that are not those of `lora`, for missing, extra or misshapen tensors, and for an
    adapter that says it belongs to a base model of another digest than `base_digest`.
    """
    folder = Path(adapter_dir)
    _check_config(folder, lora)
    if base_digest is not None:
        _check_base(folder, str(modules[0].config.params_dtype), base_digest)
    with _Adapter(folder, arch, lora) as files, torch.no_grad():
        for part in adapter_parts(modules, arch, lora):
            rank, ranks = (topology.tensor_rank, topology.tensor) if part.divided else (0, 1)
            part.shard.copy_(part.piece.load(files, rank, ranks))


def export_adapter(
    modules: Sequence[GPTModel],
    arch: Architecture,
    topology: Topology,
    out_dir: str | Path,
    lora: LoraConfig,
    *,
    base_dir: str | Path,
    base_digest: str | None = None,
    check_fence: Callable[[], None] = lambda: None,
) -> None:
    """Write the model's adapters as a PEFT directory. Collective; global rank 0 writes, after `check_fence` lets it.

    The directory appears whole under its name or not at all; one that is there already is replaced. Raises RuntimeError
    on every rank if rank 0 could not write.
    """
    tensors = _gather(modules, arch, topology, lora)
    failure: Exception | None = None
    if topology.is_main:
        try:
            _write(Path(out_dir), tensors, lora, str(base_dir), base_digest, check_fence)
        except Exception as error:  # the other ranks wait to be told
            failure = error
    outcome: list[str | None] = [None if failure is None else f"{type(failure).__name__}: {failure}"]
    dist.broadcast_object_list(outcome, src=0, group=topology.world_group, device=topology.device)
    if outcome[0] is not None:
        raise RuntimeError(f"rank 0 could not write {out_dir}: {outcome[0]}") from failure


def adapter_pieces(
    arch: Architecture, lora: LoraConfig, linear: str, layer: int
) -> tuple[tuple[str, Piece, bool], tuple[str, Piece, bool]]:
    """(parameter, its piece, whether tensor-parallel ranks divide it) of A and of B of one linear layer's adapter.

    Pieces of a fused layer name all its projections; `lora.targets` says which of them PEFT knows.
    """
    hidden, heads = arch.hidden_size, arch.num_heads * arch.head_dim
    projections = LINEARS[linear][1]
    names_a, names_b = (
        {
            each: f"base_model.model.model.layers.{layer}.{projection_path(each)}.lora_{half}.weight"
            for each in projections
        }
        for half in "AB"
    )
    targets = tuple(names_a[each] for each in projections if each in lora.targets)
    all_b = tuple(names_b.values())
    b: Piece
    if linear == "linear_qkv":
        b = QueryKeyValue(
            (all_b[0], all_b[1], all_b[2]), arch.num_kv_heads, arch.heads_per_group, arch.head_dim, lora.rank
        )
    elif linear == "linear_fc1":
        b = Rows(all_b, arch.ffn_hidden_size, lora.rank)
    else:
        size = heads if linear == "linear_proj" else arch.ffn_hidden_size
        a = Columns(targets[0], lora.rank, size)
        return ("weight_a", a, True), ("weight_b", Replicated(all_b[0], (hidden, lora.rank)), False)
    return ("weight_a", Rows(targets, lora.rank, hidden), False), ("weight_b", b, True)


@dataclass(frozen=True, slots=True, eq=False)
class AdapterPart:
    """This rank's shard of A or of B of one linear layer's adapter. Not divided: the same on all tensor ranks."""

    piece: Piece
    divided: bool
    shard: Tensor


def adapter_parts(modules: Sequence[GPTModel], arch: Architecture, lora: LoraConfig) -> Iterator[AdapterPart]:
    """What this rank holds of the adapters."""
    for module in modules:
        for _, layer, adapter in adapters(module):
            for parameter, piece, divided in adapter_pieces(arch, lora, adapter.name, layer):
                yield AdapterPart(piece, divided, getattr(adapter, parameter))


def adapter_shapes(arch: Architecture, lora: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the adapter's pieces and its shape, projections without an adapter included."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(arch.num_layers):
        for linear, (_, projections) in LINEARS.items():
            if not set(projections).isdisjoint(lora.targets):
                for _, piece, _ in adapter_pieces(arch, lora, linear, layer):
                    shapes |= piece.shapes()
    return shapes


def _is_target(name: str, lora: LoraConfig) -> bool:
    return any(f".{target.value}.lora_" in name for target in lora.targets)


class _Adapter:
    """The weights' file of a PEFT directory, as `Slices` of which projections without an adapter are zero."""

    def __init__(self, folder: Path, arch: Architecture, lora: LoraConfig) -> None:
        path = folder / WEIGHTS_FILE
        if not path.exists():
            raise ValueError(f"{path} does not exist: roles.lora.adapter must hold a PEFT adapter in safetensors")
        try:
            self._file = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        self._lora = lora
        self._shapes = adapter_shapes(arch, lora)
        held = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
        _check_tensors(path, held, {n: shape for n, shape in self._shapes.items() if _is_target(n, lora)}, lora)

    def __enter__(self) -> "_Adapter":
        self._file.__enter__()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._file.__exit__(*arguments)

    def read(self, name: str, rows: slice, columns: slice | None = None) -> Tensor:
        if not _is_target(name, self._lora):
            return torch.zeros(self._shapes[name])[rows]
        part = self._file.get_slice(name)
        return part[rows] if columns is None else part[rows, columns]


def _check_tensors(
    path: Path, held: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], lora: LoraConfig
) -> None:
    found = [each.name for each in Projection if any(f".{each.value}.lora_" in name for name in held)]
    wanted = [each.name for each in Projection if each in lora.targets]
    if found != wanted:
        raise ValueError(
            f"{path} has adapters of [{','.join(found)}], not of roles.lora.targets=[{','.join(wanted)}]: choose "
            f"roles.lora.targets=[{','.join(found)}]"
        )
    odd = sorted(held.keys() ^ expected.keys())
    if odd:
        lacks = "lacks" if odd[0] in expected else "holds"
        raise ValueError(
            f"{path} {lacks} {odd[0]}, and the layers of model.path say otherwise ({len(odd)} such tensors)"
        )
    for name, shape in expected.items():
        if held[name] != shape:
            raise ValueError(
                f"{path}: {name} has shape {list(held[name])}, model.path and roles.lora say {list(shape)}"
            )


def _check_config(folder: Path, lora: LoraConfig) -> None:
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ValueError(f"{path} does not exist: roles.lora.adapter must be a directory that PEFT saved")
    values = read_json(path)
    for key, allowed in _PLAIN.items():
        if key in values and values[key] not in allowed:
            raise ValueError(f"{path}: {key}={values[key]!r} is not supported; supported: {allowed[0]!r}")
    for key, config_key, wanted in (("r", "rank", lora.rank), ("lora_alpha", "alpha", lora.alpha)):
        if values.get(key) != wanted:
            raise ValueError(f"roles.lora.{config_key}={wanted} is not the {key} of {path}: choose {values.get(key)}")


def _check_base(folder: Path, dtype: str, digest: str) -> None:
    """A digest is of weights in one dtype: those of another one cannot be compared."""
    known = read_json(folder / BASE_FILE) if (folder / BASE_FILE).exists() else {}
    if known.get("dtype") == dtype and known.get("digest") != digest:
        raise ValueError(
            f"roles.lora.adapter={folder} belongs to another base model than model.path holds (digest "
            f"{known.get('digest')}, not {digest}): choose the model that it was trained on"
        )


def _gather(modules: Sequence[GPTModel], arch: Architecture, topology: Topology, lora: LoraConfig) -> dict[str, Tensor]:
    """On global rank 0 all tensors of the adapters, whole, on the CPU; nothing on the others. They are small."""
    own: dict[str, Tensor] = {}
    if topology.replica_rank == 0:
        for part in adapter_parts(modules, arch, lora):
            shards = [part.shard.detach()]
            if part.divided and topology.tensor > 1:
                shards = [torch.empty_like(part.shard) for _ in range(topology.tensor)]
                dist.all_gather(shards, part.shard.detach().contiguous(), group=topology.tensor_group)
            if topology.tensor_rank == 0:
                whole = part.piece.merge(shards)
                own |= {name: tensor.cpu() for name, tensor in whole.items() if _is_target(name, lora)}
    gathered: list[Any] = [None] * topology.world_size
    dist.gather_object(own, gathered if topology.is_main else None, dst=0, group=topology.world_group)
    return {name: tensor for part in gathered if part for name, tensor in part.items()}


def _write(
    out_dir: Path,
    tensors: dict[str, Tensor],
    lora: LoraConfig,
    base: str,
    base_digest: str | None,
    check_fence: Callable[[], None],
) -> None:
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # A kill leaves what the next start of the run removes: see `weights/hf_files.py`.
    temporary = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.tmp-", dir=out_dir.parent))
    try:
        temporary.chmod(0o755)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        (temporary / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it private
        (temporary / CONFIG_FILE).write_text(json.dumps(_peft_config(lora, base), indent=2) + "\n", encoding="utf-8")
        if base_digest is not None:
            known = {"dtype": str(next(iter(tensors.values())).dtype), "digest": base_digest}
            (temporary / BASE_FILE).write_text(json.dumps(known) + "\n", encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        check_fence()
        if out_dir.exists():
            retired = out_dir.with_name(temporary.name.replace(".tmp-", ".old-"))
            os.rename(out_dir, retired)
            os.rename(temporary, out_dir)
            shutil.rmtree(retired)
        else:
            os.rename(temporary, out_dir)
        sync(out_dir.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _peft_config(lora: LoraConfig, base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "target_modules": [target.value for target in lora.targets],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
