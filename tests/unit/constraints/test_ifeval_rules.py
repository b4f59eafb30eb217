"""IFEval's rules by hand: what each one counts, where it differs from the public checkers on purpose, and its speed."""

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.constraints.ifeval import FORMS
from seif_nemo.constraints.ifeval_rules import RULES, check_ifeval, loose_variants
from seif_nemo.constraints.language import detect_language
from seif_nemo.constraints.punkt import count_capital_tokens, split_sentences, tokens
from seif_nemo.constraints.verify import verify
from seif_nemo.types.constraints import Definition, Kind, Spec
from seif_nemo.types.verdicts import Outcome, Source, Verdict
from tests.unit.constraints.ifeval_answers import LANGUAGES, MAKERS, SENTENCES

LEAST, LESS = "at least", "less than"
GERMAN, ENGLISH = LANGUAGES["de"], LANGUAGES["en"]


def passes(instruction_id: str, kwargs: dict[str, Any], response: str, *, loose: bool = False) -> bool:
    verdict = check_ifeval(instruction_id, kwargs, response, prompt="Why?", loose=loose)
    assert verdict.source is Source.RULE
    assert verdict.evidence
    return verdict.outcome is Outcome.PASSED


# id, kwargs, responses that follow, responses that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["art", "Sun"]}, ["START of the sun", "art\nsun"], ["art", "sun and a r t"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["art", "a b"]},
        ["start", "a  b"],
        ["An ART.", "state-of-art", "a b"],
    ),
    ("keywords:frequency", {"keyword": "art", "frequency": 2, "relation": LEAST}, ["start Art", "artart"], ["art"]),
    ("keywords:frequency", {"keyword": "art", "frequency": 2, "relation": LESS}, ["start", "no"], ["art art"]),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": LEAST}, ["eE"], ["e", "é e"]),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 1, "let_relation": LESS}, ["no"], ["yes", "E"]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LEAST},
        ["don't go", "a-b_c d"],
        ["a_b c", "文学 文"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["one, two"], ["it's on"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        ["One. Two", "Hi! Bye", "It is. she said.", "e.g. this"],
        ["Mr. Smith left.", "One.Two", "- a\n- b", "No stop\n\nat all"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "a***b", "***a***b***", "a\n\nb ***\n\n c"],
        ["a\n\nb", "a *** *** b", "a *** b *** c", "a"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "It"},
        ["a b\n\nit is", "a\n\n'IT, so", 'a\n\n"it" is', "a\n\nit's"],
        ["a\n\nits", "a\nit", "it\n\na", "a\n\nit\n\nb", "a\n\n\n\nit", "a\n\n*it*"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] []x", "[[a] [b]]"],
        ["[a]", "[a\n] [b]"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["a\np. s. b", "ap.s.x"], ["PS: b", "P.S b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S b", "p. p. s"], ["P.S. b"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  * b", "*a\n-b", "---\n- a", "* a\n+ b\n- c", "*\n* a\n- b"],
        ["* a", "* a\n* b\n* c", "** a\n* b", "1. a\n2. b", "*\n* a"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "**a** *b*", "*a* b*c*"],
        ["*a*", "**a**", "* * *b*", "*a\n*b*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\nx\nSection 2", "Section1Section 2"],
        ["SECTION 1 SECTION 2", "Section 1", "Section one Section two", "Section  1 Section 2"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<a>> b", "b << a>>", "<<<a>>", "a\n<<x> y>>"],
        ["<< >> a", "<<a\n>> b", "<a> b"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', "```json\n[1]\n```", '"a"', "5", "``` [1] ```", "NaN"],
        ["{a: 1}", "Sure: {}a", "```python\n[1]\n```", '{"a": 1,}'],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is no.", "Well. My answer is maybe. My answer is yes."],
        ["my answer is no.", "My answer is no", "No."],
    ),
    (
        "combination:two_responses",
        {},
        ["a******b", "******\na\n******\nb\n******"],
        ["a***b", "a******a", "a******b******c", "a************b", "a"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say A "}, [" say a b", "SAY A"], ['"Say A"', "a"]),
    ("combination:repeat_prompt", {}, ["why? Because."], ["Because."]),
    ("startend:end_checker", {"end_phrase": " Bye."}, ["a bye.", 'a BYE." \n', "goodbye."], ["Bye. a", "Bye", "Bye.”"]),
    ("startend:quotation", {}, ['"a"', ' "a" b "c"\n'], ['"a', "“a”", "'a'", '"a".']),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper(), ENGLISH.upper() + "a"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower()]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["I am A cat", "USA/U.S. UN", "A-B C", "CAN'T"],
        ["I am", "A-B", "YES", "Don'T a"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LESS}, ["NO way"], ["NO WAY"]),
    ("punctuation:no_comma", {}, ["a b", "a，b", "a、b"], ["a, b", "1,000"]),
    ("language:response_language", {"language": "de"}, [GERMAN], [ENGLISH, LANGUAGES["fr"]]),
    ("language:response_language", {"language": "hi"}, [LANGUAGES["hi"]], [LANGUAGES["bn"]]),
]


def test_every_id_has_a_rule_and_a_case() -> None:
    ids = {form.instruction_id for form in FORMS}
    assert set(RULES) == ids == {case[0] for case in CASES}
    assert len(ids) == 25


@pytest.mark.parametrize(
    ("instruction_id", "kwargs", "good", "bad"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_rule(instruction_id: str, kwargs: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for response in good:
        assert passes(instruction_id, kwargs, response), response
    for response in bad:
        assert not passes(instruction_id, kwargs, response), response
    for response in ("", " \n", ":", "***", "…"):
        assert not passes(instruction_id, kwargs, response), response
        assert not passes(instruction_id, kwargs, response, loose=True), response


def test_evidence() -> None:
    verdict = check_ifeval(
        "length_constraints:number_words", {"num_words": 3, "relation": LESS}, "one two three", prompt=""
    )
    assert verdict == Verdict(Outcome.FAILED, Source.RULE, "3 words, at most 2")
    verdict = check_ifeval("punctuation:no_comma", {}, "Sure, here:\na b", prompt="", loose=True)
    assert verdict == Verdict(Outcome.PASSED, Source.RULE, "loose: 0 commas, exactly 0")


def test_loose_variants() -> None:
    assert loose_variants("a*\n b \nc") == ["a*\n b \nc", "a\n b \nc", "b \nc", "a*\n b", "a\n b", "b"]
    assert loose_variants("a") == ["a", ""]


@pytest.mark.parametrize(
    ("instruction_id", "kwargs", "response"),
    [
        ("startend:quotation", {}, 'Sure:\n"a"'),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say A"}, "**Say A**\nA"),
        ("detectable_format:json_format", {}, "Here:\n[1]\nDone."),
        ("language:response_language", {"language": "de"}, f"Here:\n{GERMAN}"),
    ],
)
def test_loose_forgives_what_strict_does_not(instruction_id: str, kwargs: dict[str, Any], response: str) -> None:
    assert passes(instruction_id, kwargs, response, loose=True)
    if instruction_id != "language:response_language":
        assert not passes(instruction_id, kwargs, response)


# --- the rows of docs/ifeval.md: the public checkers differ here


def test_keywords_are_no_patterns() -> None:
    frequency = {"frequency": 1, "relation": LEAST}
    assert not passes("keywords:frequency", {"keyword": "a.c", **frequency}, "abc")
    assert passes("keywords:frequency", {"keyword": "a.c", **frequency}, "a.c")
    assert passes("keywords:existence", {"keywords": ["[b", "c++"]}, "C++ and [b")  # upstream raises
    assert passes("keywords:forbidden_words", {"forbidden_words": [".*"]}, "words")
    assert passes("detectable_format:multiple_sections", {"section_spliter": "(a", "num_sections": 1}, "(a 1")
    assert not passes("detectable_content:postscript", {"postscript_marker": "N.B."}, "unbob")


def test_marks_count_as_letters() -> None:
    kwargs = {"letter": "!", "let_frequency": 2, "let_relation": LEAST}  # upstream draws a letter at random
    assert passes("keywords:letter_frequency", kwargs, "a!!")
    assert not passes("keywords:letter_frequency", kwargs, "a!" + "abcdefghijklmnopqrstuvwxyz" * 3)


def test_text_without_a_language_is_in_none() -> None:
    assert detect_language("12345 67") is None  # upstream passes it as any language
    assert not passes("language:response_language", {"language": "en"}, "12345 67")


def test_deep_json_is_none() -> None:
    assert not passes("detectable_format:json_format", {}, "[" * 100_000 + "1" + "]" * 100_000)  # upstream raises


# --- specs


def test_verify_uses_these_rules() -> None:
    spec = Spec(Kind.KEYWORD, low=1, text="art", definition=Definition.IFEVAL)
    assert verify(spec, "start", seed_question="").outcome is Outcome.PASSED
    ours = Spec(Kind.KEYWORD, low=1, text="art")
    assert verify(ours, "start", seed_question="").outcome is Outcome.FAILED
    interval = Spec(Kind.WORDS, low=2, high=3, definition=Definition.IFEVAL)
    found = [
        verify(interval, response, seed_question="").outcome is Outcome.PASSED for response in ("a", "don't", "a-b c d")
    ]
    assert found == [False, True, False]
    prompt = Spec(Kind.REPEAT_PROMPT, definition=Definition.IFEVAL)
    assert verify(prompt, "WHY? So.", seed_question="Why?").outcome is Outcome.PASSED
    assert verify(prompt, "So.", seed_question="").outcome is Outcome.FAILED


def test_a_spec_that_no_id_says_is_checked_by_our_rules() -> None:
    spec = Spec(Kind.BULLETS, low=2, definition=Definition.IFEVAL)
    assert verify(spec, "+ a\n+ b\n+ c", seed_question="").outcome is Outcome.PASSED


def test_ids_of_others_are_refused() -> None:
    with pytest.raises(ValueError, match="nearest: 'punctuation:no_comma'"):
        check_ifeval("punctuation:no_commas", {}, "a", prompt="")
    with pytest.raises(ValueError, match="not one of IFEval's"):
        check_ifeval(
            "seif:title", {"kind": "title", "low": 0, "scope": "response", "definition": "ours"}, "a", prompt=""
        )
    with pytest.raises(ValueError, match="num_words"):
        check_ifeval("length_constraints:number_words", {"relation": LEAST}, "a", prompt="")


# --- sentences and words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "Dr. Cole met J. Bond at 5 p.m. in the U.S. embassy. Then",
            ["Dr. Cole met J. Bond at 5 p.m. in the U.S. embassy.", "Then"],
        ),
        ("We met at 5 p.m. The end.", ["We met at 5 p.m.", "The end."]),
        ('He said "No." Then (fine.) so', ['He said "No."', "Then (fine.)", "so"]),
        ("It costs 3.5. more", ["It costs 3.5. more"]),
        ("1. One\n2. Two", ["1.", "One\n2.", "Two"]),
        ("Well... so what. end", ["Well... so what.", "end"]),
        ("文。学。", ["文。学。"]),
        (" \n", []),
    ],
)
def test_split_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_tokens() -> None:
    assert tokens("I can't (USA), it's A.B. now: CANNOT.") == [
        *["I", "ca", "n't", "(", "USA", ")", ",", "it", "'s", "A.B", ".", "now", ":", "CAN", "NOT", "."]
    ]


_PIECES = ["A", "I", "Foo", "the", "don't", "DON'T", "NASA's", "U.S.", "WANNA", "'TIS", "``", "CANNOT", "5B", "e.g."]


@given(st.lists(st.sampled_from([*_PIECES, *"\"'.,:;?!()-\n", " ", " ", " ", " "]), max_size=24).map("".join))
def test_skipping_small_words_changes_no_count_of_capitals(text: str) -> None:
    assert count_capital_tokens(text) == sum(token.isupper() for token in tokens(text))


# --- any response, any thread, any time


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.text() | st.text("*-[]<>\".,' \nAa1Ss", max_size=80), st.booleans())
def test_no_response_raises(case: tuple[str, dict[str, Any], list[str], list[str]], response: str, loose: bool) -> None:
    first = check_ifeval(case[0], case[1], response, prompt="Why?", loose=loose)
    assert first == check_ifeval(case[0], case[1], response, prompt="Why?", loose=loose)
    strict = check_ifeval(case[0], case[1], response, prompt="Why?")
    assert loose or strict == first
    assert first.outcome is Outcome.PASSED or strict.outcome is Outcome.FAILED


def test_half_of_a_surrogate_pair_is_no_error() -> None:
    for instruction_id, kwargs, _, _ in CASES:
        check_ifeval(instruction_id, kwargs, "a \ud800 b. C", prompt="Why?", loose=True)


def test_threads_agree() -> None:
    texts = [f"{ENGLISH} {GERMAN} {n}" for n in range(12)]
    uncached = detect_language.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(uncached, texts * 4))
    assert together == [uncached(text) for text in texts] * 4


def test_a_check_takes_less_than_a_millisecond() -> None:
    response = " ".join(SENTENCES) + "\n\n" + MAKERS["markdown"](random.Random(1), "")
    assert len(response) > 1000
    times: dict[str, float] = {}
    for instruction_id, kwargs, _, _ in CASES:
        if instruction_id.startswith(("language", "change_case:english")):
            continue
        runs: list[float] = []
        for _ in range(9):
            start = time.process_time()
            check_ifeval(instruction_id, kwargs, response, prompt="Why?")
            runs.append(time.process_time() - start)
        times[instruction_id] = min(runs)
    assert statistics.median(times.values()) <= 1e-3, times


N = 100_000
HOSTILE = {
    **{
        f"many {unit!r}": unit * (N // len(unit))
        for unit in ("*", "[", "<<", ">>", '"', "'", ".", "!", "-", "\n", " ", "a")
    },
    **{
        f"many {unit!r}": unit * (N // len(unit))
        for unit in ("a. ", "a.b", "?a", "A ", "* ", "\n*", "\n ", ",", ":,", "...", ". ")
    },
    **{
        f"many {unit!r}": unit * (N // len(unit))
        for unit in ("p. ", "Section ", "9", "***", "** a", "'s ", "a@", "((", "x'S", "文")
    },
    "spaces, then a word": " " * N + "a",
    "a word, then spaces": "a." + " " * N + "\n)",
    "spaces in the middle": "a." + " " * N + "b",
    "lines in the middle": "*" + "\n" * N + "a",
    "quotes after a stop": "a." + "\"')" * (N // 3),
    "one long word": "a" * N + ". A",
    "no closing mark": "[<<" + "a" * N,
    "digits and stops": "1." * (N // 2),
    "an address": "https://a.b/" + "a" * N + "@" + "-" * N,
    "capitals": "THE CAT. " * (N // 9),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_response_takes_long(name: str) -> None:
    slow: dict[str, float] = {}
    for instruction_id, kwargs in {case[0]: case[1] for case in CASES}.items():
        start = time.process_time()
        check_ifeval(instruction_id, kwargs, HOSTILE[name], prompt="Why?")
        took = time.process_time() - start
        if took > 1:
            slow[instruction_id] = took
    assert not slow
