"""Which demands exclude each other, and which say the same.

Both are provable under the rules of `verify`: a reported conflict means that no response can pass all of its specs.
`PAIR_RULES` holds one entry per reason; a rule may be incomplete, never unsound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from seif_nemo.constraints.specs import COUNT_KINDS, LIST_KINDS
from seif_nemo.constraints.text import COMMAS, count_phrase, fold, is_wordy, phrase_core, word_parts, words
from seif_nemo.constraints.verify import least_words
from seif_nemo.types.constraints import Constraint, Definition, Kind, Reading, Scope, Spec


@dataclass(frozen=True, slots=True)
class Conflict:
    """No response satisfies all specs at these places (in rising order)."""

    indices: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The demands at these two places say the same, or one follows from the other, or both set the same limit."""

    indices: tuple[int, ...]
    reason: str


PairRule = Callable[[Spec, Spec], str | None]

# What is counted of these holds a word that no other of its kind holds.
_WORDY_COUNTS = frozenset(
    {
        Kind.WORDS,
        Kind.SENTENCES,
        Kind.PARAGRAPHS,
        Kind.BULLETS,
        Kind.NUMBERED,
        Kind.HEADINGS,
        Kind.PLACEHOLDERS,
        Kind.HIGHLIGHTS,
        Kind.SECTIONS,
        Kind.CAPITAL_WORDS,
    }
)


def _expand(spec: Spec) -> list[Spec]:
    """One spec per phrase for a kind that lists several, each implied by the whole; else the spec itself."""
    if spec.kind not in LIST_KINDS - {Kind.ONE_OF} or spec.text is None:
        return [spec]
    kind = Kind.KEYWORD if spec.kind is Kind.KEYWORDS else spec.kind
    return [replace(spec, kind=kind, text=phrase) for phrase in spec.text.split("\n")]


def _key(spec: Spec) -> tuple[Kind, str, Scope, int, Definition]:
    """Specs with one key count the same thing, in the same part, by the same rules."""
    text = spec.text or ""
    is_edge = spec.kind in (Kind.STARTS_WITH, Kind.ENDS_WITH)
    core = phrase_core(text) if is_edge else " ".join(fold(text).split())
    return spec.kind, core, spec.scope, spec.index or 0, spec.definition


def _promised(spec: Spec) -> tuple[str, int]:
    """A phrase, folded, and how often it is in every response that passes; ("", 0) for none."""
    if spec.text is None:
        return "", 0
    if spec.kind in (Kind.STARTS_WITH, Kind.ENDS_WITH):
        return phrase_core(spec.text), 1
    if spec.kind in (Kind.BOLD, Kind.EMPHASIS):
        return fold(spec.text), 1
    return (fold(spec.text), spec.low) if spec.kind in (Kind.KEYWORD, Kind.SECTIONS) else ("", 0)


def _phrase_words(phrase: str) -> int:
    """Words that an occurrence uses up for itself. Unsure at an edge of punctuation, so 0 there."""
    whole = bool(phrase) and is_wordy(phrase[0]) and is_wordy(phrase[-1])
    return len(words(phrase)) if whole else 0


def _needed_words(spec: Spec) -> int:
    """A lower bound on the words of every response that passes.

    Each bullet, sentence, paragraph, placeholder, highlight and capital word holds a word that no other of its kind
    holds; a section's heading holds its word and its number.
    """
    own = 0
    if spec.kind in (Kind.KEYWORD, Kind.STARTS_WITH, Kind.ENDS_WITH):
        phrase, times = _promised(spec)
        own = times * _phrase_words(phrase)
    elif spec.kind in _WORDY_COUNTS:
        own = spec.low
    return max(own, least_words(spec))


# --- pair rules: called with both orders of a pair, both of the scope RESPONSE


def _case_against_case(a: Spec, b: Spec) -> str | None:
    if a.kind is Kind.LOWERCASE and b.kind is Kind.UPPERCASE:
        return "all lowercase and all capital"
    if a.kind is Kind.LOWERCASE and b.kind is Kind.CAPITAL_WORDS and b.low > 0:
        return "all lowercase, but words in capitals"
    if a.kind is Kind.UPPERCASE and b.kind is Kind.CAPITAL_WORDS and b.high == 0:
        return "all capital, but no word in capitals"
    return None


