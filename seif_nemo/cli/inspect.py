"""`python -m seif_nemo inspect PATH`: what is in a directory of weights."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2
_SHOWN_FILES = 12


def run_inspect(arguments: Sequence[str]) -> int:
    """Print a table or JSON; the exit code: 0, 1 where `--verify` found damage, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m seif_nemo inspect",
        description="What a Hugging Face directory or a checkpoint of seif_nemo, NeMo 2 or Megatron-LM holds.",
    )
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--verify", action="store_true", help="read every file and compare digests, names and shapes")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from seif_nemo.observability.logging import quiet_known_warnings

    quiet_known_warnings()
    from seif_nemo.checkpointing.manifest import CheckpointError, read_manifest, verify_files
    from seif_nemo.weights.inspection import check_weights, conversion_of, inspect_weights
    from seif_nemo.weights.sources import Kind, find_source

    found: dict[str, Any] = {}
    try:
        source = find_source(options.path)
        inspection = inspect_weights(source)
        found = asdict(inspection) | {"total_bytes": inspection.total_bytes}
        found["conversion"] = conversion_of(source.tensors)
        if source.kind is Kind.own:
            manifest = read_manifest(source.tensors)
            found["checkpoint"] = {key: value for key, value in asdict(manifest).items() if key != "files"}
            found["digests"] = {record.name: record.digest for record in manifest.files}
    except (CheckpointError, ValueError) as error:
        print(f"seif_nemo: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    damage: str | None = None
    if options.verify:
        try:
            if source.kind is Kind.own:
                verify_files(source.tensors, read_manifest(source.tensors).files)
                found["verified"] = "digests of all files"
            else:
                found["verified"] = check_weights(source)
        except (CheckpointError, ValueError) as error:
            damage = str(error)
            found["verified"] = None
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(_table(found))
    if damage is not None:
        print(f"seif_nemo: {damage}", file=sys.stderr)
        return EXIT_FAULT
    return 0


def _table(found: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    if "kind" in found:
        tensors = found["tensors"]
        rows += [("what", found["kind"]), ("path", found["path"])]
        if found["model"] is None:
            rows.append(("model", f"not known: {found['model_note']}"))
        else:
            rows += [(key, _text(value)) for key, value in found["model"].items()]
        dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in tensors["dtypes"].items())
        rows.append(("weights", f"{tensors['tensors']} tensors, {tensors['parameters']:,} parameters ({dtypes})"))
        if tensors["others"]:
            rows.append(("beside them", f"{tensors['others']} tensors of optimizer state and the like"))
    for key, value in found.get("checkpoint", {}).items():
        rows += _of_checkpoint(key, value)
    for key, value in (found.get("conversion") or {}).items():
        rows.append((f"converted, {key}", value))
    if "files" in found:
        rows += _of_files(found)
    if "verified" in found:
        rows.append(("verified", found["verified"] or "damaged"))
    width = max(len(key) for key, _ in rows) if rows else 0
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


def _of_checkpoint(key: str, value: Any) -> list[tuple[str, str]]:
    if key == "layout":
        parts = [f"{name}={_text(size)}" for name, size in value.items() if size not in (1, None)]
        return [("layout", ", ".join(parts) or "one rank")]
    names = {"weights_digest": "weights' digest", "step_count": "optimizer steps", "learning_rate": "learning rate"}
    return [(names.get(key, key), "none" if value is None else _text(value))]


def _of_files(found: dict[str, Any]) -> list[tuple[str, str]]:
    files: dict[str, int] = found["files"]
    digests: dict[str, str] = found.get("digests", {})
    rows = [("files", f"{len(files)}, {found['total_bytes'] / 1e9:.3f} GB")]
    largest = sorted(files, key=lambda name: -files[name])[:_SHOWN_FILES]
    for name in sorted(largest):
        rows.append(("", f"{files[name]:>16,} B  {name}{'  ' + digests[name] if name in digests else ''}"))
    if len(files) > len(largest):
        rows.append(("", f"and {len(files) - len(largest)} smaller ones"))
    return rows


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
