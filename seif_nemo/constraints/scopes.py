"""Demands on each part or on a numbered part: "each paragraph must ...", "... in the first sentence".

The part is cut out, so that what is left is a demand on "the response", which the readers know.
"""

import re
from dataclasses import dataclass, replace

from seif_nemo.types.constraints import Kind, Scope

_EACH = {"paragraph": Scope.EACH_PARAGRAPH, "sentence": Scope.EACH_SENTENCE, "bullet": Scope.EACH_ITEM}
_NTH = {"paragraph": Scope.NTH_PARAGRAPH, "sentence": Scope.NTH_SENTENCE, "bullet": Scope.NTH_ITEM}
_ORDINALS = {
    **dict.fromkeys(("first", "1st", "opening", "one", "1"), 1),
    **dict.fromkeys(("second", "2nd", "two", "2"), 2),
    **dict.fromkeys(("third", "3rd", "three", "3"), 3),
    **dict.fromkeys(("fourth", "4th", "four", "4"), 4),
    **dict.fromkeys(("fifth", "5th", "five", "5"), 5),
    **dict.fromkeys(("last", "final", "closing"), -1),
}
# What can be said of a part as of a whole response.
_KINDS = frozenset(
    {
        *(Kind.WORDS, Kind.CHARACTERS, Kind.SENTENCES, Kind.KEYWORD, Kind.KEYWORDS, Kind.LETTER, Kind.COMMAS),
        *(Kind.MARKS, Kind.DIGITS, Kind.UPPERCASE, Kind.LOWERCASE, Kind.STARTS_WITH, Kind.ENDS_WITH, Kind.BOLD),
        *(Kind.EMPHASIS, Kind.HIGHLIGHTS, Kind.CAPITAL_WORDS, Kind.QUOTED, Kind.BULLETS, Kind.PLACEHOLDERS),
    }
)

_PART = r"(?P<part>paragraph|sentence|bullet)(?:s|ed)?(?: points?| items?| list items?)?"
_OF = (
    r"(?: (?:of|in|within) (?:the|your|my) (?:\w+ )?(?:response|answer|text|output|story|essay|summary|article|"
    r"review))?"
)
_ORDINAL = "first|second|third|fourth|fifth|1st|2nd|3rd|4th|5th|last|final|opening|closing"
_WHICH = (
    rf"(?:(?P<each>each|every|all)(?: of)?(?: the| your)?(?: single| individual)? "
    rf"|(?:the|your) (?P<nth>{_ORDINAL}) )"
)
# "the first paragraph must ...", "start each sentence with ...": in the place of the response.
_PLACE = re.compile(
    rf"\b(?P<response>(?:the|your) (?:response|answer) (?:must|should) )?(?P<before>(?:start|begin|end|limit|keep|"
    rf"restrict|write|finish|conclude|cap|open|close)s? )?{_WHICH}{_PART}{_OF}(?P<after> |$)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\bparagraph (?P<nth>one|two|three|four|five|[1-5])(?P<part>(?=)) (?=must|should|has|contains)",
    re.IGNORECASE,
)
# "... in each paragraph", "... per sentence", "at most ... in a sentence": at the end.
_TAIL = re.compile(
    rf",? (?:(?:in|within|for|of|throughout|at|to) {_WHICH}|(?P<per>per) |(?P<some>in a) ){_PART}{_OF}$", re.IGNORECASE
)
_HEAD = re.compile(rf"(?:in|within|for) {_WHICH}{_PART}{_OF},? ", re.IGNORECASE)
# Other parts, conditions and choices make the meaning of what is left unsure.
_UNSURE = re.compile(
    r"\b(?:or|if|unless|except|either|when|where|but|title|heading|section|stanza|line|verse|step|example|both|other|"
    r"alternat\w+|different|unique|consecutive|same|previous|next|new|at least one of|average|total|together|"
    r"altogether|combined|overall|collectively)\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"\bsentences?\b", re.IGNORECASE)
_ANY_PART = re.compile(r"\b(?:paragraph|sentence|bullet)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scoped:
    """A demand on the whole response that is meant for a part of it: every one, or the one at `index`.

    Without `allows_ban` no ban is meant for it: "not in every sentence" is not "in no sentence".
    With `limits_only` nothing but an upper bound or a ban is: "the word X in a sentence" is in one of them.
    """

    text: str
    scope: Scope
    index: int | None
    allows_ban: bool = True
    limits_only: bool = False


def holds_in_part(kind: Kind, scope: Scope) -> bool:
    """Whether a spec of this kind means in a part what it means in a response."""
    if scope in (Scope.EACH_SENTENCE, Scope.NTH_SENTENCE) and kind in (Kind.SENTENCES, Kind.BULLETS):
        return False
    if scope in (Scope.EACH_ITEM, Scope.NTH_ITEM) and kind is Kind.BULLETS:
        return False
    return kind in _KINDS


def _is_clear(demand: str) -> bool:
    """No other part, condition or choice in what is left of a demand."""
    return _UNSURE.search(demand) is None and _ANY_PART.search(demand) is None


def _cut(rest: str, match: re.Match[str]) -> Scoped | None:
    """The demand without its part. Sentences may be counted within a paragraph or a bullet point."""
    part = match["part"].lower() or "paragraph"
    if not _is_clear(rest if part == "sentence" else _SENTENCES.sub("", rest)):
        return None
    if match.groupdict().get("nth") is not None:
        return Scoped(rest, _NTH[part], _ORDINALS[match["nth"].lower()])
    return Scoped(rest, _EACH[part], None)


def find_scope(text: str) -> Scoped | None:
    """The scope of normalised text, if it has exactly one, with the demand that is left without it."""
    if (tail := _TAIL.search(text)) is not None:
        scoped = _cut(text[: tail.start()], tail)
        is_every = tail["each"] is not None or tail["per"] is not None
        return scoped and replace(scoped, allows_ban=not is_every, limits_only=tail["some"] is not None)
    if (head := _HEAD.match(text)) is not None:
        return _cut(text[head.end() :], head)
    place = _PLACE.search(text) or _NUMBERED.search(text)
    if place is None:
        return None
    before = place.groupdict().get("before") or ""
    lead = text[: place.start()].strip()
    if lead and not before:
        return None
    # What stands before the verb may turn it into its contrary.
    return _cut(f"{lead} {before}the response {text[place.end() :]}".strip(), place)
