"""What specs imply for the counts of one text, and when that leaves no text at all.

Every spec becomes lower and upper bounds on measures (words, characters, lines, ...) of the text it is judged on: the
response, or one of its parts. `NEEDS` and `SUMS` carry lower bounds from one measure to another; the bounds of parts
add up in the response. A lower bound above an upper one is a contradiction. Each step holds for every text under
`verify`; where it only holds for most texts, it is left out. docs/conflicts.md lists the rules with their reasons.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from seif_nemo.constraints.conflict_counts import (
    BULLETS,
    BY_CHARACTER,
    CAPITALS,
    CHARACTERS,
    DIGITS,
    DIVIDED,
    HEADINGS,
    ITEM,
    LINES,
    MARKS,
    NUMBERED,
    PARAGRAPHS,
    SENTENCES,
    TABLES,
    WORDS,
    Counts,
    Measure,
    in_phrase,
    joint,
    measure,
    phrase_characters,
    phrase_words,
    promises_of,
)
from seif_nemo.constraints.ifeval import to_ifeval
from seif_nemo.constraints.specs import COUNT_KINDS, PARAGRAPH_DIVIDER
from seif_nemo.constraints.text import (
    count_phrase,
    fold,
    is_word_char,
    is_wordy,
    phrase_core,
    words,
)
from seif_nemo.constraints.verify import least_words
from seif_nemo.types.constraints import Definition, Kind, Scope, Spec

VACUOUS = "one word is too short for a limit or a form"  # as verify has it; a reader may see it otherwise

_PARTS = {
    Scope.EACH_PARAGRAPH: PARAGRAPHS,
    Scope.NTH_PARAGRAPH: PARAGRAPHS,
    Scope.EACH_SENTENCE: SENTENCES,
    Scope.NTH_SENTENCE: SENTENCES,
    Scope.EACH_ITEM: ITEM,
    Scope.NTH_ITEM: ITEM,
}
# What the parts hold between them, the response holds. Elsewhere a quotation mark at the edge of a part, or the cut
# itself, may make something of a part that is nothing in the whole (bullets, placeholders in sentences).
_EVERYWHERE = {
    Kind.WORDS,
    Kind.CHARACTERS,
    Kind.KEYWORD,
    Kind.LETTER,
    Kind.COMMAS,
    Kind.MARKS,
    Kind.DIGITS,
    Kind.CAPITAL_WORDS,
    Kind.SEPARATORS,
}
_BY_LINES = {
    Kind.LINES,
    Kind.SENTENCES,
    Kind.HEADINGS,
    Kind.PLACEHOLDERS,
    Kind.HIGHLIGHTS,
    Kind.TABLES,
    Kind.SECTIONS,
}
ADDITIVE: dict[Measure, frozenset[str]] = {
    PARAGRAPHS: frozenset(kind.value for kind in _EVERYWHERE | _BY_LINES),
    SENTENCES: frozenset(kind.value for kind in _EVERYWHERE),
    ITEM: frozenset(kind.value for kind in _EVERYWHERE),
}


def _read_phrases(counts: Counts, specs: Sequence[Spec], watched: Iterable[Measure]) -> None:
    """What guaranteed phrases, allowed answers and separators need of the measures that something limits."""
    promises = [promise for spec in specs for promise in promises_of(spec)]
    for key in watched:
        for promise in promises:
            why = f"{promise.phrase[:60]!r} {promise.times} times"
            counts.at_least(key, promise.times * in_phrase(promise.phrase, key), why)
        is_lettered = key[0] == Kind.LETTER and is_word_char(key[1][:1] or " ")
        if len(promises) > 1 and (key in (WORDS, CHARACTERS) or is_lettered):
            total, used = joint(promises, key)
            counts.at_least(key, total, f"{used} phrases side by side")
        for spec in specs:
            if spec.kind is Kind.ONE_OF and spec.text is not None:
                options = [fold(option) for option in spec.text.split("\n")]
                counts.at_least(key, min(in_phrase(option, key) for option in options), "each of the allowed answers")
            elif spec.kind in (Kind.SEPARATORS, Kind.TWO_RESPONSES) and spec.text is not None and spec.text.isascii():
                times = spec.low if spec.kind is Kind.SEPARATORS else 1
                # A letter at its end may become another one with an accent that follows.
                if key[0] in BY_CHARACTER and not spec.text[-1].isalpha():
                    counts.at_least(key, times * in_phrase(fold(spec.text), key), f"separator {spec.text!r}")


def _read_form(counts: Counts, spec: Spec) -> None:
    """What a spec that is no count says about counts."""
    text = spec.text or ""
    match spec.kind:
        case Kind.LOWERCASE:
            counts.at_most(CAPITALS, 0, "all lowercase")
        case Kind.UPPERCASE:
            counts.at_least(CAPITALS, 1, "all capital")  # "I" and "A" alone are refused
        case Kind.JSON:
            for key in (BULLETS, NUMBERED, HEADINGS, TABLES):
                counts.at_most(key, 0, "JSON has no such lines")
            counts.at_least(MARKS, 2, "JSON has brackets")
        case Kind.TITLE:
            counts.at_least(CHARACTERS, 5, "a title in its brackets")
        case Kind.QUOTED:
            counts.at_least(CHARACTERS, 3, "two quotation marks and a word")
            counts.at_least(MARKS, 2, "two quotation marks")
        case Kind.POSTSCRIPT:
            counts.at_least(PARAGRAPHS, 1, "a postscript is in the last one")
            if text.isascii() and not is_wordy(text[-1]):
                counts.at_least(WORDS, len(words(text)) + 1, "a postscript says something")
        case Kind.TWO_RESPONSES:
            counts.at_least(WORDS, 2, "two responses")
            counts.at_least(CHARACTERS, len(text) + 2, "two responses")
            if PARAGRAPH_DIVIDER in text:
                counts.at_least(DIVIDED, 2, "two responses")
            if text == PARAGRAPH_DIVIDER:
                counts.at_most(DIVIDED, 2, "two responses")
        case _:
            pass


def _read_count(counts: Counts, spec: Spec) -> None:
    key = measure(spec.kind, spec.text)
    counts.at_least(key, spec.low)
    if spec.high is not None:
        counts.at_most(key, spec.high)
    text = fold(spec.text or "")
    if spec.low == 0:
        return
    if spec.kind is Kind.SECTIONS:
        counts.at_least(WORDS, spec.low * (phrase_words(text) + 1), f"{spec.low} {text!r} with their numbers")
        counts.at_least(LINES, spec.low, f"{spec.low} {text!r} with lines of their own")
        counts.at_least(CHARACTERS, spec.low * (phrase_characters(text) + 3) - 1, f"{spec.low} {text!r} with numbers")
    elif spec.kind is Kind.LETTER:
        most = (2 if text in "fs" else 1) if text.isascii() else 3  # letters that one character folds to
        counts.at_least(CHARACTERS, -(-spec.low // most), f"{spec.low} times {text!r}")
        if text.isascii() and text.isdigit():
            counts.at_least(DIGITS, spec.low, f"{spec.low} times {text!r}")
    elif spec.kind is Kind.SEPARATORS and text.isascii() and not any(c.isalpha() or c.isspace() for c in text):
        counts.at_least(CHARACTERS, spec.low * len(text), f"{spec.low} times {text!r}")


def _read(specs: Sequence[Spec], watched: Iterable[Measure]) -> Counts:
    """Bounds on one text that all the specs are judged on, whatever their scopes say."""
    counts = Counts()
    counts.at_least(WORDS, 1)
    for spec in specs:
        if spec.kind in COUNT_KINDS:
            _read_count(counts, spec)
        else:
            _read_form(counts, spec)
    _read_phrases(counts, specs, watched)
    return counts


# --- what is no count


def _edges(specs: Sequence[Spec]) -> str | None:
    """Two different phrases at one end. What is skipped before punctuation is another matter."""
    for kinds, edge in (((Kind.STARTS_WITH, Kind.REPEAT_PROMPT), 0), ((Kind.ENDS_WITH,), -1)):
        phrases = [phrase_core(s.text) for s in specs if s.kind in kinds and s.text is not None]
        phrases = sorted((p for p in phrases if p and is_wordy(p[edge])), key=len)
        for i, short in enumerate(phrases):
            for long in phrases[i + 1 :]:
                if not (long.startswith(short) if edge == 0 else long.endswith(short)):
                    return f"two different phrases at one end: {short[:60]!r} and {long[:60]!r}"
    return None


# What can stand first in a line of JSON or of its fence.
_JSON_STARTS = frozenset('{}[],:"-`0123456789tfni')


def _json(specs: Sequence[Spec]) -> str | None:
    if all(spec.kind is not Kind.JSON for spec in specs):
        return None
    if any(spec.kind is Kind.QUOTED for spec in specs):
        return "JSON cannot be wrapped in double quotes"
    markers = [fold(spec.text or "") for spec in specs if spec.kind is Kind.POSTSCRIPT]
    bad = [marker for marker in markers if marker.isascii() and marker[:1] not in _JSON_STARTS]
    return f"no line of JSON starts with {bad[0]!r}" if bad else None


def _letter_case(specs: Sequence[Spec]) -> str | None:
    """A separator of two responses is looked for as it is written."""
    separators = [spec.text or "" for spec in specs if spec.kind is Kind.TWO_RESPONSES]
    for kind, is_lost in ((Kind.LOWERCASE, str.isupper), (Kind.UPPERCASE, str.islower)):
        lost = [text for text in separators if text.isascii() and any(is_lost(c) for c in text)]
        if lost and any(spec.kind is kind for spec in specs):
            return f"{kind.value} excludes the separator {lost[0]!r}"
    return None


def _answers(specs: Sequence[Spec]) -> str | None:
    """Two of the allowed answers are demanded, where exactly one may be given."""
    promised = [promise.phrase for spec in specs for promise in promises_of(spec) if promise.whole]
    for spec in specs:
        if spec.kind is not Kind.ONE_OF or spec.text is None or not promised:
            continue
        options = list(dict.fromkeys(fold(option) for option in spec.text.split("\n")))
        alone = [o for o in options if not any(o != p and count_phrase(p, o, whole_words=False) for p in options)]
        given = [o for o in alone if any(count_phrase(phrase, o, whole_words=True) for phrase in promised)]
        if len(given) > 1:
            return f"one answer may be given, {given[0]!r} and {given[1]!r} are demanded"
    return None


FORM_RULES = (_edges, _json, _letter_case, _answers)


def _local_problem(counts: Counts, specs: Sequence[Spec]) -> str | None:
    counts.carry()
    for rule in FORM_RULES:
        problem = rule(specs)
        if problem is not None:
            return problem
    return counts.problem()


# --- the response and its parts


def _atoms(specs: Sequence[Spec]) -> list[Spec]:
    """PARAGRAPH_START is a number of paragraphs and a phrase at the start of one; KEYWORDS are several."""
    found: list[Spec] = []
    for spec in specs:
        if spec.kind is Kind.KEYWORDS:
            phrases = (spec.text or "").split("\n")
            found += [replace(spec, kind=Kind.KEYWORD, text=phrase) for phrase in phrases]
            continue
        if spec.kind is not Kind.PARAGRAPH_START:
            found.append(spec)
            continue
        if spec.low > 0 or spec.high is not None:
            found.append(Spec(Kind.PARAGRAPHS, low=spec.low, high=spec.high))
        nth = replace(spec, kind=Kind.STARTS_WITH, low=0, high=None, scope=Scope.NTH_PARAGRAPH)
        if phrase_core(spec.text or ""):
            found.append(nth)
    return found


def _lift(whole: Counts, part: Measure, specs: Sequence[Spec], watched: frozenset[Measure]) -> str | None:
    """Adds up what the parts need. Says what is wrong within one part, if anything is."""
    each = [spec for spec in specs if spec.index is None]
    indices = sorted({spec.index for spec in specs if spec.index is not None})
    whole.at_least(part, max((abs(i) for i in indices), default=1), "a part of that number is spoken of")
    common = _read(each, watched)
    problem = _local_problem(common, each)
    singles: dict[int, Counts] = {}
    for index in indices:
        own = [spec for spec in specs if spec.index in (None, index)]
        singles[index] = _read(own, watched)
        problem = problem or _local_problem(singles[index], own)
    if problem is not None:
        return f"in one of the {part[0]}: {problem}"
    number = whole.least(part)
    for key in {key for counts in (common, *singles.values()) for key in counts.low}:
        if key[0] not in ADDITIVE[part]:
            continue
        # The first and the last part may be one part: only numbers from one end add up.
        for same_end in ([i for i in indices if i > 0], [i for i in indices if i < 0]):
            total = sum(singles[i].least(key) for i in same_end) + common.least(key) * (number - len(same_end))
            whole.at_least(key, total, f"{number} {part[0]} together")
    return None


def _ifeval_problem(specs: Sequence[Spec]) -> str | None:
    """Counts by the rules of IFEval are only compared with themselves, and only where one number is behind both bounds.

    Under both definitions lower case allows no capital letter and upper case needs one, so they do mix.
    """
    cases = {s.kind for s in specs if s.scope is Scope.RESPONSE and s.kind in (Kind.UPPERCASE, Kind.LOWERCASE)}
    if len(cases) > 1:
        return "all lowercase and all capital"
    bounds: dict[str, Counts] = {}
    languages: set[str] = set()
    for spec in specs:
        if spec.definition is not Definition.IFEVAL or spec.scope is not Scope.RESPONSE:
            continue
        identifier = to_ifeval(spec)[0].instruction_id
        if spec.kind in _IFEVAL_COUNTS and not identifier.startswith("seif:"):
            key = measure(spec.kind, spec.text)
            counts = bounds.setdefault(f"{identifier} {key[1]}", Counts())
            counts.at_least(key, spec.low)
            if spec.high is not None:
                counts.at_most(key, spec.high)
        elif identifier == "language:response_language":
            languages.add(spec.text or "")
    if len(languages) > 1:
        return f"two languages for one text: {sorted(languages)}"
    return next((problem for problem in (counts.problem() for counts in bounds.values()) if problem is not None), None)


_IFEVAL_COUNTS = frozenset(
    {Kind.WORDS, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.BULLETS, Kind.PLACEHOLDERS, Kind.HIGHLIGHTS, Kind.CAPITAL_WORDS}
)


def contradiction(specs: Sequence[Spec], *, refuse_vacuous: bool = True) -> str | None:
    """Why no response passes `verify` for all the specs, or None where nothing proves it.

    `refuse_vacuous` = False leaves out that verify fails a limit or a form on a response of one word.
    """
    mixed = any(spec.definition is Definition.IFEVAL for spec in specs)
    problem = _ifeval_problem(specs) if mixed else None
    if problem is not None:
        return problem
    ours = _atoms([spec for spec in specs if spec.definition is Definition.OURS])
    kinds = BY_CHARACTER | {Kind.KEYWORD}
    limited = {measure(s.kind, s.text) for s in ours if s.kind in kinds and s.high is not None}
    watched = frozenset(limited | {WORDS, CHARACTERS})
    of_whole = [spec for spec in ours if spec.scope is Scope.RESPONSE]
    whole = _read(of_whole, watched)
    if refuse_vacuous:
        for spec in (spec for spec in specs if spec.definition is Definition.OURS):
            if spec.kind is not Kind.WORDS or spec.scope is Scope.RESPONSE:
                whole.at_least(WORDS, least_words(spec), VACUOUS)
    whole.carry()  # the number of parts, before they are added up
    for part in (PARAGRAPHS, SENTENCES, ITEM):
        of_part = [spec for spec in ours if _PARTS.get(spec.scope) == part]
        problem = _lift(whole, part, of_part, watched) if of_part else None
        if problem is not None:
            return problem
    return _local_problem(whole, of_whole)
