"""Reads seed questions from the user's file.

A seed is used as it stands or not at all: empty rows, duplicates and over-long rows are dropped and counted, nothing is
cut. Whatever else is wrong with the file is one `ValueError` line that names the file and the row.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seif_nemo.types.records import SeedQuestion

_Row = tuple[int, Any]  # (row from 1, value of the column as the file gave it)
_CSV_FIELD_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DroppedSeeds:
    """Rows that were not used, by reason. A row counts once, under the first reason that applies."""

    empty: int = 0  # nothing but white space, or null
    too_long: int = 0  # more characters than allowed
    duplicate: int = 0  # the same text (but for white space around it) as an earlier row


@dataclass(frozen=True, slots=True)
class LoadedSeeds:
    seeds: tuple[SeedQuestion, ...]
    dropped: DroppedSeeds


def load_seeds(path: str | Path, *, column: str, max_characters: int) -> LoadedSeeds:
    """Seed questions of a .parquet, .jsonl, .json, .csv or .txt file, in file order.

    `column` names the text: a parquet or CSV column, a key of JSON objects. A .json file may also be a list of strings,
    and a .txt file has one seed per line; both ignore `column`. Rows count from 1: data rows in parquet, JSON and CSV
    (its header is not one), lines in .jsonl and .txt.

    Raises `ValueError` for a missing or empty file, an unknown extension, a missing column, text that is not UTF-8,
    invalid JSON or CSV, a value that is not text, and a file of which no row is left.
    """
    file = Path(path)
    readers = {
        ".parquet": _parquet_rows,
        ".jsonl": _jsonl_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".txt": _txt_rows,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file}: unknown extension {file.suffix!r}; seeds are read from {', '.join(readers)}")
    if not file.is_file():
        raise ValueError(f"{file}: {'is not a file' if file.exists() else 'no such file'}")
    if file.stat().st_size == 0:
        raise ValueError(f"{file}: the file is empty")
    seeds, dropped = _select(file, reader(file, column), max_characters)
    if not seeds:
        raise ValueError(
            f"{file}: no seed is left: {dropped.empty} rows are empty, "
            f"{dropped.too_long} longer than {max_characters} characters"
        )
    return LoadedSeeds(seeds, dropped)


def _select(file: Path, rows: Iterator[_Row], max_characters: int) -> tuple[tuple[SeedQuestion, ...], DroppedSeeds]:
    seeds: list[SeedQuestion] = []
    seen: set[str] = set()
    empty = too_long = duplicate = 0
    for row, value in rows:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{file}: row {row}: the seed is not text but {type(value).__name__}: {value!r:.80}")
        text = value or ""
        bare = text.strip()
        if not bare:
            empty += 1
        elif len(text) > max_characters:
            too_long += 1
        elif bare in seen:
            duplicate += 1
        else:
            if any("\ud800" <= ch <= "\udfff" for ch in text):
                raise ValueError(f"{file}: row {row}: the seed holds half of a surrogate pair, which is no character")
            seen.add(bare)
            seeds.append(SeedQuestion(text=text, row=row))
    return tuple(seeds), DroppedSeeds(empty=empty, too_long=too_long, duplicate=duplicate)


def _parquet_rows(file: Path, column: str) -> Iterator[_Row]:
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            if column not in schema.names:
                raise ValueError(_no_column(file, column, schema.names))
            values = parquet.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as parquet: {_one_line(error)}") from error
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ValueError(f"{file}: row 1: column {column!r} is not text but {kind}")
    try:
        yield from enumerate(values.to_pylist(), start=1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: column {column!r} is not UTF-8: {_one_line(error)}") from error


def _jsonl_rows(file: Path, column: str) -> Iterator[_Row]:
    for row, line in enumerate(_lines(_text(file)), start=1):
        if not line.strip():
            yield row, None
            continue
        yield row, _field(file, row, _parse_json(line, f"{file}: row {row}"), column)


def _json_rows(file: Path, column: str) -> Iterator[_Row]:
    document = _parse_json(_text(file), str(file))
    if not isinstance(document, list):
        raise ValueError(f"{file}: expected a list of objects or of strings, found {type(document).__name__}")
    for row, value in enumerate(document, start=1):
        yield row, value if isinstance(value, str) else _field(file, row, value, column)


def _csv_rows(file: Path, column: str) -> Iterator[_Row]:
    old_limit = csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        records = list(csv.reader(io.StringIO(_text(file), newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{file}: invalid CSV: {_one_line(error)}") from error
    finally:
        csv.field_size_limit(old_limit)
    header = records[0] if records else []
    if column not in header:
        raise ValueError(_no_column(file, column, header))
    place = header.index(column)
    for row, record in enumerate(records[1:], start=1):
        if record and len(record) != len(header):
            raise ValueError(f"{file}: row {row}: {len(record)} fields, the header has {len(header)}")
        yield row, record[place] if record else None


def _txt_rows(file: Path, column: str) -> Iterator[_Row]:
    del column  # a line is the whole row
    yield from enumerate(_lines(_text(file)), start=1)


def _parse_json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{where}: invalid JSON: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where}: invalid JSON: {_one_line(error)}") from error


def _field(file: Path, row: int, value: object, column: str) -> object:
    """The column of one JSON object. null counts as an empty row, a missing key does not."""
    if not isinstance(value, dict):
        raise ValueError(f"{file}: row {row}: expected an object with {column!r}, found {type(value).__name__}")
    if column not in value:
        raise ValueError(_no_column(file, column, list(value), row))
    return value[column]


def _text(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}: line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _lines(text: str) -> list[str]:
    """Lines without their ends. Only \\n and \\r\\n end a line; other separators may occur inside a seed."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _no_column(file: Path, column: str, present: Sequence[str], row: int | None = None) -> str:
    where = f"{file}: " + (f"row {row}: " if row is not None else "")
    near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}no column {column!r}; there are: {', '.join(present) or 'none'}{hint}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
