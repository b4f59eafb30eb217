from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seif_nemo.weights.safetensors_file import Entry, SafetensorsFile


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = {
        "b.weight": torch.randn(3, 5),
        "a.bias": torch.randn(7).bfloat16(),
        "ü": torch.randn(2, 2).half(),
        "z.scalar": torch.randn(()),
    }
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    save_file(tensors, tmp_path / "library", metadata={"format": "pt"})
    entries = {name: Entry(names[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    with SafetensorsFile(tmp_path / "own", entries, {"format": "pt"}) as out:
        for name in ("z.scalar", "ü", "a.bias", "b.weight"):
            out.write(name, tensors[name])
        out.finish()
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


def test_tensors_are_cast_and_none_may_be_missing(tmp_path: Path) -> None:
    value = torch.randn(4, 6)
    with SafetensorsFile(tmp_path / "own", {"w": Entry("BF16", (6, 4))}, None) as out:
        with pytest.raises(AssertionError, match="never written: \\['w'\\]"):
            out.finish()
        out.write("w", value.T)
        out.finish()
    assert torch.equal(load_file(tmp_path / "own")["w"], value.T.bfloat16())