def _phrase_against_ban(a: Spec, b: Spec) -> str | None:
    phrase, times = _promised(a)
    if times == 0 or b.high is None:
        return None
    if b.kind is Kind.KEYWORD and b.text is not None:
        each = count_phrase(phrase, b.text, whole_words=False)
    elif b.kind is Kind.LETTER and b.text is not None:
        each = phrase.count(fold(b.text))
    elif b.kind is Kind.COMMAS:
        each = sum(c in COMMAS for c in phrase)
    else:
        return None
    if times * each <= b.high:
        return None
    what = "a comma" if b.kind is Kind.COMMAS else repr(b.text)
    return f"{phrase!r} is demanded {times} times and holds {what}, which is allowed {b.high} times"


def _edge_against_edge(a: Spec, b: Spec) -> str | None:
    if a.kind is not b.kind or a.kind not in (Kind.STARTS_WITH, Kind.ENDS_WITH):
        return None
    first, second = _promised(a)[0], _promised(b)[0]
    at_start = a.kind is Kind.STARTS_WITH
    edge = 0 if at_start else -1
    if not (is_wordy(first[edge]) and is_wordy(second[edge])):
        return None  # what is skipped before punctuation is another matter
    fits = first.startswith(second) if at_start else first.endswith(second)
    fits_back = second.startswith(first) if at_start else second.endswith(first)
    return None if fits or fits_back else f"two different phrases at one end: {first!r} and {second!r}"


def _words_against_limit(a: Spec, b: Spec) -> str | None:
    if b.kind is not Kind.WORDS or b.high is None or a.kind is Kind.WORDS:
        return None
    needed = _needed_words(a)
    return f"{a.kind.value} needs {needed} words, at most {b.high} allowed" if needed > b.high else None


def _json_against_form(a: Spec, b: Spec) -> str | None:
    if a.kind is Kind.JSON and b.kind is Kind.QUOTED:
        return "JSON cannot be wrapped in double quotes"
    if a.kind is Kind.JSON and b.kind is Kind.BULLETS and b.low > 0:
        return "JSON holds no bullet points"
    return None


PAIR_RULES: tuple[PairRule, ...] = (
    _case_against_case,
    _phrase_against_ban,
    _edge_against_edge,
    _words_against_limit,
    _json_against_form,
)


def _bounds_exclude(a: Spec, b: Spec) -> str | None:
    """Two intervals for one count, in one scope, without a common number."""
    if a.kind not in COUNT_KINDS or _key(a) != _key(b):
        return None
    low = max(a.low, b.low)
    high = min((s.high for s in (a, b) if s.high is not None), default=None)
    if high is None or low <= high:
        return None
    what = a.kind.value if a.text is None else f"{a.kind.value} {a.text!r}"
    return f"{what}: at least {low} and at most {high}"


def _is_plain(spec: Spec) -> bool:
    """Speaks of the whole response, by the rules that the pair rules reason about."""
    return spec.scope is Scope.RESPONSE and spec.definition is Definition.OURS


def _pair_reason(a: Spec, b: Spec) -> str | None:
    reason = _bounds_exclude(a, b)
    if reason is not None or not (_is_plain(a) and _is_plain(b)):
        return reason
    for rule in PAIR_RULES:
        reason = rule(a, b) or rule(b, a)
        if reason is not None:
            return reason
    return None


def _joint_conflicts(indexed: Sequence[tuple[int, Spec]]) -> list[Conflict]:
    """Phrases that share no word need their words side by side: together they may exceed a limit that each one fits."""
    found: list[Conflict] = []
    whole = [(i, s) for i, s in indexed if _is_plain(s)]
    promised = [(i, *_promised(s)) for i, s in whole if s.kind in (Kind.KEYWORD, Kind.STARTS_WITH, Kind.ENDS_WITH)]
    promised.sort(key=lambda item: (-item[2] * _phrase_words(item[1]), item[0]))
    for place, limit in ((i, s.high) for i, s in whole if s.kind is Kind.WORDS and s.high is not None):
        assert limit is not None
        used: list[int] = []
        taken: set[str] = set()
        needed = 0
        for i, phrase, times in promised:
            cost = times * _phrase_words(phrase)
            if cost == 0 or not taken.isdisjoint(word_parts(phrase)):
                continue
            used.append(i)
            taken |= word_parts(phrase)
            needed += cost
            if needed > limit and len(used) > 1:
                reason = f"the phrases demanded need {needed} words, at most {limit} allowed"
                found.append(Conflict(tuple(sorted({*used, place})), reason))
                break
    return found


