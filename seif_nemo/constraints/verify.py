"""Rules: whether a response satisfies a spec. `COUNTERS` and `CHECKS` hold one entry per kind.

What differs from the public IFEval checkers, on purpose: keywords are never regular expressions and match whole words;
"don't" and "well-known" are one word; full-width commas and curly quotes count; sentences need no data files; case
does not imply a language; a phrase at the end may be followed by the sentence's own stop; JSON is an object or a list.

Vacuous passes are refused. A response without a word fails everything, and so does one that only repeats the seed
question. A demand that merely limits or forbids, and one on case or quotation, needs a response of two words at least
(unless the limit itself or the seed question asks for one word): else "Solution" would satisfy "no commas".
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from seif_nemo.constraints.ifeval_rules import verify_ifeval
from seif_nemo.constraints.language import language_problem
from seif_nemo.constraints.markup import count_emphasis, count_marks, has_markup, missing_emphasis
from seif_nemo.constraints.seed_demands import wants_one_word
from seif_nemo.constraints.specs import COUNT_KINDS
from seif_nemo.constraints.text import (
    COMMAS,
    bullets,
    clean,
    count_phrase,
    count_tables,
    ends_with,
    fold,
    headings,
    items,
    lines_without_code,
    numbered_items,
    paragraphs,
    sentences,
    starts_with,
    titles,
    words,
)
from seif_nemo.types.constraints import Definition, Kind, Scope, Spec
from seif_nemo.types.verdicts import Outcome, Source, Verdict

# (certain, possible): a lower bound is held to the first count and an upper bound to the second. They differ where a
# mention is arguable ("river" in "up-river"); certain ≤ possible always.
Counts = tuple[int, int]
Counter = Callable[[str, str], Counts]  # (clean text, the spec's text or "") -> counts
Check = Callable[[str, str, str], str | None]  # (clean text, raw response, the spec's text or "") -> what is wrong

_PLACEHOLDER = re.compile(r"\[([^\[\]\n]++)\](?!\()")
_CHECKBOX = re.compile(r"^[ \t]*+[*+\-•][ \t]++\[[xX]\](?=[ \t])", re.MULTILINE)
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL | re.IGNORECASE)


def _same(count: int) -> Counts:
    return count, count


def is_capital(word: str) -> bool:
    """Has an upper-case letter and none that could be made one."""
    return any(c.isupper() for c in word) and not any(_is_lower(c) for c in word)


def _is_lower(char: str) -> bool:
    return (char.islower() and char.upper() != char) or (char.istitle() and not char.isupper())


# Single letters that are capitals in any text: a reader does not take them for words in capitals.
_ALWAYS_CAPITAL = frozenset({"I", "A"})


def _count_capitals(text: str, _: str) -> Counts:
    """Words in capitals: for certain those of two letters, possibly "B" and "U2", but neither "I" nor "A"."""
    found = [word for word in words(text) if word not in _ALWAYS_CAPITAL and is_capital(word)]
    return sum(sum(map(str.isalpha, word)) > 1 for word in found), len(found)


def _count_placeholders(text: str, _: str) -> Counts:
    found = _PLACEHOLDER.findall(_CHECKBOX.sub("", "\n".join(lines_without_code(text))))
    return _same(sum(any(c.isalpha() for c in inner) and bool(words(inner)) for inner in found))


def _count_sections(text: str, splitter: str) -> Counts:
    marks = r"[ \t]*+[\"#*_>(\[]*+[ \t]*+"
    number = r"[ \t]++(?:\d++|[ivxlc]++\b)"
    pattern = rf"^{marks}{re.escape(fold(splitter))}{number}"
    return _same(len(re.findall(pattern, fold(text), re.MULTILINE)))


def _count_keyword(text: str, phrase: str) -> Counts:
    folded = fold(text)
    return count_phrase(folded, phrase, whole_words=True), count_phrase(folded, phrase, whole_words=False)


def _count_keywords(text: str, phrases: str) -> Counts:
    """The rarest and the most frequent of them: what bounds on each of them are held to."""
    counts = [_count_keyword(text, phrase) for phrase in phrases.split("\n")]
    return min(certain for certain, _ in counts), max(possible for _, possible in counts)


COUNTERS: dict[Kind, Counter] = {
    Kind.WORDS: lambda text, _: _same(len(words(text))),
    Kind.SENTENCES: lambda text, _: _same(len(sentences(text))),
    Kind.PARAGRAPHS: lambda text, divider: _same(len(paragraphs(text, divider or None))),
    Kind.BULLETS: lambda text, mark: _same(len(bullets(text, mark or None))),
    Kind.PLACEHOLDERS: _count_placeholders,
    Kind.HIGHLIGHTS: lambda text, mark: _same(count_emphasis(text, bold=bool(mark))),
    Kind.SECTIONS: _count_sections,
    Kind.KEYWORD: _count_keyword,
    Kind.KEYWORDS: _count_keywords,
    Kind.LETTER: lambda text, letter: _same(fold(text).count(fold(letter))),
    Kind.CAPITAL_WORDS: _count_capitals,
    Kind.COMMAS: lambda text, _: _same(sum(c in COMMAS for c in text)),
    Kind.MARKS: count_marks,
    Kind.DIGITS: lambda text, _: _same(sum(c.isdecimal() for c in text)),
    Kind.CHARACTERS: lambda text, _: _same(len(text)),
    Kind.LINES: lambda text, _: _same(sum(bool(line.strip()) for line in text.split("\n"))),
    Kind.NUMBERED: lambda text, _: _same(len(numbered_items(text))),
    Kind.HEADINGS: lambda text, _: _same(len(headings(text))),
    Kind.TABLES: lambda text, _: _same(count_tables(text)),
    Kind.SEPARATORS: lambda text, separator: _same(fold(text).count(fold(separator))),
}

_NOUNS = {
    Kind.BULLETS: "bullet points",
    Kind.HIGHLIGHTS: "highlighted sections",
    Kind.KEYWORD: "times",
    Kind.KEYWORDS: "times",
    Kind.MARKS: "punctuation marks",
    Kind.LETTER: "times",
    Kind.CAPITAL_WORDS: "words in capitals",
}


def _check_uppercase(text: str, _: str, code: str) -> str | None:
    if any(_is_lower(c) for c in text):
        return "has lowercase letters"
    if _count_capitals(text, "")[1] == 0:
        return "has no word in capitals but I and A" if any(map(str.isupper, text)) else "has no capital letters"
    return language_problem(text.lower(), code) if code else None  # profiles of languages are in small letters


def _check_lowercase(text: str, _: str, code: str) -> str | None:
    if any(c.isupper() or c.istitle() for c in text):
        return "has capital letters"
    if not any(map(str.isalpha, text)):  # what is left has no case
        return "has no lowercase letters"
    return language_problem(text, code) if code else None


def _check_quoted(text: str, _: str, __: str) -> str | None:
    return None if len(text) > 1 and text[0] == text[-1] == '"' else "is not wrapped in double quotes"


def _check_json(_: str, raw: str, __: str) -> str | None:
    body = raw.strip()
    fence = _FENCE.fullmatch(body)
    try:
        value = cast(object, json.loads(fence.group(1) if fence is not None else body))
    except (ValueError, RecursionError):
        return "is not valid JSON"
    return None if isinstance(value, dict | list) else "is a bare JSON value, not an object or a list"


def _check_bold(text: str, _: str, phrases: str) -> str | None:
    missing = missing_emphasis(text, phrases, bold=True)
    return None if missing is None else f"has {missing!r} nowhere in bold"


def _check_emphasis(text: str, _: str, phrases: str) -> str | None:
    missing = missing_emphasis(text, phrases, bold=False)
    return None if missing is None else f"has {missing!r} nowhere in emphasis"


def _check_postscript(text: str, _: str, marker: str) -> str | None:
    last = paragraphs(text)[-1:] or [""]
    lines = [line.lstrip(" \t*_#>") for line in last[0].split("\n")]
    found = [line for line in lines if fold(line).startswith(fold(marker))]
    return None if found and words(found[-1][len(marker) :]) else f"has no postscript that starts with {marker!r}"


def _check_two_responses(text: str, _: str, separator: str) -> str | None:
    parts = [fold(part) for part in text.split(separator) if words(part)]
    if len(parts) != 2:
        return f"has {len(parts)} responses separated by {separator!r}, not 2"
    return None if parts[0] != parts[1] else "gives the same response twice"


def _check_one_of(text: str, _: str, options: str) -> str | None:
    folded = fold(text)
    found = [option for option in options.split("\n") if count_phrase(folded, option, whole_words=True)]
    within = [o for o in found if any(o != other and count_phrase(fold(other), o, whole_words=True) for other in found)]
    given = len(found) - len(within)  # "yes" within "yes, partly" is not given
    return None if given == 1 else f"holds {given} of the allowed answers, not one"


CHECKS: dict[Kind, Check] = {
    Kind.UPPERCASE: _check_uppercase,
    Kind.LOWERCASE: _check_lowercase,
    Kind.STARTS_WITH: lambda text, _, phrase: None if starts_with(text, phrase) else f"does not start with {phrase!r}",
    Kind.ENDS_WITH: lambda text, _, phrase: None if ends_with(text, phrase) else f"does not end with {phrase!r}",
    Kind.TITLE: lambda text, _, __: None if titles(text) else "has no <<title>>",
    Kind.QUOTED: _check_quoted,
    Kind.JSON: _check_json,
    Kind.MARKDOWN: lambda text, _, __: None if has_markup(text) else "has no markdown markup",
    Kind.BOLD: _check_bold,
    Kind.EMPHASIS: _check_emphasis,
    Kind.LANGUAGE: lambda text, _, code: language_problem(text, code),
    Kind.POSTSCRIPT: _check_postscript,
    Kind.REPEAT_PROMPT: lambda text, _, prompt: None if starts_with(text, prompt) else "does not repeat the prompt",
    Kind.TWO_RESPONSES: _check_two_responses,
    Kind.ONE_OF: _check_one_of,
}

_PARTS: dict[Scope, Callable[[str], list[str]]] = {
    Scope.EACH_PARAGRAPH: paragraphs,
    Scope.EACH_SENTENCE: sentences,
    Scope.EACH_ITEM: items,
    Scope.NTH_PARAGRAPH: paragraphs,
    Scope.NTH_SENTENCE: sentences,
    Scope.NTH_ITEM: items,
}


def least_words(spec: Spec) -> int:
    """Words that a response must have before this spec can pass at all; the refusal of vacuous passes."""
    if spec.kind is Kind.WORDS:
        return max(spec.low, 2 if spec.high is None else min(2, spec.high))
    if spec.kind in COUNT_KINDS:
        return 2 if spec.low == 0 else 1
    return 2 if spec.kind in (Kind.UPPERCASE, Kind.LOWERCASE, Kind.QUOTED, Kind.MARKDOWN) else 1


def _demand(spec: Spec) -> str:
    if spec.low == spec.high:
        return f"exactly {spec.low}"
    low = f"at least {spec.low}" if spec.low > 0 else ""
    high = f"at most {spec.high}" if spec.high is not None else ""
    return " and ".join(part for part in (low, high) if part)


def _judge_paragraph_start(spec: Spec, text: str) -> tuple[bool, str]:
    assert spec.index is not None
    parts = paragraphs(text)
    at = spec.index - 1 if spec.index > 0 else len(parts) + spec.index
    if len(parts) < spec.low or (spec.high is not None and len(parts) > spec.high) or not 0 <= at < len(parts):
        return False, f"{len(parts)} paragraphs"
    passed = starts_with(parts[at], spec.text or "")
    return passed, f"paragraph {at + 1} {'starts' if passed else 'does not start'} with {spec.text!r}"


def _judge(spec: Spec, text: str, raw: str) -> tuple[bool, str]:
    if spec.kind is Kind.PARAGRAPH_START:
        return _judge_paragraph_start(spec, text)
    if spec.kind is Kind.KEYWORDS and spec.text is not None:
        evidence = ""
        for phrase in spec.text.split("\n"):  # the evidence names one
            passed, evidence = _judge(replace(spec, kind=Kind.KEYWORD, text=phrase), text, raw)
            if not passed:
                return False, evidence
        return True, f"each: {evidence}"
    if spec.kind in CHECKS:
        problem = CHECKS[spec.kind](text, raw, spec.text or "")
        return problem is None, problem or f"{spec.kind.value}: yes"
    certain, possible = COUNTERS[spec.kind](text, spec.text or "")
    passed = certain >= spec.low and (spec.high is None or possible <= spec.high)
    count = possible if certain >= spec.low else certain
    of = f" of {spec.text!r}" if spec.kind in (Kind.KEYWORD, Kind.LETTER) else ""
    return passed, f"{count} {_NOUNS.get(spec.kind, spec.kind.value)}{of}, {_demand(spec)}"


def _judge_parts(spec: Spec, text: str) -> tuple[bool, str]:
    """Each part of the scope, or the part at `index`, must satisfy the spec, and there must be one."""
    name = spec.scope.value.removeprefix("each_").removeprefix("nth_")
    parts = _PARTS[spec.scope](text)
    if spec.index is not None:
        at = spec.index - 1 if spec.index > 0 else len(parts) + spec.index
        if not 0 <= at < len(parts):
            return False, f"{len(parts)} {name}s, none at {spec.index}"
        passed, evidence = _judge(spec, parts[at], parts[at])
        return passed, f"{name} {at + 1}: {evidence}"
    evidence = f"no {name}"
    for number, part in enumerate(parts, start=1):
        passed, evidence = _judge(spec, part, part)
        if not passed:
            return False, f"{name} {number}: {evidence}"
    return bool(parts), f"{len(parts)} checked, the last: {evidence}" if parts else evidence


def refuse(response: str, *, questions: Sequence[str]) -> str | None:
    """Why a response satisfies nothing at all: no words, or those of one of the questions. None if it may."""
    said = words(fold(response))
    if not said:
        return "empty response: no words"
    return "only repeats the question" if any(said == words(fold(question)) for question in questions) else None


def verify(spec: Spec, response: str, *, seed_question: str) -> Verdict:
    """A verdict by rule: PASSED or FAILED, never MISSING, with evidence such as "12 words, at most 10".

    A spec with IFEval's definition is judged by it, if an id of IFEval says it. See the top of this file for what is
    refused as vacuous. Never raises for a valid spec, whatever the response.
    """
    if spec.definition is Definition.IFEVAL:
        verdict = verify_ifeval(spec, response, prompt=seed_question)
        if verdict is not None:
            return verdict
    if spec.kind is Kind.REPEAT_PROMPT and spec.text is None:
        spec = replace(spec, text=seed_question)
    text = clean(response)
    found = len(words(text))
    is_vacuous = found < least_words(spec) and not (found == 1 and wants_one_word(seed_question))
    refusal = refuse(response, questions=(seed_question,))
    if refusal is not None:
        passed, evidence = False, refusal
    elif is_vacuous and spec.kind is not Kind.WORDS:
        passed, evidence = False, f"vacuous: {found} word, too short to satisfy a limit or a form"
    elif spec.scope is Scope.RESPONSE:
        passed, evidence = _judge(spec, text, response)
        if passed and is_vacuous:
            passed, evidence = False, f"vacuous: {evidence}"
    else:
        passed, evidence = _judge_parts(spec, text)
    return Verdict(Outcome.PASSED if passed else Outcome.FAILED, Source.RULE, evidence)
