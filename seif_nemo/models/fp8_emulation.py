"""Linear layers with FP8's rounding and without FP8 hardware: operands go through FP8, products are summed in fp32.

Of y = x Wᵀ the forward pass rounds x and W, the backward pass rounds the gradient of y; the gradient of x is computed
from the rounded gradient and W, that of W from the rounded gradient and x. Parameters stay what they are.

Delayed scaling follows Transformer Engine's `DelayedScaling`, with three differences: a tensor that was never seen in
training is scaled by its own largest value (there by 1); passes without gradients leave no trace in the history (there
they do, once training goes on); neither do infinities and NaN.

Shapes: N tokens, I and O inputs and outputs of this rank's part of a layer, T tensors, H passes of history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from seif_nemo.config.fp8 import AmaxAlgorithm, Fp8Recipe
from seif_nemo.models.fp8_quantizers import Fp8Format, amax_of, round_trip, round_trip_operand, scale_of

_TENSORS = 3  # of a layer: input, weight, gradient


class DelayedScales:
    """Histories of largest values, and the scales that follow from them, of the layers of one model chunk.

    `buffer` [H + 1, T] fp32 holds it all: the history, newest pass first, and last the scales (0: not known yet). A
    layer's tensors are neighbours. Largest values are taken over `group`: all ranks with parts of the same tensors.
    """

    def __init__(
        self,
        num_layers: int,
        *,
        history_length: int,
        algorithm: AmaxAlgorithm,
        margin: int,
        forward: Fp8Format,
        backward: Fp8Format,
        group: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.buffer = torch.zeros(history_length + 1, _TENSORS * num_layers, device=device)
        self._seen_T = torch.zeros(_TENSORS * num_layers, device=device)  # since the last update
        self._algorithm, self._margin, self._group = algorithm, margin, group
        self._formats = (forward, backward)

    def part(self, layer: int) -> Tensor:
        """The columns of `buffer` that are a layer's, [H + 1, 3]."""
        return self.buffer[:, _TENSORS * layer : _TENSORS * (layer + 1)]

    def scale(self, tensor: int, x: Tensor, format: Fp8Format, *, training: bool) -> Tensor:
        """The scale to use for `x`; in training its largest value is noted for later passes."""
        amax = amax_of(x)
        if training:
            seen = torch.where(amax.isfinite(), amax, 0.0)
            self._seen_T[tensor] = torch.maximum(self._seen_T[tensor], seen)
        known = self.buffer[-1, tensor]
        return torch.where(known > 0, known, scale_of(amax, format, margin=self._margin))

    @torch.no_grad()
    def update(self, *, is_backward: bool) -> None:
        """After a training pass: its largest values enter the history and new scales follow. Collective."""
        columns = (
            torch.arange(_TENSORS, device=self.buffer.device).eq(_TENSORS - 1).repeat(len(self._seen_T) // _TENSORS)
        )
        columns = columns if is_backward else ~columns
        newest_T = self._seen_T[columns]
        if self._group.size() > 1:
            dist.all_reduce(newest_T, dist.ReduceOp.MAX, group=self._group)
        history_HT = self.buffer[:-1, columns].roll(1, dims=0)
        history_HT[0] = newest_T
        amax_T = history_HT.amax(dim=0) if self._algorithm is AmaxAlgorithm.max else newest_T
        scale_T = scale_of(amax_T, self._formats[is_backward], margin=self._margin)
        self.buffer[:-1, columns] = history_HT
        self.buffer[-1, columns] = torch.where(amax_T > 0, scale_T, self.buffer[-1, columns])
        self._seen_T[columns] = 0.0

    def reset(self, layer: int) -> None:
        self.part(layer).zero_()


@dataclass(frozen=True, slots=True, eq=False)
class Fp8Linear:
    """The product of one linear layer. `delayed` and the layer's place in it under that recipe only."""

    recipe: Fp8Recipe
    forward: Fp8Format
    backward: Fp8Format
    layer: int
    delayed: DelayedScales | None = None

    def __call__(self, x: Tensor, weight_OI: Tensor) -> Tensor:
        """x Wᵀ in the dtype of x, [..., O]."""
        x_NI = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            out_NO: Any = _Product.apply(x_NI, weight_OI, self)
        else:
            out_NO = self.operand(x_NI, 0, training=False) @ self.operand(weight_OI, 1, training=False).T
        return out_NO.to(x.dtype).view(*x.shape[:-1], -1)

    def operand(self, x: Tensor, tensor: int, *, along: int = 1, training: bool = True) -> Tensor:
        """`x`, which is the input (0), the weight (1) or the gradient (2), through FP8 and back. fp32."""
        format = self.backward if tensor == _TENSORS - 1 else self.forward
        if self.delayed is None:
            return round_trip_operand(x, self.recipe, format, along=along, is_weight=tensor == 1)
        scale = self.delayed.scale(_TENSORS * self.layer + tensor, x, format, training=training)
        return round_trip(x, scale, format)

    @property
    def has_one_rounding(self) -> bool:
        """Whether a tensor is the same along either dimension."""
        return self.recipe in (Fp8Recipe.tensorwise, Fp8Recipe.delayed)

    def get_state(self) -> Tensor | None:
        """What a checkpoint needs of it, [H + 1, 3]; None under recipes without history."""
        return None if self.delayed is None else self.delayed.part(self.layer).cpu().clone()

    def set_state(self, state: Tensor | None) -> None:
        """Take over what `get_state` gave; None starts without history. Raises ValueError for another length."""
        if self.delayed is None:
            return
        if state is None:
            self.delayed.reset(self.layer)
            return
        part = self.delayed.part(self.layer)
        if state.shape != part.shape:
            raise ValueError(
                f"fp8.amax_history_length={len(part) - 1} but the checkpoint has {len(state) - 1}: choose that"
            )
        part.copy_(state)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, linear: Fp8Linear) -> Tensor:
        rounded_NI, rounded_OI = linear.operand(x_NI, 0), linear.operand(weight_OI, 1)
        needs_x, needs_weight, _ = ctx.needs_input_grad
        kept_NI = kept_OI = None
        if needs_weight:
            kept_NI = rounded_NI if linear.has_one_rounding else linear.operand(x_NI, 0, along=0)
        if needs_x:
            square = linear.has_one_rounding or linear.recipe is Fp8Recipe.blockwise
            kept_OI = rounded_OI if square else linear.operand(weight_OI, 1, along=0)
        ctx.save_for_backward(kept_NI, kept_OI)
        ctx.linear, ctx.dtypes = linear, (x_NI.dtype, weight_OI.dtype)
        return rounded_NI @ rounded_OI.T

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient_NO,) = gradients
        linear: Fp8Linear = ctx.linear
        kept_NI, kept_OI = ctx.saved_tensors
        x_gradient = weight_gradient = rounded_NO = None
        if kept_OI is not None or linear.has_one_rounding:
            rounded_NO = linear.operand(gradient_NO, 2)
        if kept_OI is not None:
            assert rounded_NO is not None
            x_gradient = (rounded_NO @ kept_OI).to(ctx.dtypes[0])
        if kept_NI is not None:
            by_token_NO = rounded_NO if linear.has_one_rounding else linear.operand(gradient_NO, 2, along=0)
            assert by_token_NO is not None
            weight_gradient = (by_token_NO.T @ kept_NI).to(ctx.dtypes[1])
        if linear.delayed is not None and linear.layer == 0:  # the last one that the backward pass comes to
            linear.delayed.update(is_backward=True)
        return x_gradient, weight_gradient, None


def update_after_forward(delayed: DelayedScales, block: torch.nn.Module) -> None:
    """Let each training pass through `block`, which holds all the layers of `delayed`, update it at its end."""

    def update(_block: torch.nn.Module, _args: Sequence[object], _output: object) -> None:
        if torch.is_grad_enabled():
            delayed.update(is_backward=False)

    block.register_forward_hook(update)
