"""Construction of the generation engine: on the trained model itself, or on one of its own in another layout."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from seif_nemo.components.refit_engine import RefitEngine
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.config.root import Config
from seif_nemo.evolution.adapters import prepare_generation
from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import build_gpt, with_layer_counts
from seif_nemo.models.precision import plan_fp8
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.second_layout import add_layout
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.refit import Refit
from seif_nemo.weights.role_digest import FrozenBase


def build_engine(
    config: Config,
    trainable: TrainableModel,
    bank: RoleBank,
    tokenizer: Tokenizer,
    architecture: Architecture,
    topology: Topology,
    base: FrozenBase | None,
) -> MegatronEngine | RefitEngine:
    """`base` is what residents are adapters on, if they are.

    Collective. Raises ValueError for a generation layout that does not fit the ranks or the model.
    """

    def engine(modules: list[Any], its_topology: Topology, weight_version: Callable[[], str]) -> MegatronEngine:
        return MegatronEngine(
            modules,
            its_topology,
            tokenizer,
            max_batch_rows=config.generation.max_batch_rows,
            max_sequence_length=config.model.max_sequence_length,
            weight_version=weight_version,
        )

    wanted = generation_layout(config, architecture)
    if wanted is None:
        return engine(trainable.modules, topology, lambda: bank.version)
    try:
        layout = add_layout(wanted, topology)
        layout = replace(layout, topology=with_layer_counts(architecture, layout.topology))
        with layout.in_place():
            modules = build_gpt(
                architecture,
                layout.topology,
                dtype=trainable.config.params_dtype,
                max_sequence_length=config.model.max_sequence_length,
                fp8=plan_fp8(config.model.precision, config.fp8),
            )
            lora = prepare_generation(modules, architecture, layout.topology, config, base)
    except ValueError as error:
        keys = ", ".join(f"generation.{key}={getattr(wanted, key)}" for key in ("tensor", "pipeline", "expert"))
        raise ValueError(f"generation layout ({keys}): {error}") from error
    refit = Refit(
        trainable.modules,
        topology,
        modules,
        layout.topology,
        architecture,
        bucket_bytes=int(config.generation.refit_bucket_mib * (1 << 20)),
        lora=lora,
    )
    return RefitEngine(
        lambda version: engine(modules, layout.topology, version),
        layout,
        refit,
        version=lambda: bank.version,
        digest=lambda: bank.digest(bank.resident_name),
    )


def generation_layout(config: Config, architecture: Architecture) -> ParallelConfig | None:
    """The layout that generation has for itself; None where it is the trained model's."""
    train, own = config.parallel, config.generation
    tensor, pipeline, expert = (
        getattr(train, key) if getattr(own, key) is None else getattr(own, key)
        for key in ("tensor", "pipeline", "expert")
    )
    if (tensor, pipeline, expert) == (train.tensor, train.pipeline, train.expert):
        return None
    return ParallelConfig(
        tensor=tensor,
        pipeline=pipeline,
        expert=expert,
        sequence=tensor > 1 and (train.sequence or architecture.experts is not None),
        backend=train.backend,
        collective_timeout_s=train.collective_timeout_s,
    )
