"""Which precision runs where: what a recipe needs of the machine, and what Megatron-core has to be told.

Megatron-core itself takes `fp8=…` without a word where Transformer Engine is absent and then computes in bf16.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.utils import get_te_version

from seif_nemo.config.fp8 import AmaxAlgorithm, Fp8Config, Fp8Recipe
from seif_nemo.config.model import Precision
from seif_nemo.models.fp8_quantizers import E4M3, E5M2, Fp8Format

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters for FP8. `refusals` are Transformer Engine's own reasons against recipes, where it has any."""

    capability: Version | None  # of the GPU; None: a CPU
    cuda: Version | None = None
    transformer_engine: Version | None = None  # None: not installed
    refusals: tuple[tuple[Fp8Recipe, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Needs:
    """Lowest versions (Megatron-core 0.16 `fp8_utils.get_fp8_recipe`; Transformer Engine's `check_recipe_support`)."""

    capability: Version
    cuda: Version
    transformer_engine: Version
    below: Version = (99,)  # compute capability that is too new


_NEEDS = {
    Fp8Recipe.delayed: _Needs((8, 9), (12, 1), (1, 8)),
    Fp8Recipe.tensorwise: _Needs((8, 9), (12, 1), (2, 2)),
    Fp8Recipe.blockwise: _Needs((9, 0), (12, 9), (2, 3)),
    Fp8Recipe.mxfp8: _Needs((10, 0), (12, 8), (2, 1), below=(12, 0)),
}
_NEAREST = {  # what to try instead, nearest first
    Fp8Recipe.delayed: (Fp8Recipe.tensorwise,),
    Fp8Recipe.tensorwise: (Fp8Recipe.delayed,),
    Fp8Recipe.blockwise: (Fp8Recipe.mxfp8, Fp8Recipe.tensorwise, Fp8Recipe.delayed),
    Fp8Recipe.mxfp8: (Fp8Recipe.blockwise, Fp8Recipe.tensorwise, Fp8Recipe.delayed),
}


@dataclass(frozen=True, slots=True, eq=False)
class Fp8Plan:
    """FP8 as a model is to be built with it."""

    config: Fp8Config
    forward: Fp8Format
    backward: Fp8Format
    is_emulated: bool


def plan_fp8(precision: Precision | None, config: Fp8Config) -> Fp8Plan | None:
    """None without FP8."""
    if precision is None or not precision.is_fp8:
        return None
    is_hybrid = precision in (Precision.fp8_hybrid, Precision.fp8_emulated)
    return Fp8Plan(config, E4M3, E5M2 if is_hybrid else E4M3, precision.is_emulated)


def probe_machine(device: torch.device) -> Machine:
    """The machine under `device`. On a CPU nothing is imported."""
    if device.type != "cuda":
        return Machine(capability=None)
    version = get_te_version()
    return Machine(  # never ran: needs a GPU
        capability=torch.cuda.get_device_capability(device),
        cuda=_numbers(torch.version.cuda),
        transformer_engine=None if version is None else version.release,
        refusals=() if version is None else _transformer_engine_refusals(),
    )


def check_machine(precision: Precision | None, config: Fp8Config, machine: Machine) -> None:
    """Raises ValueError, with the nearest choice, where this machine cannot compute what is asked for."""
    if precision is None or not precision.is_fp8 or precision.is_emulated:
        return
    reason = _against(config.recipe, machine)
    if reason is None:
        return
    asked = f"model.precision={precision.name} with fp8.recipe={config.recipe.name}"
    raise ValueError(f"{asked} {reason}: choose {_instead(precision, config, machine)}")


def _against(recipe: Fp8Recipe, machine: Machine) -> str | None:
    needs = _NEEDS[recipe]
    if machine.capability is None:
        return "needs a GPU, and this run is on a CPU"
    if machine.capability < needs.capability:
        return f"needs compute capability {_text(needs.capability)}, and this GPU has {_text(machine.capability)}"
    if machine.capability >= needs.below:
        return (
            f"needs compute capability below {_text(needs.below)} (Transformer Engine has no kernels for it yet), and "
            f"this GPU has {_text(machine.capability)}"
        )
    if machine.transformer_engine is None:
        return "needs Transformer Engine, which is not installed"
    if machine.transformer_engine < needs.transformer_engine:
        return (
            f"needs Transformer Engine {_text(needs.transformer_engine)}, and {_text(machine.transformer_engine)} is "
            "installed"
        )
    if machine.cuda is None or machine.cuda < needs.cuda:
        found = "none" if machine.cuda is None else _text(machine.cuda)
        return f"needs CUDA {_text(needs.cuda)}, and torch was built with {found}"
    return next(
        (f"is refused by Transformer Engine ({text})" for name, text in machine.refusals if name is recipe), None
    )


def _instead(precision: Precision, config: Fp8Config, machine: Machine) -> str:
    if machine.capability is None:
        return f"model.precision={'fp8_emulated' if precision is Precision.fp8_hybrid else 'fp8_emulated_e4m3'}"
    for recipe in _NEAREST[config.recipe]:
        if _against(recipe, machine) is None:
            return f"fp8.recipe={recipe.name}"
    return "model.precision=bf16"


def transformer_options(plan: Fp8Plan | None) -> dict[str, Any]:
    """Megatron-core's options for FP8 in hardware."""
    if plan is None or plan.is_emulated:
        return {}
    config, layers = plan.config, plan.config.first_last_bf16
    options: dict[str, Any] = {
        "fp8": "e4m3" if plan.backward is E4M3 else "hybrid",
        "fp8_recipe": config.recipe.value,
        "first_last_layers_bf16": layers > 0,
        "num_layers_at_start_in_bf16": layers,
        "num_layers_at_end_in_bf16": layers,
    }
    if config.recipe is Fp8Recipe.delayed:
        options["fp8_margin"] = config.margin
        options["fp8_amax_history_len"] = config.amax_history_length
        options["fp8_amax_compute_algo"] = "max" if config.amax_algorithm is AmaxAlgorithm.max else "most_recent"
    return options


def check_layers(plan: Fp8Plan, num_layers: int, stages: int) -> None:
    """Raises ValueError where no layer is left for FP8, or Megatron-core cannot place those that are not in it."""
    count = plan.config.first_last_bf16
    most = (num_layers - 1) // 2
    if not plan.is_emulated:
        most = min(most, num_layers // stages)
    if count > most:
        raise ValueError(
            f"fp8.first_last_bf16={count} leaves no FP8 layer, or more others than one of {stages} pipeline stages "
            f"has, of num_hidden_layers={num_layers}: choose {most}"
        )


def row_multiple(config: TransformerConfig) -> int:
    """What the tokens of a rank must be a multiple of for FP8 products in hardware (as `get_fp8_align_size`)."""
    if not config.fp8:
        return 1
    return 32 if config.fp8_recipe == Fp8Recipe.mxfp8.value else 16


def _transformer_engine_refusals() -> tuple[tuple[Fp8Recipe, str], ...]:
    is_new = importlib.util.find_spec("transformer_engine.pytorch.quantization") is not None  # never ran
    engine = importlib.import_module(f"transformer_engine.pytorch.{'quantization' if is_new else 'fp8'}")  # never ran
    checks = {
        Fp8Recipe.delayed: "check_fp8_support",
        Fp8Recipe.tensorwise: "check_fp8_support",
        Fp8Recipe.blockwise: "check_fp8_block_scaling_support",
        Fp8Recipe.mxfp8: "check_mxfp8_support",
    }
    refusals: list[tuple[Fp8Recipe, str]] = []
    for recipe, name in checks.items():
        if hasattr(engine, name):  # never ran: versions before a recipe have no check for it
            works, reason = getattr(engine, name)()
            if not works:
                refusals.append((recipe, reason))
    return tuple(refusals)


def _numbers(version: str | None) -> Version | None:
    return None if version is None else tuple(int(part) for part in version.split(".")[:2])


def _text(version: Version) -> str:
    return ".".join(map(str, version))
