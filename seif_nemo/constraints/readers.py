"""One entry per kind: which English demands it. `READERS` is the table that `parse_constraint` asks in order.

A reader sees a whole demand and must account for every word of it: what it does not know ("in each paragraph", "except
in the title") makes it decline. It answers with a `Found`, or None to decline.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from seif_nemo.constraints.numbers import AFTER, BEFORE, Bound, parse_bound
from seif_nemo.constraints.phrasing import CLOSE, MODAL, OBJECT, OPEN, QUOTED, RESPONSE, Clause
from seif_nemo.constraints.specs import MAX_BOUND, MAX_TEXT, NEVER_ZERO, PARAGRAPH_DIVIDER, validate
from seif_nemo.types.constraints import Kind, Reading, Spec


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader made of a demand. A nonsensical bound is NOT_A_CONSTRAINT and has no spec."""

    reading: Reading
    spec: Spec | None = None


Reader = Callable[[str, Clause], Found | None]

_TAIL = (
    rf"(?:,? (?:in total|total|long|in length|overall|altogether|in all|throughout"
    rf"|(?:in|throughout|within|across|for|of) {RESPONSE}))*+"
)
_EXAMPLE = r"(?:,? \(?(?:such as|like|e\.g\.,?|i\.e\.,?|for example):? [^.;]{1,120}+)?"
_STATES = (
    r"(?:appear|appears|occur|occurs|show up|feature|be (?:used|included|mentioned|present|repeated|found|featured))"
)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


class Bare(Enum):
    """What a number alone means: "write 3 sentences" is exact, "use 3 placeholders" is at least 3 for certain."""

    EXACT = "exact"
    AT_LEAST = "at least"
    UNCLEAR = "unclear"


def _bounded(kind: Kind, bound: Bound, bare: Bare, *, limiting: bool, text: str | None = None) -> Found | None:
    """The finding for a count, with nonsense told apart: nothing demanded, or nothing that any response could hold."""
    low, high, reading = bound.low, bound.high, Reading.EQUIVALENT
    if bound.bare and limiting:
        low = 0
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


# --- counts