def conflicts(specs: Sequence[Spec | None]) -> tuple[Conflict, ...]:
    """All conflicts found, pairs first. None stands for a constraint without a spec, so that places stay aligned.

    Sound: no response passes `verify` for all specs of a conflict. Not complete: silence proves nothing.
    """
    indexed = [(i, part) for i, spec in enumerate(specs) if spec is not None for part in _expand(spec)]
    found: list[Conflict] = []
    for (i, a), (j, b) in combinations(indexed, 2):
        reason = _pair_reason(a, b) if i != j else None
        if reason is not None and not any(conflict.indices == (i, j) for conflict in found):
            found.append(Conflict((i, j), reason))
    pairs = {conflict.indices for conflict in found}
    for joint in _joint_conflicts(indexed):
        if not any(pair in pairs for pair in combinations(joint.indices, 2)):
            found.append(joint)
    return tuple(found)


# --- duplicates


def _follows(a: Spec, b: Spec) -> bool:
    """Whether every response that passes `a` passes `b`, as far as phrases within phrases tell."""
    if b.kind is Kind.KEYWORD and b.text is not None and b.high is None:
        phrase, times = _promised(a)
        return times > 0 and times * count_phrase(phrase, b.text, whole_words=True) >= b.low
    if a.kind is b.kind is Kind.KEYWORD and a.text is not None and b.text is not None:
        return a.high == b.high == 0 and count_phrase(fold(b.text), a.text, whole_words=False) > 0
    if a.kind is b.kind is Kind.STARTS_WITH:
        return f"{_promised(a)[0]} ".startswith(f"{_promised(b)[0]} ")
    if a.kind is b.kind is Kind.ENDS_WITH:
        return f" {_promised(a)[0]}".endswith(f" {_promised(b)[0]}")
    return False


def _duplicate_reason(a: Spec, b: Spec) -> str | None:
    if _key(a) == _key(b):
        both_low, both_high = a.low > 0 and b.low > 0, a.high is not None and b.high is not None
        if a.kind not in COUNT_KINDS or both_low or both_high:
            return f"the same limit twice: {a.kind.value}"
        return None
    if _is_plain(a) and _is_plain(b) and (_follows(a, b) or _follows(b, a)):
        return f"one follows from the other: {a.text!r} and {b.text!r}"
    return None


def duplicates(specs: Sequence[Spec | None]) -> tuple[Duplicate, ...]:
    """Pairs that demand the same thing twice ("at least 5 words" and "at least 9 words") or of which one follows from
    the other. "At least 5" and "at most 9" complement each other and are no pair; conflicts are none either."""
    indexed = [(i, spec) for i, spec in enumerate(specs) if spec is not None]
    found: list[Duplicate] = []
    for (i, a), (j, b) in combinations(indexed, 2):
        reason = None if _pair_reason(a, b) is not None else _duplicate_reason(a, b)
        if reason is not None:
            found.append(Duplicate((i, j), reason))
    return tuple(found)


def repeats(constraints: Sequence[Constraint]) -> tuple[Duplicate, ...]:
    """Pairs with the same words, apart from case, white space and final stop, or with duplicate specs.

    Only specs that say all of their text (EQUIVALENT) are compared: two texts may share a part and differ in the rest.
    """
    texts = [" ".join(words(fold(c.text))) or fold(c.text) for c in constraints]
    same = [Duplicate((i, j), "the same words") for i, j in combinations(range(len(texts)), 2) if texts[i] == texts[j]]
    known = {duplicate.indices for duplicate in same}
    specs = [c.spec if c.reading is Reading.EQUIVALENT else None for c in constraints]
    return (*same, *(d for d in duplicates(specs) if d.indices not in known))
