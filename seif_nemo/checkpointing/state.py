"""A trainable model's state in Megatron's distributed checkpoint format: weights, and Adam's state if asked for."""

import gc
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.base import SaveShardedStrategy
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.models.gpt import GPTModel

from seif_nemo.checkpointing.strategy import InProcessSaveStrategy
from seif_nemo.models.lora import frozen_names
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology

# What Transformer Engine's modules keep beside their weights (FP8 scales): pure-torch modules have none of it, and a
# checkpoint must load with either.
_EXTRA_STATE = "_extra_state"
_SHARDING = "fully_reshardable"  # any layout can load it


class StateWriter:
    """Writes a model's state. One object serves all saves of a run: how the writing is shared out is found once."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._strategies: dict[bool, SaveShardedStrategy] = {}

    def save(self, trainable: TrainableModel, directory: Path, *, with_optimizer: bool) -> None:
        """Write this rank's part into an empty directory. Collective.

        Replicas share the writing. Megatron checks at the first save that each part of each tensor is written once.
        """
        if not self._strategies:
            # Megatron collects garbage each time it makes the optimizer's state: 0.25 s over what imports alone made.
            gc.collect()
            gc.freeze()
        is_first = with_optimizer not in self._strategies
        if is_first:
            self._strategies[with_optimizer] = self._strategy()
        dist_checkpointing.save(
            _sharded_state(trainable, with_optimizer=with_optimizer, is_loading=False),
            str(directory),
            sharded_strategy=self._strategies[with_optimizer],
            validate_access_integrity=is_first,
            content_metadata={"distrib_optim_sharding_type": _SHARDING, "chained_optim_avoid_prefix": True},
        )

    def _strategy(self) -> SaveShardedStrategy:
        strategy = InProcessSaveStrategy()
        if self._topology.replicas == 1:
            return strategy
        return FullyParallelSaveStrategyWrapper(strategy, self._topology.replica_group, do_cache_distribution=True)


def load_state(trainable: TrainableModel, directory: Path, *, with_optimizer: bool) -> None:
    """Read weights and, if asked for, moments and main parameters, in place. Collective.

    Step count and learning rate are not touched: Megatron's format has them in a common file that torch's Adam and
    Transformer Engine's write differently, so the manifest keeps them.
    """
    state = _sharded_state(trainable, with_optimizer=with_optimizer, is_loading=True)
    loaded: Any = dist_checkpointing.load(state, str(directory))
    for name, module in _chunks(trainable).items():
        rest: Any = module.load_state_dict(loaded[name], strict=False)
        absent = {key for key in (*rest.missing_keys, *rest.unexpected_keys) if not key.endswith(_EXTRA_STATE)}
        absent -= frozen_names(module)
        assert not absent, f"{directory} and the model do not agree about {absent}"
    if with_optimizer:
        _load_optimizer(trainable, loaded["optimizer"])
    trainable.after_weights_changed()


def _sharded_state(trainable: TrainableModel, *, with_optimizer: bool, is_loading: bool) -> dict[str, Any]:
    metadata = {
        "distrib_optim_sharding_type": _SHARDING,
        "dp_cp_group": trainable.topology.replica_group,
        "chained_optim_avoid_prefix": True,
        # On GPUs: gather each data-parallel group's moments over gloo on one rank's host, not on every GPU. Never ran.
        "distrib_optim_fully_reshardable_mem_efficient": trainable.topology.device.type == "cuda",
    }
    models: dict[str, Any] = {}
    for name, module in _chunks(trainable).items():
        tensors = module.sharded_state_dict(metadata=metadata)
        left_out = frozen_names(module)  # they come from model.path
        models[name] = {
            key: tensor for key, tensor in tensors.items() if not (key.endswith(_EXTRA_STATE) or key in left_out)
        }
    if not with_optimizer:
        return models
    step_count = trainable.step_count
    optimizer = trainable.optimizer.sharded_state_dict(models, is_loading=is_loading, metadata=metadata)
    if is_loading:  # Megatron has replaced the state's containers and shares one step counter among all parameters
        trainable.adopt_optimizer_state()
        trainable.step_count = step_count
    return {**models, "optimizer": optimizer}


def _chunks(trainable: TrainableModel) -> dict[str, GPTModel]:
    """Each chunk's name in the state: layers are numbered from 0 in each, so they do not fit into one dictionary."""
    if len(trainable.modules) == 1:
        return {"model": trainable.modules[0]}
    return {f"model{chunk}": module for chunk, module in enumerate(trainable.modules)}


def _load_optimizer(trainable: TrainableModel, loaded: dict[Any, Any]) -> None:
    """Copy moments and main parameters into place; `load_state_dict` would take hyper-parameters from the file too."""
    chained: list[Any] = trainable.optimizer.chained_optimizers  # pyright: ignore[reportAttributeAccessIssue]
    parts = [loaded] if len(chained) == 1 else [loaded[index] for index in range(len(chained))]
    for optimizer, part in zip(chained, parts, strict=True):
        optimizer.load_parameter_state_from_fully_reshardable(part["param_state"])
