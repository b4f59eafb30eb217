import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seif_nemo.config.fp8 import AmaxAlgorithm, Fp8Recipe
from seif_nemo.models.fp8_emulation import DelayedScales, Fp8Linear, update_after_forward
from seif_nemo.models.fp8_quantizers import E4M3, E5M2, round_trip, round_trip_blocks, round_trip_tensor, scale_of


class Alone:
    """A process group of one rank."""

    def size(self) -> int:
        return 1


def delayed(algorithm: AmaxAlgorithm = AmaxAlgorithm.max, *, history: int = 3, margin: int = 0) -> DelayedScales:
    group: Any = Alone()
    return DelayedScales(
        1,
        history_length=history,
        algorithm=algorithm,
        margin=margin,
        forward=E4M3,
        backward=E5M2,
        group=group,
        device=torch.device("cpu"),
    )


def tensors(decades: float = 1.0) -> Iterator[Tensor]:
    """Input, weight and gradient. With many decades parts of each block underflow, and its place shows."""
    make = torch.Generator().manual_seed(8)
    for shape in ((40, 6, 130), (70, 130), (40, 6, 70)):  # blocks divide none of them
        yield torch.randn(shape, generator=make) * 10.0 ** (decades * torch.randn(shape, generator=make))


def along(x: Tensor, recipe: Fp8Recipe, format: Any, dim: int) -> Tensor:
    if recipe is Fp8Recipe.tensorwise:
        return round_trip_tensor(x, format)
    size = 32 if recipe is Fp8Recipe.mxfp8 else 128
    return round_trip_blocks(x, format, rows=size if dim == 0 else 1, columns=size if dim == 1 else 1)


def weight_along(weight: Tensor, recipe: Fp8Recipe, dim: int) -> Tensor:
    if recipe is Fp8Recipe.blockwise:
        return round_trip_blocks(weight, E4M3, rows=128, columns=128)
    return along(weight, recipe, E4M3, dim)


