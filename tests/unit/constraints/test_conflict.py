"""Conflicts are proven: whatever is flagged has no witness. What instructions usually ask for, unflagged, has one."""

import random
from collections.abc import Callable

import pytest

from seif_nemo.constraints.conflict import PAIR_RULES, conflicts, duplicates, repeats
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.types.constraints import Kind, Scope, Spec
from tests.unit.constraints.makers import build, draw_spec, passes, scramble

WORDS_5 = Spec(Kind.WORDS, high=5)
RIVER = Spec(Kind.KEYWORD, low=1, text="river")

CONFLICTS = [
    (Spec(Kind.WORDS, low=6), WORDS_5),
    (Spec(Kind.BULLETS, low=3, high=3), Spec(Kind.BULLETS, low=2, high=2)),
    (Spec(Kind.KEYWORD, low=3, text="River"), Spec(Kind.KEYWORD, high=2, text="river")),
    (Spec(Kind.WORDS, low=6, scope=Scope.EACH_SENTENCE), Spec(Kind.WORDS, high=5, scope=Scope.EACH_SENTENCE)),
    (Spec(Kind.LOWERCASE), Spec(Kind.UPPERCASE)),
    (Spec(Kind.LOWERCASE), Spec(Kind.CAPITAL_WORDS, low=1)),
    (Spec(Kind.UPPERCASE), Spec(Kind.CAPITAL_WORDS, high=0)),
    (RIVER, Spec(Kind.KEYWORD, high=0, text="RIVER")),
    (Spec(Kind.KEYWORD, low=1, text="river bank"), Spec(Kind.KEYWORD, high=0, text="bank")),
    (Spec(Kind.STARTS_WITH, text="Thank you"), Spec(Kind.KEYWORD, high=0, text="you")),
    (Spec(Kind.ENDS_WITH, text="that is all."), Spec(Kind.KEYWORD, high=0, text="is")),
    (Spec(Kind.KEYWORD, low=3, text="river"), Spec(Kind.LETTER, high=5, text="r")),
    (Spec(Kind.KEYWORD, low=1, text="well, then"), Spec(Kind.COMMAS, high=0)),
    (Spec(Kind.STARTS_WITH, text="well"), Spec(Kind.STARTS_WITH, text="today")),
    (Spec(Kind.ENDS_WITH, text="thank you"), Spec(Kind.ENDS_WITH, text="good luck")),
    (Spec(Kind.KEYWORD, low=3, text="river bank"), WORDS_5),
    (Spec(Kind.SENTENCES, low=6, high=6), WORDS_5),
    (Spec(Kind.BULLETS, low=6), WORDS_5),
    (Spec(Kind.PLACEHOLDERS, low=6), WORDS_5),
    (Spec(Kind.PARAGRAPHS, low=6, high=6), WORDS_5),
    (Spec(Kind.ENDS_WITH, text="hope this helps"), Spec(Kind.WORDS, high=2)),
    (Spec(Kind.COMMAS, high=0), Spec(Kind.WORDS, high=1)),  # a limit is refused on one word
    (Spec(Kind.JSON), Spec(Kind.QUOTED)),
    (Spec(Kind.JSON), Spec(Kind.BULLETS, low=2, high=2)),
]

HARMONIES = [
    (Spec(Kind.WORDS, low=5), WORDS_5),
    (Spec(Kind.KEYWORD, low=1, text="river"), Spec(Kind.KEYWORD, high=0, text="riverside")),
    (Spec(Kind.KEYWORD, low=1, text="start"), Spec(Kind.KEYWORD, high=0, text="art")),
    (Spec(Kind.WORDS, low=6, scope=Scope.EACH_SENTENCE), WORDS_5),
    (Spec(Kind.STARTS_WITH, text="thank you"), Spec(Kind.STARTS_WITH, text="Thank")),
    (Spec(Kind.BULLETS, low=3, high=3), Spec(Kind.STARTS_WITH, text="well")),
    (Spec(Kind.BULLETS, low=3, high=3), Spec(Kind.SENTENCES, low=2, high=2)),
    (Spec(Kind.LOWERCASE), Spec(Kind.STARTS_WITH, text="Well")),
    (Spec(Kind.UPPERCASE), Spec(Kind.ENDS_WITH, text="thank you")),
    (Spec(Kind.TITLE), Spec(Kind.STARTS_WITH, text="well")),
    (Spec(Kind.QUOTED), Spec(Kind.ENDS_WITH, text="thank you")),
    (Spec(Kind.JSON), Spec(Kind.KEYWORD, low=2, text="river")),
    (Spec(Kind.KEYWORD, low=5, text="river"), WORDS_5),
    (Spec(Kind.LETTER, low=40, text="e"), WORDS_5),
]


