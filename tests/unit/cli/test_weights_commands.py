"""The commands `convert` and `inspect`, without a model: arguments, refusals, tables."""

import json
from pathlib import Path

import pytest

from seif_nemo.cli.main import main
from tests.tiny_hf import make_tiny_hf


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from", "a"], "the following arguments are required: --to"),
        (["--from", "a", "--to", "b", "--max-file-gb", "0"], "--max-file-gb 0.0 must be positive"),
        (["--from", "a", "--to", "b", "--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (
            ["--from", "a", "--to", "b", "parallel.tensr=2"],
            "no key 'parallel.tensr'; did you mean 'parallel.tensor'?",
        ),
        (["--from", "a", "--to", "b", "parallel.tensor=x"], "parallel.tensor=x: Value 'x'"),
        (["--from", "a", "--to", "b", "parallel.tensor=0"], "parallel.tensor=0 must be at least 1"),
        (["--from", "a", "--to", "b", "parallel.sequence=true"], "parallel.sequence=true needs parallel.tensor"),
    ],
)
def test_what_convert_refuses_at_once(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_inspect_a_model_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_tiny_hf(tmp_path / "hf", "mixtral", num_hidden_layers=1)
    capsys.readouterr()
    assert main(["inspect", str(path), "--verify"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if not line.startswith(" "))
    table = {key.strip(): value.strip() for key, value in rows.items()}
    assert (table["what"], table["family"], table["layers"]) == ("Hugging Face directory", "mixtral", "1")
    assert (table["experts"], table["verified"]) == ("4, 2 per token", "names and shapes")
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tensors"]["dtypes"] == {"f32": found["tensors"]["parameters"]}
    # embedding and head 99 x 32 each, three norms, q, k, v, o, the router, four experts
    assert found["tensors"]["parameters"] == 2 * 99 * 32 + 3 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 4 * 32 + 4 * 3 * 48 * 32
    assert found["files"]["model.safetensors"] == (path / "model.safetensors").stat().st_size


def test_inspect_what_is_not_there_or_not_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"seif_nemo: {tmp_path}/none does not exist or is no directory\n"
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds neither model.safetensors (or its index) nor a Megatron" in capsys.readouterr().err
    path = make_tiny_hf(tmp_path / "hf", num_hidden_layers=2)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "layer_types": None}))
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    assert main(["inspect", str(path), "--verify"]) == 1
    captured = capsys.readouterr()
    assert "verified         damaged" in captured.out
    assert "hf lacks model.layers.2.input_layernorm.weight" in captured.err
