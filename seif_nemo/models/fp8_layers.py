"""FP8 in a built model chunk: put in by emulation, or watched where Transformer Engine is to do it."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fp8_utils import get_fp8_context
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.config.fp8 import Fp8Recipe
from seif_nemo.models.cpu_modules import ColumnLinear, RowLinear
from seif_nemo.models.fp8_emulation import DelayedScales, Fp8Linear, update_after_forward
from seif_nemo.models.precision import Fp8Plan


def emulate_fp8(model: GPTModel, plan: Fp8Plan, device: torch.device) -> None:
    """Let the linear layers of the transformer blocks multiply in emulated FP8.

    As with Transformer Engine, embedding, norms, the core of attention, router and output layer stay as they are, and
    so do the first and last `fp8.first_last_bf16` layers of the whole model.
    """
    modules = _linears(model, plan.config.first_last_bf16)
    delayed = None
    if plan.config.recipe is Fp8Recipe.delayed and modules:
        group: Any = parallel_state.get_amax_reduction_group(with_context_parallel=True)
        delayed = DelayedScales(
            len(modules),
            history_length=plan.config.amax_history_length,
            algorithm=plan.config.amax_algorithm,
            margin=plan.config.margin,
            forward=plan.forward,
            backward=plan.backward,
            group=group,
            device=device,
        )
        update_after_forward(delayed, model.decoder)
    for place, module in enumerate(modules):
        module.fp8 = Fp8Linear(plan.config.recipe, plan.forward, plan.backward, place, delayed)


def fp8_buffers(model: GPTModel) -> list[Tensor]:
    """What delayed scaling keeps of this chunk: it belongs to the weights. Empty under all other recipes."""
    found: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, ColumnLinear | RowLinear):
            if module.fp8 is not None and module.fp8.delayed is not None:
                buffer = module.fp8.delayed.buffer
                found[id(buffer)] = buffer
        elif _is_engine_linear(module) and _is_delayed(model):
            for tensor in _engine_buffers(module):  # never ran
                found[id(tensor)] = tensor
    return list(found.values())


def require_fp8(model: GPTModel) -> None:
    """Have `assert_pass_in_fp8` called at the end of the chunk's first pass.

    Under delayed scaling the layers get their scales (1) and histories here, so that `fp8_buffers` lists them from the
    start.
    """
    if _is_delayed(model):
        with get_fp8_context(model.config):  # never ran: needs Transformer Engine
            for _, module in _engine_linears(_fp8_layers(model, 0)):
                module.init_fp8_metadata(num_gemms=getattr(module, "num_gemms", 1))

    def check(_block: torch.nn.Module, _args: Sequence[object], _output: object) -> None:
        handle.remove()
        assert_pass_in_fp8(model)

    handle = model.decoder.register_forward_hook(check)


def assert_pass_in_fp8(model: GPTModel) -> None:
    """After a pass of a model that is to compute in FP8 by Transformer Engine: raises RuntimeError if it did not.

    Without FP8, or with emulated FP8, there is nothing to check.
    """
    config = model.config
    if not config.fp8:
        return
    layers = _fp8_layers(model, config.num_layers_at_start_in_bf16 if config.first_last_layers_bf16 else 0)
    if layers:
        assert_in_fp8(_engine_linears(layers))


def assert_in_fp8(modules: Sequence[tuple[str, Any]]) -> None:
    """Raises RuntimeError naming the first of Transformer Engine's (name, module) that was not in FP8, or if none is.

    `fp8` and `fp8_initialized` are set by `TransformerEngineBaseModule.init_fp8_metadata` in each forward pass.
    """
    if not modules:
        raise RuntimeError("FP8 was asked for, but no linear layer of this pipeline stage can compute in it")
    for name, module in modules:
        if not (module.fp8 and module.fp8_initialized):
            raise RuntimeError(f"FP8 was asked for, but {name} computed without it")


def _linears(model: GPTModel, first_last: int) -> list[Any]:
    """The linear layers that compute in FP8, in the order of the forward pass."""
    linears: list[Any] = []
    for layer in _fp8_layers(model, first_last):
        found = [module for module in layer.modules() if isinstance(module, ColumnLinear | RowLinear)]
        assert found, f"layer {layer.layer_number} has no linear layer that can emulate FP8"
        linears += found
    return linears


def _engine_linears(layers: Sequence[Any]) -> list[tuple[str, Any]]:
    return [  # never ran with Transformer Engine
        (f"layer {layer.layer_number}, {name}", module)
        for layer in layers
        for name, module in layer.named_modules()
        if _is_engine_linear(module)
    ]


def _fp8_layers(model: GPTModel, first_last: int) -> list[Any]:
    """Those of this chunk. A chunk may have none."""
    layers: Any = model.decoder.layers
    return [layer for layer in layers if first_last < layer.layer_number <= model.config.num_layers - first_last]


def _is_delayed(model: GPTModel) -> bool:
    return bool(model.config.fp8) and model.config.fp8_recipe == Fp8Recipe.delayed.value


def _is_engine_linear(module: torch.nn.Module) -> bool:
    """Whether it is a linear layer of Transformer Engine's, which calls the weights of several experts weight0, …"""
    return hasattr(module, "fp8_initialized") and (hasattr(module, "weight") or hasattr(module, "weight0"))


def _engine_buffers(module: Any) -> list[Tensor]:
    """Scales and histories, in place."""
    metas = [module.fp8_meta[key] for key in ("scaling_fwd", "scaling_bwd") if key in module.fp8_meta]
    return [tensor for meta in metas for tensor in (meta.scale, meta.amax_history)]
