"""Random PEFT adapters for tiny models, written as PEFT writes them, and what they compute in plain torch."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from seif_nemo.config.roles import LoraConfig, Projection


def make_adapter(path: Path, base: Path, lora: LoraConfig, *, seed: int = 0) -> Path:
    """An adapter whose A and B are random, so that every half of every projection matters; returns `path`."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in linears(AutoModelForCausalLM.from_pretrained(base), lora.targets).items():
        key = f"base_model.model.{name}"
        sizes = {"A": (lora.rank, module.in_features), "B": (module.out_features, lora.rank)}
        for half, size in sizes.items():
            tensors[f"{key}.lora_{half}.weight"] = 0.2 * torch.randn(size, generator=generator)
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha, "bias": "none"}
    config["target_modules"] = [target.value for target in lora.targets]
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def linears(model: PreTrainedModel, targets: Sequence[Projection]) -> dict[str, torch.nn.Linear]:
    names = tuple(target.value for target in targets)
    modules = {name: module for name, module in model.named_modules() if name.endswith(names)}
    return {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}


def with_adapter(base: Path, adapter: Path, lora: LoraConfig) -> PreTrainedModel:
    """transformers' model, each linear layer of which adds alpha / rank · B (A x)."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, module in linears(model, lora.targets).items():
        a, b = (tensors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")

        def add(_module: object, args: tuple[torch.Tensor], output: torch.Tensor, a=a, b=b) -> torch.Tensor:
            return output + lora.alpha / lora.rank * (args[0] @ a.T @ b.T)

        module.register_forward_hook(add)
    return model
