"""Measures of a text, bounds on them, and what each needs of the others; see docs/conflicts.md."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from seif_nemo.constraints.specs import BOLD_MARK, PARAGRAPH_DIVIDER
from seif_nemo.constraints.text import (
    COMMAS,
    count_phrase,
    fold,
    is_wordy,
    phrase_core,
    word_parts,
    words,
)
from seif_nemo.types.constraints import Kind, Spec

ITEMS = "items"  # bullets if there are any, else numbered items
Measure = tuple[str, str]  # (a kind's value or ITEMS, text or "")


def measure(kind: Kind, text: str | None = None) -> Measure:
    """Specs with one measure count the same thing in one text. White space may vary in a keyword alone."""
    if text is None or kind in (Kind.UPPERCASE, Kind.LOWERCASE):
        return kind.value, text or ""
    if kind is Kind.MARKS:
        return kind.value, "".join(sorted(set(text)))
    return kind.value, " ".join(fold(text).split()) if kind is Kind.KEYWORD else fold(text)


WORDS, CHARACTERS, LINES = measure(Kind.WORDS), measure(Kind.CHARACTERS), measure(Kind.LINES)
SENTENCES, PARAGRAPHS = measure(Kind.SENTENCES), measure(Kind.PARAGRAPHS)
BULLETS, NUMBERED, HEADINGS, TABLES = (
    measure(kind) for kind in (Kind.BULLETS, Kind.NUMBERED, Kind.HEADINGS, Kind.TABLES)
)
ITEM: Measure = (ITEMS, "")
DIVIDED = measure(Kind.PARAGRAPHS, PARAGRAPH_DIVIDER)
CAPITALS, DIGITS, MARKS = measure(Kind.CAPITAL_WORDS), measure(Kind.DIGITS), measure(Kind.MARKS)
BOLD = measure(Kind.HIGHLIGHTS, BOLD_MARK)


@dataclass(frozen=True, slots=True)
class Need:
    """`n` ≥ 1 of `source` come with at least `each` · n + `plus` of `target`."""

    source: Measure
    target: Measure
    each: int
    plus: int
    reason: str


NEEDS: tuple[Need, ...] = (
    Need(DIVIDED, measure(Kind.SEPARATORS, PARAGRAPH_DIVIDER), 1, -1, "dividers stand between the parts"),
    Need(PARAGRAPHS, SENTENCES, 1, 0, "each paragraph holds a sentence"),
    Need(SENTENCES, WORDS, 1, 0, "each sentence holds a word"),
    Need(PARAGRAPHS, WORDS, 1, 0, "each paragraph holds a word"),
    Need(DIVIDED, WORDS, 1, 0, "each part holds a word"),
    Need(BULLETS, WORDS, 1, 0, "each bullet holds a word"),
    Need(NUMBERED, WORDS, 2, 0, "each item holds its number and a word"),
    Need(HEADINGS, WORDS, 1, 0, "each heading holds a word"),
    Need(ITEM, WORDS, 1, 0, "each item holds a word"),
    Need(measure(Kind.PLACEHOLDERS), WORDS, 1, 0, "each placeholder holds a word"),
    Need(measure(Kind.HIGHLIGHTS), WORDS, 1, 0, "each highlight holds a word"),
    Need(BOLD, WORDS, 1, 0, "each section in bold holds a word"),
    Need(CAPITALS, WORDS, 1, 0, "words in capitals are words"),
    Need(NUMBERED, DIGITS, 1, 0, "each item has a number"),
    Need(NUMBERED, MARKS, 1, 0, "each number has a stop, a bracket or 、"),
    Need(HEADINGS, MARKS, 1, 0, "each heading has its mark"),
    Need(measure(Kind.PLACEHOLDERS), MARKS, 2, 0, "each placeholder has two brackets"),
    Need(BOLD, MARKS, 1, 0, "each section in bold has stars, lines or a slash"),
    Need(measure(Kind.COMMAS), MARKS, 1, 0, "commas are punctuation"),
    Need(DIVIDED, MARKS, 3, -3, "three stars stand between the parts"),
    Need(PARAGRAPHS, LINES, 1, 0, "each paragraph has a line"),
    Need(BULLETS, LINES, 1, 0, "each bullet has a line"),
    Need(NUMBERED, LINES, 1, 0, "each item has a line"),
    Need(HEADINGS, LINES, 1, 0, "each heading has a line"),
    Need(ITEM, LINES, 1, 0, "each item has a line"),
    Need(TABLES, LINES, 1, 1, "each table has a line of dashes under a row"),
    Need(SENTENCES, CHARACTERS, 2, -1, "a stop or a line end stands between sentences"),
    Need(PARAGRAPHS, CHARACTERS, 3, -2, "two line ends stand between paragraphs"),
    Need(DIVIDED, CHARACTERS, 4, -3, "three stars stand between the parts"),
    Need(BULLETS, CHARACTERS, 3, -1, "a mark, a word, a line end"),
    Need(NUMBERED, CHARACTERS, 4, -1, "a number, a stop, a word, a line end"),
    Need(HEADINGS, CHARACTERS, 3, -1, "a mark, a word, a line end"),
    Need(TABLES, CHARACTERS, 2, 1, "a row, a line end, dashes"),
    Need(measure(Kind.PLACEHOLDERS), CHARACTERS, 3, 0, "two brackets and a word"),
    Need(measure(Kind.HIGHLIGHTS), CHARACTERS, 3, 0, "two marks and a word"),
    Need(BOLD, CHARACTERS, 5, 0, "four marks and a word"),
    Need(measure(Kind.COMMAS), CHARACTERS, 1, 0, "commas are characters"),
    Need(DIGITS, CHARACTERS, 1, 0, "digits are characters"),
    Need(MARKS, CHARACTERS, 1, 0, "marks are characters"),
)
# Lines that cannot be one another: bullets, numbered items, headings, the dashes of tables, prose of paragraphs.
SUMS: tuple[tuple[Measure, tuple[tuple[Measure, int], ...], str], ...] = (
    (LINES, ((BULLETS, 1), (NUMBERED, 1), (HEADINGS, 1), (TABLES, 1)), "these lines differ"),
    (LINES, ((PARAGRAPHS, 1), (HEADINGS, 1), (TABLES, 1)), "these lines differ"),
    (WORDS, ((BULLETS, 1), (NUMBERED, 2), (HEADINGS, 1)), "these lines differ"),
    (WORDS, ((PARAGRAPHS, 1), (HEADINGS, 1)), "these lines differ"),
)
LAST_NEEDS: tuple[Need, ...] = (
    Need(LINES, CHARACTERS, 2, -1, "a visible character, a line end"),
    Need(WORDS, CHARACTERS, 1, 0, "a word has a character; in Chinese it is one"),
)

# --- phrases

BY_CHARACTER = frozenset({Kind.LETTER, Kind.COMMAS, Kind.SEPARATORS, Kind.MARKS, Kind.DIGITS})
# Single characters that fold to several of these.
_LIGATURES = re.compile("ffi|ffl|ff|fi|fl|ss|st")


@dataclass(frozen=True, slots=True)
class Promise:
    """A folded phrase that is `times` in every text that passes, with words of its own if `whole`."""

    phrase: str
    times: int
    whole: bool = True


def promises_of(spec: Spec) -> list[Promise]:
    """The phrases that a spec guarantees."""
    if spec.text is None:
        return []
    if spec.kind in (Kind.BOLD, Kind.EMPHASIS):
        return [Promise(fold(phrase), 1) for phrase in spec.text.split("\n")]
    if spec.kind is Kind.KEYWORDS:
        return [Promise(fold(phrase), spec.low) for phrase in spec.text.split("\n")] if spec.low > 0 else []
    promise = _promise_of(spec, spec.text)
    return [] if promise is None else [promise]


def _promise_of(spec: Spec, text: str) -> Promise | None:
    if spec.kind in (Kind.STARTS_WITH, Kind.ENDS_WITH, Kind.REPEAT_PROMPT):
        return Promise(phrase_core(text), 1)
    if spec.kind is Kind.KEYWORD and spec.low > 0:
        return Promise(fold(text), spec.low)
    if spec.kind is Kind.SECTIONS and spec.low > 0:
        return Promise(fold(text), spec.low, whole=False)
    if spec.kind is Kind.POSTSCRIPT and not is_wordy(fold(text)[-1]):
        return Promise(fold(text), 1, whole=False)
    return None


def phrase_words(phrase: str) -> int:
    """Words that an occurrence uses up for itself. Unsure at an edge of punctuation, so 0 there."""
    whole = bool(phrase) and is_wordy(phrase[0]) and is_wordy(phrase[-1])
    return len(words(phrase)) if whole else 0


def phrase_characters(phrase: str) -> int:
    """Characters that text needs to fold to this phrase; 1 where letters beyond ASCII make that unsure."""
    return len(_LIGATURES.sub("x", phrase)) if phrase.isascii() else min(len(phrase), 1)


def in_phrase(phrase: str, key: Measure) -> int:
    """How often a phrase holds what a measure counts, at least."""
    kind, text = key
    if kind == Kind.WORDS:
        return phrase_words(phrase)
    if kind == Kind.CHARACTERS:
        return phrase_characters(phrase)
    if kind == Kind.KEYWORD:
        return count_phrase(phrase, text, whole_words=False)
    if kind == Kind.COMMAS:
        return sum(c in COMMAS for c in phrase)
    if kind == Kind.DIGITS:
        return sum(c.isdigit() and c.isascii() for c in phrase)
    if kind == Kind.MARKS:
        return sum(c.isascii() and c in text if text else _is_punctuation(c) for c in phrase)
    is_plain = bool(text) and not any(c.isspace() for c in text)
    return phrase.count(text) if kind in (Kind.LETTER, Kind.SEPARATORS) and is_plain else 0


def joint(promises: Sequence[Promise], key: Measure) -> tuple[int, int]:
    """(what phrases without a common word need together, how many of them): their words stand side by side."""
    costs = [(p.times * in_phrase(p.phrase, key), p.phrase) for p in promises if p.whole and phrase_words(p.phrase)]
    taken: set[str] = set()
    total = used = 0
    for cost, phrase in sorted(costs, key=lambda item: -item[0]):
        if cost and taken.isdisjoint(word_parts(phrase)):
            taken |= word_parts(phrase)
            total, used = total + cost, used + 1
    return total, used


# --- one text


@dataclass(slots=True)
class Counts:
    """Bounds on the measures of one text, with what they come from."""

    low: dict[Measure, tuple[int, str]] = field(default_factory=dict[Measure, tuple[int, str]])
    high: dict[Measure, tuple[int, str]] = field(default_factory=dict[Measure, tuple[int, str]])

    def at_least(self, key: Measure, value: int, why: str = "") -> None:
        if value > self.least(key):
            self.low[key] = value, why

    def at_most(self, key: Measure, value: int, why: str = "") -> None:
        if key not in self.high or value < self.high[key][0]:
            self.high[key] = value, why

    def least(self, key: Measure) -> int:
        return self.low[key][0] if key in self.low else 0

    def carry(self) -> None:
        """Lower bounds from measure to measure. The order of the tables is that of the counts, so once is enough."""
        self._carry_items()
        self._carry_marks()
        for need in NEEDS:
            self._apply(need)
        for target, terms, reason in SUMS:
            total = sum(self.least(source) * each for source, each in terms)
            self.at_least(target, total, f"{' + '.join(self._name(s) for s, _ in terms if self.least(s))}: {reason}")
        for need in LAST_NEEDS:
            self._apply(need)

    def _apply(self, need: Need) -> None:
        count = self.least(need.source)
        if count > 0:
            self.at_least(need.target, count * need.each + need.plus, f"{self._name(need.source)}: {need.reason}")

    def _carry_items(self) -> None:
        bullets, numbered = self.high.get(BULLETS), self.high.get(NUMBERED)
        if self.least(BULLETS) > 0:
            self.at_least(ITEM, self.least(BULLETS), "bullets come first")
            if bullets is not None:
                self.at_most(ITEM, bullets[0], "bullets come first")
        elif self.least(NUMBERED) > 0:
            self.at_least(ITEM, 1, "numbered items")
        if bullets is not None and bullets[0] == 0:
            self.at_least(NUMBERED, self.least(ITEM), "no bullets")
            self.at_least(ITEM, self.least(NUMBERED), "no bullets")
        if bullets is not None and numbered is not None:
            self.at_most(ITEM, max(bullets[0], numbered[0]), "neither bullets nor numbered items beyond that")

    def _carry_marks(self) -> None:
        """Bullets of one mark are bullets; marks of a set are among those of a larger set, commas among them."""
        marked = sum(low for (kind, text), (low, _) in self.low.items() if kind == Kind.BULLETS and text)
        self.at_least(BULLETS, marked, "bullets of one mark are bullets")
        given = [(text, low) for (kind, text), (low, _) in self.low.items() if kind == Kind.MARKS and text]
        for kind, wanted in [key for key in self.high if key[0] == Kind.MARKS]:
            for text, low in given:
                fits = set(text) <= set(wanted) or (not wanted and all(map(_is_punctuation, text)))
                self.at_least((kind, wanted), low if fits else 0, f"{text} is among them")
            if "," in wanted:
                self.at_least((kind, wanted), self.least(measure(Kind.COMMAS)), "commas are among them")
        for text, low in given:
            self.at_least(CHARACTERS, low, f"{low} {text}")

    def _name(self, key: Measure) -> str:
        return f"{self.least(key)} {describe(key)}"

    def problem(self) -> str | None:
        for key, (high, why_high) in self.high.items():
            low, why_low = self.low.get(key, (0, ""))
            if low > high:
                low_note, high_note = (f" ({why})" if why else "" for why in (why_low, why_high))
                return f"{describe(key)}: at least {low}{low_note} and at most {high}{high_note}"
        return None


def _is_punctuation(char: str) -> bool:
    return char.isascii() and unicodedata.category(char).startswith("P")


def describe(key: Measure) -> str:
    return f"{key[0]} {key[1]!r}" if key[1] else key[0]
