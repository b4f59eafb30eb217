import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.specs import spec_from_json, spec_to_json
from seif_nemo.data.store import (
    ConstraintCodec,
    HeldoutInstruction,
    InstructionId,
    ReleasedInstruction,
    load_heldout,
    read_instructions,
    write_instructions,
    write_rejected,
    write_released,
)
from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec
from seif_nemo.types.records import KeptInstruction, RejectedInstruction, RejectReason

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is absent")

IDS = {
    Kind.WORDS: InstructionId("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
    Kind.KEYWORD: InstructionId("keywords:forbidden_words", {"forbidden_words": ["flüster", "b"]}),
}


def to_id(constraint: Constraint) -> InstructionId:
    return InstructionId("seif:judged", {}) if constraint.spec is None else IDS[constraint.spec.kind]


CODEC = ConstraintCodec(to_id, spec_to_json, spec_from_json, parse_constraint)

KEPT = (
    KeptInstruction(
        seed_question="Why?\n",
        prompt="Why?\n* use at least 5 words\n* no ✗",
        constraints=(
            Constraint("use at least 5 words", Reading.EQUIVALENT, Spec(Kind.WORDS, low=5)),
            Constraint("no ✗, be kind", Reading.NECESSARY, Spec(Kind.KEYWORD, high=0, text="✗")),
            Constraint("be kind", Reading.NEEDS_JUDGE),
        ),
        round=2,
        instructor_digest="abc",
    ),
    KeptInstruction("How?", "How?\n* be brief", (Constraint("be brief", Reading.NEEDS_JUDGE),), 2, "abc"),
)
REJECTED = (
    RejectedInstruction("Why?", '{"c1": "a', RejectReason.UNPARSABLE, "no closing brace", 1, "d"),
    RejectedInstruction("How?", "x\n\ny", RejectReason.CONFLICT, "", 1, "d"),
)
RELEASED = (
    ReleasedInstruction(
        "Why?",
        ("a", "b"),
        (InstructionId("x:y", {"num_words": 3}), InstructionId("z", {"keywords": ["k"]})),
        "Why? a b",
    ),
)
HELDOUT = (HeldoutInstruction("Why?", ("a", "b")),)


def test_kept_instructions_come_back_as_they_went(tmp_path: Path) -> None:
    write_instructions(tmp_path / "new" / "q.parquet", KEPT, CODEC)
    assert read_instructions(tmp_path / "new" / "q.parquet", CODEC) == KEPT
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["q.parquet"]


def test_columns_of_q_parquet(tmp_path: Path) -> None:
    write_instructions(tmp_path / "q.parquet", KEPT, CODEC)
    record = pq.read_table(tmp_path / "q.parquet").to_pylist()[0]
    assert record["constraint"] == ["use at least 5 words", "no ✗, be kind", "be kind"]
    assert record["instruction_id_list"] == [
        "length_constraints:number_words",
        "keywords:forbidden_words",
        "seif:judged",
    ]
    given = [{key: value for key, value in kwargs.items() if value is not None} for kwargs in record["kwargs"]]
    assert given == [{"num_words": 5, "relation": "at least"}, {"forbidden_words": ["flüster", "b"]}, {}]
    assert json.loads(record["specs"][0]) == {
        "kind": "words",
        "low": 5,
        "high": None,
        "text": None,
        "scope": "response",
        "index": None,
        "definition": "ours",
    }
    assert record["specs"][2] is None
    assert record["readings"] == ["equivalent", "necessary", "needs_judge"]
    assert (record["round"], record["instructor_digest"]) == (2, "abc")


def test_files_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_instructions(tmp_path / name / "q.parquet", KEPT * 2100, CODEC)
    assert (tmp_path / "a" / "q.parquet").read_bytes() == (tmp_path / "b" / "q.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "a" / "q.parquet").metadata.num_row_groups == 2  # 4096 and 104 rows


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "q.parquet"
    write_instructions(file, KEPT, CODEC)
    before = file.read_bytes()
    broken = replace(KEPT[0], seed_question=3)  # type: ignore[arg-type]
    with pytest.raises(pa.ArrowException):
        write_instructions(file, [broken], CODEC)
    assert file.read_bytes() == before


def test_rows_of_rejected_parquet(tmp_path: Path) -> None:
    write_rejected(tmp_path / "r.parquet", REJECTED)
    names = ("seed_question", "raw", "reason", "detail", "round", "instructor_digest")
    assert pq.read_table(tmp_path / "r.parquet").to_pylist() == [
        dict(zip(names, ("Why?", '{"c1": "a', "unparsable", "no closing brace", 1, "d"), strict=True)),
        dict(zip(names, ("How?", "x\n\ny", "conflict", "", 1, "d"), strict=True)),
    ]


def test_the_released_columns_are_written(tmp_path: Path) -> None:
    write_released(tmp_path / "h.parquet", RELEASED)
    (record,) = pq.read_table(tmp_path / "h.parquet").to_pylist()
    given = [{key: value for key, value in kwargs.items() if value is not None} for kwargs in record.pop("kwargs")]
    assert given == [{"num_words": 3}, {"keywords": ["k"]}]
    assert record == {
        "seed_question": "Why?",
        "constraint": ["a", "b"],
        "prompt": "Why? a b",
        "instruction_id_list": ["x:y", "z"],
    }


def test_a_held_out_set_is_questions_and_constraints(tmp_path: Path) -> None:
    table = pa.table({"seed_question": ["Why?"], "constraint": [["a", "b"]]})
    pq.write_table(table, tmp_path / "bare.parquet")
    assert load_heldout(tmp_path / "bare.parquet") == HELDOUT
    foreign = table.append_column("kwargs", pa.array(["none of ours"]))  # a column that nobody asked for
    pq.write_table(foreign, tmp_path / "foreign.parquet")
    assert load_heldout(tmp_path / "foreign.parquet") == HELDOUT
    write_released(tmp_path / "h.parquet", RELEASED)
    assert load_heldout(tmp_path / "h.parquet") == HELDOUT
    assert load_heldout(str(tmp_path / "h.parquet")) == HELDOUT


def test_empty_sets(tmp_path: Path) -> None:
    write_instructions(tmp_path / "q.parquet", [], CODEC)
    assert read_instructions(tmp_path / "q.parquet", CODEC) == ()
    write_rejected(tmp_path / "r.parquet", [])
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 0
    write_released(tmp_path / "h.parquet", [])
    with pytest.raises(ValueError, match="holds no row"):
        load_heldout(tmp_path / "h.parquet")


def test_an_argument_without_a_field_is_a_bug(tmp_path: Path) -> None:
    row = replace(RELEASED[0], instruction_ids=(InstructionId("x", {"num_wrods": 3}), InstructionId("z", {})))
    with pytest.raises(AssertionError, match="num_wrods"):
        write_released(tmp_path / "h.parquet", [row])


def rewrite(source: Path, target: Path, **columns: list[object]) -> Path:
    """The file with columns replaced (or removed: an empty list)."""
    table = pq.read_table(source)
    for name, values in columns.items():
        place = table.column_names.index(name)
        kind = table.schema.field(name).type
        table = table.remove_column(place)
        if values:
            table = table.append_column(name, pa.array(values, kind))
    pq.write_table(table, target)
    return target


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": []}, r"x\.parquet: no column prompt; there are: seed_question, constraint"),
        ({"specs": []}, r"x\.parquet: has only some of the columns instructor_digest, readings, round, specs"),
        ({"specs": [[None], [None]]}, r"row 1: constraint, specs and readings have 3, 1 and 3 entries"),
        ({"specs": [['{"kind": "wrods"}', None, None], [None]]}, r"x\.parquet: row 1: spec fields"),
        ({"readings": [["equivalent", "necessary", "maybe"], ["needs_judge"]]}, r"row 1: 'maybe' is not a valid"),
        ({"seed_question": ["a", None]}, r"row 2: seed_question is not text but NoneType"),
        ({"constraint": [["a", "b", None], ["c"]]}, r"row 1: constraint is not a list of texts"),
    ],
)
def test_rows_that_do_not_hold_together(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    write_instructions(tmp_path / "q.parquet", KEPT, CODEC)
    with pytest.raises(ValueError, match=message):
        read_instructions(rewrite(tmp_path / "q.parquet", tmp_path / "x.parquet", **columns), CODEC)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"constraint": []}, r"x\.parquet: no column constraint; there are: seed_question, prompt"),
        ({"constraint": [[]]}, r"row 1: no constraints"),
        ({"constraint": [["a", None]]}, r"row 1: constraint is not a list of texts"),
        ({"seed_question": [None]}, r"row 1: seed_question is not text but NoneType"),
    ],
)
def test_held_out_rows_that_do_not_hold_together(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    write_released(tmp_path / "h.parquet", RELEASED)
    with pytest.raises(ValueError, match=message):
        load_heldout(rewrite(tmp_path / "h.parquet", tmp_path / "x.parquet", **columns))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q\.parquet: no such file"):
        read_instructions(tmp_path / "q.parquet", CODEC)
    (tmp_path / "q.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match=r"q\.parquet: cannot be read as parquet"):
        read_instructions(tmp_path / "q.parquet", CODEC)


@needs_reference
def test_released_files_load_with_parsed_constraints(tmp_path: Path) -> None:
    pq.write_table(pq.read_table(REFERENCE / "qwen7b_q_T1.parquet").slice(0, 400), tmp_path / "q.parquet")
    rows = read_instructions(tmp_path / "q.parquet", CODEC)
    assert len(rows) == 400
    assert (rows[0].round, rows[0].instructor_digest) == (0, "")
    assert [constraint.text for constraint in rows[0].constraints][1] == "不超过100个汉字"
    assert rows[0].prompt == "\n".join([rows[0].seed_question, *(c.text for c in rows[0].constraints)])
    specs = [constraint.spec for row in rows for constraint in row.constraints]
    assert Spec(Kind.COMMAS, high=0) in specs


@needs_reference
def test_released_files_load_as_a_held_out_set() -> None:
    rows = load_heldout(REFERENCE / "qwen7b_q_T1.parquet")
    assert len(rows) == 5105
    assert [len(rows[0].constraints), rows[0].constraints[1]] == [5, "不超过100个汉字"]


@needs_reference
def test_our_columns_have_the_released_types(tmp_path: Path) -> None:
    write_instructions(tmp_path / "q.parquet", KEPT, CODEC)
    ours, theirs = pq.read_schema(tmp_path / "q.parquet"), pq.read_schema(REFERENCE / "qwen7b_q_T1.parquet")
    for name in ("seed_question", "constraint", "prompt", "instruction_id_list"):
        assert ours.field(name).type == theirs.field(name).type, name
    # Their struct has one of IFEval's arguments, IFEval's own file has them all.
    ifeval = pq.read_schema(REFERENCE / "test.parquet")
    assert ours.field("kwargs").type == ifeval.field("kwargs").type
    assert set(theirs.field("kwargs").type.value_type) <= set(ours.field("kwargs").type.value_type)
