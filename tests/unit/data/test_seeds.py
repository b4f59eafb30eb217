import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.data.seeds import DroppedSeeds, LoadedSeeds, load_seeds
from seif_nemo.types.records import SeedQuestion

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference" / "seed.parquet"


def load(path: Path, column: str = "prompt", max_characters: int = 100) -> LoadedSeeds:
    return load_seeds(path, column=column, max_characters=max_characters)


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def files_with_rows(folder: Path, rows: list[str | None]) -> list[Path]:
    """The same rows as parquet, JSONL, JSON and CSV, beside another column."""
    records = [{"n": i, "prompt": row} for i, row in enumerate(rows)]
    csv_lines = ["n,prompt"] + [f'{i},"{(row or "").replace(chr(34), chr(34) * 2)}"' for i, row in enumerate(rows)]
    return [
        write_parquet(folder / "s.parquet", n=list(range(len(rows))), prompt=pa.array(rows, pa.string())),
        write(folder / "s.jsonl", "".join(json.dumps(record) + "\n" for record in records)),
        write(folder / "s.json", json.dumps(records)),
        write(folder / "s.csv", "\r\n".join(csv_lines) + "\r\n"),
    ]


def test_every_format_gives_the_same_seeds(tmp_path: Path):
    rows = ["Why?", ' why, "so"?\nTwo lines ', None, "Why?", "  ", "ünïcode 日本\u2028x", "x" * 101, "Why? "]
    expected = LoadedSeeds(
        (
            SeedQuestion("Why?", 1),
            SeedQuestion(' why, "so"?\nTwo lines ', 2),
            SeedQuestion("ünïcode 日本\u2028x", 6),
        ),
        DroppedSeeds(empty=2, too_long=1, duplicate=2),
    )
    for file in files_with_rows(tmp_path, rows):
        assert load(file) == expected, file


def test_plain_text_has_one_seed_per_line(tmp_path: Path):
    file = write(tmp_path / "s.txt", "one\r\n\ntwo\u2028still two\nlast")
    assert load(file).seeds == (SeedQuestion("one", 1), SeedQuestion("two\u2028still two", 3), SeedQuestion("last", 4))
    assert load(file).dropped == DroppedSeeds(empty=1)


def test_a_json_list_of_strings(tmp_path: Path):
    file = write(tmp_path / "s.json", '\ufeff["a", "b", "a"]')
    assert load(file).seeds == (SeedQuestion("a", 1), SeedQuestion("b", 2))


def test_blank_lines_of_jsonl_and_csv_count_as_empty_rows(tmp_path: Path):
    jsonl = write(tmp_path / "s.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"}')
    assert load(jsonl) == LoadedSeeds((SeedQuestion("a", 1), SeedQuestion("b", 3)), DroppedSeeds(empty=1))
    csv_file = write(tmp_path / "s.csv", "prompt,x\na,1\n\nb,2\n")
    assert load(csv_file) == LoadedSeeds((SeedQuestion("a", 1), SeedQuestion("b", 3)), DroppedSeeds(empty=1))


def test_length_limit_is_inclusive(tmp_path: Path):
    file = write(tmp_path / "s.txt", "12345\n123456\n")
    assert load(file, max_characters=5).seeds == (SeedQuestion("12345", 1),)