@pytest.mark.parametrize("recipe", [Fp8Recipe.tensorwise, Fp8Recipe.blockwise, Fp8Recipe.mxfp8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_rounded_operands(recipe: Fp8Recipe, dtype: torch.dtype):
    x, weight, gradient = (tensor.to(dtype) for tensor in tensors(4.0))
    x.requires_grad_()
    weight.requires_grad_()
    linear = Fp8Linear(recipe, E4M3, E5M2, 0)
    out = linear(x, weight)
    out.backward(gradient)
    rows, gradient_rows = x.detach().view(240, 130), gradient.view(240, 70)
    expected = along(rows, recipe, E4M3, 1) @ weight_along(weight.detach(), recipe, 1).T
    dx = along(gradient_rows, recipe, E5M2, 1) @ weight_along(weight.detach(), recipe, 0)
    dw = along(gradient_rows, recipe, E5M2, 0).T @ along(rows, recipe, E4M3, 0)
    assert x.grad is not None and weight.grad is not None
    assert out.dtype == x.grad.dtype == weight.grad.dtype == dtype
    assert torch.equal(out.view(240, 70), expected.to(dtype))
    assert torch.equal(x.grad.view(240, 130), dx.to(dtype))
    assert torch.equal(weight.grad, dw.to(dtype))
    with torch.no_grad():
        assert torch.equal(linear(x, weight), out)


def test_blocks_make_a_tokens_output_independent_of_the_others():
    x, weight, _ = tensors()
    x[0] *= 1e4
    for recipe, is_independent in ((Fp8Recipe.tensorwise, False), (Fp8Recipe.blockwise, True), (Fp8Recipe.mxfp8, True)):
        linear = Fp8Linear(recipe, E4M3, E5M2, 0)
        with torch.no_grad():
            assert torch.equal(linear(x, weight)[1:], linear(x[1:], weight)) == is_independent


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_what_needs_no_gradient_gets_none(frozen: str):
    x, weight, gradient = tensors()
    (weight if frozen == "x" else x).requires_grad_()
    Fp8Linear(Fp8Recipe.mxfp8, E4M3, E5M2, 0)(x, weight).backward(gradient)
    assert (x.grad is None) == (frozen == "x") and (weight.grad is None) == (frozen == "weight")


def test_a_gradient_that_is_not_finite_is_seen():
    x, weight, gradient = tensors()
    weight.requires_grad_()
    gradient[3, 2, 7] = math.inf
    Fp8Linear(Fp8Recipe.blockwise, E4M3, E5M2, 0)(x, weight).backward(gradient)
    assert weight.grad is not None and not weight.grad[7].isfinite().any() and weight.grad[6].isfinite().all()


def step(scales: DelayedScales, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """One training pass of a block of one layer."""

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Fp8Linear(Fp8Recipe.delayed, E4M3, E5M2, 0, scales)(x, weight)

    block = Block()
    update_after_forward(scales, block)
    out = block(x)
    if torch.is_grad_enabled():
        out.backward(gradient)
    return out.detach()


@pytest.mark.parametrize("algorithm", AmaxAlgorithm)
def test_delayed_scales_follow_the_history(algorithm: AmaxAlgorithm):
    scales = delayed(algorithm, margin=1)
    x, weight, gradient = tensors()
    weight.requires_grad_()
    x_max, w_max, g_max = (float(t.detach().abs().max()) for t in (x, weight, gradient))
    seen: list[float] = []
    for factor in (1.0, 4.0, 0.5, 0.25, 0.25):
        before = seen[-3:] if algorithm is AmaxAlgorithm.max else seen[-1:]
        amax = torch.tensor(max(before, default=factor) * x_max)
        out = step(scales, x * factor, weight, gradient * factor)
        rounded = round_trip(x * factor, scale_of(amax, E4M3, margin=1), E4M3)
        w_scale = scale_of(torch.tensor(w_max), E4M3, margin=1)
        expected = rounded.view(240, 130) @ round_trip(weight.detach(), w_scale, E4M3).T
        torch.testing.assert_close(out.view(240, 70), expected, rtol=1e-6, atol=1e-3)
        seen.append(factor)
        newest = seen[-1:-4:-1]
        torch.testing.assert_close(scales.buffer[: len(newest), 0], torch.tensor(newest) * x_max)
        chosen = max(newest) if algorithm is AmaxAlgorithm.max else factor
        largest = torch.tensor([chosen * x_max, w_max, chosen * g_max])
        torch.testing.assert_close(scales.buffer[-1], torch.tensor([448.0, 448.0, 57344.0]) / largest / 2)


def test_passes_without_gradients_and_infinities_leave_no_trace():
    scales = delayed()
    x, weight, gradient = tensors()
    weight.requires_grad_()
    step(scales, x, weight, gradient)
    before = scales.buffer.clone()
    with torch.no_grad():
        step(scales, x * 100, weight, gradient)
    assert torch.equal(scales.buffer, before)
    x[0, 0, 0] = math.inf
    gradient[0, 0, 0] = math.nan
    step(scales, x, weight, gradient)
    assert torch.equal(scales.buffer[-1], before[-1]) and scales.buffer[0, 0] == 0 and scales.buffer[1, 0] > 0


def test_a_stale_scale_saturates():
    scales = delayed()
    x, weight, gradient = tensors()
    weight.requires_grad_()
    step(scales, x, weight, gradient)
    with torch.no_grad():
        clipped = Fp8Linear(Fp8Recipe.delayed, E4M3, E5M2, 0, scales)(x * 1e6, weight)
        assert clipped.isfinite().all()
        assert clipped.abs().max() <= x.abs().max() * weight.abs().sum(dim=1).max() * 1.1


def test_state_of_a_layer():
    scales = delayed()
    x, weight, gradient = tensors()
    weight.requires_grad_()
    linear = Fp8Linear(Fp8Recipe.delayed, E4M3, E5M2, 0, scales)
    step(scales, x, weight, gradient)
    state, before = linear.get_state(), scales.buffer.clone()
    linear.set_state(None)
    assert not scales.buffer.any()
    linear.set_state(state)
    assert torch.equal(scales.buffer, before)
    longer = Fp8Linear(Fp8Recipe.delayed, E4M3, E5M2, 0, delayed(history=8))
    with pytest.raises(ValueError, match=r"^fp8\.amax_history_length=8 but the checkpoint has 3: choose that"):
        longer.set_state(state)
    assert Fp8Linear(Fp8Recipe.mxfp8, E4M3, E5M2, 0).get_state() is None
