"""Counts: "at least 5 words", "no bullet points", "the number of sentences must be at least 3"."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from seif_nemo.constraints.numbers import AFTER, BEFORE, SECOND, Bound, parse_bound
from seif_nemo.constraints.phrasing import CLOSE, DIVIDE, MODAL, OPEN, QUOTED, RESPONSE, Clause, times
from seif_nemo.constraints.specs import BOLD_MARK, MAX_BOUND, NEVER_ZERO, PARAGRAPH_DIVIDER, validate
from seif_nemo.types.constraints import Kind, Reading, Spec


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader made of a demand. A nonsensical bound is NOT_A_CONSTRAINT and has no spec."""

    reading: Reading
    spec: Spec | None = None


Reader = Callable[[str, Clause], Found | None]

TAIL = (
    rf"(?:,? (?:in total|total|long|in length|overall|altogether|in all|throughout"
    rf"|(?:in|throughout|within|across|for|of) {RESPONSE}))*+"
)
EXAMPLE = r"(?:,? \(?(?:such as|like|e\.g\.,?|i\.e\.,?|for example):? [^.;]{1,120}+)?"
STATES = (
    r"(?:appear|appears|occur|occurs|show up|feature|be (?:used|included|mentioned|present|repeated|found|featured))"
)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


class Bare(Enum):
    """What a number alone means: "write 3 sentences" is exact, "use 3 placeholders" is at least 3 for certain."""

    EXACT = "exact"
    AT_LEAST = "at least"
    UNCLEAR = "unclear"


def bounded(kind: Kind, bound: Bound, bare: Bare, *, limiting: bool, text: str | None = None) -> Found | None:
    """The finding for a count, with nonsense told apart: nothing demanded, or nothing that any response could hold."""
    low, high, reading = bound.low, bound.high, Reading.EQUIVALENT
    if bound.bare and limiting:
        low = 0
    elif bound.bare and high == 0:
        pass  # "0 commas" is a ban, not "at least 0 commas"
    elif bound.bare and bare is Bare.UNCLEAR:
        return None
    elif bound.bare and bare is Bare.AT_LEAST:
        high, reading = None, Reading.NECESSARY
    least = 1 if kind in NEVER_ZERO else 0
    if (
        (low == 0 and high is None)
        or low > MAX_BOUND
        or (high is not None and not max(low, least) <= high <= MAX_BOUND)
    ):
        return Found(Reading.NOT_A_CONSTRAINT)
    return Found(reading, validate(Spec(kind, low=low, high=high, text=text)))


def _is_text_length(bound: Bound) -> bool:
    """So many characters are letters and not persons."""
    return max(bound.low, bound.high or 0) >= _FEW_PERSONS