def _count(kind: Kind, noun: str, *, bare: Bare, tail: str = "", verb: str = "", text: str | None = None) -> Reader:
    """Reader of "at least 5 NOUN TAIL", "no NOUN", "the number of NOUN must be at least 5", "NOUN count: 5"."""
    end = rf"{AFTER}{_TAIL}{tail}{_TAIL}"
    # Lazy: "within 5" is at most 5, only "within 3 to 5" and the like leave "within" without a meaning of its own.
    bounded = _compile(rf"(?:{verb})(?:in |with |using |of |within )??{BEFORE}(?: |-)(?:{noun}){end}")
    banned = _compile(rf"(?:any |the use of (?:any )?|use of (?:any )?|the )?(?:{noun}){tail}{_TAIL}(?: at all)?")
    number = _compile(
        rf"(?:the |a |an )?(?:total |overall )?(?:number of (?:{noun})|(?:{noun}) (?:count|limit))"
        rf"(?: (?:in|of) {RESPONSE})?"
        rf"(?::| -| is| of| {MODAL}(?P<negated> not)?(?: be)?)? {BEFORE}(?: (?:{noun}))?{end}"
    )
    forbidden = _compile(
        rf"(?:the )?(?:use of )?(?:any )?(?:{noun}) (?:is|are|{MODAL} be) "
        r"(?:not allowed|not permitted|forbidden|prohibited|banned|avoided)"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match, negated, limiting = bounded.fullmatch(clause.rest), clause.negated, clause.limiting
        if match is None and not verb:
            match = number.fullmatch(clause.rest) or number.fullmatch(sentence)
            negated = match is not None and (
                match["negated"] is not None or (clause.negated and match.string == clause.rest)
            )
            limiting = match is not None and " limit" in sentence.lower()
        if match is not None:
            bound = parse_bound(match, negated=negated)
            return None if bound is None else _bounded(kind, bound, bare, limiting=limiting, text=text)
        is_ban = (clause.negated and banned.fullmatch(clause.rest)) or forbidden.fullmatch(sentence)
        if is_ban and kind not in NEVER_ZERO and not verb:
            return Found(Reading.EQUIVALENT, Spec(kind, high=0, text=text))
        return None

    return read


_MARKDOWN = (
    r"(?: (?:using|in|with|as) (?:the )?markdown(?: bullets?| bullet points?| format| formatting| style| syntax)?)?"
)
_CAPS = r"(?:all[ -])?(?:caps|capitals|capital letters|upper-?case(?: letters)?)"
_DIVIDER = rf"(?:the )?(?:markdown )?(?:divider|separator)?:? ?{OPEN}?(?:\*\*\*|\* \* \*){CLOSE}?"
_SEPARATED = r",? (?:which are |that are |all |each )?(?:separated|divided) (?:by|with|using) "
_BRACKETS = (
    r"(?:,? (?:that are |each )?(?:represented by|in|within|inside|enclosed in|enclosed by|wrapped in|"
    r"using|with|surrounded by)"
    rf" (?:a pair of )?square brackets{_EXAMPLE}|,? such as \[[^\[\]]{{1,80}}+\])"
)
_HIGHLIGHTED = r"(?:sections?|words?|phrases?|parts?|terms?|passages?|spans?|text sections?)"
_EMPHASIS = (
    rf"(?:,? (?:with|using|in|by) (?:markdown|bold|italics?|asterisks|single asterisks|double asterisks)"
    rf"(?: formatting| syntax| text| emphasis| markdown)?)?{_EXAMPLE}"
)


def _read_capital_frequency() -> Reader:
    pattern = _compile(
        rf"words? (?:in|with|written in) {_CAPS} {MODAL}(?P<negated> not)? {_STATES} {BEFORE} times?{_TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(_times(sentence))
        bound = None if match is None else parse_bound(match, negated=match["negated"] is not None)
        return None if bound is None else _bounded(Kind.CAPITAL_WORDS, bound, Bare.AT_LEAST, limiting=False)

    return read


def _read_sections() -> Reader:
    marked = r",? (?:each )?(?:marked|labell?ed|introduced|headed|starting|beginning) (?:with|by|as) "
    pattern = _compile(
        rf"{BEFORE} sections?{AFTER}{_TAIL}{marked}"
        rf"(?:{QUOTED}|(?P<word>[a-z]{{2,20}}) (?:x|1|\d|number))(?: x)?{_EXAMPLE}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(clause.rest)
        if match is None or clause.negated:
            return None
        splitter = re.sub(r"\s+(?:[xX#]|\d+)$", "", match["quoted"] or match["word"]).strip()
        bound = parse_bound(match, negated=False)
        if bound is None or not re.fullmatch(r"[^\W\d_]{2,30}", splitter):
            return None
        return _bounded(Kind.SECTIONS, bound, Bare.EXACT, limiting=clause.limiting, text=splitter)

    return read


# --- words and letters

_THING = (
    r"(?:(?:the|a|an|this|any|following|exact|specific|required|mandatory|forbidden|key|single) )*+"
    r"(?P<thing>key ?words?|words?|phrases?|terms?|expressions?|strings?|letters?|characters?)(?: or phrases?)?:? "
)
_TARGETS = rf"{OPEN}[^{OPEN}{CLOSE}]++{CLOSE}(?:(?:,? (?:and |or )?|/){OPEN}[^{OPEN}{CLOSE}]++{CLOSE})*+"
_TARGET = (
    rf"(?:(?:{_THING}(?:of )?)?(?P<list>{_TARGETS})"
    rf"|{_THING.replace('<thing>', '<thing2>')}(?P<bare>[^\W_][\w'\-]*+))"
)
# Words that after "the word" or "the phrase" belong to the sentence and are not the word itself.
_NO_TARGET_WORDS = """
count counts limit limits length frequency frequencies order choice bank cloud below above provided given specified
listed mentioned following itself only once twice thrice times usage case
"""
_NO_TARGET = frozenset(_NO_TARGET_WORDS.split())
# Verbs that ask for a word among others; "be the word X" and "answer 'X'" ask for nothing else.
_HOLDING = "use uses using used include includes including contain contains containing have has having mention feature"
_HOLDS = frozenset([*_HOLDING.split(), "insert", "incorporate", "employ", "utilize", "add", "make use of"])
_TIMES_WORD = {"once": "1 times", "twice": "2 times", "thrice": "3 times"}
_TIMES_PATTERN = _compile(rf"{OPEN}[^{CLOSE}]*+{CLOSE}|\b(?:once|twice|thrice)\b")


def _times(text: str) -> str:
    """ "at least twice" as "at least 2 times", outside of quotations."""
    return _TIMES_PATTERN.sub(lambda m: _TIMES_WORD.get(m.group().lower(), m.group()), text)


def _target(match: re.Match[str], negated: bool) -> tuple[Kind, str, Reading] | None:
    """Kind and text of the first word named, and whether it is all that was named. None: "a" or "b", no word at all."""
    thing = (match["thing"] or match["thing2"] or "").lower()
    kind = Kind.LETTER if thing.startswith(("letter", "character")) else Kind.KEYWORD
    if match["list"] is not None:
        named = re.findall(rf"{OPEN}([^{CLOSE}]+){CLOSE}", match["list"])
        if f" or {OPEN}" in match["list"] and not negated:
            return None
    else:
        named = [match["bare"]]
        if named[0].lower() in _NO_TARGET or named[0].isdigit():
            return None
    text = named[0].strip().rstrip(".,") if kind is Kind.KEYWORD else named[0].strip()
    if not text or len(text) > MAX_TEXT or (kind is Kind.LETTER and len(text) != 1):
        return None
    return kind, text, Reading.EQUIVALENT if len(named) == 1 else Reading.NECESSARY


def _read_keyword() -> Reader:
    """Words, phrases and letters: to use, to use N times, not to use."""
    each = r"(?: each| times each)?"
    often = rf"(?: (?P<often>{BEFORE} times?{AFTER}))?{each}"
    active = _compile(rf"(?:use of |the use of )?{_TARGET}{often}{_TAIL}")
    instances = _compile(
        rf"{BEFORE} (?:instances?|occurrences?|mentions?|uses|repetitions?|appearances?) of {_TARGET}{_TAIL}"
    )
    passive = _compile(
        rf"{_TARGET} {MODAL}(?P<negated> not| never)? (?:{_STATES}|(?P<avoided>be (?:avoided|excluded))){often}{_TAIL}"
    )
    mandatory = _compile(rf"mandatory use of {_TARGET}{_TAIL}")

    def read(sentence: str, clause: Clause) -> Found | None:
        rest, sentence = _times(clause.rest), _times(sentence)
        negated, bound_is_given = clause.negated, False
        match = active.fullmatch(rest) if clause.verb in _HOLDS or clause.negated else None
        if match is not None:
            bound_is_given = match["often"] is not None
        elif (match := instances.fullmatch(rest)) is not None:
            bound_is_given = True
        elif (match := passive.fullmatch(sentence)) is not None:
            bound_is_given = match["often"] is not None
            if match["negated"] is not None and match["avoided"] is not None:  # "must not be avoided"
                return None
            negated = match["negated"] is not None or match["avoided"] is not None
        elif (match := mandatory.fullmatch(sentence)) is not None:
            negated = False
        if match is None or (target := _target(match, negated)) is None:
            return None
        kind, text, reading = target
        if not bound_is_given:
            return Found(reading, Spec(kind, low=0 if negated else 1, high=0 if negated else None, text=text))
        bound = parse_bound(match, negated=negated)
        found = None if bound is None else _bounded(kind, bound, Bare.AT_LEAST, limiting=clause.limiting, text=text)
        if found is not None and found.spec is not None and reading is Reading.NECESSARY:
            return Found(reading, found.spec)
        return found

    return read


# --- the two ends

_PLAIN_PHRASE = r"(?P<plain>[\w'\-]++(?: [\w'\-]++){0,7}+)"
_NO_PHRASE_STARTS = "that which who whose where of from about in for to provided given below above you"
_NO_PHRASE_START = frozenset(_NO_PHRASE_STARTS.split())
_NO_PHRASE_WORDS = "include use write add avoid must should response answer paragraph sentence each every"
_NO_PHRASE_WORD = frozenset(_NO_PHRASE_WORDS.split())
# Whole phrases that open like a relative clause.
_WHOLE_PHRASES = frozenset({"that is all", "that's all", "that is it", "that's it", "that will be all"})


def _phrase(kind: Kind, verb: str) -> Reader:
    """Reader of "VERB with the phrase P". Without quotation marks the noun must announce a word or a phrase."""
    noun = (
        r"(?:(?:the|this|a|an|exact|following|closing|final|last|concluding|opening|specific) )*+"
        r"(?:(?P<noun>phrase|words?|sentence|line|statement|text|expression|string)(?::| of)? ?)?"
    )
    after = (
        r"(?:[,.;]? (?:and nothing (?:else )?(?:after(?: it| that)?|should follow(?: it)?)|with nothing after it|"
        r"no other words should follow(?: this phrase| it)?|without any additional (?:words|text)))?"
    )
    pattern = _compile(
        rf"(?:{verb})(?: {OBJECT})? (?:with|by saying|by|on|using) {noun}(?:{QUOTED}|{_PLAIN_PHRASE}){_TAIL}{after}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(clause.rest)
        if match is None or clause.negated:
            return None
        text = match["quoted"]
        if text is None:
            text, thing = match["plain"], (match["noun"] or "").lower()
            parts = text.lower().split()
            if thing not in ("word", "words", "phrase") or (thing == "word" and len(parts) > 1):
                return None
            open_ended = parts[0] in _NO_PHRASE_START or (len(parts) == 1 and parts[0] in _NO_TARGET)
            if (open_ended and text.lower() not in _WHOLE_PHRASES) or not _NO_PHRASE_WORD.isdisjoint(parts):
                return None
        text = text.strip().rstrip(".,;: ")
        return (
            Found(Reading.EQUIVALENT, Spec(kind, text=text))
            if 0 < len(text) <= MAX_TEXT and text[-1] not in "\"'"
            else None
        )

    return read


# --- what holds of the whole response


# "Include JSON", "mention it in capital letters", "there should be a JSON object": a part of the response will do.
_USING = frozenset({"use", "uses", "using", "used", "employ", "utilize", "make use of"})
_PARTLY = (_HOLDS - _USING) | {"adds", "provide", "give", "state", "show"}
_THERE_IS = _compile(rf"\bthere (?:{MODAL} (?:(?:also|always) )?)?(?:be|is|are) ")
# "Include only capital letters", "give your answer in JSON", "use capital letters for the output".
_ALL_OF_IT = _compile(
    r"\b(?:only|all|entirely|completely|fully|just|exclusively)\b"
    rf"|\b{RESPONSE} (?:in|as|into|using) |\bfor {RESPONSE}$"
)


def _whole(kind: Kind, demand: str, *, ban: str = r"(?!)", partly: frozenset[str] = frozenset()) -> Reader:
    """Reader of a demand on the whole response. Language, named on the way, is more than the rule can see.

    With a verb of `partly` the demand is on a part of the response, unless the words say that all of it is meant.
    """
    pattern = _compile(rf"(?:{demand}){_TAIL}")
    banned = _compile(rf"(?:{ban}){_TAIL}(?: at all)?")

    def read(sentence: str, clause: Clause) -> Found | None:
        if (banned if clause.negated else pattern).fullmatch(clause.rest) is None:
            return None
        is_partial = clause.verb in partly or (bool(partly) and _THERE_IS.search(sentence) is not None)
        if is_partial and not clause.negated and _ALL_OF_IT.search(sentence) is None:
            return None
        in_english = not clause.negated and "english" in clause.rest.lower()
        return Found(Reading.NECESSARY if in_english else Reading.EQUIVALENT, Spec(kind))

    return read


def _case(names: str, other: str) -> str:
    only = r"(?:(?:only|all|entirely|completely|fully|just|exclusively) )*+"
    language = r"(?:(?:in )?english,? (?:and )?)?"
    return (
        rf"{only}(?:use |contain |include |be )?(?:in |with |using )?{only}{language}"
        rf"(?:in |with |using )?{only}(?:{names})"
        rf"(?: english)?(?: letters?| text| characters?)?(?: only| throughout)?"
        rf"(?:[,.;]? (?:and |with )?(?:no|without(?: any)?) (?:{other})(?: letters?| characters?)?"
        r"(?: (?:are |is )?(?:allowed|permitted))?)?"
    )


_LOWER, _UPPER = r"lower[ -]?case|small", r"upper[ -]?case|capitals?|caps|block"
_WRAP = rf"(?:(?:be )?(?:wrap|wrapped|enclose|enclosed|surround|surrounded|place|placed)(?: {OBJECT})? )?"
_FORMATTED = (
    r"(?:(?:be )?(?:formatted|wrapped|structured|presented|given|returned|encoded|wrap|structure|present|encode) )?"
)
_JSON = rf"{_FORMATTED}(?:{OBJECT} )?(?:in |as |into |using )?(?:(?:a|valid|single|the|proper|well-formed) )*+json"

READERS: tuple[Reader, ...] = (
    _count(Kind.WORDS, r"words?", bare=Bare.UNCLEAR),
    _count(Kind.SENTENCES, r"(?:complete |full )?sentences?", bare=Bare.EXACT),
    _count(
        Kind.PARAGRAPHS,
        r"paragraphs?",
        bare=Bare.EXACT,
        tail=rf"(?:{_SEPARATED}(?:a )?(?:single )?(?:blank|empty) lines?)?",
    ),
    _count(Kind.PARAGRAPHS, r"paragraphs?", bare=Bare.EXACT, tail=rf"{_SEPARATED}{_DIVIDER}", text=PARAGRAPH_DIVIDER),
    _count(
        Kind.BULLETS,
        r"(?:markdown )?(?:bullet(?:ed)?[ -]?(?:points?|items?|list items?)|bullets?)",
        bare=Bare.EXACT,
        tail=_MARKDOWN + _EXAMPLE,
    ),
    _count(Kind.PLACEHOLDERS, r"placeholders?", bare=Bare.AT_LEAST, tail=_BRACKETS),
    _count(Kind.HIGHLIGHTS, rf"highlighted {_HIGHLIGHTED}", bare=Bare.AT_LEAST, tail=_EMPHASIS),
    _count(Kind.HIGHLIGHTS, _HIGHLIGHTED, bare=Bare.AT_LEAST, tail=_EMPHASIS, verb="highlight "),
    _count(Kind.COMMAS, r"commas?", bare=Bare.AT_LEAST),
    _count(
        Kind.CAPITAL_WORDS,
        r"all[ -]caps words?|all-capital words?|upper-?case words?|"
        rf"words? (?:that are )?(?:in|with|written in) {_CAPS}",
        bare=Bare.AT_LEAST,
    ),
    _read_capital_frequency(),
    _read_sections(),
    _phrase(Kind.ENDS_WITH, "ends?|finish|finishes|concludes?|closes?"),
    _phrase(Kind.STARTS_WITH, "starts?|begins?|opens?"),
    _whole(
        Kind.LOWERCASE,
        _case(_LOWER, _UPPER),
        ban=r"(?:any |the )?(?:capital|upper-?case|capitalized) (?:letters?|characters?)",
        partly=_PARTLY,  # every text has some small letters: to use them means to use no others
    ),
    _whole(
        Kind.UPPERCASE,
        _case(_UPPER, _LOWER),
        ban=r"(?:any |the )?lower-?case (?:letters?|characters?)",
        partly=_PARTLY | _USING,
    ),
    _whole(
        Kind.TITLE,
        r"(?:(?:a|the|your|one) )?title,?(?: (?:that is|which is))?(?: (?:in|wrapped in|enclosed in|within|inside|"
        rf"surrounded by|with|using|enclosed by|wrapped with) "
        rf"(?:double ang(?:le|ular) brackets{_EXAMPLE}|<<[^<>]{{0,60}}+>>)"
        r"|,? such as <<[^<>]{1,60}+>>)",
    ),
    _whole(
        Kind.QUOTED,
        rf"{_WRAP}(?:in|with|within|inside|by|between) double[ -](?:quotes|quotation marks|quote marks)",
        partly=_PARTLY | _USING,
    ),
    _whole(Kind.JSON, rf"{_JSON}(?: format| syntax)?", partly=_PARTLY),
    _whole(Kind.JSON, rf"{_JSON}(?: object| document| string| structure)", partly=_PARTLY | _USING),
    _read_keyword(),
)
