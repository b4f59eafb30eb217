"""IFEval's ids as specs with IFEval's definition, there and back."""

from pathlib import Path
from typing import Any

import pytest

from seif_nemo.constraints.ifeval import FORMS, IfevalItem, from_ifeval, merge, to_ifeval
from seif_nemo.types.constraints import Definition, Kind, Spec

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference" / "test.parquet"
IFEVAL = Definition.IFEVAL

ITEMS: list[tuple[str, dict[str, Any], Spec]] = [
    (
        "keywords:existence",
        {"keywords": ["sun", "the moon"]},
        Spec(Kind.KEYWORDS, low=1, text="sun\nthe moon", definition=IFEVAL),
    ),
    ("keywords:existence", {"keywords": ["sun"]}, Spec(Kind.KEYWORDS, low=1, text="sun", definition=IFEVAL)),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["b", "a"]},
        Spec(Kind.KEYWORDS, high=0, text="b\na", definition=IFEVAL),
    ),
    (
        "keywords:frequency",
        {"keyword": "sun", "frequency": 1, "relation": "at least"},
        Spec(Kind.KEYWORD, low=1, text="sun", definition=IFEVAL),
    ),
    (
        "keywords:frequency",
        {"keyword": "sun", "frequency": 1, "relation": "less than"},
        Spec(Kind.KEYWORD, high=0, text="sun", definition=IFEVAL),
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 4, "nth_paragraph": 2, "first_word": "it"},
        Spec(Kind.PARAGRAPH_START, low=4, high=4, text="it", index=2, definition=IFEVAL),
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        Spec(Kind.PARAGRAPHS, low=2, high=2, text="***", definition=IFEVAL),
    ),
    ("punctuation:no_comma", {}, Spec(Kind.COMMAS, high=0, definition=IFEVAL)),
    ("combination:two_responses", {}, Spec(Kind.TWO_RESPONSES, text="******", definition=IFEVAL)),
    ("detectable_format:json_format", {}, Spec(Kind.JSON, definition=IFEVAL)),
    ("language:response_language", {"language": "hi"}, Spec(Kind.LANGUAGE, text="hi", definition=IFEVAL)),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Why?\n\nSay."},
        Spec(Kind.REPEAT_PROMPT, text="Why?\n\nSay.", definition=IFEVAL),
    ),
]


@pytest.mark.parametrize(("instruction_id", "kwargs", "spec"), ITEMS, ids=str)
def test_items_are_specs(instruction_id: str, kwargs: dict[str, Any], spec: Spec) -> None:
    assert from_ifeval(instruction_id, {**kwargs, "num_bullets": None}) == [spec]
    assert to_ifeval(spec) == [IfevalItem(instruction_id, kwargs)]


def test_a_word_of_a_list_is_on_one_line() -> None:
    with pytest.raises(ValueError, match=r"'b\\n' must be on one line"):
        from_ifeval("keywords:existence", {"keywords": ["a", "b\n"]})


def test_items_can_be_read_by_our_definition() -> None:
    def ours(instruction_id: str, kwargs: dict[str, Any]) -> list[Spec]:
        return from_ifeval(instruction_id, kwargs, definition=Definition.OURS)

    assert ours("keywords:existence", {"keywords": ["a"]}) == [Spec(Kind.KEYWORD, low=1, text="a")]
    two = Spec(Kind.KEYWORDS, low=1, text="a\nb")
    assert ours("keywords:existence", {"keywords": ["a", "b"]}) == [two]
    assert to_ifeval(two) == [IfevalItem("keywords:existence", {"keywords": ["a", "b"]})]
    assert ours("change_case:english_capital", {}) == [Spec(Kind.UPPERCASE, text="en")]


def test_merge_keeps_index_and_definition() -> None:
    items = [IfevalItem(instruction_id, kwargs) for instruction_id, kwargs, _ in ITEMS[5:7]]
    assert merge(items) == [spec for _, _, spec in ITEMS[5:7]]
    other = IfevalItem(items[0].instruction_id, {**items[0].kwargs, "nth_paragraph": 3})
    assert [spec.index for spec in merge([items[0], other])] == [2, 3]
    both = [
        IfevalItem("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
        IfevalItem("length_constraints:number_words", {"num_words": 9, "relation": "less than"}),
    ]
    assert merge(both) == [Spec(Kind.WORDS, low=5, high=8, definition=IFEVAL)]
    assert to_ifeval(*merge(both)) == both


@pytest.mark.skipif(not DATA.exists(), reason="no IFEval instructions in shared/data")
def test_all_instructions_of_ifeval_round_trip() -> None:
    import pyarrow.parquet as pq

    seen: set[str] = set()
    count = 0
    for row in pq.read_table(DATA).to_pylist():
        for instruction_id, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            specs = from_ifeval(instruction_id, kwargs)
            assert [spec.definition for spec in specs] == [IFEVAL]
            given = {name: value for name, value in kwargs.items() if value is not None}
            assert to_ifeval(specs[0]) == [IfevalItem(instruction_id, given)]
            seen.add(instruction_id)
            count += 1
    assert count == 834
    assert seen == {form.instruction_id for form in FORMS}
