"""Reading torch's distributed checkpoints: slices across chunks, and nothing that could run."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan

from seif_nemo.weights.dist_files import DistFiles, checkpoint_directory

WEIGHT = torch.arange(24.0).view(4, 6)


def _save(directory: Path, **tensors: torch.Tensor) -> Path:
    dcp.save(dict(tensors), checkpoint_id=str(directory), no_dist=True)
    return directory


def _halves(directory: Path) -> Path:
    """A checkpoint of which the one tensor lies in two chunks, as two ranks would write it."""
    _save(directory, left=WEIGHT[:, :2].clone(), right=WEIGHT[:, 2:].clone())
    index: Any = pickle.loads((directory / ".metadata").read_bytes())
    left = index.state_dict_metadata.pop("left")
    right = index.state_dict_metadata.pop("right")
    left.size = torch.Size([4, 6])
    left.chunks = [
        ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([4, 2])),
        ChunkStorageMetadata(torch.Size([0, 2]), torch.Size([4, 4])),
    ]
    index.state_dict_metadata["weight"] = left
    places = {key.fqn: value for key, value in index.storage_data.items()}
    index.storage_data = {
        MetadataIndex("weight", [0, 0]): places["left"],
        MetadataIndex("weight", [0, 2]): places["right"],
    }
    assert right is not None
    (directory / ".metadata").write_bytes(pickle.dumps(index))
    return directory


def test_slices_are_put_together_from_chunks(tmp_path: Path) -> None:
    files = DistFiles(_halves(tmp_path / "ck"))
    assert files.names == ("weight",)
    assert (files.shape("weight"), files.dtype("weight")) == ((4, 6), torch.float32)
    assert torch.equal(files.read("weight"), WEIGHT)
    assert torch.equal(files.read("weight", slice(1, 3), slice(1, 5)), WEIGHT[1:3, 1:5])
    assert torch.equal(files.read("weight", slice(None), slice(3, 4)), WEIGHT[:, 3:4])
    assert torch.equal(files.read("weight", slice(2, 3)), WEIGHT[2:3])


def test_plans_beside_the_index_are_passed_over(tmp_path: Path) -> None:
    """megatron-core's own writer leaves its ranks' plans there."""
    directory = _save(tmp_path / "ck", weight=WEIGHT)
    index: Any = pickle.loads((directory / ".metadata").read_bytes())
    index.all_local_plans = [SavePlan([], planner_data={"weight": ("weight",)})]
    (directory / ".metadata").write_bytes(pickle.dumps(index))
    assert torch.equal(DistFiles(directory).read("weight"), WEIGHT)


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_an_index_that_would_run_code_is_refused(tmp_path: Path) -> None:
    directory = _save(tmp_path / "ck", weight=WEIGHT)
    index: Any = pickle.loads((directory / ".metadata").read_bytes())
    index.planner_data = _Attack(tmp_path / "broken_in")
    (directory / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=r"\.metadata is not the index .*: it names posix\.mkdir, which the format"):
        DistFiles(directory)
    assert not (tmp_path / "broken_in").exists()
    pickle.loads((directory / ".metadata").read_bytes())  # the attack is a real one
    assert (tmp_path / "broken_in").exists()


def test_a_tensor_that_would_run_code_is_refused(tmp_path: Path) -> None:
    directory = _save(tmp_path / "ck", weight=WEIGHT)
    torch.save(_Attack(tmp_path / "broken_in"), directory / "__0_0.distcp")
    index: Any = pickle.loads((directory / ".metadata").read_bytes())
    (place,) = index.storage_data.values()
    place.length = (directory / "__0_0.distcp").stat().st_size
    (directory / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=r"__0_0\.distcp is damaged: weight at \[0, 0\] cannot be read"):
        DistFiles(directory).read("weight")
    assert not (tmp_path / "broken_in").exists()


def test_faults_name_the_file(tmp_path: Path) -> None:
    directory = _save(tmp_path / "ck", weight=WEIGHT)
    data = directory / "__0_0.distcp"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"__0_0\.distcp is damaged: weight"):
        DistFiles(directory).read("weight")
    data.unlink()
    with pytest.raises(ValueError, match=r"__0_0\.distcp is missing, which holds weight"):
        DistFiles(directory).read_all()
    index: Any = pickle.loads((directory / ".metadata").read_bytes())
    (place,) = index.storage_data.values()
    place.relative_path = "../elsewhere"
    (directory / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=r"weight is outside the checkpoint, at \.\./elsewhere"):
        DistFiles(directory).read("weight")
    (directory / ".metadata").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match="it holds a NoneType"):
        DistFiles(directory)
    (directory / ".metadata").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"\.metadata is not the index"):
        DistFiles(directory)
    (directory / "metadata.json").write_text('{"sharded_backend": "zarr"}')
    with pytest.raises(ValueError, match=r"metadata\.json: sharded_backend='zarr' is not supported; .* 'torch_"):
        DistFiles(directory)
    with pytest.raises(ValueError, match=r"\.metadata does not exist"):
        DistFiles(tmp_path)


def test_where_checkpoints_lie(tmp_path: Path) -> None:
    assert checkpoint_directory(tmp_path) is None
    plain = _save(tmp_path / "plain", weight=WEIGHT)
    assert checkpoint_directory(plain) == plain
    nemo = _save(tmp_path / "nemo" / "weights", weight=WEIGHT)
    assert checkpoint_directory(tmp_path / "nemo") == nemo
    latest = _save(tmp_path / "lm" / "iter_0000200", weight=WEIGHT)
    _save(tmp_path / "lm" / "iter_0000100", weight=WEIGHT)
    (tmp_path / "lm" / "latest_checkpointed_iteration.txt").write_text("200\n")
    assert checkpoint_directory(tmp_path / "lm") == latest
    release = _save(tmp_path / "lm" / "release", weight=WEIGHT)
    (tmp_path / "lm" / "latest_checkpointed_iteration.txt").write_text("release")
    assert checkpoint_directory(tmp_path / "lm") == release