def test_a_csv_field_beyond_the_default_limit_is_dropped_not_an_error(tmp_path: Path):
    file = write(tmp_path / "s.csv", "prompt\n" + "x" * 200_000 + "\nshort\n")
    assert load(file) == LoadedSeeds((SeedQuestion("short", 2),), DroppedSeeds(too_long=1))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_text_types(tmp_path: Path, kind: pa.DataType):
    file = write_parquet(tmp_path / "s.parquet", prompt=pa.array(["a", "b"], pa.string()).cast(kind))
    assert [seed.text for seed in load(file).seeds] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("s.jsonl", b"", r"s\.jsonl: the file is empty"),
        ("s.tsv", b"x", r"s\.tsv: unknown extension '\.tsv'; seeds are read from \.parquet, \.jsonl"),
        ("s.txt", b"a\nb\n\xff\xfe\n", r"s\.txt: line 3: not UTF-8 \(byte 0xff\)"),
        ("s.csv", b"prompt\na\n\xe9t\xe9\n", r"s\.csv: line 3: not UTF-8 \(byte 0xe9\)"),
        ("s.jsonl", b'{"prompt": "a"}\n{"prompt": \n', r"s\.jsonl: row 2: invalid JSON"),
        ("s.jsonl", b'{"prompt": "a"}\n["b"]\n', r"s\.jsonl: row 2: expected an object with 'prompt', found list"),
        (
            "s.jsonl",
            b'{"prompt": "a"}\n{"promt": "b", "n": 1}\n',
            r"row 2: no column 'prompt'; there are: promt, n; did",
        ),
        ("s.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', r"s\.jsonl: row 2: the seed is not text but int: 3"),
        ("s.jsonl", b'{"prompt": "\\ud800"}\n', r"s\.jsonl: row 1: the seed holds half of a surrogate pair"),
        ("s.jsonl", b"[" * 200_000, r"s\.jsonl: row 1: invalid JSON: nested too deeply"),
        ("s.json", b'[{"prompt": "a"},\n', r"s\.json: invalid JSON: .*line 2"),
        ("s.json", b'{"prompt": "a"}', r"s\.json: expected a list of objects or of strings, found dict"),
        ("s.json", b'["a", 1]', r"s\.json: row 2: expected an object with 'prompt', found int"),
        ("s.csv", b"question,text\na,b\n", r"s\.csv: no column 'prompt'; there are: question, text$"),
        ("s.csv", b"prompts,text\na,b\n", r"did you mean 'prompts'\?"),
        ("s.csv", b"n,prompt\n1,a\n2,b,c\n", r"s\.csv: row 2: 3 fields, the header has 2"),
        ("s.csv", b'prompt\n"a', r"s\.csv: invalid CSV"),
        ("s.txt", b"\n  \n", r"s\.txt: no seed is left: 2 rows are empty"),
        ("s.parquet", b"PAR1 but no parquet", r"s\.parquet: cannot be read as parquet"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, name: str, data: bytes, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        load(write(tmp_path / name, data))
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        load(tmp_path / "none.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ValueError, match=r"d\.csv: is not a file"):
        load(tmp_path / "d.csv")


def test_parquet_without_the_column_or_with_another_type(tmp_path: Path):
    file = write_parquet(tmp_path / "s.parquet", promt=["a"], other=[1])
    with pytest.raises(ValueError, match=r"no column 'prompt'; there are: promt, other; did you mean 'promt'\?"):
        load(file)
    with pytest.raises(ValueError, match=r"column 'other' is not text but int64"):
        load(file, column="other")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8))
def test_jsonl_keeps_text_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[str]):
    file = tmp_path_factory.mktemp("jsonl") / "s.jsonl"
    write(file, "".join(json.dumps({"prompt": row}, ensure_ascii=False) + "\n" for row in rows))
    if not any(row.strip() for row in rows):
        with pytest.raises(ValueError, match="no seed is left"):
            load(file)
        return
    loaded = load(file)
    assert all(rows[seed.row - 1] == seed.text for seed in loaded.seeds)
    dropped = loaded.dropped
    assert len(loaded.seeds) + dropped.empty + dropped.too_long + dropped.duplicate == len(rows)
    assert {seed.text.strip() for seed in loaded.seeds} == {row.strip() for row in rows} - {""}


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is absent")
def test_released_seeds_load():
    loaded = load(REFERENCE, max_characters=6000)
    assert len(loaded.seeds) == 5119
    assert loaded.seeds[0].text.startswith("In this task, you will be given a sentence. You need to reconize")
    assert loaded.dropped == DroppedSeeds()
