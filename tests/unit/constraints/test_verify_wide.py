"""More of what each rule counts: capitals, quoted speech, scripts, marks, code and the lists of several languages."""

import time

import pytest

from seif_nemo.constraints.text import clean, sentences, words
from seif_nemo.constraints.verify import COUNTERS, verify
from seif_nemo.types.constraints import Kind, Spec
from seif_nemo.types.verdicts import Outcome


def passes(spec: Spec, response: str) -> bool:
    return verify(spec, response, seed_question="").outcome is Outcome.PASSED


def count(kind: Kind, response: str, text: str = "") -> tuple[int, int]:
    return COUNTERS[kind](clean(response), text)


# --- capitals


@pytest.mark.parametrize(
    ("response", "certain", "possible"),
    [
        ("I think this is a good idea. A dog runs.", 0, 0),
        ("I came, I saw, I conquered", 0, 0),
        ("NASA and the EU met I.", 2, 2),
        ("Plan B or vitamin C", 0, 2),
        ("U2 sang", 0, 1),
        ("Ä is a letter", 0, 1),
        ("the И and the ИЛИ", 1, 2),
    ],
)
def test_words_in_capitals_have_two_letters(response: str, certain: int, possible: int) -> None:
    assert count(Kind.CAPITAL_WORDS, response) == (certain, possible)


def test_i_and_a_alone_are_no_text_in_capitals() -> None:
    assert passes(Spec(Kind.UPPERCASE), "I DID A LOT")
    assert passes(Spec(Kind.UPPERCASE), "PLAN B")
    assert not passes(Spec(Kind.UPPERCASE), "I 一 A")
    assert passes(Spec(Kind.CAPITAL_WORDS, high=0), "I think this is a good idea. A dog runs.")
    assert not passes(Spec(Kind.CAPITAL_WORDS, low=3), "I came, I saw, I conquered")


# --- sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Stop!" she said.', 1),
        ("“Where are you?” he asked.", 1),
        ("'Where?' he asked. She left.", 2),
        ('She said "Stop!" and left.', 1),
        ('He said "Stop!" She left.', 2),
        ('"I won." Then he left.', 2),
        ("“你好！”他说。", 1),
        ("「你好！」妈妈大声喊道。", 1),
        ("“你好！”这本小说很长。", 2),
        ("“你好！”这个问题很难。", 2),
        ("他说：“你好！”她走了。", 2),
        ("她走了。“你说呢？”他问。", 2),
        ("“来吧。快点！”他说。她走了。", 3),
        ("真的吗?我不信!", 2),
        ("我用AI?不!他来了.她走了.", 4),
        ("一.苹果", 1),
        ("我……不知道。", 1),
        ("राम आया। सीता गई।", 2),
        ("هل أنت هنا؟ نعم.", 2),
        ("St. Louis vs. Chicago was on. Gen. Lee and Capt. Kirk left.", 2),
        ("It was on Jan. 5. It rained.", 2),
        ("It was in Jan. Sales rose.", 2),
        ("Apples, pears, etc. and so on. Fine.", 2),
        ("Apples, pears, etc. Fine.", 2),
        ("She has a Ph.D. in physics, a.k.a. magic.", 1),
        ("the answer is no. then we left.", 2),
    ],
)
def test_sentences(text: str, expected: int) -> None:
    assert len(sentences(clean(text))) == expected


@pytest.mark.parametrize("piece", [".", "!", "?!", '."', '。"', "!'", "你.", '你?"', '"你说', "Ph.D.", "a.k."])
def test_hostile_stops_are_read_in_time(piece: str) -> None:
    started = time.thread_time()
    sentences(piece * (100_000 // len(piece)) + "x")
    assert time.thread_time() - started < 1.0


# --- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("আমার সোনার বাংলা", 3),
        ("தமிழ் மொழி", 2),
        ("తెలుగు భాష", 2),
        ("שָׁלוֹם עוֹלָם", 2),
        ("สวัสดี ครับ", 2),
        ("မြန်မာ စာ", 2),
        ("❤️ a 1️⃣", 2),
    ],
)
def test_signs_of_vowels_cut_no_word(text: str, expected: int) -> None:
    assert len(words(clean(text))) == expected


# --- marks and case


@pytest.mark.parametrize(
    ("kind", "text", "response", "expected"),
    [
        (Kind.COMMAS, "", "苹果、梨，好", 1),
        (Kind.MARKS, "、", "苹果、梨，好", 1),
        (Kind.MARKS, "—", "plain text – range — x―y", 2),
        (Kind.DIGITS, "", "x² ½ ① 5", 1),
        (Kind.HEADINGS, "", "# A\n```\n# a comment\n```\n#标题\n#话题# 好\n#tag", 2),
        (Kind.BULLETS, "", "- a\n```py\n- b\n\n* c\n```\n~~~\n- d\n~~~\n```\n- open", 2),
        (Kind.BULLETS, "", "•一\n● one\n· 一\n-一", 3),
        (Kind.NUMBERED, "", "1、一个\n2.一个\n**3. one**\n4）一\n5.5 x\n6、7、8\n```\n9. x\n```", 4),
        (Kind.PLACEHOLDERS, "", "- [x] done\n* [X] done\n[name]\n```\n[in code]\n```", 1),
        (Kind.HIGHLIGHTS, "", "2*x*y and a*b*c, 这是*重点*内容", 1),
        (Kind.HIGHLIGHTS, "", "_x_ __y__ <b>z</b> <i> </i> ==u== *v* **w** **a *b* c** snake_case_x", 7),
        (Kind.HIGHLIGHTS, "", "```\n*x*\n```\n*y*", 1),
        (Kind.HIGHLIGHTS, "**", "__x__ <b>y</b> **z** *u* <STRONG>v</STRONG> <b> </b>", 4),
        (Kind.PARAGRAPHS, "", "a\n\n```\nb\n\nc\n```\n\nd", 3),
        (Kind.PARAGRAPHS, "", "a\n\n```\nb\n\nc", 3),
    ],
)
def test_counts(kind: Kind, text: str, response: str, expected: int) -> None:
    assert count(kind, response, text) == (expected, expected)


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (Spec(Kind.LOWERCASE), ["你好，世界", "你好 world"], ["你好 World", "12 34"]),
        (Spec(Kind.UPPERCASE), ["你好 WORLD"], ["你好，世界"]),
        (Spec(Kind.STARTS_WITH, text="你好"), ["「你好」，世界", "『你好』", "● 你好"], ["说「你好」"]),
        (Spec(Kind.STARTS_WITH, text="「你好」"), ["「你好」，世界", "你好，世界"], ["说「你好」"]),
        (Spec(Kind.ENDS_WITH, text="谢谢"), ["好的，「谢谢」", "好的，「谢谢。」"], ["「谢谢」你"]),
        (Spec(Kind.BOLD, text="x"), ["a **x**"], ["a\n```\n**x**\n```"]),
        (Spec(Kind.MARKDOWN), ["1. one\n2. two"], ["1、苹果"]),
    ],
    ids=str,
)
def test_rules(spec: Spec, good: list[str], bad: list[str]) -> None:
    assert [response for response in good if not passes(spec, response)] == []
    assert [response for response in bad if passes(spec, response)] == []