def count(kind: Kind, noun: str, *, bare: Bare, tail: str = "", verb: str = "", text: str | None = None) -> Reader:
    """Reader of "at least 5 NOUN TAIL", "no NOUN", "the number of NOUN must be at least 5", "NOUN count: 5"."""
    end = rf"{AFTER}{TAIL}{tail}{TAIL}"
    # Lazy: "within 5" is at most 5, only "within 3 to 5" and the like leave "within" without a meaning of its own.
    plain = compile_pattern(
        rf"(?:{verb})(?:in |with |using |of |within |as |into |{DIVIDE} into )??{BEFORE}(?: |-)(?:{noun}){end}"
        rf"(?:{SECOND}(?: (?:{noun}))?{TAIL})?"
    )
    banned = compile_pattern(rf"(?:any |the use of (?:any )?|use of (?:any )?|the )?(?:{noun}){tail}{TAIL}(?: at all)?")
    amount = (
        rf"(?:the |a |an |your )?(?:total |overall |(?P<most>maximum ))?"
        rf"(?:number of (?:{noun})|(?:{noun}) (?:count|limit))"
        rf"(?: (?:in|of|for) {RESPONSE})?"
    )
    number = compile_pattern(
        rf"(?:with |using )?{amount}(?::| -| is| of| {MODAL}(?P<negated> not)?(?: be)?"
        rf"(?P<limited> (?:limited|restricted|capped) to)?)? {BEFORE}(?: (?:{noun}))?{end}"
        rf"(?:{SECOND}(?: (?:{noun}))?)?"
    )
    limited = compile_pattern(
        rf"(?P<verb>limit|limits|limited|restrict|cap|keep|maintain)(?: {amount}) (?P<by>to |at |within |of )??{BEFORE}"
        rf"(?: (?:{noun}))?{end}"
    )
    forbidden = compile_pattern(
        rf"(?:the )?(?:use of )?(?:any )?(?:{noun}) (?:is|are|{MODAL} be) "
        r"(?:not allowed|not permitted|forbidden|prohibited|banned|avoided)"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match, negated, limiting = plain.fullmatch(clause.rest), clause.negated, clause.limiting
        if match is None and not verb:
            match = number.fullmatch(clause.rest) or number.fullmatch(sentence)
            negated = match is not None and (
                match["negated"] is not None or (clause.negated and match.string == clause.rest)
            )
            limiting = match is not None and (
                " limit" in sentence.lower() or match["limited"] is not None or match["most"] is not None
            )
            if match is None and (match := limited.fullmatch(sentence)) is not None:
                # "Keep the count at 3" and "maintain a count of 3" mean 3 of them.
                is_kept = match["verb"].lower() in ("keep", "maintain")
                limiting = (
                    not is_kept or (match["by"] or "").lower() in ("to ", "within ") or " limit " in sentence.lower()
                )
        if match is not None:
            bound = parse_bound(match, negated=negated)
            if bound is None or (kind is Kind.CHARACTERS and not _is_text_length(bound)):
                return None
            if match.groupdict().get("most") is not None and bound.low > 0 and not bound.bare:
                return None  # a maximum of at least 3
            return bounded(kind, bound, bare, limiting=limiting, text=text)
        is_ban = (clause.negated and banned.fullmatch(clause.rest)) or forbidden.fullmatch(sentence)
        if is_ban and kind not in NEVER_ZERO and not verb:
            return Found(Reading.EQUIVALENT, Spec(kind, high=0, text=text))
        return None

    return read


_FEW_PERSONS = 30

BULLET = r"(?:markdown )?(?:bullet(?:ed)?[ -]?(?:points?|items?|list items?)|bullets?)"
BULLET_LIST = r"(?:bullet(?:ed)?(?:[ -]points?)?[ -]lists?|bullet-?point lists?|bullet(?:ed)?[ -]points?|bullets)"
_MARKDOWN = (
    r"(?: (?:using|in|with|as) (?:the )?markdown(?: bullets?| bullet points?| format| formatting| style| syntax)?)?"
)
_CAPS = r"(?:all[ -])?(?:caps|capitals|capital letters|upper-?case(?: letters)?)"
_DIVIDER = rf"(?:the )?(?:markdown )?(?:divider|separator)?:? ?{OPEN}?(?:\*\*\*|\* \* \*){CLOSE}?"
_SEPARATED = r",? (?:which are |that are |all |each )?(?:separated|divided) (?:by|with|using) "
_BRACKETS = (
    r"(?:,? (?:that are |each )?(?:represented by|in|within|inside|enclosed in|enclosed by|wrapped in|"
    r"using|with|surrounded by)"
    rf" (?:a pair of )?square brackets{EXAMPLE}|,? such as \[[^\[\]]{{1,80}}+\])"
)
_HIGHLIGHTED = (
    r"(?:sections?|words?|phrases?|parts?|terms?|passages?|spans?|text sections?|key (?:words|phrases|terms))"
)
_BY = r",? (?:with|using|in|by|through|via) (?:the )?"
_STARS = r"(?: ?\(?\*\*\)?)?"
BOLD = (
    rf"{_BY}(?:markdown )?(?:bold|boldface|bolded|double asterisks|double stars){_STARS}"
    r"(?: (?:markdown|text|fonts?|formatting|format|syntax|style|type|letters|emphasis|typeface|face|print))*+"
)
EMPHASIS = (
    rf"{_BY}(?:markdown|asterisks|single asterisks|emphasis|an asterisk)"
    r"(?: (?:formatting|format|syntax|text|emphasis|highlighting|highlights?|style))*+"
)


def _read_markdown_bullets() -> Reader:
    """ "exactly 3 bullet points using markdown bullets starting with '*'": the mark is part of the demand."""
    pattern = compile_pattern(
        rf"(?:in |with |using |of )??{BEFORE} {BULLET}{AFTER}{_MARKDOWN}"
        rf",? (?:starting|beginning|that start|that begin|marked|preceded|prefixed) (?:with|by) "
        rf"(?:an? |the )?(?:asterisks? |symbol |character |dash )?\(?{OPEN}?(?P<mark>[*•+-]) ?{CLOSE}?\)?{TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(clause.rest)
        if match is None or clause.negated:
            return None
        bound = parse_bound(match, negated=False)
        if bound is None:
            return None
        return bounded(Kind.BULLETS, bound, Bare.EXACT, limiting=clause.limiting, text=match["mark"])

    return read


def read_capital_frequency() -> Reader:
    pattern = compile_pattern(
        rf"words? (?:in|with|written in) {_CAPS} {MODAL}(?P<negated> not)? {STATES} {BEFORE} times?{TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(times(sentence))
        bound = None if match is None else parse_bound(match, negated=match["negated"] is not None)
        return None if bound is None else bounded(Kind.CAPITAL_WORDS, bound, Bare.AT_LEAST, limiting=False)

    return read


def read_sections() -> Reader:
    marked = r",? (?:each )?(?:marked|labell?ed|introduced|headed|starting|beginning) (?:with|by|as) "
    pattern = compile_pattern(
        rf"{BEFORE} sections?{AFTER}{TAIL}{marked}"
        rf"(?:{QUOTED}|(?P<word>[a-z]{{2,20}}) (?:x|1|\d|number))(?: x)?{EXAMPLE}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(clause.rest)
        if match is None or clause.negated:
            return None
        splitter = re.sub(r"\s+(?:[xX#]|\d+)$", "", match["quoted"] or match["word"]).strip()
        bound = parse_bound(match, negated=False)
        if bound is None or not re.fullmatch(r"[^\W\d_]{2,30}", splitter):
            return None
        return bounded(Kind.SECTIONS, bound, Bare.EXACT, limiting=clause.limiting, text=splitter)

    return read


COUNT_READERS: tuple[Reader, ...] = (
    count(Kind.WORDS, r"words?", bare=Bare.UNCLEAR),
    count(Kind.SENTENCES, r"(?:complete |full |distinct |separate )?sentences?", bare=Bare.EXACT),
    count(
        Kind.PARAGRAPHS,
        r"(?:distinct |separate )?paragraphs?",
        bare=Bare.EXACT,
        tail=rf"(?:{_SEPARATED}(?:a )?(?:single )?(?:blank|empty) lines?)?",
    ),
    count(Kind.PARAGRAPHS, r"paragraphs?", bare=Bare.EXACT, tail=rf"{_SEPARATED}{_DIVIDER}", text=PARAGRAPH_DIVIDER),
    count(Kind.BULLETS, BULLET, bare=Bare.EXACT, tail=_MARKDOWN + EXAMPLE),
    _read_markdown_bullets(),
    count(Kind.NUMBERED, r"numbered (?:list items?|items?|points?|steps?)", bare=Bare.EXACT),
    count(Kind.CHARACTERS, r"characters?(?:,? \(?(?:including|with) spaces\)?)?", bare=Bare.UNCLEAR),
    count(Kind.LINES, r"lines?(?: of text)?", bare=Bare.EXACT),
    count(Kind.PLACEHOLDERS, r"placeholders?", bare=Bare.AT_LEAST, tail=_BRACKETS),
    count(Kind.HIGHLIGHTS, rf"highlighted {_HIGHLIGHTED}", bare=Bare.AT_LEAST, tail=f"(?:{EMPHASIS})?{EXAMPLE}"),
    count(Kind.HIGHLIGHTS, _HIGHLIGHTED, bare=Bare.AT_LEAST, tail=f"(?:{EMPHASIS})?{EXAMPLE}", verb="highlight "),
    *(
        count(Kind.HIGHLIGHTS, noun, bare=Bare.AT_LEAST, tail=f"{TAIL}{BOLD}{EXAMPLE}", verb=verb, text=BOLD_MARK)
        for noun, verb in ((rf"highlighted {_HIGHLIGHTED}", ""), (_HIGHLIGHTED, "highlight "))
    ),
    count(Kind.COMMAS, r"commas?", bare=Bare.AT_LEAST),
    *(
        count(Kind.MARKS, noun, bare=Bare.AT_LEAST, text=mark)
        for noun, mark in (
            (r"exclamation (?:marks?|points?)", "!"),
            (r"question marks?", "?"),
            (r"semi-?colons?", ";"),
            (r"colons?", ":"),
            (r"(?:em[ -])dash(?:es)?", "—"),
        )
    ),
    count(
        Kind.CAPITAL_WORDS,
        r"all[ -]caps words?|all-capital words?|upper-?case words?|"
        rf"words? (?:that are )?(?:in|with|written in) {_CAPS}",
        bare=Bare.AT_LEAST,
    ),
    read_capital_frequency(),
    read_sections(),
)
