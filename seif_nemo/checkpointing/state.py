"""A trainable model's state in Megatron's distributed checkpoint format: weights, and Adam's state if asked for."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedObject, is_main_replica
from megatron.core.dist_checkpointing.validation import StrictHandling
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer

from seif_nemo.checkpointing.pieces import Piece, live_addresses, optimizer_pieces, weight_pieces
from seif_nemo.checkpointing.staging import Staging
from seif_nemo.models.lora import frozen_names
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.collectives import any_rank

# What Transformer Engine's modules, and ours where they emulate FP8, keep beside their weights: scales and histories of
# delayed scaling. Without that it is left out, so that a checkpoint loads with either kind of module.
_EXTRA_STATE = "_extra_state"
_BYTES_PER_PIECE = 2048  # torch.save's archive and the index
_CONTENT = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What this rank writes: a copy of its pieces, its FP8 scales, and (on the main rank in use) Adam's settings."""

    pieces: tuple[Piece, ...]
    staging: Staging
    scales: dict[str, bytes]
    common: bytes

    @property
    def num_bytes(self) -> int:
        """Of this rank's files, a little more than it will be."""
        others = sum(map(len, self.scales.values())) + len(self.common)
        return self.staging.num_bytes + (len(self.pieces) + len(self.scales)) * _BYTES_PER_PIECE + others


class Snapshots:
    """Makes snapshots of a model. Plans and buffers are made at the first one of a kind and used again.

    `place` tells snapshots apart that are needed at the same time: each has buffers of its own.
    """

    def __init__(self) -> None:
        self._plans: dict[bool, tuple[tuple[int, ...], tuple[Piece, ...]]] = {}
        self._stagings: dict[tuple[int, bool], tuple[tuple[Piece, ...], Staging]] = {}

    def plan(self, trainable: TrainableModel, *, with_optimizer: bool) -> tuple[Piece, ...]:
        """What this rank writes. Collective. Made anew where the memory of a rank's model has moved."""
        optimizer = _optimizer(trainable) if with_optimizer else None
        addresses = live_addresses(optimizer, trainable.modules)
        planned = self._plans.get(with_optimizer)
        if any_rank(planned is None or planned[0] != addresses, trainable.topology):
            models = _sharded_weights(trainable, with_scales=False)
            pieces = weight_pieces(models, trainable.topology)
            if optimizer is not None:
                pieces += optimizer_pieces(optimizer, models, _metadata(trainable))
            planned = self._plans[with_optimizer] = addresses, tuple(pieces)
        assert planned is not None
        return planned[1]

    def take(self, trainable: TrainableModel, *, with_optimizer: bool, place: int) -> Snapshot:
        """Copy the state of now. It is overwritten by the next snapshot of this kind and place."""
        pieces = self.plan(trainable, with_optimizer=with_optimizer)
        held = self._stagings.get((place, with_optimizer))
        if held is None or held[0] is not pieces:
            held = self._stagings[place, with_optimizer] = pieces, Staging(pieces)
        held[1].copy(pieces)
        common = _common_bytes(trainable, with_optimizer=with_optimizer)
        return Snapshot(pieces, held[1], _scales(trainable), common)


def load_state(trainable: TrainableModel, directory: Path, *, with_optimizer: bool) -> None:
    """Read weights and, if asked for, moments and main parameters, in place. Collective.

    Step count and learning rate are not touched: Megatron's format has them in a common file that torch's Adam and
    Transformer Engine's write differently, so the manifest keeps them. Scales of FP8 that the checkpoint does not have
    start anew, with a notice. Raises ValueError where they have another history length.
    """
    has_scales = bool(trainable.fp8_buffers())
    state = _sharded_weights(trainable, with_scales=has_scales)
    if with_optimizer:
        step_count = trainable.step_count
        optimizer = trainable.optimizer.sharded_state_dict(state, is_loading=True, metadata=_metadata(trainable))
        # Megatron has replaced the state's containers and shares one step counter among all parameters.
        trainable.adopt_optimizer_state()
        trainable.step_count = step_count
        state = {**state, "optimizer": optimizer}
    loaded = _read(state, directory, may_lack_scales=has_scales)
    for name, module in _chunks(trainable).items():
        rest: Any = module.load_state_dict(loaded[name], strict=False)
        absent = {key for key in (*rest.missing_keys, *rest.unexpected_keys) if not key.endswith(_EXTRA_STATE)}
        absent -= frozen_names(module)
        assert not absent, f"{directory} and the model do not agree about {absent}"
    if with_optimizer:
        _load_optimizer(trainable, loaded["optimizer"])
    trainable.after_weights_changed()


