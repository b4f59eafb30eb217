"""Sums against plain integer arithmetic, over cuts of every kind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seif_nemo.parallel import tensor_sums as module
from seif_nemo.parallel.tensor_sums import flat_sums, row_weights, shard_sums, sums_digest, tensor_sums

DTYPES = [torch.float32, torch.bfloat16, torch.float8_e4m3fn]
MASK = (1 << 64) - 1


def _random(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    size = torch.empty((), dtype=dtype).element_size()
    return torch.randint(0, 256, (rows, columns * size), dtype=torch.uint8, generator=generator).view(dtype)


def _plain(name: str, tensor: Tensor) -> list[int]:
    """The formula of the module with Python's integers, of a tensor whose rows are whole words."""
    words = tensor.view(torch.int64).tolist()
    factors = module._word_weights(0, len(words[0])).tolist()
    weights = row_weights(name, torch.arange(len(words))).tolist()
    inner = [sum((word & MASK) * factor for word, factor in zip(row, factors, strict=True)) for row in words]
    return [sum(u * value for u, value in zip(lane, inner, strict=True)) & MASK for lane in weights]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sums_are_those_of_the_formula(dtype: torch.dtype) -> None:
    tensor = _random(5, 24, dtype)
    assert [value & MASK for value in tensor_sums("a", tensor).tolist()] == _plain("a", tensor)


@settings(max_examples=80, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 7),
    columns=st.integers(1, 40),
    row_cut=st.integers(0, 7),
    column_cut=st.integers(0, 40),
)
def test_however_it_is_cut_the_sums_add_up(
    dtype: torch.dtype, rows: int, columns: int, row_cut: int, column_cut: int
) -> None:
    tensor = _random(rows, columns, dtype)
    row_cut, column_cut = min(row_cut, rows), min(column_cut, columns)
    total = torch.zeros(2, dtype=torch.int64)
    for row_part in (slice(0, row_cut), slice(row_cut, rows)):
        for column_part in (slice(0, column_cut), slice(column_cut, columns)):
            shard = tensor[row_part, column_part].contiguous()
            if shard.numel():
                weights = row_weights("a", torch.arange(rows)[row_part])
                total += shard_sums(shard, weights, column_part.start).sum(dim=1)
    assert torch.equal(total, tensor_sums("a", tensor))


def test_a_shard_in_the_middle_of_a_word_of_a_buffer_counts_as_elsewhere() -> None:
    buffer = _random(1, 100, torch.bfloat16).flatten()
    for start in range(5):
        view = buffer[start : start + 48].view(3, 16)
        assert torch.equal(tensor_sums("a", view), tensor_sums("a", view.clone()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_single_bit_shows(dtype: torch.dtype) -> None:
    tensor = _random(2, 9, dtype)
    before = tensor_sums("a", tensor)
    raw = tensor.view(torch.uint8)
    for row in range(raw.shape[0]):
        for column in range(raw.shape[1]):
            for bit in range(8):
                raw[row, column] ^= 1 << bit
                assert (tensor_sums("a", tensor) != before).all()
                raw[row, column] ^= 1 << bit


def test_exchanged_rows_columns_and_names_show() -> None:
    tensor = _random(4, 16, torch.bfloat16)
    sums = {
        tuple(tensor_sums("a", tensor).tolist()),
        tuple(tensor_sums("b", tensor).tolist()),
        tuple(tensor_sums("a", tensor[[1, 0, 2, 3]]).tolist()),
        tuple(tensor_sums("a", tensor[:, [4, 5, 6, 7, 0, 1, 2, 3, *range(8, 16)]].contiguous()).tolist()),
        tuple(tensor_sums("a", tensor[:, [1, 0, *range(2, 16)]].contiguous()).tolist()),
    }
    assert len(sums) == 5


def test_zeros_add_nothing() -> None:
    tensor = _random(3, 8, torch.float32)
    padded = torch.cat([tensor, torch.zeros(2, 8)])
    assert torch.equal(tensor_sums("a", tensor), tensor_sums("a", padded))


def test_the_way_of_devices_without_integer_products_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = _random(7, 24, torch.bfloat16)
    expected = tensor_sums("a", tensor)
    monkeypatch.setattr(module, "_CHUNK_WORDS", 12)
    monkeypatch.setattr(torch, "mv", module._times_in_chunks)
    assert torch.equal(tensor_sums("a", tensor), expected)


def test_flat_buffers_of_any_length() -> None:
    for numel in (0, 1, 3, (1 << 14) - 1, 1 << 14, (1 << 15) + 5):
        buffer = torch.randn(numel)
        before = flat_sums([torch.ones(2), buffer])
        assert torch.equal(flat_sums([torch.ones(2), buffer.clone()]), before)
        for place in {0, numel - 1} if numel else ():
            changed = buffer.clone()
            changed[place] += 1
            assert not torch.equal(flat_sums([torch.ones(2), changed]), before)
            assert not torch.equal(flat_sums([buffer, torch.ones(2)]), before)


def test_the_digest_knows_names_and_dtype_but_no_order() -> None:
    sums = torch.tensor([[1, 2], [3, 4], [0, 0]])
    digest = sums_digest(["a", "b", "zero"], sums, torch.float32)
    assert sums_digest(["b", "a"], sums[[1, 0]], torch.float32) == digest
    assert sums_digest(["b", "a"], sums[:2], torch.float32) != digest
    assert sums_digest(["a", "b"], sums[:2], torch.bfloat16) != digest


def test_what_is_not_contiguous_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 2\) is not contiguous"):
        tensor_sums("a", torch.zeros(2, 3).t())
