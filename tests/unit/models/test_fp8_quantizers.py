import math

import pytest
import torch
from torch import Tensor

from seif_nemo.config.fp8 import Fp8Recipe
from seif_nemo.models.fp8_quantizers import (
    E4M3,
    E5M2,
    Fp8Format,
    amax_of,
    round_trip,
    round_trip_blocks,
    round_trip_operand,
    round_trip_tensor,
    scale_of,
)


def noise(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


def error(found: Tensor, x: Tensor) -> float:
    return float((found - x).norm() / x.norm())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda x: round_trip_tensor(x, E4M3), 0.0264),
        (lambda x: round_trip_tensor(x, E5M2), 0.053),
        (lambda x: round_trip_blocks(x, E4M3, rows=1, columns=128), 0.0265),
        (lambda x: round_trip_blocks(x, E4M3, rows=128, columns=128), 0.0265),
        (lambda x: round_trip_blocks(x, E4M3, rows=1, columns=32), 0.0265),
    ],
    ids=["e4m3", "e5m2", "1x128", "128x128", "mxfp8"],
)
def test_relative_error_of_normal_numbers(found, expected):
    x = noise(512, 1024)
    assert error(found(x), x) == pytest.approx(expected, rel=0.02)


def by_hand(value: float, mantissa: int, lowest_exponent: int) -> float:
    """The nearest float with so many bits behind the point, ties to even; below 2^lowest_exponent steps stay equal."""
    exponent = max(math.floor(math.log2(abs(value))), lowest_exponent) if value else lowest_exponent
    step = 2.0 ** (exponent - mantissa)
    return round(value / step) * step


@pytest.mark.parametrize(("format", "mantissa", "lowest"), [(E4M3, 3, -6), (E5M2, 2, -14)], ids=["e4m3", "e5m2"])
def test_values_are_those_of_the_format(format: Fp8Format, mantissa: int, lowest: int):
    x = torch.cat([noise(1, 500)[0] * 2.0**k for k in (-20, -8, 0, 5)])
    expected = torch.tensor([by_hand(value, mantissa, lowest) for value in x.tolist()])
    assert torch.equal(round_trip(x, torch.ones(()), format), expected)


def test_scales():
    amax = torch.tensor([0.0, 1.0, 3.0, 1e-45, math.inf, math.nan])
    assert scale_of(amax, E4M3).tolist() == pytest.approx([1, 448, 448 / 3, torch.finfo(torch.float32).max, 1, 1])
    assert scale_of(amax, E4M3, power_of_2=True).tolist() == [1, 256, 128, 2.0**127, 1, 1]
    assert scale_of(amax, E5M2, margin=2)[1] == 57344 / 4
    exact = torch.tensor([448.0, 448.1, 1.75])
    assert scale_of(exact, E4M3, power_of_2=True).tolist() == [1, 0.5, 256]


@pytest.mark.parametrize("format", [E4M3, E5M2], ids=["e4m3", "e5m2"])
def test_too_large_saturates_and_what_is_not_finite_stays_visible(format: Fp8Format):
    x = torch.tensor([format.largest * 1.2, -1e30, 0.0, -0.0, 1.0])
    found = round_trip(x, torch.ones(()), format)
    assert found.tolist() == [format.largest, -format.largest, 0.0, 0.0, 1.0]
    for bad in (math.inf, -math.inf, math.nan):
        x = torch.tensor([[bad, 1.0, 2.0, 0.3]])
        for found in (round_trip_tensor(x, format), round_trip_blocks(x, format, rows=1, columns=2)):
            assert math.isnan(bad) == bool(found[0, 0].isnan()) and (math.isnan(bad) or found[0, 0] == bad)
            assert found[0, 1:].isfinite().all()


def test_zeros_and_nothing():
    assert torch.equal(round_trip_tensor(torch.zeros(3, 5), E4M3), torch.zeros(3, 5))
    assert torch.equal(round_trip_blocks(torch.zeros(3, 5), E4M3, rows=2, columns=2), torch.zeros(3, 5))
    assert amax_of(torch.zeros(0, 5)) == 0
    for recipe in (Fp8Recipe.tensorwise, Fp8Recipe.blockwise, Fp8Recipe.mxfp8):
        assert round_trip_operand(torch.zeros(0, 5), recipe, E4M3, along=1, is_weight=False).shape == (0, 5)


def test_one_outlier_spoils_a_tensor_but_only_its_own_block():
    x = noise(4, 512)
    x[0, 0] = 1e7  # one scale for all maps the rest below the smallest number
    rest = x[:, 128:]
    whole, blocks = round_trip_tensor(x, E4M3), round_trip_blocks(x, E4M3, rows=1, columns=128)
    assert error(whole[:, 128:], rest) > 0.9
    assert error(blocks[:, 128:], rest) < 0.03
    assert error(blocks[1:], x[1:]) < 0.03


def test_blocks_that_do_not_divide_are_those_of_the_padded_tensor():
    x = noise(5, 200)
    found = round_trip_blocks(x, E4M3, rows=2, columns=128)
    pieces = [
        [round_trip_blocks(x[r : r + 2, c : c + 128], E4M3, rows=2, columns=128) for c in (0, 128)] for r in (0, 2, 4)
    ]
    assert torch.equal(found, torch.cat([torch.cat(row, 1) for row in pieces]))


@pytest.mark.parametrize(
    ("recipe", "is_weight", "along", "shape"),
    [
        (Fp8Recipe.blockwise, False, 1, (1, 128)),
        (Fp8Recipe.blockwise, False, 0, (128, 1)),
        (Fp8Recipe.blockwise, True, 1, (128, 128)),
        (Fp8Recipe.blockwise, True, 0, (128, 128)),
        (Fp8Recipe.mxfp8, False, 1, (1, 32)),
        (Fp8Recipe.mxfp8, True, 0, (32, 1)),
    ],
)
def test_the_block_of_an_operand(recipe: Fp8Recipe, is_weight: bool, along: int, shape: tuple[int, int]):
    """A value that is far larger than its neighbours changes exactly the rounding of its block."""
    x = noise(256, 256)
    plain = round_trip_operand(x, recipe, E4M3, along=along, is_weight=is_weight)
    x[130, 130] = 3e4
    with_outlier = round_trip_operand(x, recipe, E4M3, along=along, is_weight=is_weight)
    rows, columns = (plain != with_outlier).nonzero().T
    assert set(rows.tolist()) <= set(range(130 // shape[0] * shape[0], 130 // shape[0] * shape[0] + shape[0]))
    assert set(columns.tolist()) <= set(range(130 // shape[1] * shape[1], 130 // shape[1] * shape[1] + shape[1]))
    assert len(rows) > 0.5 * shape[0] * shape[1]