def _read(state: dict[str, Any], directory: Path, *, may_lack_scales: bool) -> dict[str, Any]:
    if not may_lack_scales:
        return dist_checkpointing.load(state, str(directory))  # pyright: ignore[reportReturnType]
    strict = StrictHandling.RETURN_UNEXPECTED
    loaded, _, absent = dist_checkpointing.load(state, str(directory), strict=strict)
    others = [key for key in absent if _EXTRA_STATE not in key]
    assert not others, f"{directory} lacks {others}"
    if absent:
        _logger.warning("%s was saved without the scales of fp8.recipe=delayed: they start anew", directory)
    return loaded  # pyright: ignore[reportReturnType]


def _sharded_weights(trainable: TrainableModel, *, with_scales: bool) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for name, module in _chunks(trainable).items():
        tensors = module.sharded_state_dict(metadata=_metadata(trainable))
        left_out = frozen_names(module)  # they come from model.path
        models[name] = {
            key: tensor
            for key, tensor in tensors.items()
            if key not in left_out and (not key.endswith(_EXTRA_STATE) or (with_scales and tensor.data is not None))
        }
    return models


def _scales(trainable: TrainableModel) -> dict[str, bytes]:
    """FP8's scales and histories as they are now, as Megatron writes objects; none without delayed scaling."""
    if not trainable.fp8_buffers():
        return {}
    scales: dict[str, bytes] = {}
    for part in nested_values(_sharded_weights(trainable, with_scales=True)):
        if isinstance(part, ShardedObject) and is_main_replica(part.replica_id):
            data = io.BytesIO()
            torch.save([part.data], data)
            scales[part.unique_key] = data.getvalue()
    return scales


def _metadata(trainable: TrainableModel) -> dict[str, Any]:
    return {**_CONTENT, "dp_cp_group": trainable.topology.replica_group}


def _common_bytes(trainable: TrainableModel, *, with_optimizer: bool) -> bytes:
    """What Megatron keeps in common.pt: without tensors, the same on every rank."""
    common: dict[str, Any] = {"content_metadata": dict(_CONTENT)}
    if with_optimizer:
        kind = {"param_state_sharding_type": _CONTENT["distrib_optim_sharding_type"]}
        parts = [
            {} if one.is_stub_optimizer else {**one.state_dict(), **kind} for one in _chained(_optimizer(trainable))
        ]
        common["optimizer"] = parts[0] if len(parts) == 1 else dict(enumerate(parts))
    data = io.BytesIO()
    torch.save(common, data)
    return data.getvalue()


def _chunks(trainable: TrainableModel) -> dict[str, GPTModel]:
    """Each chunk's name in the state: layers are numbered from 0 in each, so they do not fit into one dictionary."""
    if len(trainable.modules) == 1:
        return {"model": trainable.modules[0]}
    return {f"model{chunk}": module for chunk, module in enumerate(trainable.modules)}


def _optimizer(trainable: TrainableModel) -> ChainedOptimizer:
    assert isinstance(trainable.optimizer, ChainedOptimizer)
    return trainable.optimizer


def _chained(optimizer: ChainedOptimizer) -> list[Any]:
    return optimizer.chained_optimizers


def _load_optimizer(trainable: TrainableModel, loaded: dict[Any, Any]) -> None:
    """Copy moments and main parameters into place; `load_state_dict` would take hyper-parameters from the file too."""
    chained = _chained(_optimizer(trainable))
    parts = [loaded] if len(chained) == 1 else [loaded[index] for index in range(len(chained))]
    for optimizer, part in zip(chained, parts, strict=True):
        optimizer.load_parameter_state_from_fully_reshardable(part["param_state"])
