"""What holds of the whole response: case, title, quotation, JSON, markdown, language."""

from seif_nemo.constraints.phrasing import LANGUAGE, LANGUAGE_CODES, MODAL, OBJECT, RESPONSE, Clause
from seif_nemo.constraints.readers_count import BULLET_LIST, EXAMPLE, TAIL, Found, Reader, compile_pattern
from seif_nemo.constraints.readers_words import HOLDS, is_holding
from seif_nemo.types.constraints import Kind, Reading, Spec

# --- what holds of the whole response


# "Include JSON", "mention it in capital letters", "there should be a JSON object": a part of the response will do.
_USING = frozenset({"use", "uses", "using", "used", "employ", "utilize", "make use of"})
_PARTLY = (HOLDS - _USING) | {"adds", "provide", "give", "state", "show"}
_THERE_IS = compile_pattern(rf"\bthere (?:{MODAL} (?:(?:also|always) )?)?(?:be|is|are) ")
# "Include only capital letters", "give your answer in JSON", "use capital letters for the output".
_ALL_OF_IT = compile_pattern(
    r"\b(?:only|all|entirely|completely|fully|just|exclusively)\b"
    rf"|\b{RESPONSE} (?:in|as|into|using) |\bfor {RESPONSE}$"
)


def whole(kind: Kind, demand: str, *, ban: str = r"(?!)", partly: frozenset[str] = frozenset()) -> Reader:
    """Reader of a demand on the whole response. A case may come with its language, "English" always.

    With a verb of `partly` the demand is on a part of the response, unless the words say that all of it is meant.
    """
    pattern = compile_pattern(rf"(?:{demand}){TAIL}")
    banned = compile_pattern(rf"(?:{ban}){TAIL}(?: at all)?")

    def read(sentence: str, clause: Clause) -> Found | None:
        if (banned if clause.negated else pattern).fullmatch(clause.rest) is None:
            return None
        is_partial = clause.verb in partly or (bool(partly) and _THERE_IS.search(sentence) is not None)
        if is_partial and not clause.negated and _ALL_OF_IT.search(sentence) is None:
            return None
        in_english = not clause.negated and "english" in clause.rest.lower()
        return Found(Reading.EQUIVALENT, Spec(kind, text="en" if in_english else None))

    return read


def case(names: str, other: str) -> str:
    only = r"(?:(?:only|all|entirely|completely|fully|just|exclusively) )*+"
    language = r"(?:(?:in )?english,? (?:and )?)?"
    return (
        rf"{only}(?:use |contain |include |be )?(?:in |with |using )?{only}{language}"
        rf"(?:be |use |using |with |written )?(?:in |with |using )?{only}(?:(?:words?|letters?|text) (?:must|"
        rf"should|are|is)(?: be)?(?: in)? )?(?:{names})"
        rf"(?: english)?(?: letters?| text| characters?)?(?: only| throughout)?"
        rf"(?:[,.;]? (?:and |with )?(?:no|without(?: any)?) (?:{other})(?: letters?| characters?)?"
        r"(?: (?:are |is )?(?:allowed|permitted))?)?"
    )


_LOWER = r"lower[ -]?case|small(?= letters?)"
_UPPER = r"upper[ -]?case|capital(?= letters?)|capitals|caps|block(?= letters?)"
# "Mention all capitals": those of countries.
_CAPITALS = compile_pattern(r"\bcapitals\b")
_IN_CAPITALS = compile_pattern(r"\b(?:in|with|use|uses|using|be)(?: \w+){0,2} capitals\b")


def cased(kind: Kind, names: str, other: str, *, ban: str, partly: frozenset[str]) -> Reader:
    """Reader of a demand on the case of the whole response."""
    reader = whole(kind, case(names, other), ban=ban, partly=partly)

    def read(sentence: str, clause: Clause) -> Found | None:
        if _CAPITALS.search(sentence) is not None and _IN_CAPITALS.search(sentence) is None:
            return None
        return reader(sentence, clause)

    return read


