import json
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.judging.streams import Chunk, judge_chunk
from seif_nemo.judging.tasks import parse_line, parse_object, read_demands
from seif_nemo.types.constraints import Kind, Reading

IDS = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def line(**row: object) -> bytes:
    return json.dumps({"response": "one two", **row}).encode()


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "empty line, not a JSON object"),
        (b" \r\n", "empty line, not a JSON object"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes at character 2"),
        (b'{"a": "\x00"}', "not JSON: Invalid control character at at character 8"),
        (b"\xff{}", "not UTF-8: byte 0 is 0xff"),
        (b'"text"', "not a JSON object but a string"),
        (b"[]", "not a JSON object but a list"),
        (b"3", "not a JSON object but a number"),
        (b"true", "not a JSON object but a boolean"),
        (b"null", "not a JSON object but null"),
        (b'{"response": NaN}', "not JSON: NaN"),
        (b'{"response": -Infinity}', "not JSON: -Infinity"),
        (b'{"response": "a", "response": "b"}', "'response' is given twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON is nested too deeply"),
        (b"{}", "'response' is missing"),
        (line(response=None), "'response' is missing"),
        (line(response=5), "'response' must be a string, not a number"),
        (line(response=["a"]), "'response' must be a string, not a list"),
        (line(response="a\ud800b"), "'response' is no text: half of a surrogate pair at character 2"),
        (line(), "none of 'instruction_id_list', 'constraints', 'specs'"),
        (line(constraints=None), "none of 'instruction_id_list', 'constraints', 'specs'"),
        (
            line(constraint=["a"]),
            "none of 'instruction_id_list', 'constraints', 'specs'; is 'constraint' meant to be 'constraints'?",
        ),
        (line(constraints=["a"], specs=[]), "'constraints' and 'specs' both say what to judge; keep one of them"),
        (line(constraints=["a"], kwargs=[{}]), "'kwargs' without 'instruction_id_list', to which it belongs"),
        (line(constraints="a"), "'constraints' must be a list, not a string"),
        (line(constraints=[]), "'constraints' is empty: nothing to judge"),
        (
            line(constraints=["a", 5]),
            "constraints[1] must be a string or an object with a string 'text', not a number",
        ),
        (
            line(constraints=[{"txt": "a"}]),
            "constraints[0] must be a string or an object with a string 'text', not an object",
        ),
        (line(constraints=["\udfff"]), "constraints[0] is no text: half of a surrogate pair at character 1"),
        (line(constraints=["a"], seed_question=1), "'seed_question' must be a string, not a number"),
        (line(constraints=["a"], prompt={}), "'prompt' must be a string, not an object"),
        (
            line(instruction_id_list=["punctuation:no_comma"]),
            "'kwargs' is missing: one object (or null) for each of the 1 instruction ids",
        ),
        (
            line(instruction_id_list=["punctuation:no_comma"], kwargs=[{}, {}]),
            "'kwargs' has 2 entries but 'instruction_id_list' has 1",
        ),
        (line(instruction_id_list=[5], kwargs=[{}]), "instruction_id_list[0] must be a string, not a number"),
        (
            line(instruction_id_list=["punctuation:no_comma"], kwargs=[5]),
            "kwargs[0] must be an object or null, not a number",
        ),
        (line(specs=[5]), "specs[0]: must be an object or its JSON, not a number"),
        (line(specs=["{"]), "specs[0]: not JSON: Expecting property name enclosed in double quotes at character 2"),
        (line(specs=["[1]"]), "specs[0]: not a JSON object but a list"),
    ],
)
def test_a_bad_row_is_one_clear_line(text: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_line(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "row, start",
    [
        ({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}, "instruction_id_list[0]: "),
        (
            {"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"], "kwargs": [None, {}]},
            "instruction_id_list[1]: ",
        ),
        (
            {"specs": [{"kind": "words", "low": 3}, {"kind": "wrds", "low": 3}]},
            "specs[1]: spec kind='wrds' must be one",
        ),
        ({"specs": [{"kind": "words", "low": 10**400}]}, "specs[0]: spec of kind words: low=1000"),
        ({"specs": [{"kind": "words", "low": 1e999}]}, "not JSON: Infinity"),
    ],
)
def test_what_is_wrong_with_an_entry_names_its_place(row: dict[str, object], start: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_line(line(**row))
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    assert len(message) <= 300


def test_a_number_of_too_many_digits_is_an_error_of_the_row() -> None:
    with pytest.raises(ValueError, match="limit"):
        parse_line(b'{"response": ' + b"9" * 5000 + b"}")


def test_the_first_key_given_twice_is_named_in_one_pass() -> None:
    """Comparing all pairs of keys would take minutes here; the last key of many repeats."""
    keys = [f"k{number}" for number in range(200_000)]
    text = "{" + ", ".join(f'"{key}": 0' for key in [*keys, "k199999", "k0"]) + "}"
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"^'k199999' is given twice$"):
        parse_object(text)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000])
def test_json_that_is_nested_too_deeply_is_no_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"^JSON is nested too deeply$"):
        parse_object(text)


