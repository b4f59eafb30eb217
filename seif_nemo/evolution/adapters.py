"""What `roles.mode=lora` adds to a run: the guard of its base model, and what its roles start from."""

from typing import Any

from seif_nemo.config.roles import LoraConfig, RolesConfig, RolesMode
from seif_nemo.config.root import Config
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.lora import add_adapters
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.peft import load_adapter
from seif_nemo.weights.role_digest import FrozenBase, RoleSums


def lora_of(roles: RolesConfig) -> LoraConfig | None:
    """The adapters' settings; None where each role has all weights."""
    return roles.lora if roles.mode is RolesMode.lora else None


def start_adapters(
    trainable: TrainableModel, arch: Architecture, topology: Topology, lora: LoraConfig | None, sums: RoleSums
) -> FrozenBase | None:
    """The base model under guard, now that it is loaded, and the adapters that all roles start from. Collective.

    Raises ValueError for an adapter that does not fit the model or `roles.lora`.
    """
    if lora is None:
        return None
    base = FrozenBase(trainable.modules, sums)
    if lora.adapter is not None:
        load_adapter(trainable.modules, arch, topology, lora.adapter, lora, base_digest=base.digest)
        trainable.after_weights_changed()
    return base


def prepare_generation(
    modules: list[Any], arch: Architecture, topology: Topology, config: Config, base: FrozenBase | None
) -> LoraConfig | None:
    """Give a model that generates beside the trained one the base model and room for adapters, which then come alone.

    Nothing, and None, where roles have all weights. Collective.
    """
    lora = lora_of(config.roles)
    if lora is None:
        return None
    assert base is not None
    add_adapters(modules, arch, topology, lora, seed=config.run.seed)
    load_hf_weights(modules, arch, topology, config.model.path)
    found = FrozenBase(modules, RoleSums(modules, arch, topology, lora)).digest
    assert found == base.digest, f"the base model is {base.digest} where it learns and {found} where it generates"
    return lora
