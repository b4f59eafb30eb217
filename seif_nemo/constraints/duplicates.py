"""Which demands say the same, and which follow from others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

from seif_nemo.constraints.conflict_counts import measure, promises_of
from seif_nemo.constraints.conflict_rules import contradiction
from seif_nemo.constraints.specs import COUNT_KINDS
from seif_nemo.constraints.text import count_phrase, fold, phrase_core, words
from seif_nemo.types.constraints import Constraint, Definition, Kind, Reading, Scope, Spec


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The demands at these two places say the same, or one follows from the other, or both set the same limit."""

    indices: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Subsumption:
    """Every response of two words or more that passes the spec at `stronger` passes the one at `weaker`, too."""

    stronger: int
    weaker: int
    reason: str


_Key = tuple[Kind, str, Scope, int | None, Definition]


def _key(spec: Spec) -> _Key:
    """Specs with one key count or look for the same thing in the same text."""
    is_edge = spec.kind in (Kind.STARTS_WITH, Kind.ENDS_WITH)
    text = phrase_core(spec.text or "") if is_edge else measure(spec.kind, spec.text)[1]
    return spec.kind, text, spec.scope, spec.index, spec.definition


def _is_plain(spec: Spec) -> bool:
    return spec.scope is Scope.RESPONSE and spec.definition is Definition.OURS


def _follows(a: Spec, b: Spec) -> bool:
    """Whether every response that passes `a` passes `b`, as far as phrases within phrases tell."""
    if b.kind is Kind.KEYWORD and b.text is not None and b.high is None:
        phrase = b.text
        return any(p.times * count_phrase(p.phrase, phrase, whole_words=True) >= b.low for p in promises_of(a))
    if a.kind is b.kind is Kind.KEYWORD and a.text is not None and b.text is not None:
        return a.high == b.high == 0 and count_phrase(fold(b.text), a.text, whole_words=False) > 0
    if a.kind is b.kind is Kind.STARTS_WITH:
        return f"{phrase_core(a.text or '')} ".startswith(f"{phrase_core(b.text or '')} ")
    if a.kind is b.kind is Kind.ENDS_WITH:
        return f" {phrase_core(a.text or '')}".endswith(f" {phrase_core(b.text or '')}")
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
        reason = _duplicate_reason(a, b)
        if reason is not None and contradiction((a, b)) is None:
            found.append(Duplicate((i, j), reason))
    return tuple(found)


def repeats(constraints: Sequence[Constraint]) -> tuple[Duplicate, ...]:
    """Pairs with the same words, apart from case, white space and final stop, or with duplicate specs.

    Only specs that say all of their text are compared: two texts may share a part and differ in the rest.
    """
    texts = [" ".join(words(fold(c.text))) or fold(c.text) for c in constraints]
    same = [Duplicate((i, j), "the same words") for i, j in combinations(range(len(texts)), 2) if texts[i] == texts[j]]
    known = {duplicate.indices for duplicate in same}
    specs = [c.spec if c.reading in (Reading.EQUIVALENT, Reading.SCOPED) else None for c in constraints]
    return (*same, *(d for d in duplicates(specs) if d.indices not in known))


# --- subsumption

_TWO_COUNTS = frozenset({Kind.KEYWORD, Kind.KEYWORDS, Kind.MARKS})  # their two bounds are held to two counts


def _denials(spec: Spec) -> list[Spec] | None:
    """Specs of which every response that fails `spec` passes one; None where no spec says so."""
    if spec.kind not in COUNT_KINDS or spec.kind in _TWO_COUNTS:
        return None
    if spec.kind is Kind.CAPITAL_WORDS and spec.low > 0:
        return None  # "B" fails a demand for one and a ban on them; of more than a ban all rules hold for it, too
    denials: list[Spec] = []
    if spec.low > 0:
        denials.append(replace(spec, low=0, high=spec.low - 1))
    if spec.high is not None:
        denials.append(replace(spec, low=spec.high + 1, high=None))
    return denials


def implies(a: Spec, b: Spec) -> bool:
    """Whether every response of two words or more that passes `a` provably passes `b`."""
    if (a.scope, a.index, a.definition) != (b.scope, b.index, b.definition):
        return False
    if _key(a) == _key(b):
        low, high = a.low >= b.low, b.high is None or (a.high is not None and a.high <= b.high)
        return low and high
    if a.definition is not Definition.OURS:
        return False
    # Both are judged on the same texts, so what holds of one text as a whole holds of each part.
    a, b = (replace(spec, scope=Scope.RESPONSE, index=spec.index if _starts(spec) else None) for spec in (a, b))
    if _follows(a, b):
        return True
    denials = _denials(b)
    return denials is not None and all(contradiction((a, no), refuse_vacuous=False) is not None for no in denials)


def _starts(spec: Spec) -> bool:
    return spec.kind is Kind.PARAGRAPH_START


def subsumptions(specs: Sequence[Spec | None]) -> tuple[Subsumption, ...]:
    """Pairs of which one spec follows from the other and says less ("at least 30" beside "at least 50 words").

    Sound like the conflicts, and as incomplete. Equal demands are duplicates, not subsumptions; conflicts are neither.
    """
    indexed = [(i, spec) for i, spec in enumerate(specs) if spec is not None]
    found: list[Subsumption] = []
    for (i, a), (j, b) in permutations(indexed, 2):
        if implies(a, b) and not implies(b, a) and contradiction((a, b)) is None:
            found.append(Subsumption(i, j, f"{_say(a)} implies {_say(b)}"))
    return tuple(found)


def _say(spec: Spec) -> str:
    high = "" if spec.high is None else f", at most {spec.high}"
    bounds = f" at least {spec.low}{high}" if spec.kind in COUNT_KINDS else ""
    return f"{spec.kind.value}{'' if spec.text is None else f' {spec.text!r}'}{bounds}"
