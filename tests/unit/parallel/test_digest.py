"""Digests: equal bytes give equal digests, and any change of content, order, shape or dtype another one."""

import hashlib
from pathlib import Path

import pytest
import torch

from seif_nemo.parallel.digest import DIGEST_BYTES, digest_file, digest_folder_sample, digest_tensors, join_digests


def _blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def test_is_the_hash_of_header_and_chunk_hashes() -> None:
    tensor = torch.arange(6, dtype=torch.int16)
    raw = tensor.numpy().tobytes()
    expected = _blake(b"torch.int16(6,);" + _blake(raw[:8]) + _blake(raw[8:])).hex()
    assert digest_tensors([tensor], chunk_bytes=8) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16, torch.uint8, torch.int64])
def test_one_changed_element_changes_it(dtype: torch.dtype) -> None:
    tensor = torch.arange(64).to(dtype)
    before = digest_tensors([tensor])
    assert digest_tensors([tensor.clone()]) == before
    tensor[63] += 1
    assert digest_tensors([tensor]) != before


def test_order_split_shape_and_dtype_matter() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    zeros = torch.zeros(4)
    digests = [
        digest_tensors(tensors)
        for tensors in (
            [a, b],
            [b, a],
            [torch.cat([a, b])],
            [torch.cat([a, b]).view(2, 2)],
            [zeros],
            [zeros.view(torch.int32)],
            [],
        )
    ]
    assert len(set(digests)) == len(digests)


def test_negative_zero_and_nan_bits_count() -> None:
    assert digest_tensors([torch.tensor([0.0])]) != digest_tensors([torch.tensor([-0.0])])
    nan = torch.tensor([float("nan")])
    assert digest_tensors([nan]) == digest_tensors([nan.clone()])


def test_threads_do_not_change_it() -> None:
    tensors = [torch.arange(1000, dtype=torch.float32), torch.arange(7.0), torch.empty(0)]
    small = digest_tensors(tensors, chunk_bytes=64)
    assert [digest_tensors(tensors, chunk_bytes=64) for _ in range(5)] == [small] * 5
    header = b"torch.float32(1000,);torch.float32(7,);torch.float32(0,);"
    raws = [tensor.numpy().tobytes() for tensor in tensors]
    chunks = [raw[start : start + 64] for raw in raws for start in range(0, len(raw), 64)]
    assert small == _blake(header + b"".join(_blake(chunk) for chunk in chunks)).hex()


def test_refuses_a_strided_tensor() -> None:
    with pytest.raises(ValueError, match=r"tensor 1 of shape \(3, 2\) is not contiguous"):
        digest_tensors([torch.zeros(2), torch.zeros(2, 3).t()])


def test_join_depends_on_order() -> None:
    assert join_digests(["aa", "bb"]) == _blake(b"aa\nbb").hex()
    assert join_digests(["bb", "aa"]) != join_digests(["aa", "bb"])


def test_file_digest_is_plain_blake2b(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1000)
    assert digest_file(path) == _blake(b"abc" * 1000).hex()


def test_a_folder_s_sample_sees_names_sizes_and_the_ends_of_large_files(tmp_path: Path) -> None:
    def sample() -> str:
        return digest_folder_sample(tmp_path, whole_bytes=1024, num_blocks=4)

    (tmp_path / "config.json").write_text("{}")
    large = bytearray(i % 251 for i in range(10_000))
    (tmp_path / "model.safetensors").write_bytes(large)
    (tmp_path / "notes.md").write_text("x")
    seen = [sample()]
    (tmp_path / "notes.md").write_text("y")  # no part of the model
    assert sample() == seen[0]
    for index in (0, 3000, 3200, 9999):  # block starts: 0, 3248, 6496, 9744, of 256 bytes each
        changed = bytearray(large)
        changed[index] ^= 1
        (tmp_path / "model.safetensors").write_bytes(changed)
        seen.append(sample())
    assert seen[2] == seen[0] and seen[3] == seen[0]  # between the blocks
    assert len({seen[0], seen[1], seen[4]}) == 3
    (tmp_path / "model.safetensors").write_bytes(large)
    (tmp_path / "config.json").write_text("{ }")
    assert sample() not in seen