def test_a_row_by_ids_has_one_demand_per_id() -> None:
    ids = ["keywords:existence", "length_constraints:number_words"]
    kwargs = [{"keywords": ["river", "bank"], "num_words": None}, {"num_words": 5.0, "relation": "less than"}]
    demands = parse_line(line(instruction_id_list=ids, kwargs=kwargs)).demands
    assert len(demands) == 2
    assert all(demand.constraint is None for demand in demands)
    [words] = demands[1].specs
    assert (words.kind, words.low, words.high) == (Kind.WORDS, 0, 4)


def test_texts_are_read_by_the_parser_and_may_be_objects() -> None:
    demands = parse_line(line(constraints=["At most 3 words.", {"text": "She wrote a book.", "kind": "?"}])).demands
    first, second = (demand.constraint for demand in demands)
    assert first is not None
    assert second is not None
    assert (first.reading, second.reading) == (Reading.EQUIVALENT, Reading.NOT_A_CONSTRAINT)
    assert (second.text, second.spec) == ("She wrote a book.", None)


def test_specs_may_be_objects_or_their_json_and_leave_out_defaults() -> None:
    demands = read_demands({"specs": [{"kind": "words", "low": 3}, '{"kind": "commas", "high": 0}']})
    assert [(d.specs[0].kind, d.specs[0].low, d.specs[0].high) for d in demands] == [
        (Kind.WORDS, 3, None),
        (Kind.COMMAS, 0, 0),
    ]


def test_the_reasoning_is_no_part_of_the_response() -> None:
    assert parse_line(line(response="<think>a, b</think>no comma", **IDS)).response == "no comma"
    assert parse_line(line(response="<think>a, b", **IDS)).response == ""
    assert parse_line(line(response="a, b</think>no comma", **IDS)).response == "no comma"


def test_repeating_the_question_needs_the_question() -> None:
    spec = {"kind": "repeat_prompt"}
    with pytest.raises(ValueError, match="'seed_question' is missing: a constraint asks to repeat it"):
        parse_line(line(specs=[spec], prompt="What? Repeat the question first."))
    assert parse_line(line(specs=[spec], seed_question="What?")).seed_question == "What?"


def test_keys_of_the_user_are_left_alone() -> None:
    row = line(id=7, meta={"a": [1]}, **IDS)
    assert parse_line(row) == parse_line(line(**IDS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ID = st.sampled_from(["punctuation:no_comma", "keywords:existence", "length_constraints:number_words", "soft"])
NUMBERS = st.integers() | st.floats() | st.sampled_from(["at least", "less than"])
SPEC = st.fixed_dictionaries(
    {"kind": st.sampled_from([kind.value for kind in Kind])},
    optional={
        "low": st.integers(-1, 9) | JSON,
        "high": st.none() | st.integers(-1, 9),
        "text": st.none() | st.text(max_size=3) | JSON,
        "scope": st.sampled_from(["response", "each_item", "nth_sentence", "?"]),
        "index": st.none() | st.integers(-2, 2),
    },
)
KWARGS = st.dictionaries(st.sampled_from(["num_words", "relation", "keywords"]), NUMBERS | JSON, max_size=3)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "response": st.text() | JSON,
        "instruction_id_list": st.lists(ID | JSON, max_size=2) | JSON,
        "kwargs": st.lists(KWARGS | JSON, max_size=2) | JSON,
        "constraints": st.lists(st.text() | JSON, max_size=3) | JSON,
        "specs": st.lists(SPEC | SPEC.map(json.dumps) | JSON, max_size=3) | JSON,
        "seed_question": st.none() | st.text() | JSON,
        "prompt": st.none() | st.text() | JSON,
    },
)


def check_line(data: bytes) -> None:
    judged = judge_chunk(Chunk(6, (data,)))
    [written] = judged.output.decode().splitlines()
    row = json.loads(written)
    assert list(row) == ["index", "verdicts", "follow_rate", "error"]
    assert row["index"] == 6
    if row["error"] is None:
        assert judged.bad == 0
        assert row["verdicts"]
        assert all(list(verdict) == ["verdict", "source", "evidence"] for verdict in row["verdicts"])
        is_missing = any(verdict["verdict"] == "missing" for verdict in row["verdicts"])
        assert (row["follow_rate"] is None) == is_missing
    else:
        assert judged.bad == 1
        assert row["error"].startswith("line 7: ")
        assert (row["verdicts"], row["follow_rate"]) == ([], None)


@given(ROW | JSON)
def test_any_json_gives_one_line_and_never_an_exception(value: object) -> None:
    check_line(json.dumps(value).encode())


@given(st.binary() | st.text(alphabet=string.printable).map(str.encode))
def test_any_bytes_give_one_line_and_never_an_exception(data: bytes) -> None:
    check_line(data)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_objects_are_read_as_the_json_module_does(value: dict[str, object]) -> None:
    text = json.dumps(value)
    if "NaN" in text or "Infinity" in text:
        return
    assert parse_object(text) == json.loads(text)