@pytest.mark.parametrize("pair", CONFLICTS, ids=str)
def test_conflicts_in_both_orders(pair: tuple[Spec, Spec]) -> None:
    assert [c.indices for c in conflicts(pair)] == [(0, 1)]
    assert [c.indices for c in conflicts(pair[::-1])] == [(0, 1)]
    assert duplicates(pair) == ()


@pytest.mark.parametrize("pair", HARMONIES, ids=str)
def test_harmonies(pair: tuple[Spec, Spec]) -> None:
    assert conflicts(pair) == ()
    assert conflicts(pair[::-1]) == ()


@pytest.mark.parametrize(
    "pair", [pair for pair in HARMONIES if Scope.EACH_SENTENCE not in {s.scope for s in pair}], ids=str
)
def test_harmonies_have_a_witness(pair: tuple[Spec, Spec]) -> None:
    rng = random.Random(0)
    assert any(passes(pair, build(rng, pair)) for _ in range(300))


def test_reasons_name_the_numbers() -> None:
    (conflict,) = conflicts([Spec(Kind.WORDS, low=6), None, WORDS_5])
    assert (conflict.indices, conflict.reason) == ((0, 2), "words: at least 6 and at most 5")
    (conflict,) = conflicts([Spec(Kind.ENDS_WITH, text="hope this helps"), Spec(Kind.WORDS, high=2)])
    assert conflict.reason == "ends_with needs 3 words, at most 2 allowed"


def test_phrases_that_fit_alone_and_not_together() -> None:
    specs = [
        Spec(Kind.WORDS, high=4),
        Spec(Kind.KEYWORD, low=2, text="river"),
        Spec(Kind.ENDS_WITH, text="thank you"),
        Spec(Kind.STARTS_WITH, text="well"),
    ]
    assert conflicts(specs[:3]) == ()
    (joint,) = conflicts(specs)
    assert joint.indices == (0, 1, 2, 3)
    assert joint.reason == "the phrases demanded need 5 words, at most 4 allowed"
    # A shared word is not counted twice: "river bank" holds "river".
    assert conflicts([Spec(Kind.WORDS, high=2), RIVER, Spec(Kind.KEYWORD, low=1, text="river bank")]) == ()


def test_flagged_pairs_have_no_witness() -> None:
    """Random pairs of any specs; every flagged one is attacked with built, merged and scrambled responses."""
    rng = random.Random(20)
    flagged = attacked = 0
    reasons: set[str] = set()
    for _ in range(4000):
        pair = (draw_spec(rng, common=False), draw_spec(rng, common=False))
        found = conflicts(pair)
        if not found:
            continue
        flagged += 1
        reasons.add("".join(c for c in found[0].reason if c.isalpha())[:12])
        for attempt in range(24):
            response = build(rng, pair if attempt % 3 else pair[:1]) if attempt % 2 else scramble(rng, pair)
            assert not passes(pair, response), (pair, response, found)
            attacked += 1
    assert flagged > 150
    assert attacked == 24 * flagged
    assert len(reasons) > 10


