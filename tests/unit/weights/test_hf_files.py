import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seif_nemo.checkpointing.store import _clean  # pyright: ignore[reportPrivateUsage] what every start of a run does
from seif_nemo.weights.hf_files import HfFiles, HfWriter

SHAPES = {"a": (4, 3), "b": (2,), "c": (1, 1)}
TENSORS = {
    "a": torch.arange(12.0).view(4, 3),
    "b": torch.tensor([1.0, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor([[7.0]], dtype=torch.float16),
}


def _single(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    save_file(TENSORS, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text('{"é": 1}', encoding="utf-8")
    (path / "pytorch_model.bin").write_text("old")
    return path


def _sharded(path: Path, layout: dict[str, str]) -> Path:
    path.mkdir(exist_ok=True)
    for file in sorted(set(layout.values())):
        save_file({name: TENSORS[name] for name in layout if layout[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": layout}))
    return path


def test_reads_slices_in_their_own_dtype(tmp_path: Path) -> None:
    for source in (
        _single(tmp_path / "single"),
        _sharded(tmp_path / "sharded", {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}),
    ):
        with HfFiles(source) as files:
            assert files.read("a", slice(1, 3)).tolist() == [[3, 4, 5], [6, 7, 8]]
            assert files.read("a", slice(0, 2), slice(1, 3)).tolist() == [[1, 2], [4, 5]]
            assert torch.equal(files.read("b", slice(0, 2)), TENSORS["b"])
            assert [files.dtype(name) for name in "abc"] == ["F32", "BF16", "F16"]
            files.check(SHAPES, set())


def test_faults_name_tensor_and_file(tmp_path: Path) -> None:
    with HfFiles(_single(tmp_path / "x")) as files:
        with pytest.raises(ValueError, match=r"x lacks d, which config\.json calls for"):
            files.check(SHAPES | {"d": (1,)}, set())
        with pytest.raises(ValueError, match=r"x/model\.safetensors holds c, which the architecture"):
            files.check({"a": (4, 3), "b": (2,)}, set())
        files.check({"a": (4, 3), "b": (2,)}, {"c"})
        with pytest.raises(ValueError, match=r"model\.safetensors: a has shape \[4, 3\], config\.json says \[3, 4\]"):
            files.check(SHAPES | {"a": (3, 4)}, set())


def test_files_that_are_missing_broken_or_other_than_the_index_says(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist: model\.path"):
        HfFiles(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00hello")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        HfFiles(tmp_path)
    sharded = _sharded(tmp_path / "s", {"a": "1.safetensors", "b": "2.safetensors"})
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "3.safetensors"}}))
    with pytest.raises(ValueError, match=r"3\.safetensors does not exist"):
        HfFiles(sharded)
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}))
    with pytest.raises(ValueError, match=r"index\.json and .*1\.safetensors disagree about b"):
        HfFiles(sharded)
    index.write_text("{}")
    with pytest.raises(ValueError, match="has no weight_map"):
        HfFiles(sharded)


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "exports" / "out"
    with HfFiles(_single(tmp_path / "source")) as source:
        writer = HfWriter(out, source)
        writer.add("a", TENSORS["a"])
        assert not out.exists()
        writer.abort()
        assert list(out.parent.iterdir()) == []

        for round_number in (1.0, 2.0):  # the second replaces the first
            writer = HfWriter(out, source)
            for name in ("c", "a", "b"):
                writer.add(name, TENSORS[name] * round_number)
            writer.commit()
            writer.abort()  # after a commit there is nothing left to remove
            assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
            assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
            written = load_file(out / "model.safetensors")
            for name, tensor in TENSORS.items():
                assert written[name].dtype == tensor.dtype
                assert torch.equal(written[name], tensor * round_number)
    assert (out / "tokenizer.json").read_text(encoding="utf-8") == '{"é": 1}'
    assert (out / "model.safetensors").stat().st_mode & 0o777 == 0o644


def _write(out: Path, source: HfFiles, factor: float) -> HfWriter:
    writer = HfWriter(out, source)
    for name, tensor in TENSORS.items():
        writer.add(name, tensor * factor)
    return writer


def test_the_next_start_of_the_run_removes_what_a_kill_left(tmp_path: Path) -> None:
    out = tmp_path / "run" / "export" / "follower-01"
    with HfFiles(_single(tmp_path / "source")) as source:
        _write(out, source, 1.0)  # killed before its commit
        HfWriter(out, source)  # and again, before its first tensor
    assert len(list(out.parent.iterdir())) == 2
    _clean(tmp_path / "run")
    assert list(out.parent.iterdir()) == []


def test_a_kill_amid_a_replacement_loses_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run" / "export" / "follower-01"
    rename = os.rename
    for renames_before_the_kill, factor in ((0, 1.0), (1, 1.0), (2, 2.0)):
        with HfFiles(_single(tmp_path / "source")) as source:
            _write(out, source, 1.0).commit()
            writer, done = _write(out, source, 2.0), 0

            def killed(*paths: Path, limit: int = renames_before_the_kill) -> None:
                nonlocal done
                if done == limit:
                    raise KeyboardInterrupt
                done += 1
                rename(*paths)

            with monkeypatch.context() as patch:
                patch.setattr("os.rename", killed)
                patch.setattr("shutil.rmtree", lambda path: killed(path, path))
                with pytest.raises(KeyboardInterrupt):
                    writer.commit()
        assert len(list(out.parent.iterdir())) == 2
        _clean(tmp_path / "run")
        assert [path.name for path in out.parent.iterdir()] == ["follower-01"]
        assert torch.equal(load_file(out / "model.safetensors")["a"], TENSORS["a"] * factor)


def test_constants_of_old_checkpoints_are_written_again(tmp_path: Path) -> None:
    constant = "model.layers.0.self_attn.rotary_emb.inv_freq"
    source = tmp_path / "source"
    source.mkdir()
    save_file({"a": TENSORS["a"], constant: torch.ones(4)}, source / "1.safetensors")
    save_file({constant.replace("0", "1"): torch.ones(4)}, source / "2.safetensors")
    layout = {"a": "1.safetensors", constant: "1.safetensors", constant.replace("0", "1"): "2.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": layout}))
    with HfFiles(source) as files:
        writer = HfWriter(tmp_path / "out", files)
        writer.add("a", TENSORS["a"] + 1)
        writer.commit()
    with HfFiles(tmp_path / "out") as written:
        assert written.file_of == layout
        assert torch.equal(written.read("a", slice(None)), TENSORS["a"] + 1)
        assert torch.equal(written.read(constant, slice(None)), torch.ones(4))


@pytest.mark.parametrize("file", ["../1.safetensors", "/1.safetensors", "sub/1.safetensors", "1.bin", "", 7])
def test_an_index_names_files_beside_it_only(file: object, tmp_path: Path) -> None:
    _sharded(tmp_path, {"a": "1.safetensors"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match=r"index\.json: a is in .*, which is no safetensors file beside it"):
        HfFiles(tmp_path)
