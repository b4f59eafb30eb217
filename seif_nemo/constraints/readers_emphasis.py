"""Phrases in bold or in other emphasis: "highlight the word 'river' in bold"."""

import re

from seif_nemo.constraints.phrasing import MODAL, OPEN, Clause
from seif_nemo.constraints.readers_count import BOLD, EMPHASIS, TAIL, Found, Reader, compile_pattern
from seif_nemo.constraints.readers_words import PHRASES, is_choice, phrases_in
from seif_nemo.constraints.specs import BOLD_MARK, MAX_TEXT
from seif_nemo.types.constraints import Kind, Reading, Spec

_OTHER = (
    r",? (?:with|using|in|by|through|via) (?:the )?(?:markdown )?(?P<other>italics?|italicized|bold and italics?|"
    r"bold or italics?)(?: (?:markdown|text|fonts?|formatting|format|syntax|style|type|letters|emphasis))*+"
)
# "With markdown syntax" may as well be a code block.
_EMPHASIS = r",? (?:with|using|in|by|through|via) (?:the )?(?:markdown emphasis|emphasis|(?:single )?asterisks)"
_ONCE = r"(?: at least once)?"
_MANNER = rf"(?:(?P<bold>{BOLD})|(?P<emphasis>{EMPHASIS})|{_OTHER})"
_MARKING = (
    r"(?:highlight|highlights|highlighted|emphasi[sz]e|emphasi[sz]es|mark|format|put|write|render|display|present|set)"
)
# With one of these, nothing may be left to emphasise, or more than one thing is meant.
_UNSURE = re.compile(
    r"\b(?:any|if|where|wherever|when|whenever|or|unless|except|without|not|never|no|only|instead|appropriate|"
    r"necessary|"
    r"needed|possible|optional\w*|applicable|relevant)\b",
    re.IGNORECASE,
)


def _kind(match: re.Match[str], verb: str) -> tuple[Kind, Reading] | None:
    if match["bold"] is not None:
        return Kind.BOLD, Reading.EQUIVALENT
    if match["emphasis"] is not None:
        return Kind.EMPHASIS, Reading.EQUIVALENT
    if match["other"] is not None:
        return Kind.EMPHASIS, Reading.NECESSARY
    return (Kind.EMPHASIS, Reading.EQUIVALENT) if verb.lower().startswith("highlight") else None


def _read_phrases() -> Reader:
    """Named phrases. "Highlight" alone leaves the manner open; other verbs need one."""
    active = compile_pattern(
        rf"(?:(?P<verb>{_MARKING}) (?:the use of )?(?P<list>{PHRASES}){_ONCE}{TAIL}(?:{_MANNER})?{_ONCE}{TAIL}"
        rf"|(?:bold|boldface) (?P<list2>{PHRASES}){_ONCE}{TAIL})"
    )
    passive = compile_pattern(
        rf"(?P<list>{PHRASES}) {MODAL} (?:be )?(?P<verb>highlighted|emphasized|marked|formatted|written|displayed|)"
        rf"(?: ?{_MANNER})?{_ONCE}{TAIL}"
    )
    using = compile_pattern(
        rf"(?:bold|bold text|bold formatting|double asterisks|markdown bold) (?:for|to (?:highlight|"
        rf"emphasi[sz]e)) (?P<list>{PHRASES}){TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        if clause.negated:
            return None
        listed, kind = None, (Kind.BOLD, Reading.EQUIVALENT)
        if (match := active.fullmatch(clause.rest) or active.fullmatch(sentence)) is not None:
            listed = match["list"] or match["list2"]
            if match["list"] is not None:
                kind = _kind(match, match["verb"])
        elif (match := passive.fullmatch(sentence)) is not None:
            listed, kind = match["list"], _kind(match, match["verb"])
        elif (match := using.fullmatch(clause.rest)) is not None:
            listed = match["list"]
        phrases = phrases_in(listed or "")
        text = "\n".join(phrases)
        if (
            kind is None
            or not phrases
            or len(text) > MAX_TEXT
            or is_choice(listed or "", (listed or "").split(OPEN)[0])
        ):
            return None
        return Found(kind[1], Spec(kind[0], text=text))

    return read


def _read_something() -> Reader:
    """ "Highlight the main points in bold": whichever they are, something must be in bold."""
    active = compile_pattern(
        rf"{_MARKING} (?P<what>[^;:]{{3,160}}?)(?:(?P<bold>{BOLD})|(?P<emphasis>{_EMPHASIS}))(?P<more>[ ,].*+)?"
    )
    using = compile_pattern(
        r"(?:markdown )?(?P<bold>bold|bold text|bold formatting|bolding|double asterisks)(?P<emphasis>(?!))? "
        r"(?:for|to (?:highlight|emphasi[sz]e)) (?P<what>[^;:]{3,160}+)"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = active.fullmatch(clause.rest) or active.fullmatch(sentence) or using.fullmatch(clause.rest)
        if match is None or clause.negated or _UNSURE.search(sentence) is not None:
            return None
        if match.re is active and not sentence.lower().lstrip().startswith(("highlight", "emphasi", "your", "the")):
            return None
        text = BOLD_MARK if match["bold"] is not None else None
        return Found(Reading.NECESSARY, Spec(Kind.HIGHLIGHTS, low=1, text=text))

    return read


EMPHASIS_READERS: tuple[Reader, ...] = (_read_phrases(), _read_something())
