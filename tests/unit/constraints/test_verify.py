"""What each rule counts, where it departs from the public checkers, and what no response gets away with."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.constraints.text import clean, count_phrase, fold, paragraphs, sentences, words
from seif_nemo.constraints.verify import CHECKS, COUNTERS, refuse, verify
from seif_nemo.types.constraints import Kind, Scope, Spec
from seif_nemo.types.verdicts import Outcome, Source, Verdict


def passes(spec: Spec, response: str, seed_question: str = "") -> bool:
    verdict = verify(spec, response, seed_question=seed_question)
    assert verdict.source is Source.RULE
    assert verdict.evidence
    assert verdict.outcome is not Outcome.MISSING
    return verdict.outcome is Outcome.PASSED


def count(kind: Kind, response: str, text: str = "") -> tuple[int, int]:
    return COUNTERS[kind](clean(response), text)


def test_every_kind_has_one_rule() -> None:
    assert COUNTERS.keys() | CHECKS.keys() == set(Kind) - {Kind.PARAGRAPH_START}  # it has bounds and a text
    assert not COUNTERS.keys() & CHECKS.keys()


# --- reading text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't use well-known words", ["Don't", "use", "well-known", "words"]),
        ("Don’t use well‑known words", ["Don't", "use", "well-known", "words"]),
        ("state-of-the-art", ["state-of-the-art"]),
        ("a-b-c-d-e-f", ["a-b-c-d", "e-f"]),  # no answer hides in one word
        ("3.5 and 1,000", ["3.5", "and", "1,000"]),
        ("yes,no", ["yes", "no"]),
        ("x_y", ["x", "y"]),
        ("naïve cafe\u0301", ["naïve", "café"]),
        ("wo\u200brd", ["word"]),
        ("文学 AI课", ["文", "学", "AI", "课"]),
        ("-- : ... ** 🙂", []),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert list(words(clean(text))) == expected


@pytest.mark.parametrize(
    ("text", "phrase", "certain", "possible"),
    [
        ("start the party", "art", 0, 0),
        ("The river's bank. A RIVER, river-bank", "river", 3, 3),
        ("up-river and rivers", "river", 0, 1),
        ("state-of-the-art art", "art", 1, 2),
        ("thank\n you. Thank, you", "thank you", 1, 1),
        ("C++ and c++, not C", "c++", 2, 2),
        ("[b is here", "[b", 1, 1),
        ("a.b axb", "a.b", 1, 1),
        ("ha ha ha", "ha ha", 1, 1),
        ("don't", "don", 0, 1),
        ("他喜欢文学。文学", "文学", 2, 2),
        ("Use AI课 now", "ai", 1, 1),
        ("STRASSE", "straße", 1, 1),
        ("ri\u00adver", "river", 1, 1),
        ("river-river-river", "river", 1, 3),
        ("_river_ *river*", "river", 2, 2),
    ],
)
def test_count_phrase(text: str, phrase: str, certain: int, possible: int) -> None:
    folded = fold(text)
    assert count_phrase(folded, phrase, whole_words=True) == certain
    assert count_phrase(folded, phrase, whole_words=False) == possible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", 3),
        ("One two", 1),
        ("Dr. Smith saw Mr. Xu. He left.", 2),
        ("J. Bond came. So did I. Good.", 3),
        ("It costs 3.5 euros, e.g. today. Fine", 2),
        ("The answer is no. Then we left.", 2),
        ("the answer is no. then we left.", 2),
        ("It is in no. 5 of the list. See fig. 3 there.", 2),
        ("He ate a fig. Birds sang.", 2),
        ("It took approx. 20 days, approx. three weeks.", 1),
        ("Plan B. Then go.", 2),
        ("Take vitamin C. A doctor said so.", 2),
        ("J. A. Bond and George W. Bush came.", 1),
        ("We left at 5 p.m. Then it rained.", 2),
        ("We left at 5 p.m. Eastern time.", 1),
        ("He saw the U.S. Army. It left the U.S. The end.", 3),
        ("He likes bands, e.g. The Who, vs. The Doors.", 1),
        ('"Was it?" he asked.', 1),
        ("Well... maybe. Wait... No", 3),
        ("<<A title>>\nOne. Two.", 2),
        ("# Heading\nOne.\n\nTwo", 2),
        ("* a\n* b\n* c", 0),
        ("* One.\n* Two. Three.\n1. Four.", 4),
        ('"* a\n* b"', 0),
        ('"* One.\n* Two."\n\n"# Three."\n"Four."', 3),
        ("One\ngoes on. Two", 2),
        ("One\n\nTwo", 2),
        ("他来了。她走了！", 2),
        ("... !! ?", 0),
    ],
)
def test_sentences(text: str, expected: int) -> None:
    assert len(sentences(clean(text))) == expected


@pytest.mark.parametrize(
    ("text", "divider", "expected"),
    [
        ("a\n\nb\n \nc", None, 3),
        ("a\nb", None, 1),
        ("a\n***\nb", None, 2),
        ("a\n\n***\n\nb", None, 2),
        ("# Title\n\na", None, 1),
        ("a\n\n***\n\nb\n\nc", "***", 2),
        ("a *** b", "***", 2),
        ("a\n\nb", "***", 1),
        ("***\na\n***", "***", 1),
        ("Three things:\n\n* a\n* b\n\nThat is all.", None, 2),
        ("1. One thing.\n\n2. Another thing.", None, 2),
        ('"# a"\n\n"b"', None, 1),
    ],
)
def test_paragraphs(text: str, divider: str | None, expected: int) -> None:
    assert len(paragraphs(text, divider)) == expected


LINES = [
    "",
    "One. Two",
    '"Three!"',
    "* a",
    '"- b. c',
    "1. d.",
    '# e"',
    '"# f',
    "***",
    '"---"',
    "<<g>>",
    "J. BOND. X",
    "。",
    '说"好！"他说。',
    '"Oh!" she',
    "```",
    "#标题",
    "•一。",
]


@given(st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
def test_sentences_of_paragraphs_add_up(text: str) -> None:
    parts = [sentences(part) for part in paragraphs(clean(text))]
    assert all(parts)
    assert [sentence for part in parts for sentence in part] == sentences(clean(text))


# --- counts


@pytest.mark.parametrize(
    ("kind", "text", "response", "expected"),
    [
        (Kind.BULLETS, "", "Intro\n* a\n- b\n • c\n+ d\n*e\n**f**\n-5\n---\n* \n1. g", 4),
        (Kind.BULLETS, "", '"* a\n* b"', 2),
        (Kind.PLACEHOLDERS, "", "[name] [your address], [1] [] [link](http://x) [x y]", 3),
        (Kind.HIGHLIGHTS, "", "*one* and **two words**, 2 * 3 * 4, ** **, *", 2),
        (Kind.HIGHLIGHTS, "", "* item *one*\n* item", 1),
        (Kind.SECTIONS, "Section", "Section 1\nx\n## SECTION 2: y\n**Section III**\nsee section 4, Sections 5", 3),
        (Kind.LETTER, "e", "Eel, été E", 3),
        (Kind.CAPITAL_WORDS, "", "I am NASA's, ÜBER-Gut, A.A. AA 2", 1),
        (Kind.COMMAS, "", "a, b，c、d; 1,000", 3),
        (Kind.WORDS, "", '"* Don\'t stop," she-devil said.', 4),
        (Kind.WORDS, "", "你好，世界！AI 很好。", 7),
        (Kind.BULLETS, "*", "* a\n- b\n* c\n+ d", 2),
        (Kind.BULLETS, "-", "* a\n- b\n---\n- ", 1),
        (Kind.HIGHLIGHTS, "**", "*one* and **two** and ***three***\n* **x** ** **", 3),
        (Kind.MARKS, "!", "Oh! No！ Why?", 2),
        (Kind.MARKS, "?", "Why? 为什么？", 2),
        (Kind.MARKS, ",", "a, b，c、d", 2),
        (Kind.DIGITS, "", "In 1984 and ٣", 5),
        (Kind.CHARACTERS, "", " ab c\n", 4),
        (Kind.LINES, "", "a\n\n \nb\n***", 3),
        (Kind.NUMBERED, "", "1. a\n2) b\n3.c\n10. \n- d", 2),
        (Kind.HEADINGS, "", "# A\n## B\n#c\n####### D\n# ", 2),
        (Kind.TABLES, "", "| a | b |\n|---|:-:|\n| 1 | 2 |\n\na | b\n--- | ---\n\n---", 2),
        (Kind.SEPARATORS, "***", "a\n***\nb\n***\nc", 2),
    ],
)
def test_counts(kind: Kind, text: str, response: str, expected: int) -> None:
    assert count(kind, response, text) == (expected, expected)


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (Spec(Kind.WORDS, low=3, high=4), ["a b c", "a b c d."], ["a b", "a b c d e"]),
        (Spec(Kind.KEYWORD, low=2, text="river"), ["River river", "the river. A river!"], ["river rivers", "a river"]),
        (Spec(Kind.KEYWORD, high=0, text="art"), ["start here"], ["state-of-the-art work", "Art is"]),
        (Spec(Kind.COMMAS, high=0), ["no comma here"], ["one, two", "one，two", "1,000 men"]),
        (Spec(Kind.UPPERCASE), ["ALL CAPS.", "ÄRGER UND 2"], ["All CAPS", "12 34", "ALL ªµ m"]),
        (Spec(Kind.LOWERCASE), ["all small 2", "größe zählt"], ["All small", "12 34", "all İs"]),
        (
            Spec(Kind.STARTS_WITH, text="Well"),
            ["Well, yes", '"well yes"', "<<A title>>\nWell, yes", "* well\n* yes", "**Well** yes", "well-known yes"],
            ["Wellness is", "A well", "Yes. Well", "<<Well>>\nYes indeed"],
        ),
        (Spec(Kind.STARTS_WITH, text="Dear Sir,"), ["dear  sir or"], ["my dear sir"]),
        (
            Spec(Kind.ENDS_WITH, text="hope this helps"),
            [
                "I hope this helps",
                'Hope this helps."',
                "Hope\nthis helps!**",
                "* a\n* hope this helps",
                "Hope this helps…",
            ],
            ["hope this helps you", "hope this", "I thope this helps", "up-hope this helps"],
        ),
        (Spec(Kind.ENDS_WITH, text="Any questions?"), ["So. Any questions?", '"Any questions?"'], ["Any questions."]),
        (Spec(Kind.TITLE), ["<<My day>>\nIt was", "It was <<x>>"], ["<< >> it was", "<<a\nb>> it", "<a> it"]),
        (Spec(Kind.QUOTED), ['"a b"', "“a b”", ' "a b"\n'], ['"a b', 'a "b"', "'a b'"]),
        (
            Spec(Kind.JSON),
            ['{"a": 1}', '```json\n["a b"]\n```', '```\n{"a": "b"}\n```'],
            ['{"a": }', '"a"', "5", "{}", "a {}", '{"a": 1} b', "[" * 100_000 + "a", "1" * 5000],
        ),
        (Spec(Kind.SENTENCES, low=2, high=2, scope=Scope.EACH_PARAGRAPH), ["A. B.\n\nC. D."], ["A. B.\n\nC."]),
        (Spec(Kind.WORDS, low=2, scope=Scope.EACH_SENTENCE), ["a b. c d"], ["a b. c"]),
        (Spec(Kind.WORDS, high=1, scope=Scope.EACH_ITEM), ["* a\n* b"], ["* a\n* b c", "no items"]),
    ],
    ids=str,
)
def test_rules(spec: Spec, good: list[str], bad: list[str]) -> None:
    assert [response for response in good if not passes(spec, response)] == []
    assert [response for response in bad if passes(spec, response)] == []


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (Spec(Kind.KEYWORDS, low=1, text="river\nthe sea"), ["The river, the sea"], ["river", "the seaside river"]),
        (Spec(Kind.KEYWORDS, high=0, text="river\nsea"), ["a lake here"], ["a lake, a river", "at sea now"]),
        (Spec(Kind.KEYWORDS, low=1, high=1, text="a b\nc"), ["a b, c!"], ["a b a b c", "a c"]),
        (Spec(Kind.MARKS, high=0), ["no marks here"], ["a mark.", "don't", "你好。"]),
        (Spec(Kind.MARKS, low=1), ["a mark."], ["don't", "well-known word"]),
        (
            Spec(Kind.BOLD, text="river"),
            ["the **river** runs", "the __River__ runs", "<b>a river</b>", "***river***", "* the **big river**"],
            ["the *river* runs", "a river **runs**", "the **river", "** river **", "**rivers** run", "* river **x**"],
        ),
        (Spec(Kind.BOLD, text="a b\nc"), ["**a b** and **c**", "**c a  b**"], ["**a b** c", "**a** **b** **c**"]),
        (
            Spec(Kind.EMPHASIS, text="river"),
            ["the *river*", "a _river_ x", "==river==", "<mark>river</mark>", "**river**"],
            ["a river_bank_ x", "2 * river * 3", "`river`"],
        ),
        (
            Spec(Kind.MARKDOWN),
            ["# Title here", "* a\n* b", "1. one\n2. two", "a `b` c", "a [b](c) d", "> said so", "~~a~~ b", "a **b**"],
            ["plain text here", "2 * 3 * 4", "• a\n• b", "#hash tag", "# Solution"],
        ),
        (
            Spec(Kind.LOWERCASE, text="en"),
            ["all of the small words in it"],
            ["All of the words", "alle kleinen worte sind da"],
        ),
        (
            Spec(Kind.UPPERCASE, text="en"),
            ["ALL OF THE WORDS IN IT"],
            ["ALLE WORTE SIND GROSS GESCHRIEBEN UND DAS IST GUT"],
        ),
        (
            Spec(Kind.LANGUAGE, text="zh"),
            ["你好", "他来了。", "使用 Python 编程很好"],
            ["hello there", "こんにちは世界", "안녕하세요"],
        ),
        (Spec(Kind.LANGUAGE, text="ja"), ["東京へ行きます", "こんにちは"], ["他来了，她走了。", "hello"]),
        (Spec(Kind.LANGUAGE, text="ko"), ["안녕하세요 여러분"], ["他来了，她走了。", "こんにちは"]),
        (Spec(Kind.LANGUAGE, text="ru"), ["Привет, как дела, друзья мои"], ["Γεια σου Κόσμε", "hello"]),
        (
            Spec(Kind.LANGUAGE, text="en"),
            ["Paris is the capital of France.", "hello", "reduce, reuse, recycle"],
            ["Paris est la capitale de la France et de la mode.", "你好", "Der Hund ist im Haus und schläft."],
        ),
        (
            Spec(Kind.STARTS_WITH, text="well", scope=Scope.NTH_PARAGRAPH, index=2),
            ["A.\n\nWell, b."],
            ["Well.\n\nB.", "Well"],
        ),
        (Spec(Kind.KEYWORD, low=1, text="x", scope=Scope.NTH_SENTENCE, index=-1), ["A. B x."], ["A x. B."]),
        (Spec(Kind.BOLD, text="x", scope=Scope.EACH_ITEM), ["- **x** a\n- b **x**"], ["- **x** a\n- b x"]),
    ],
    ids=str,
)
def test_rules_of_lists_emphasis_and_language(spec: Spec, good: list[str], bad: list[str]) -> None:
    assert [response for response in good if not passes(spec, response)] == []
    assert [response for response in bad if passes(spec, response)] == []


HOSTILE = [
    "**a",
    "*",
    "__a",
    "_a ",
    "==a",
    "<b>",
    "<b>a</b",
    "`",
    "[a](",
    "~~",
    "| - ",
    "|-",
    "#",
    "a_",
    "# ",
    "1. ",
    "！",
    "你",
    "\u0300",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_responses_are_judged_in_time(piece: str) -> None:
    """100,000 characters of one piece, for every rule that looks for markup, marks, lists or a language."""
    response = piece * (100_000 // len(piece))
    specs = [
        Spec(Kind.BOLD, text="a a\nb"),
        Spec(Kind.EMPHASIS, text="a a"),
        Spec(Kind.MARKDOWN),
        Spec(Kind.MARKS, high=0),
        Spec(Kind.KEYWORDS, high=0, text="a a\n你 你"),
        Spec(Kind.LOWERCASE, text="en"),
        Spec(Kind.LANGUAGE, text="fr"),
        Spec(Kind.TABLES, low=1),
        Spec(Kind.HEADINGS, low=1),
        Spec(Kind.HIGHLIGHTS, low=1, text="**"),
        Spec(Kind.BULLETS, low=1, text="*"),
    ]
    for spec in specs:
        started = time.thread_time()
        verify(spec, response, seed_question="")
        assert time.thread_time() - started < 1.0, spec


def test_one_text_has_one_language_in_every_thread() -> None:
    texts = [
        "Der Hund ist im Haus und schläft dort.",
        "Le chien dort dans la maison de mon ami.",
        "ok ok ok ok ok ok ok ok",
    ] * 20
    spec = Spec(Kind.LANGUAGE, text="de")
    alone = [passes(spec, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: passes(spec, text), texts)) == alone


def test_evidence() -> None:
    response = "The river runs. The RIVER ends"
    expected = {
        Spec(Kind.WORDS, high=5): "6 words, at most 5",
        Spec(Kind.SENTENCES, low=3, high=3): "2 sentences, exactly 3",
        Spec(Kind.KEYWORD, low=3, text="river"): "2 times of 'river', at least 3",
        Spec(Kind.KEYWORDS, low=2, text="river\nruns"): "1 times of 'runs', at least 2",
        Spec(Kind.BOLD, text="river"): "has 'river' nowhere in bold",
        Spec(Kind.LANGUAGE, text="zh"): "is in latin script, not in 'zh'",
        Spec(Kind.ENDS_WITH, text="sea"): "does not end with 'sea'",
        Spec(Kind.BULLETS, low=1, high=2): "0 bullet points, at least 1 and at most 2",
    }
    for spec, evidence in expected.items():
        assert verify(spec, response, seed_question="") == Verdict(Outcome.FAILED, Source.RULE, evidence)


# --- nothing is passed by saying nothing

EASY = [
    Spec(Kind.WORDS, high=100),
    Spec(Kind.SENTENCES, high=9),
    Spec(Kind.BULLETS, high=9),
    Spec(Kind.KEYWORD, high=0, text="river"),
    Spec(Kind.LETTER, high=0, text="z"),
    Spec(Kind.COMMAS, high=0),
    Spec(Kind.CAPITAL_WORDS, high=9),
    Spec(Kind.LOWERCASE),
    Spec(Kind.UPPERCASE),
    Spec(Kind.QUOTED),
    Spec(Kind.JSON),
    Spec(Kind.TITLE),
    Spec(Kind.WORDS, low=1),
    Spec(Kind.SENTENCES, low=1),
    Spec(Kind.PARAGRAPHS, low=1),
]


@pytest.mark.parametrize("response", ["", " \n", ":", "...", '""', "[]", "{}", "🙂", "\u200b", "***"])
def test_a_response_without_words_fails_everything(response: str) -> None:
    assert refuse(response, questions=()) == "empty response: no words"
    assert [spec for spec in EASY if passes(spec, response)] == []


@pytest.mark.parametrize("response", ["Solution", "SOLUTION", "solution", "[[1]]", '"solution"', "Solution:"])
def test_one_word_satisfies_no_limit_and_no_form(response: str) -> None:
    assert [s for s in EASY if s.low == 0 and s.kind not in (Kind.TITLE, Kind.JSON) and passes(s, response)] == []


@pytest.mark.parametrize("seed", ['Output "formal" or "informal".', "Is it wet? Answer in one word."])
def test_one_word_is_enough_where_the_seed_wants_one(seed: str) -> None:
    for spec in (Spec(Kind.WORDS, high=10), Spec(Kind.COMMAS, high=0), Spec(Kind.LOWERCASE)):
        assert verify(spec, "formal", seed_question=seed).outcome is Outcome.PASSED
        assert verify(spec, "formal", seed_question="Is it wet?").outcome is Outcome.FAILED
        assert verify(spec, ":", seed_question=seed).outcome is Outcome.FAILED
    assert verify(Spec(Kind.WORDS, low=2), "formal", seed_question=seed).outcome is Outcome.FAILED


def test_one_word_is_enough_where_one_is_allowed() -> None:
    assert passes(Spec(Kind.WORDS, high=1), "Paris")
    assert passes(Spec(Kind.WORDS, low=1, high=1), "Paris.")
    verdict = verify(Spec(Kind.COMMAS, high=0), "Paris", seed_question="")
    assert verdict.evidence == "vacuous: 1 word, too short to satisfy a limit or a form"


def test_an_echo_of_the_seed_fails_everything() -> None:
    seed = "Tell me about the river in the city."
    for response in (seed, seed.lower(), f'"{seed}"', seed.replace(".", "")):
        assert not passes(Spec(Kind.KEYWORD, low=1, text="river"), response, seed)
    assert passes(Spec(Kind.KEYWORD, low=1, text="river"), seed + " Gladly.", seed)
    assert refuse("tell me", questions=("x", "Tell me!")) == "only repeats the question"


_ANY_SPEC = st.sampled_from(
    [
        *EASY,
        Spec(Kind.KEYWORD, low=1, text="(a+)+"),
        Spec(Kind.ENDS_WITH, text="a b"),
        Spec(Kind.SECTIONS, low=1, text="a.b"),
        Spec(Kind.STARTS_WITH, text="*"),
        Spec(Kind.PLACEHOLDERS, low=1),
        Spec(Kind.HIGHLIGHTS, low=1),
    ]
)


@given(_ANY_SPEC, st.one_of(st.text(max_size=60), st.text(alphabet=' \n"*[]{}<>#.,-aB1文', max_size=60)))
@settings(max_examples=400, deadline=None)
def test_any_response_gets_a_verdict(spec: Spec, response: str) -> None:
    passed = passes(spec, response)
    if refuse(response, questions=()) is not None:
        assert not passed


LONG = ["a", "a ", "a-", "[", "*a", "<<", '"', "\n* ", ". ", "\\", "```json\n", "***\n", "Section 1\n"]


@pytest.mark.parametrize("piece", LONG)
def test_long_responses_are_judged_in_time(piece: str) -> None:
    response = piece * (40_000 // len(piece))
    others = [Spec(Kind.KEYWORD, low=1, text="a a"), Spec(Kind.ENDS_WITH, text="a"), Spec(Kind.HIGHLIGHTS, low=1)]
    started = time.process_time()
    for spec in [*EASY, *others]:
        verify(spec, response, seed_question="")
    assert time.process_time() - started < 3.0
