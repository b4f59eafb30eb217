"""Specs as JSON and as IFEval items, there and back."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.constraints.ifeval import FORMS, IfevalItem, from_ifeval, merge, to_ifeval
from seif_nemo.constraints.specs import NTH_SCOPES, spec_from_json, spec_to_json, validate
from seif_nemo.types.constraints import Definition, Kind, Scope, Spec
from tests.unit.constraints.makers import draw_spec

PLAIN = {"index": None, "definition": "ours"}
SPECS = st.builds(
    lambda seed, common: draw_spec(random.Random(seed), common=common), st.integers(0, 2**32), st.booleans()
)


@given(SPECS, st.sampled_from(Scope))
def test_json_round_trip(spec: Spec, scope: Scope) -> None:
    scoped = Spec(spec.kind, spec.low, spec.high, spec.text, scope, -2 if scope in NTH_SCOPES else None)
    assert spec_from_json(spec_to_json(scoped)) == validate(scoped) == scoped


def test_json_is_canonical() -> None:
    assert spec_to_json(Spec(Kind.KEYWORD, low=1, text="é")) == (
        '{"kind":"keyword","low":1,"high":null,"text":"é","scope":"response","index":null,"definition":"ours"}'
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "wrods"}, "kind='wrods' must be one of"),
        ({"scope": "title"}, "scope='title' must be one of"),
        ({"low": "3"}, "low='3' must be an integer"),
        ({"low": True}, "low=True must be an integer"),
        ({"low": 3.0}, "low=3.0 must be an integer"),
        ({"low": -1}, "low=-1 must be in"),
        ({"high": 1}, r"high=1 must be in \[low=3"),
        ({"high": 10**9}, "high=1000000000 must be in"),
        ({"low": 0}, "demands nothing"),
        ({"text": "x"}, "takes none"),
        ({"text": 5}, "text=5 must be a string"),
        ({"extra": 1}, "must be exactly"),
        ({"kind": "keyword"}, "text=None must be 1 to 200"),
        ({"kind": "keyword", "text": "\u200b"}, "visible characters"),
        ({"kind": "letter", "text": "ab"}, "must be one character"),
        ({"kind": "sections", "text": "--"}, "must hold a word"),
        ({"kind": "paragraphs", "text": "--"}, "the divider"),
        ({"kind": "starts_with", "low": 0, "text": ".,"}, "more than punctuation"),
        ({"kind": "title"}, "counts nothing"),
        ({"kind": "words", "low": 0, "high": 0}, "no response can satisfy"),
    ],
)
def test_json_is_validated(change: dict[str, object], message: str) -> None:
    fields = {"kind": "words", "low": 3, "high": None, "text": None, "scope": "response"}
    fields |= PLAIN
    with pytest.raises(ValueError, match=message):
        spec_from_json(json.dumps(fields | change))


@pytest.mark.parametrize("text", ["", "5", "[]", "{", '{"kind": "words"}', "[" * 100_000])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        spec_from_json(text)


ITEMS: list[tuple[Spec, list[tuple[str, dict[str, object]]]]] = [
    (
        Spec(Kind.WORDS, low=5, high=5),
        [
            ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
            ("length_constraints:number_words", {"num_words": 6, "relation": "less than"}),
        ],
    ),
    (
        Spec(Kind.SENTENCES, high=3),
        [("length_constraints:number_sentences", {"num_sentences": 4, "relation": "less than"})],
    ),
    (
        Spec(Kind.PARAGRAPHS, low=2, high=2, text="***"),
        [("length_constraints:number_paragraphs", {"num_paragraphs": 2})],
    ),
    (Spec(Kind.BULLETS, low=3, high=3), [("detectable_format:number_bullet_lists", {"num_bullets": 3})]),
    (Spec(Kind.PLACEHOLDERS, low=2), [("detectable_content:number_placeholders", {"num_placeholders": 2})]),
    (Spec(Kind.HIGHLIGHTS, low=2), [("detectable_format:number_highlighted_sections", {"num_highlights": 2})]),
    (
        Spec(Kind.SECTIONS, low=2, text="Part"),
        [("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2})],
    ),
    (Spec(Kind.KEYWORD, low=1, text="sun"), [("keywords:existence", {"keywords": ["sun"]})]),
    (Spec(Kind.KEYWORD, high=0, text="sun"), [("keywords:forbidden_words", {"forbidden_words": ["sun"]})]),
    (
        Spec(Kind.KEYWORD, low=2, text="sun"),
        [("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "at least"})],
    ),
    (
        Spec(Kind.LETTER, high=4, text="e"),
        [("keywords:letter_frequency", {"letter": "e", "let_frequency": 5, "let_relation": "less than"})],
    ),
    (
        Spec(Kind.CAPITAL_WORDS, low=4),
        [("change_case:capital_word_frequency", {"capital_frequency": 4, "capital_relation": "at least"})],
    ),
    (Spec(Kind.COMMAS, high=0), [("punctuation:no_comma", {})]),
    (Spec(Kind.UPPERCASE, text="en"), [("change_case:english_capital", {})]),
    (Spec(Kind.LOWERCASE, text="en"), [("change_case:english_lowercase", {})]),
    (
        Spec(Kind.LOWERCASE),  # of no language in particular
        [
            (
                "seif:lowercase",
                {"kind": "lowercase", "low": 0, "high": None, "text": None, "scope": "response", **PLAIN},
            )
        ],
    ),
    (
        Spec(Kind.HIGHLIGHTS, low=2, text="**"),  # IFEval's id does not care which mark
        [
            (
                "seif:highlights",
                {"kind": "highlights", "low": 2, "high": None, "text": "**", "scope": "response", **PLAIN},
            )
        ],
    ),
    (
        Spec(Kind.KEYWORDS, high=0, text="sun\nthe moon"),
        [("keywords:forbidden_words", {"forbidden_words": ["sun", "the moon"]})],
    ),
    (Spec(Kind.ENDS_WITH, text="bye"), [("startend:end_checker", {"end_phrase": "bye"})]),
    (Spec(Kind.QUOTED), [("startend:quotation", {})]),
    (Spec(Kind.TITLE), [("detectable_format:title", {})]),
    (Spec(Kind.JSON), [("detectable_format:json_format", {})]),
    (
        Spec(Kind.STARTS_WITH, text="Well"),
        [
            (
                "seif:starts_with",
                {"kind": "starts_with", "low": 0, "high": None, "text": "Well", "scope": "response", **PLAIN},
            )
        ],
    ),
    (
        Spec(Kind.BULLETS, low=3),
        [("seif:bullets", {"kind": "bullets", "low": 3, "high": None, "text": None, "scope": "response", **PLAIN})],
    ),
    (
        Spec(Kind.WORDS, low=3, scope=Scope.EACH_SENTENCE),
        [
            (
                "seif:words",
                {"kind": "words", "low": 3, "high": None, "text": None, "scope": "each_sentence", **PLAIN},
            )
        ],
    ),
]


@pytest.mark.parametrize(("spec", "items"), ITEMS, ids=str)
def test_ifeval_items(spec: Spec, items: list[tuple[str, dict[str, object]]]) -> None:
    assert [(item.instruction_id, item.kwargs) for item in to_ifeval(spec)] == items
    assert merge(to_ifeval(spec), definition=Definition.OURS) == [spec]


@given(SPECS)
def test_ifeval_round_trip(spec: Spec) -> None:
    items = to_ifeval(spec)
    assert merge(items, definition=Definition.OURS) == [spec]
    for item in items:
        assert json.loads(json.dumps(item.kwargs)) == item.kwargs


def test_every_id_is_known_both_ways() -> None:
    assert len({form.instruction_id for form in FORMS}) == len(FORMS) == 25


def test_ifeval_items_of_others() -> None:
    nothing = {"num_words": None, "prompt_to_repeat": None}
    assert from_ifeval("keywords:existence", {"keywords": ["a"], **nothing}, definition=Definition.OURS) == [
        Spec(Kind.KEYWORD, low=1, text="a")
    ]
    assert from_ifeval("length_constraints:number_words", {"num_words": 300.0, "relation": "at least"}) == [
        Spec(Kind.WORDS, low=300, definition=Definition.IFEVAL)
    ]


@pytest.mark.parametrize(
    ("instruction_id", "kwargs", "message"),
    [
        ("length_constraints:number_word", {}, "nearest: 'length_constraints:number_words'"),
        ("soft", {"num_bullets": 3}, "has no rule here"),
        ("punctuation:no_comma", {"num_bullets": 3}, r"\['num_bullets'\] are not known"),
        ("length_constraints:number_words", {"num_words": 5, "relation": "more than"}, "'less than'"),
        ("length_constraints:number_words", {"relation": "at least"}, r"kwargs\['num_words'\]=None"),
        ("keywords:existence", {"keywords": []}, "must be a list of strings"),
        ("keywords:existence", {"keywords": "sun"}, "must be a list of strings"),
        ("startend:end_checker", {"end_phrase": 5}, "must be a string"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("seif:words", {"kind": "bullets", "low": 3, "scope": "response"}, "does not fit the id"),
    ],
)
def test_wrong_ifeval_items(instruction_id: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_ifeval(instruction_id, kwargs)


def test_items_that_leave_nothing_between_them() -> None:
    items = [*to_ifeval(Spec(Kind.WORDS, low=9)), *to_ifeval(Spec(Kind.WORDS, high=3))]
    with pytest.raises(ValueError, match="high=3 must be in"):
        merge(items)
    assert merge([IfevalItem("punctuation:no_comma", {}), *items[:1]], definition=Definition.OURS) == [
        Spec(Kind.COMMAS, high=0),
        Spec(Kind.WORDS, low=9),
    ]
