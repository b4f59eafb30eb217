"""The reference quantiser: what a tensor becomes when it goes through FP8 and back, computed in fp32 on any device.

It follows Transformer Engine (`common/recipe`, and the scale kernels in `common/util`), and differs in one point: an
infinity or a NaN stays what it is, where Transformer Engine's cast makes 448 of an infinity.

Shapes: R rows, C columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seif_nemo.config.fp8 import Fp8Recipe

_BLOCK = 128
_MX_BLOCK = 32
_LARGEST_SCALE = torch.finfo(torch.float32).max
_EXPONENT_BITS = 0x7F800000  # of a float32


@dataclass(frozen=True, slots=True)
class Fp8Format:
    """A float8 type (Micikevicius et al., arXiv 2209.05433) and the largest finite value it holds."""

    dtype: torch.dtype
    largest: float


E4M3 = Fp8Format(torch.float8_e4m3fn, 448.0)
E5M2 = Fp8Format(torch.float8_e5m2, 57344.0)


def amax_of(x: Tensor) -> Tensor:
    """The largest absolute value, fp32 []; 0 of an empty tensor. Infinity or NaN if there is one in `x`."""
    return x.detach().abs().amax().float() if x.numel() else torch.zeros((), device=x.device)


def scale_of(amax: Tensor, format: Fp8Format, *, margin: int = 0, power_of_2: bool = False) -> Tensor:
    """What to multiply by so that `amax` becomes the largest value of the format, over 2^margin. fp32, like `amax`.

    1 where `amax` is 0 or not finite. `power_of_2` rounds down to one, so that nothing saturates.
    """
    scale = (format.largest / amax.float()) / 2**margin
    scale = torch.where((amax > 0) & amax.isfinite(), scale.clamp(max=_LARGEST_SCALE), 1.0)
    if power_of_2:
        scale = (scale.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)
    return scale


def round_trip(x: Tensor, scale: Tensor, format: Fp8Format) -> Tensor:
    """`x`, fp32, after x · scale was rounded to FP8. Beyond the largest value it saturates; inf and NaN stay."""
    x = x.float()
    rounded = (x * scale).clamp(-format.largest, format.largest).to(format.dtype).float() / scale
    return torch.where(x.isfinite(), rounded, x)


def round_trip_tensor(x: Tensor, format: Fp8Format) -> Tensor:
    """With one scale, from the tensor's own largest value."""
    return round_trip(x, scale_of(amax_of(x), format), format)


def round_trip_blocks(x_RC: Tensor, format: Fp8Format, *, rows: int, columns: int) -> Tensor:
    """With a scale, a power of two, for each block of `rows` x `columns`; the last ones may be smaller."""
    num_rows, num_columns = x_RC.shape
    if x_RC.numel() == 0:
        return x_RC.float()
    padded = F.pad(x_RC.float(), (0, -num_columns % columns, 0, -num_rows % rows))
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    amax = blocks.abs().amax(dim=(1, 3), keepdim=True)
    rounded = round_trip(blocks, scale_of(amax, format, power_of_2=True), format)
    return rounded.view(padded.shape)[:num_rows, :num_columns]


def round_trip_operand(x_RC: Tensor, recipe: Fp8Recipe, format: Fp8Format, *, along: int, is_weight: bool) -> Tensor:
    """An operand of a matrix product that sums over dimension `along` of it, under a recipe that needs no history.

    Blocks lie along that dimension, as tensor cores multiply them; so what is summed over tokens is rounded in other
    blocks than what is summed over features. Weights under `blockwise` have square blocks.
    """
    if recipe is Fp8Recipe.tensorwise:
        return round_trip_tensor(x_RC, format)
    if recipe is Fp8Recipe.blockwise and is_weight:
        return round_trip_blocks(x_RC, format, rows=_BLOCK, columns=_BLOCK)
    assert recipe in (Fp8Recipe.blockwise, Fp8Recipe.mxfp8), recipe
    size = _BLOCK if recipe is Fp8Recipe.blockwise else _MX_BLOCK
    rows, columns = (1, size) if along == 1 else (size, 1)
    return round_trip_blocks(x_RC, format, rows=rows, columns=columns)
