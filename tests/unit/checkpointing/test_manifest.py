"""Manifests: they come back as they were written, and every kind of damage names its file."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from seif_nemo.checkpointing.manifest import (
    CheckpointError,
    FileRecord,
    Layout,
    Manifest,
    read_manifest,
    record_file,
    verify_files,
    write_manifest,
)

MANIFEST = Manifest(
    role="follower",
    origin="follower@12",
    updates=12,
    weights_digest="ab" * 16,
    layout=Layout(
        tensor=2, pipeline=1, data=4, context=1, virtual=1, pipeline_layout=(3, 5), expert=2, expert_tensor=2
    ),
    step_count=24,
    learning_rate=1e-6,
    base_digest="12" * 16,
    files=(FileRecord(".metadata", 3, "cd" * 16), FileRecord("__0_0.distcp", 5, "ef" * 16)),
)


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    without = replace(MANIFEST, step_count=None, learning_rate=None)
    write_manifest(tmp_path, without)
    assert read_manifest(tmp_path) == without
    assert (MANIFEST.has_optimizer, without.has_optimizer) == (True, False)


def test_digest_covers_every_field() -> None:
    others = [
        replace(MANIFEST, role="instructor"),
        replace(MANIFEST, origin="follower@11"),
        replace(MANIFEST, updates=11),
        replace(MANIFEST, base_digest=None),
        replace(MANIFEST, weights_digest="00" * 16),
        replace(MANIFEST, layout=Layout(2, 1, 4, 1, 1, (3, 5), 4, 2)),
        replace(MANIFEST, step_count=23),
        replace(MANIFEST, learning_rate=2e-6),
        replace(MANIFEST, files=MANIFEST.files[:1]),
        replace(MANIFEST, files=(replace(MANIFEST.files[0], size=4), MANIFEST.files[1])),
    ]
    assert len({MANIFEST.digest, *(other.digest for other in others)}) == len(others) + 1
    assert replace(MANIFEST).digest == MANIFEST.digest


def test_missing_torn_and_changed_manifests_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing: no whole checkpoint"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, MANIFEST)
    whole = path.read_text()
    os.truncate(path, len(whole) // 2)
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: JSONDecodeError"):
        read_manifest(tmp_path)
    path.write_text(whole.replace('"step_count": 24', '"step_count": 25'))
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: its digest is"):
        read_manifest(tmp_path)
    path.write_text(whole.replace('"updates"', '"apdates"'))
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: TypeError"):
        read_manifest(tmp_path)
    path.write_text(json.dumps(json.loads(whole) | {"format": 1}))
    with pytest.raises(CheckpointError, match="format 1, this version reads format 4"):
        read_manifest(tmp_path)
    path.write_bytes(b"\xff" + whole.encode()[1:])
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: UnicodeDecodeError"):
        read_manifest(tmp_path)


def test_files_are_compared_in_size_and_content(tmp_path: Path) -> None:
    names = ["a", "b"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode() * 100)
    records = [record_file(tmp_path / name) for name in names]
    assert [(record.name, record.size) for record in records] == [("a", 100), ("b", 100)]
    verify_files(tmp_path, records)
    (tmp_path / "b").write_bytes(b"b" * 99 + b"c")
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'b'} is damaged: digest"):
        verify_files(tmp_path, records)
    os.truncate(tmp_path / "b", 99)
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'b'} has 99 bytes, 100 were saved"):
        verify_files(tmp_path, records)
    (tmp_path / "a").unlink()
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'a'} is missing"):
        verify_files(tmp_path, records)
