"""Digests of files, folders and lists of digests."""

import hashlib
from pathlib import Path

from seif_nemo.parallel.digest import DIGEST_BYTES, digest_file, digest_folder_sample, join_digests


def _blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


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
