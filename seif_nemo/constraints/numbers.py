"""Numbers and bounds in English: "at least twenty-five", "between 3 and 5", "100 words or more"."""

import re
from dataclasses import dataclass

_UNIT_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {word: i for i, word in enumerate(_UNIT_WORDS.split())} | {
    word: 10 * i for i, word in enumerate(_TEN_WORDS.split(), start=2)
}
_SCALES = {"hundred": 100, "thousand": 1000}
_DIGITS = r"\d{1,3}(?:,\d{3})++|\d++"
# Words make a number in their order only: "two hundred and fifty", but neither "twenty twenty" nor "three and five".
# This stands in a hundred patterns, so it is short: each part of the grammar is written once or twice.
_UNITS, _TEENS = "|".join(_UNIT_WORDS.split()[1:10]), "|".join(("zero", *_UNIT_WORDS.split()[10:]))
_TENS = rf"(?:(?:{'|'.join(_TEN_WORDS.split())})(?:[- ](?:{_UNITS})\b)?|{_TEENS}|{_UNITS})\b"
_SCALED = rf"[- ](?:hundred\b(?: (?:and )?{_TENS}(?! hundred))?|thousand\b(?: (?:and )?{_TENS})?)"
# All of "twenty-five", which is no range.
NUMBER = rf"(?>{_DIGITS}|a single|(?:a(?= hundred| thousand)|{_TENS})(?:{_SCALED})*+)"

_AT_LEAST = (
    "at least|at the least|at minimum|no fewer than|no less than|not fewer than|not less than|never fewer than|"
    "a minimum of|the minimum of|minimum of|minimum|min"
)
_MORE = "more than|greater than|over|above|in excess of|exceed|exceeding|go over|be longer than|longer than|surpass"
_AT_MOST = (
    "at most|at the most|no more than|not more than|never more than|up to|a maximum of|the maximum of|maximum of|"
    "maximum|max|no greater than|no longer than|not over|not exceeding|not to exceed|within"
)
_FEWER = "fewer than|less than|under|below|shorter than|be shorter than"
_EXACT = "exactly|precisely|a total of exactly|exactly a total of|an exact total of"
_OPERATOR = "|".join((_AT_LEAST, _AT_MOST, _MORE, _FEWER, _EXACT))
_POST_LOW = "or more|or greater|or above|and above|or longer|at least|at minimum|minimum|at the least"
_POST_HIGH = "or fewer|or less|or under|or shorter|at most|maximum|max|at the most"
_POST_EXACT = "exactly|precisely"
_POST = "|".join((_POST_LOW, _POST_HIGH, _POST_EXACT))

# Before the noun and after it. Group names end in the suffix that tells two bounds in one pattern apart.
BEFORE = (
    rf"(?:(?:between|from) (?P<from>{NUMBER}) (?:and|to) (?P<to>{NUMBER})"
    rf"|(?P<from2>{NUMBER}) ?(?:-|–|to) ?(?P<to2>{NUMBER})"
    rf"|(?:(?P<op>{_OPERATOR}) )?(?P<n>{NUMBER})(?P<plus>\+)?"
    rf"(?: (?P<mid>{_POST}))?(?:,? (?:and|but) (?P<op2>{_OPERATOR}) (?P<n2>{NUMBER}))?)"
)
AFTER = rf"(?:,? \(?(?P<post>{_POST})\)?)?"
# A second bound after the noun: "at least 50 words but less than 100 words".
SECOND = rf"(?:,? (?:and|but|yet) (?P<op3>{_OPERATOR}) (?P<n3>{NUMBER}))"


@dataclass(frozen=True, slots=True)
class Bound:
    """`low` ≤ count ≤ `high`, inclusive. `bare` says that only a number was given ("write 3 sentences")."""

    low: int
    high: int | None
    bare: bool = False


def parse_number(text: str) -> int:
    """Value of text that `NUMBER` matches, such as "1,000", "a single" or "two hundred and fifty"."""
    lowered = text.lower()
    if lowered[0].isdigit():
        return int(lowered.replace(",", "")[:12])
    if lowered == "a single":
        return 1
    total = current = 0
    for word in re.split(r"-| ", lowered):
        if word in _SCALES:
            current = max(current, 1) * _SCALES[word]
            if word == "thousand":
                total, current = total + current, 0
        elif word in _VALUES:
            current += _VALUES[word]
    return total + current


def _of_operator(operator: str, n: int) -> Bound:
    def is_in(alternatives: str) -> bool:
        return operator in alternatives.split("|")

    if is_in(_AT_LEAST) or is_in(_POST_LOW):
        return Bound(n, None)
    if is_in(_MORE):
        return Bound(n + 1, None)
    if is_in(_AT_MOST) or is_in(_POST_HIGH):
        return Bound(0, n)
    if is_in(_FEWER):
        return Bound(0, n - 1)
    assert is_in(_EXACT) or is_in(_POST_EXACT), operator
    return Bound(n, n)


def _both(first: Bound, second: Bound) -> Bound:
    highs = [b.high for b in (first, second) if b.high is not None]
    return Bound(max(first.low, second.low), min(highs) if highs else None)


def parse_bound(match: re.Match[str], *, negated: bool) -> Bound | None:
    """The bound in a match of a pattern made with `BEFORE` and `AFTER`; None where the words make no sense together.

    `negated` turns "more than 5" into at most 5 ("do not use more than 5"); other bounds cannot be negated.
    """
    groups = match.groupdict()
    start, end = groups["from"] or groups["from2"], groups["to"] or groups["to2"]
    if start is not None:
        assert end is not None
        return (
            None
            if negated or groups.get("post") or groups.get("op3")
            else Bound(parse_number(start), parse_number(end))
        )
    n = parse_number(groups["n"])
    operators = [o.lower() for o in (groups["op"], groups["mid"], groups.get("post")) if o is not None]
    operators += ["at least"] if groups["plus"] is not None else []
    if len({_of_operator(operator, n) for operator in operators}) > 1:  # "within 9 or less" says one thing twice
        return None
    if negated:
        if not operators or groups["op2"] is not None or groups.get("op3") is not None:
            return None
        bound = _of_operator(operators[0], n)
        if operators[0] in _MORE.split("|"):
            return Bound(0, bound.low - 1)
        return Bound(n, None) if operators[0] in _FEWER.split("|") else None
    bound = _of_operator(operators[0], n) if operators else Bound(n, n, bare=True)
    for operator, second in ((groups["op2"], groups["n2"]), (groups.get("op3"), groups.get("n3"))):
        if operator is not None:
            assert second is not None
            if not operators:
                return None
            bound = _both(bound, _of_operator(operator.lower(), parse_number(second)))
    return bound
