"""Duplicates, repeats and subsumptions: what says the same, and what follows from another demand."""

import random

import pytest

from seif_nemo.constraints.conflict_rules import contradiction
from seif_nemo.constraints.duplicates import duplicates, implies, repeats, subsumptions
from seif_nemo.constraints.text import words
from seif_nemo.types.constraints import Constraint, Definition, Kind, Reading, Scope, Spec
from tests.unit.constraints.conflict_makers import attack, draw, passes

RIVER = Spec(Kind.KEYWORD, low=1, text="river")
EACH = Scope.EACH_SENTENCE


@pytest.mark.parametrize(
    ("first", "second", "is_duplicate"),
    [
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=9), True),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, high=9), False),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5, high=9), True),
        (Spec(Kind.WORDS, low=9), Spec(Kind.WORDS, high=5), False),
        (Spec(Kind.LOWERCASE), Spec(Kind.LOWERCASE), True),
        (RIVER, Spec(Kind.KEYWORD, low=3, text="River"), True),
        (RIVER, Spec(Kind.KEYWORD, low=1, text="bank"), False),
        (RIVER, Spec(Kind.KEYWORD, low=1, text="river bank"), True),
        (RIVER, Spec(Kind.KEYWORDS, low=1, text="sun\nriver"), True),
        (RIVER, Spec(Kind.BOLD, text="river"), True),
        (RIVER, Spec(Kind.ENDS_WITH, text="by the river"), True),
        (Spec(Kind.KEYWORD, high=0, text="bank"), Spec(Kind.KEYWORD, high=0, text="river bank"), True),
        (Spec(Kind.KEYWORD, high=0, text="art"), Spec(Kind.KEYWORD, high=0, text="start"), False),
        (Spec(Kind.STARTS_WITH, text="thank"), Spec(Kind.STARTS_WITH, text="Thank you"), True),
        (Spec(Kind.MARKS, high=0, text="!?"), Spec(Kind.MARKS, high=0, text="?!"), True),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5, scope=EACH), False),
        (Spec(Kind.WORDS, low=5, scope=EACH), Spec(Kind.WORDS, low=6, scope=EACH), True),
        (
            Spec(Kind.WORDS, low=5, scope=Scope.NTH_SENTENCE, index=1),
            Spec(Kind.WORDS, low=5, scope=Scope.NTH_SENTENCE, index=2),
            False,
        ),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5, definition=Definition.IFEVAL), False),
    ],
    ids=str,
)
def test_duplicates(first: Spec, second: Spec, is_duplicate: bool) -> None:
    expected = [(0, 1)] if is_duplicate else []
    assert [d.indices for d in duplicates([first, second])] == expected
    assert [d.indices for d in duplicates([None, second, first])] == [(1, 2)] * is_duplicate


def said(text: str, spec: Spec | None, reading: Reading = Reading.EQUIVALENT) -> Constraint:
    return Constraint(text, reading, spec)


def test_repeats_compare_texts_and_specs() -> None:
    constraints = [
        said("Use a formal tone.", None, Reading.NEEDS_JUDGE),
        said("use a  formal tone", None, Reading.NEEDS_JUDGE),
        said("use at least 5 words", Spec(Kind.WORDS, low=5)),
        said("write 9 or more words", Spec(Kind.WORDS, low=9)),
        said("use commas", None, Reading.NEEDS_JUDGE),
    ]
    assert [d.indices for d in repeats(constraints)] == [(0, 1), (2, 3)]
    partly = [said("5 words, warm", Spec(Kind.WORDS, low=5), Reading.NECESSARY) for _ in range(2)]
    assert [d.indices for d in repeats([partly[0], said("5 words, cold", partly[1].spec, Reading.NECESSARY)])] == []
    scoped = [said(f"sentences of {n}", Spec(Kind.WORDS, low=n, scope=EACH), Reading.SCOPED) for n in (3, 4)]
    assert [d.indices for d in repeats(scoped)] == [(0, 1)]


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (Spec(Kind.WORDS, low=50), Spec(Kind.WORDS, low=30)),
        (Spec(Kind.WORDS, high=30), Spec(Kind.WORDS, high=50)),
        (Spec(Kind.WORDS, low=40, high=45), Spec(Kind.WORDS, low=30, high=50)),
        (Spec(Kind.WORDS, low=3, high=3), Spec(Kind.WORDS, low=3)),
        (Spec(Kind.SENTENCES, low=10), Spec(Kind.WORDS, low=10)),
        (Spec(Kind.WORDS, high=9), Spec(Kind.SENTENCES, high=9)),
        (Spec(Kind.CHARACTERS, high=40), Spec(Kind.WORDS, high=40)),
        (Spec(Kind.JSON), Spec(Kind.BULLETS, high=0)),
        (Spec(Kind.LOWERCASE), Spec(Kind.CAPITAL_WORDS, high=0)),
        (Spec(Kind.MARKS, high=0), Spec(Kind.COMMAS, high=0)),
        (Spec(Kind.KEYWORD, low=2, text="river bank"), Spec(Kind.KEYWORD, low=2, text="bank")),
        (Spec(Kind.STARTS_WITH, text="thank you all"), Spec(Kind.WORDS, low=3)),
        (Spec(Kind.WORDS, low=5, scope=EACH), Spec(Kind.WORDS, low=4, scope=EACH)),
        (Spec(Kind.NUMBERED, low=2, scope=Scope.EACH_PARAGRAPH), Spec(Kind.WORDS, low=4, scope=Scope.EACH_PARAGRAPH)),
    ],
    ids=str,
)
def test_subsumptions_go_one_way(stronger: Spec, weaker: Spec) -> None:
    (found,) = subsumptions([None, weaker, stronger])
    assert (found.stronger, found.weaker) == (2, 1)
    assert not implies(weaker, stronger)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5)),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, high=9)),
        (Spec(Kind.WORDS, low=5), Spec(Kind.SENTENCES, low=4)),
        (Spec(Kind.WORDS, low=50), Spec(Kind.WORDS, low=30, definition=Definition.IFEVAL)),
        (Spec(Kind.WORDS, low=50), Spec(Kind.WORDS, low=30, scope=EACH)),
        (Spec(Kind.MARKS, high=0, text="!"), Spec(Kind.COMMAS, high=0)),
        (Spec(Kind.WORDS, low=50), Spec(Kind.WORDS, high=30)),
        (Spec(Kind.UPPERCASE), Spec(Kind.CAPITAL_WORDS, low=1)),  # "PLAN" is one, "B B" is none for certain
    ],
    ids=str,
)
def test_no_subsumption(first: Spec, second: Spec) -> None:
    assert subsumptions([first, second]) == ()


def test_what_passes_the_stronger_passes_the_weaker() -> None:
    rng = random.Random(5)
    tried = 0
    while tried < 150:
        pair = (draw(rng), draw(rng))
        for found in subsumptions(pair):
            strong, weak = pair[found.stronger], pair[found.weaker]
            for _ in range(6):
                response = attack(rng, [strong], 20)
                if response is not None and len(words(response)) > 1:
                    tried += 1
                    assert passes([weak], response), (strong, weak, response)
    assert contradiction(()) is None
