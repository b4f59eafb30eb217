"""Lists of texts out of whatever a model writes."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.roles.instructor import ParseFailure, parse_instruction
from seif_nemo.roles.json_extract import Malformed, extract_texts
from seif_nemo.roles.prompts import instructor_template
from seif_nemo.types.records import RejectReason

TINY = instructor_template("tiny")
ABC = '{"c1": "a", "c2": "b", "c3": "c"}'


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        (ABC, ("a", "b", "c")),
        (f"Here you are:\n```json\n{ABC}\n```\nGood luck!", ("a", "b", "c")),
        ('{"c1": "a",\n "c2": "b",\n}', ("a", "b")),
        ('{"c1": "keep , } and ,] as they are",}', ("keep , } and ,] as they are",)),
        ('{"constraints": ["a", "b",]}', ("a", "b")),
        ('{"constraints": {"1": "a"}}', ("a",)),
        ('{"constraints": "a"}', ("a",)),
        ('{"c1": "say \\"{hi}\\" }"}', ('say "{hi}" }',)),
        ('{"c1": "two\nlines  and\\ttab"}', ("two lines and tab",)),
        ('{"x": "draft"} no, better: {"c1": "a"}', ("a",)),
        ('{"c1": "a"} I hope {this} helps }', ("a",)),
        ('a { b {"c1": "a"}', ("a",)),
        ('a { "b {"c1": "a"}', ("a",)),
        ('{"x": "y"} a { "b {"c1": "a"}', ("a",)),
        ('a " {"c1": "a"}', ("a",)),
        ('{"c1": "über \\u00e9 \\ud83d\\ude00"}', ("über é 😀",)),
        ('<think>{"c1": "no"}</think>{"c1": "a"}', ("a",)),
        ('{"c1": "write <think>"}', ("write <think>",)),
        ('</think>\n\n{"c1": "a"}', ("a",)),
    ],
)
def test_tolerated(text: str, texts: tuple[str, ...]) -> None:
    assert extract_texts(text) == texts


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "no balanced {...}"),
        ("1. a\n2. b", "no balanced {...}"),
        ('{"c1": "a", "c2": "b"', "no balanced {...}"),
        ('["a", "b"]', "no balanced {...}"),
        ("{a, b}", "no balanced {...} is JSON"),
        ("{'c1': 'a'}", "no balanced {...} is JSON"),
        ('{"c1" "a"}', "no balanced {...} is JSON"),
        ("{}", "the object is empty"),
        ('{"constraints": []}', "the object is empty"),
        ('{"c1": "a", "c2": " "}', "a value is empty"),
        ('{"c1": "a", "c2": 5}', "a value is of type int, not a string"),
        ('{"c1": "a", "c2": null}', "a value is of type NoneType, not a string"),
        ('{"c1": {"text": "a"}}', "a value is of type dict, not a string"),
        ('{"constraints": [["a"]]}', "a value is of type list, not a string"),
        ('{"c1": "a", "c1": "b"}', "a key occurs twice"),
        ('{"good": "a"} {"c1": 5}', "a value is of type int, not a string"),
        ('{"c1": "a", "c2": "b \\ud83d"}', "half of a surrogate pair"),
        ('{"constraints": ["a\\udfff"]}', "half of a surrogate pair"),
        ('<think>{"c1": "a"}', "the reasoning never ends"),
        ('<think>x</think><think>{"c1": "a"}', "the reasoning never ends"),
        ("{" * 100_000 + "}" * 100_000, "no balanced {...} is JSON"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "no balanced {...} is JSON"),
    ],
    ids=lambda value: value[:30],
)
def test_refused(text: str, detail: str) -> None:
    assert extract_texts(text) == Malformed(detail)


TEXTS = st.text().filter(lambda text: "</think>" not in text)
ENTRIES = st.dictionaries(TEXTS, TEXTS.filter(str.strip), min_size=1)


@given(ENTRIES, st.text(alphabet="ab{ \n`", max_size=9))
def test_what_json_writes_is_read(entries: dict[str, str], around: str) -> None:
    expected = tuple(" ".join(value.split()) for value in entries.values())
    assert extract_texts(around.replace("{", "") + json.dumps(entries) + around.replace("{", "")) == expected
    assert extract_texts(around + json.dumps(entries, indent=2)) == expected


@given(st.one_of(st.text(), st.text(alphabet='{}[]",:\\ac1 \n', max_size=200)))
def test_junk_never_raises(text: str) -> None:
    found = extract_texts(text)
    if not isinstance(found, Malformed):
        assert found
        assert all(entry.strip() == entry and entry for entry in found)


PIECES = [
    "{",
    "}",
    '"',
    '{"',
    '{"a":',
    "{}",
    '{"a":"b"}',
    "\\",
    '\\"',
    '{\\"',
    "[",
    "{[",
    ",",
    ", ",
    '",',
    "<think>",
    "{,",
]


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(piece: str) -> None:
    """Several times what a model may write. Anything quadratic would take minutes."""
    for text in (piece * (100_000 // len(piece)), "{" + piece * (100_000 // len(piece)) + "}"):
        started = time.process_time()
        extract_texts(text)
        assert time.process_time() - started < 2.0


def test_parse_instruction() -> None:
    assert parse_instruction(ABC, TINY) == ("a", "b", "c")
    assert parse_instruction("no", TINY) == ParseFailure(RejectReason.UNPARSABLE, "no balanced {...}")
    assert parse_instruction('{"c1": "a"}', TINY) == ParseFailure(
        RejectReason.WRONG_COUNT, "1 constraints, 3 asked for"
    )
    many = instructor_template("many_kinds")
    assert parse_instruction(ABC, many) == ParseFailure(RejectReason.WRONG_COUNT, "3 constraints, 5 asked for")