_WRAP = rf"(?:(?:be )?(?:wrap|wrapped|enclose|enclosed|surround|surrounded|place|placed)(?: {OBJECT})? )?"
_FORMATTED = (
    r"(?:(?:be )?(?:formatted|wrapped|structured|presented|given|returned|encoded|wrap|structure|present|encode) )?"
)
_JSON = (
    rf"{_FORMATTED}(?:{OBJECT} )?(?:in |as |into |using )?(?:the (?:form|format) of )?(?:(?:a|valid|single|the|"
    rf"proper|well-formed) )*+json"
)


# --- language

_ONLY = r"(?:(?:only|entirely|completely|fully|exclusively|all) )?"
_MANNER = "plain|simple|formal|standard|proper|fluent|clear|american|british|modern"
_LANGUAGE = rf"(?P<manner>(?:{_MANNER}) )?(?P<name>{LANGUAGE})"


def _read_language() -> Reader:
    """ "in French", "in the French language", "Language: French". A manner of it ("simple English") says more."""
    spoken = compile_pattern(
        rf"(?:be )?{_ONLY}(?:in |using |use )(?:the )?{_ONLY}{_LANGUAGE}(?: language)?(?: only)?{TAIL}"
        r"(?:,? (?:and|with) no (?:other|any other) languages? (?:is |are )?(?:allowed|permitted|used)?)?"
    )
    labelled = compile_pattern(
        rf"(?:response |output |answer )?language(?: constraint)?(?::| -| is| {MODAL} be) {_LANGUAGE}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = labelled.fullmatch(sentence)
        if match is None and not clause.negated and clause.verb not in _PARTLY:
            match = spoken.fullmatch(clause.rest) or (
                spoken.fullmatch(f"use {clause.rest}") if clause.verb in _USING else None
            )
        if match is None:
            return None
        reading = Reading.EQUIVALENT if match["manner"] is None else Reading.NECESSARY
        return Found(reading, Spec(Kind.LANGUAGE, text=LANGUAGE_CODES[match["name"].lower()]))

    return read


# --- what the response must hold

_AS = (
    r"(?:(?:be )?(?:formatted|presented|written|structured|displayed|organized|given|format|present|structure|"
    r"organize) )?"
)
_MARKDOWN = (
    rf"{_AS}(?:{OBJECT} )?(?:in |using |as |with |to |into )?(?:the |a |proper |valid |standard )*+"
    r"markdown(?:[ -](?:format|formatting|formatted|syntax|style|text|language|document))*+"
    rf"(?: (?:for|to (?:format|structure|present|write)) {RESPONSE})?"
)


def _read_markdown_more() -> Reader:
    """ "Output the list in Markdown format with headings": there is markup at least."""
    pattern = compile_pattern(
        rf"(?:please )?(?:(?:{RESPONSE} (?:must|should) be )?(?:output|write|written|present|presented|format|"
        rf"formatted|"
        r"provide|return|use|using|in|structure|display|deliver|give|organize|create|as)(?: it| them)? "
        r"(?:(?:the|your|a|an|all|this) [^,.;:]{2,60}? )?)?(?:in |using |as |with )?(?:a |the |proper |valid )?"
        r"markdown(?: (?:format|formatting|syntax|style))(?:,? (?P<more>.++))?"
    )
    hedges = compile_pattern(r"\b(?:or|if|instead|unless|except|not|without|no|only|any|where|when|either|rather)\b")

    def read(sentence: str, clause: Clause) -> Found | None:
        if clause.negated or pattern.fullmatch(sentence) is None or hedges.search(sentence) is not None:
            return None
        return Found(Reading.NECESSARY, Spec(Kind.MARKDOWN))

    return read


def _at_least_one(kind: Kind, demand: str, *, text: str | None = None) -> Reader:
    """Reader of a demand for some of a kind ("use bullet points"); that all is of the kind no rule can see."""
    pattern = compile_pattern(rf"(?:{demand}){TAIL}")
    all_of_it = compile_pattern(r"\b(?:as|in|into|format\w*|form|style|list|present\w*|structure\w*|organize\w*) ?")

    def read(sentence: str, clause: Clause) -> Found | None:
        if clause.negated or pattern.fullmatch(clause.rest) is None:
            return None
        is_all = all_of_it.search(clause.rest) is not None or not (is_holding(clause.verb))
        return Found(Reading.NECESSARY if is_all else Reading.EQUIVALENT, Spec(kind, low=1, text=text))

    return read


def _ban(kind: Kind, noun: str, *, reading: Reading = Reading.EQUIVALENT) -> Reader:
    """Reader of "no NOUN". NECESSARY where the noun names more than the rule sees ("no numbers": nor "three")."""
    banned = compile_pattern(rf"(?:{noun}){TAIL}(?: at all)?")
    forbidden = compile_pattern(rf"(?:{noun}) (?:is|are|{MODAL} be) (?:not allowed|forbidden|prohibited|avoided){TAIL}")

    def read(sentence: str, clause: Clause) -> Found | None:
        found = (clause.negated and banned.fullmatch(clause.rest)) or forbidden.fullmatch(sentence)
        return Found(reading, Spec(kind, high=0)) if found else None

    return read


_FORM = r"(?:[ -](?:format|form|style|formatting))?"
_LIST = rf"{_AS}(?:{OBJECT} )?(?:in |using |as |with |into )?(?:the |a |markdown )*+"
_MARK = r"(?:any |the )?(?:use of )?(?:any |kind of )?"

FORM_READERS: tuple[Reader, ...] = (
    cased(
        Kind.LOWERCASE,
        _LOWER,
        _UPPER,
        ban=r"(?:any |the |all )?(?:capital|upper-?case|capitalized) (?:letters?|characters?)",
        partly=_PARTLY,  # every text has some small letters: to use them means to use no others
    ),
    cased(
        Kind.UPPERCASE,
        _UPPER,
        _LOWER,
        ban=r"(?:any |the |all )?lower[ -]?case (?:letters?|characters?)",
        partly=_PARTLY | _USING,
    ),
    whole(
        Kind.TITLE,
        r"(?:(?:a|the|your|one) )?title,?(?: (?:that is|which is))?(?: (?:in|wrapped in|enclosed in|within|inside|"
        rf"surrounded by|with|using|enclosed by|wrapped with) "
        rf"(?:double ang(?:le|ular) brackets{EXAMPLE}|<<[^<>]{{0,60}}+>>)"
        r"|,? such as <<[^<>]{1,60}+>>)",
    ),
    whole(
        Kind.QUOTED,
        rf"{_WRAP}(?:in|with|within|inside|by|between) double[ -](?:quotes|quotation marks|quote marks)",
        partly=_PARTLY | _USING,
    ),
    whole(Kind.JSON, rf"{_JSON}(?: format| syntax)?", partly=_PARTLY),
    whole(Kind.JSON, rf"{_JSON}(?: object| document| string| structure)", partly=_PARTLY | _USING),
    whole(Kind.MARKDOWN, _MARKDOWN, partly=_PARTLY),
    _read_markdown_more(),
    _read_language(),
    _at_least_one(Kind.BULLETS, rf"{_LIST}(?:format of (?:a )?)?{BULLET_LIST}{_FORM}"),
    _at_least_one(Kind.NUMBERED, rf"{_LIST}numbered lists?{_FORM}"),
    _at_least_one(Kind.TABLES, rf"{_LIST}(?<=markdown )tables?{_FORM}"),
    _at_least_one(Kind.HEADINGS, rf"{_LIST}(?<=markdown )(?:headings?|headers?)(?: and sub-?head(?:ings?|ers?))?"),
    _ban(Kind.MARKS, rf"{_MARK}punctuation(?: marks?| symbols?| characters?)?"),
    _ban(Kind.DIGITS, rf"{_MARK}(?:digits?|numerals?|numeric(?:al)? (?:digits?|characters?))(?: \(0-9\))?"),
    _ban(Kind.DIGITS, rf"{_MARK}numbers?", reading=Reading.NECESSARY),
)
