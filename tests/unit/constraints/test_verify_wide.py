"""More of what each rule counts: capitals, quoted speech, scripts, marks, code and the lists of several languages."""

import pytest

from seif_nemo.constraints.text import clean
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
