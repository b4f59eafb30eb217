"""Which safetensors file each tensor of an exported model goes to, and in which dtype."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from seif_nemo.weights.hf_files import INDEX, SINGLE, HfFiles, read_weight_map
from seif_nemo.weights.hf_mapping import is_ignored
from seif_nemo.weights.safetensors_file import DTYPES, Entry


@dataclass(frozen=True, slots=True)
class Division:
    """`files`: file name -> its tensors. More than one file come with an index."""

    files: Mapping[str, Mapping[str, Entry]]
    metadata: Mapping[str, str]

    @property
    def entries(self) -> dict[str, Entry]:
        return {name: entry for file in self.files.values() for name, entry in file.items()}

    def index_text(self) -> str | None:
        """model.safetensors.index.json; None for a single file."""
        if list(self.files) == [SINGLE]:
            return None
        sizes = [entry.nbytes for entry in self.entries.values()]
        places = {name: file for file, entries in self.files.items() for name in entries}
        numels = sum(torch.Size(entry.shape).numel() for entry in self.entries.values())
        described = {
            "metadata": {"total_parameters": numels, "total_size": sum(sizes)},
            "weight_map": dict(sorted(places.items())),
        }
        return json.dumps(described, indent=2) + "\n"


def divide(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype | None, *, like: Path | None, max_bytes: int
) -> Division:
    """The division of `like`, a Hugging Face directory, or files of up to `max_bytes`.

    `like` may hold weights, an index without them, or neither; it counts only if it has exactly these tensors. `dtype`
    None: each tensor as `like` has it, which must then hold weights. A tensor larger than `max_bytes` is a file alone.
    Raises ValueError for a dtype that safetensors files of models do not have here.
    """
    if like is not None and ((like / SINGLE).exists() or (like / INDEX).exists()):
        found = _division_of(like, shapes, dtype)
        if found is not None:
            return found
    if dtype is None:
        raise ValueError(f"{like} holds no weights of this model whose dtype could be taken: say it with --dtype")
    named = _dtype_name(dtype)
    groups: list[dict[str, Entry]] = [{}]
    held = 0
    for name, shape in shapes.items():
        entry = Entry(named, shape)
        if groups[-1] and held + entry.nbytes > max_bytes:
            groups.append({})
            held = 0
        groups[-1][name] = entry
        held += entry.nbytes
    if len(groups) == 1:
        return Division({SINGLE: groups[0]}, {"format": "pt"})
    count = len(groups)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    return Division(dict(zip(names, groups, strict=True)), {"format": "pt"})


def _division_of(like: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype | None) -> Division | None:
    dtypes: dict[str, str] = {}
    if (like / INDEX).exists():
        places = read_weight_map(like / INDEX)
        has_weights = all((like / file).exists() for file in set(places.values()))
    else:
        places, has_weights = None, True
    if has_weights:
        with HfFiles(like) as files:
            places = files.file_of
            dtypes = {name: files.dtype(name) for name in places}
    assert places is not None
    places = {name: file for name, file in places.items() if not is_ignored(name)}
    if places.keys() != shapes.keys() or (dtype is None and not has_weights):
        return None
    divided: dict[str, dict[str, Entry]] = {file: {} for file in dict.fromkeys(places.values())}
    for name, file in places.items():
        named = dtypes[name] if dtype is None else _dtype_name(dtype)
        if named not in DTYPES:
            raise ValueError(f"{like / file}: {name} has the unsupported dtype {named}; supported: {', '.join(DTYPES)}")
        divided[file][name] = Entry(named, shapes[name])
    return Division(divided, {"format": "pt"})


def _dtype_name(dtype: torch.dtype) -> str:
    for name, supported in DTYPES.items():
        if supported is dtype:
            return name
    choices = ", ".join(str(supported).removeprefix("torch.") for supported in DTYPES.values())
    raise ValueError(f"weights in {str(dtype).removeprefix('torch.')} cannot be written; supported: {choices}")
