"""The parser against labels that were made by hand, and the arithmetic of the report."""

import pathlib

import parser_coverage as coverage
import pytest

from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec

LABELS = pathlib.Path(__file__).resolve().parents[2] / "data" / "parser_labels.jsonl"
NEW_SETS = ("all", "final", "distinct")  # not tuned on


@pytest.fixture(scope="module")
def labels() -> list[coverage.Label]:
    return coverage.load_labels(LABELS)


def test_the_sets_are_whole(labels: list[coverage.Label]) -> None:
    sizes = {name: sum(label.set_name == name for label in labels) for name in (*NEW_SETS, "tuned", "statements")}
    assert sizes == {"all": 200, "final": 200, "distinct": 100, "tuned": 200, "statements": 100}


@pytest.mark.parametrize("name", NEW_SETS)
def test_precision_of_what_a_rule_covers(labels: list[coverage.Label], name: str) -> None:
    share = coverage.precision([label for label in labels if label.set_name == name], coverage.RULE)
    print(f"{name}: {share}")
    assert share.total >= 95
    assert share.value >= 0.97


def test_precision_and_recall_of_no_constraint(labels: list[coverage.Label]) -> None:
    statements = [label for label in labels if label.set_name == "statements"]
    share = coverage.precision(statements, [Reading.NOT_A_CONSTRAINT])
    found = coverage.recall([label for label in labels if label.set_name == "all"], Reading.NOT_A_CONSTRAINT)
    print(f"precision {share}, recall {found}")
    assert share.value >= 0.97
    assert found.value >= 0.4


def test_recall_of_what_a_rule_could_cover(labels: list[coverage.Label]) -> None:
    share = coverage.recall([label for label in labels if label.set_name == "all"], Reading.EQUIVALENT)
    print(share)
    assert share.value >= 0.95


def test_a_necessary_spec_must_follow() -> None:
    words = Spec(Kind.WORDS, low=5, high=9)
    assert coverage.implies(words, Spec(Kind.WORDS, low=3))
    assert coverage.implies(words, Spec(Kind.WORDS, high=9))
    assert not coverage.implies(words, Spec(Kind.WORDS, low=6))
    assert not coverage.implies(words, Spec(Kind.WORDS, high=8))
    assert not coverage.implies(Spec(Kind.WORDS, low=5), Spec(Kind.WORDS, high=9))
    assert coverage.implies(Spec(Kind.BOLD, text="a"), Spec(Kind.HIGHLIGHTS, low=1, text="**"))
    assert not coverage.implies(Spec(Kind.EMPHASIS, text="a"), Spec(Kind.HIGHLIGHTS, low=1, text="**"))
    label = coverage.Label("t", "s", "f", Reading.NECESSARY, words, ())
    assert not coverage.is_right(label, Constraint("t", Reading.EQUIVALENT, words))
    assert coverage.is_right(label, Constraint("t", Reading.NECESSARY, Spec(Kind.WORDS, low=5)))


def test_interval() -> None:
    low, high = coverage.Share(8, 10).interval()
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)  # R: prop.test(8, 10, correct = FALSE)


def test_coverage() -> None:
    row = coverage.measure(
        "x",
        ["Use at least 5 words.", "Use a formal tone.", "She wrote a book.", "Use 2 placeholders in square brackets"],
    )
    assert [row.counts[reading] for reading in Reading] == [1, 1, 0, 1, 1]
    assert row.share(*coverage.RULE) == 0.5
    assert row.share(*coverage.RULE, of_constraints=True) == pytest.approx(2 / 3)
    assert (
        coverage.table([row])
        .splitlines()[2]
        .startswith("| x | 4 | 25.0% | 25.0% | 0.0% | 25.0% | 25.0% | 50.0% | 66.7%")
    )
