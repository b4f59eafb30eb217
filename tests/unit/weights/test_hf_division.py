import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seif_nemo.weights.hf_division import divide
from seif_nemo.weights.safetensors_file import Entry

SHAPES = {"a": (4, 2), "b": (3,), "c": (5, 5), "d": (2,)}


def test_files_are_filled_up_to_the_limit() -> None:
    division = divide(SHAPES, torch.float32, like=None, max_bytes=48)
    assert {file: list(entries) for file, entries in division.files.items()} == {
        "model-00001-of-00003.safetensors": ["a", "b"],
        "model-00002-of-00003.safetensors": ["c"],  # larger than the limit
        "model-00003-of-00003.safetensors": ["d"],
    }
    index = json.loads(division.index_text() or "")
    assert index["metadata"] == {"total_parameters": 38, "total_size": 152}
    assert index["weight_map"]["c"] == "model-00002-of-00003.safetensors"


def test_one_file_needs_no_index() -> None:
    division = divide(SHAPES, torch.bfloat16, like=None, max_bytes=1000)
    assert list(division.files) == ["model.safetensors"]
    assert division.index_text() is None
    assert division.entries["c"] == Entry("BF16", (5, 5))


def test_a_directory_lends_its_files_and_dtypes(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    tensors["b"] = tensors["b"].bfloat16()
    save_file({"a": tensors["a"], "d": tensors["d"]}, tmp_path / "x.safetensors")
    save_file({"b": tensors["b"], "c": tensors["c"]}, tmp_path / "y.safetensors")
    places = {"a": "x.safetensors", "d": "x.safetensors", "b": "y.safetensors", "c": "y.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    kept = divide(SHAPES, None, like=tmp_path, max_bytes=1)
    assert {name: file for file, entries in kept.files.items() for name in entries} == places
    assert {name: entry.dtype for name, entry in kept.entries.items()} == {
        "a": "F32",
        "b": "BF16",
        "c": "F32",
        "d": "F32",
    }
    cast = divide(SHAPES, torch.float16, like=tmp_path, max_bytes=1)
    assert {entry.dtype for entry in cast.entries.values()} == {"F16"}
    (tmp_path / "x.safetensors").unlink()  # the index alone still says how to divide
    assert divide(SHAPES, torch.float32, like=tmp_path, max_bytes=1).files.keys() == set(places.values())
    with pytest.raises(ValueError, match="holds no weights of this model whose dtype could be taken"):
        divide(SHAPES, None, like=tmp_path, max_bytes=1)
    other = divide(SHAPES | {"e": (1,)}, torch.float32, like=tmp_path, max_bytes=10**6)
    assert list(other.files) == ["model.safetensors"]  # an index of other tensors counts for nothing


def test_dtypes_of_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="weights in float8_e4m3fn cannot be written; supported: float32, bfloat16"):
        divide(SHAPES, torch.float8_e4m3fn, like=None, max_bytes=1)
