"""The parquet files of a run: q.parquet, rejected.parquet and held-out sets.

q.parquet has the columns of SEIF's released files (`seed_question`, `constraint`, `prompt`, `kwargs`,
`instruction_id_list`, the lists all of one length), so that theirs load here and ours load there, and four more:
`specs` (canonical JSON, null where no rule applies), `readings`, `round` and `instructor_digest`. The structs in
`kwargs` have the fields of IFEval's own data; theirs hold one of them.

Files are deterministic, byte for byte, for one version of Arrow: no time, no name and no index goes into them. They
are written beside their place and renamed into it, so that a reader sees the old file, the new one or none.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seif_nemo.data.files import sync
from seif_nemo.types.constraints import Constraint, Reading, Spec
from seif_nemo.types.records import KeptInstruction, RejectedInstruction

KwargValue = str | int | list[str]
Kwargs = Mapping[str, KwargValue]  # of one IFEval instruction; what is absent is null in the file

_ROW_GROUP = 4096
_COMPRESSION = "zstd"


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind))


_KWARGS_TYPE = pa.struct(
    [
        ("capital_frequency", pa.int64()),
        ("capital_relation", pa.string()),
        ("end_phrase", pa.string()),
        ("first_word", pa.string()),
        ("forbidden_words", _list_of(pa.string())),
        ("frequency", pa.int64()),
        ("keyword", pa.string()),
        ("keywords", _list_of(pa.string())),
        ("language", pa.string()),
        ("let_frequency", pa.int64()),
        ("let_relation", pa.string()),
        ("letter", pa.string()),
        ("nth_paragraph", pa.int64()),
        ("num_bullets", pa.int64()),
        ("num_highlights", pa.int64()),
        ("num_paragraphs", pa.int64()),
        ("num_placeholders", pa.int64()),
        ("num_sections", pa.int64()),
        ("num_sentences", pa.int64()),
        ("num_words", pa.int64()),
        ("postscript_marker", pa.string()),
        ("prompt_to_repeat", pa.string()),
        ("relation", pa.string()),
        ("section_spliter", pa.string()),  # upstream's spelling
    ]
)
_RELEASED_FIELDS = (
    ("seed_question", pa.string()),
    ("constraint", _list_of(pa.string())),
    ("prompt", pa.string()),
    ("kwargs", _list_of(_KWARGS_TYPE)),
    ("instruction_id_list", _list_of(pa.string())),
)
_RELEASED_SCHEMA = pa.schema(list(_RELEASED_FIELDS))
_KEPT_SCHEMA = pa.schema(
    [
        *_RELEASED_FIELDS,
        ("specs", _list_of(pa.string())),
        ("readings", _list_of(pa.string())),
        ("round", pa.int64()),
        ("instructor_digest", pa.string()),
    ]
)
_REJECTED_SCHEMA = pa.schema(
    [
        ("seed_question", pa.string()),
        ("raw", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("round", pa.int64()),
        ("instructor_digest", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class InstructionId:
    """How the released columns write one constraint: an IFEval instruction id with its arguments."""

    name: str
    kwargs: Kwargs


@dataclass(frozen=True, slots=True)
class ConstraintCodec:
    """How a constraint gets into a file and out of it. Passed in: this layer knows nothing about constraints."""

    to_id: Callable[[Constraint], InstructionId]
    spec_to_json: Callable[[Spec], str]
    spec_from_json: Callable[[str], Spec]
    parse: Callable[[str], Constraint]  # for files without specs


@dataclass(frozen=True, slots=True)
class ReleasedInstruction:
    """A row of the released columns."""

    seed_question: str
    constraints: tuple[str, ...]
    instruction_ids: tuple[InstructionId, ...]
    prompt: str


@dataclass(frozen=True, slots=True)
class HeldoutInstruction:
    """A row of a held-out set."""

    seed_question: str
    constraints: tuple[str, ...]


def write_instructions(path: Path, rows: Sequence[KeptInstruction], codec: ConstraintCodec) -> None:
    """Writes q.parquet, whole or not at all."""
    records = [
        _released_record(
            ReleasedInstruction(
                seed_question=row.seed_question,
                constraints=tuple(constraint.text for constraint in row.constraints),
                instruction_ids=tuple(codec.to_id(constraint) for constraint in row.constraints),
                prompt=row.prompt,
            )
        )
        | {
            "specs": [None if c.spec is None else codec.spec_to_json(c.spec) for c in row.constraints],
            "readings": [c.reading.value for c in row.constraints],
            "round": row.round,
            "instructor_digest": row.instructor_digest,
        }
        for row in rows
    ]
    _write(path, records, _KEPT_SCHEMA)


def read_instructions(path: Path, codec: ConstraintCodec) -> tuple[KeptInstruction, ...]:
    """Reads q.parquet or one of SEIF's released files.

    Those have no specs and dummy ids: their constraints are parsed from the text, their round is 0 and their digest
    empty. Raises `ValueError` for a missing or unreadable file, missing columns and rows that do not hold together.
    """
    table = _read(path, ("seed_question", "constraint", "prompt"))
    own = {"specs", "readings", "round", "instructor_digest"}
    if own & set(table.column_names) and not own <= set(table.column_names):
        raise ValueError(f"{path}: has only some of the columns {', '.join(sorted(own))}")
    is_own = own <= set(table.column_names)
    kept: list[KeptInstruction] = []
    for row, record in enumerate(table.to_pylist(), start=1):
        texts = _texts(path, row, record, "constraint")
        if is_own:
            constraints = _decode(path, row, texts, record, codec)
        else:
            constraints = tuple(codec.parse(text) for text in texts)
        kept.append(
            KeptInstruction(
                seed_question=_text(path, row, record, "seed_question"),
                prompt=_text(path, row, record, "prompt"),
                constraints=constraints,
                round=record["round"] if is_own else 0,
                instructor_digest=_text(path, row, record, "instructor_digest") if is_own else "",
            )
        )
    return tuple(kept)


def write_released(path: Path, rows: Sequence[ReleasedInstruction]) -> None:
    """Writes the released columns alone, as for a held-out set."""
    _write(path, [_released_record(row) for row in rows], _RELEASED_SCHEMA)


def load_heldout(path: str | Path) -> tuple[HeldoutInstruction, ...]:
    """Reads a held-out set: the columns `seed_question` and `constraint`; others are ignored.

    Raises `ValueError` for a missing or unreadable or empty file, missing columns and rows without their text.
    """
    file = Path(path)
    table = _read(file, ("seed_question", "constraint"))
    if table.num_rows == 0:
        raise ValueError(f"{file}: holds no row")
    rows: list[HeldoutInstruction] = []
    for row, record in enumerate(table.select(["seed_question", "constraint"]).to_pylist(), start=1):
        texts = _texts(file, row, record, "constraint")
        if not texts:
            raise ValueError(f"{file}: row {row}: no constraints")
        rows.append(HeldoutInstruction(_text(file, row, record, "seed_question"), texts))
    return tuple(rows)


def write_rejected(path: Path, rows: Sequence[RejectedInstruction]) -> None:
    """Writes rejected.parquet, whole or not at all."""
    records = [
        {
            "seed_question": row.seed_question,
            "raw": row.raw,
            "reason": row.reason.value,
            "detail": row.detail,
            "round": row.round,
            "instructor_digest": row.instructor_digest,
        }
        for row in rows
    ]
    _write(path, records, _REJECTED_SCHEMA)


def _released_record(row: ReleasedInstruction) -> dict[str, Any]:
    assert len(row.constraints) == len(row.instruction_ids)
    for instruction in row.instruction_ids:
        unknown = set(instruction.kwargs) - {field.name for field in _KWARGS_TYPE}
        assert not unknown, f"{instruction.name}: the column kwargs has no field for {unknown}"
    return {
        "seed_question": row.seed_question,
        "constraint": list(row.constraints),
        "prompt": row.prompt,
        "kwargs": [dict(instruction.kwargs) for instruction in row.instruction_ids],
        "instruction_id_list": [instruction.name for instruction in row.instruction_ids],
    }


def _decode(
    path: Path, row: int, texts: Sequence[str], record: Mapping[str, Any], codec: ConstraintCodec
) -> tuple[Constraint, ...]:
    specs, readings = record["specs"] or [], record["readings"] or []
    if not len(texts) == len(specs) == len(readings):
        raise ValueError(
            f"{path}: row {row}: constraint, specs and readings have "
            f"{len(texts)}, {len(specs)} and {len(readings)} entries"
        )
    try:
        return tuple(
            Constraint(text, Reading(reading), None if spec is None else codec.spec_from_json(spec))
            for text, spec, reading in zip(texts, specs, readings, strict=True)
        )
    except ValueError as error:
        raise ValueError(f"{path}: row {row}: {error}") from error


def _text(path: Path, row: int, record: Mapping[str, Any], column: str) -> str:
    value = record[column]
    if not isinstance(value, str):
        raise ValueError(f"{path}: row {row}: {column} is not text but {type(value).__name__}")
    return value


def _texts(path: Path, row: int, record: Mapping[str, Any], column: str) -> tuple[str, ...]:
    values = record[column]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{path}: row {row}: {column} is not a list of texts: {values!r:.80}")
    return tuple(values)


def _read(path: Path, needed: Sequence[str]) -> pa.Table:
    if not path.is_file():
        raise ValueError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    try:
        with pq.ParquetFile(path) as parquet:
            table = parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read as parquet: {' '.join(str(error).split())}") from error
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; there are: {', '.join(table.column_names)}")
    return table


def _write(path: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        pq.write_table(
            pa.Table.from_pylist(list(records), schema=schema),
            file,
            row_group_size=_ROW_GROUP,
            compression=_COMPRESSION,
            version="2.6",
            data_page_version="1.0",
            use_dictionary=True,
            write_statistics=True,
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync(path.parent)