def test_flagged_triples_have_no_witness() -> None:
    """The joint rule: phrases against a limit on words, glued in every way the scrambler knows."""
    rng = random.Random(21)
    flagged = 0
    while flagged < 150:
        limit = Spec(Kind.WORDS, high=rng.randint(1, 5))
        phrases = [
            rng.choice([Spec(Kind.KEYWORD, low=rng.randint(1, 2), text=text), Spec(Kind.ENDS_WITH, text=text)])
            for text in rng.sample(["river", "art", "well", "thank you", "well-known", "sun's", "3.5", "river bank"], 3)
        ]
        specs = [limit, *phrases]
        if not any(len(c.indices) > 2 for c in conflicts(specs)):
            continue
        flagged += 1
        for _ in range(60):
            response = scramble(rng, specs)
            assert not passes(specs, response), (specs, response)


def test_the_scrambler_finds_witnesses_where_there_are_some() -> None:
    """The attack is no straw man: it does satisfy tight pairs that only just go together."""
    rng = random.Random(22)
    tight = [
        (Spec(Kind.KEYWORD, low=1, text="river"), Spec(Kind.WORDS, high=1)),
        (Spec(Kind.KEYWORD, low=1, text="river"), Spec(Kind.KEYWORD, high=1, text="river")),
        (Spec(Kind.ENDS_WITH, text="thank you"), Spec(Kind.WORDS, high=2)),
        (Spec(Kind.JSON), Spec(Kind.KEYWORD, low=2, text="river")),
        (Spec(Kind.LOWERCASE), Spec(Kind.ENDS_WITH, text="thank you")),
    ]
    for pair in tight:
        assert any(passes(pair, scramble(rng, pair)) for _ in range(600)), pair


def test_common_pairs_without_a_flag_have_a_witness(record_property: Callable[[str, object], None]) -> None:
    rng = random.Random(23)
    unflagged = witnessed = 0
    while unflagged < 400:
        pair = (draw_spec(rng, common=True), draw_spec(rng, common=True))
        if conflicts(pair):
            continue
        unflagged += 1
        witnessed += any(passes(pair, build(rng, pair)) for _ in range(60))
    record_property("share_with_witness", witnessed / unflagged)
    assert witnessed / unflagged >= 0.95


def test_every_pair_rule_is_used() -> None:
    used = {rule.__name__ for rule in PAIR_RULES for a, b in CONFLICTS if rule(a, b) or rule(b, a)}
    assert used == {rule.__name__ for rule in PAIR_RULES}


@pytest.mark.parametrize(
    ("first", "second", "is_duplicate"),
    [
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=9), True),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, high=9), False),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5, high=9), True),
        (Spec(Kind.LOWERCASE), Spec(Kind.LOWERCASE), True),
        (RIVER, Spec(Kind.KEYWORD, low=3, text="River"), True),
        (RIVER, Spec(Kind.KEYWORD, low=1, text="bank"), False),
        (RIVER, Spec(Kind.KEYWORD, low=1, text="river bank"), True),
        (RIVER, Spec(Kind.ENDS_WITH, text="by the river"), True),
        (Spec(Kind.KEYWORD, high=0, text="bank"), Spec(Kind.KEYWORD, high=0, text="river bank"), True),
        (Spec(Kind.KEYWORD, high=0, text="art"), Spec(Kind.KEYWORD, high=0, text="start"), False),
        (Spec(Kind.STARTS_WITH, text="thank"), Spec(Kind.STARTS_WITH, text="Thank you"), True),
        (Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, low=5, scope=Scope.EACH_SENTENCE), False),
    ],
    ids=str,
)
def test_duplicates(first: Spec, second: Spec, is_duplicate: bool) -> None:
    expected = [(0, 1)] if is_duplicate else []
    assert [d.indices for d in duplicates([first, second])] == expected
    assert [d.indices for d in duplicates([second, first])] == expected


def test_repeats_compare_texts_and_specs() -> None:
    texts = ["Use a formal tone.", "use a  formal tone", "use at least 5 words", "write 9 or more words", "use commas"]
    assert [d.indices for d in repeats([parse_constraint(t) for t in texts])] == [(0, 1), (2, 3)]
    partly = ["Use at least 5 words and keep a formal tone.", "Use at least 5 words and keep a warm tone."]
    assert repeats([parse_constraint(t) for t in partly]) == ()
