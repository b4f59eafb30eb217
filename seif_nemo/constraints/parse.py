"""Free English text to `Constraint`: what it demands, and whether a rule can see all of it, part of it or nothing.

The parser never guesses. A text is EQUIVALENT only if every word of it is accounted for; NECESSARY if its first clause
is and the rest adds to it; scoped demands ("each paragraph ...") and everything unknown are NEEDS_JUDGE.
"""

import re
from dataclasses import replace

from seif_nemo.constraints.numbers import NUMBER
from seif_nemo.constraints.phrasing import (
    OPEN,
    RESPONSE,
    has_part,
    normalise,
    read_clause,
    without_label,
    without_part,
    without_purpose,
)
from seif_nemo.constraints.readers import READERS
from seif_nemo.constraints.readers_count import Found
from seif_nemo.constraints.readers_zh import is_chinese, read_chinese
from seif_nemo.constraints.scopes import find_scope, holds_in_part
from seif_nemo.constraints.specs import validate
from seif_nemo.types.constraints import Constraint, Kind, Reading

MAX_LENGTH = 600  # characters; a longer text is left to the judge unread

# A second clause may only add. With one of these words it may as well take away, restrict or choose.
_HEDGES = re.compile(
    r"\b(?:unless|except|excluding|or|if|either|optional|optionally|when|where|whenever|each|every|per|instead|rather|"
    r"otherwise|first|second|third|fourth|last|final paragraph|but|only|former|latter|both|any of)\b"
    # A part of the response at the end may be meant for both clauses.
    rf"|\bin (?!{RESPONSE}\b)(?:the|its|their|your) ",
    re.IGNORECASE,
)
# What a second demand opens with: "and" before anything else may join two words of the first one.
_NEXT = (
    "use|include|write|add|avoid|do not|don't|must|should|be|have|end|start|begin|wrap|make|ensure|maintain|keep|"
    "provide|give|mention|focus|highlight|"
    "describe|explain|adopt|present|format|separate|contain|follow|not|no|at least|at most"
)
_JOINT = re.compile(rf",? and (?=(?:{_NEXT})\b)|[.;] |, (?!and {OPEN})(?=and |while |with )", re.IGNORECASE)
_MAX_JOINTS = 4

# "any forbidden words" without a list of them.
_ASKED = "forbidden|banned|prohibited|specified|required|given|provided|listed|mandatory"
# What narrows down what is counted.
_MODIFIERS = re.compile(
    r",? (?=(?:about|on|that|which|using|with|containing|including|describing|explaining|listing|detailing|summarizing|"
    r"highlighting|related|of|for|to|starting|beginning|discussing|outlining|focusing|covering|focused|comparing|"
    r"stating|providing|showing|followed|regarding|in|from|long)\b)",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:average|or|if|unless|except|per|each|every|either|optional\w*|approximately|about \d)\b", re.IGNORECASE
)
_TRIVIAL_WORDS = 20  # "at least 3 words that rhyme" says next to nothing about the length

_VACUOUS = re.compile(
    rf"(?:(?:any|the|some|these|of|following|certain|all|use) )*+(?:(?:{_ASKED}) )+(?:key)?(?:words?|phrases?|terms?)"
    r"(?: (?:or|and) (?:key)?(?:words?|phrases?|terms?))?",
    re.IGNORECASE,
)
# Words of demanding: with one of them no sentence is a plain statement.
_DEMAND = re.compile(
    r"\b(?:must|should|shall|need|needs|needed|have to|has to|require|required|requires|requirements?|mandatory|ensure|"
    r"avoid|without|only|exactly|precisely|at least|at most|no more|limited to|do not|don't|never|allowed|instead|"
    r"cannot|can't|please|ought|response|answer|reply|output|constraints?)\b",
    re.IGNORECASE,
)
# What a description of the wanted response speaks of ("the tone is formal", "it uses short sentences").
_MANNER = re.compile(
    r"\b(?:tone|style|format|formatted|language|written|sentences?|paragraphs?|words?|bullets?|text|content|limit|maximum|"
    r"minimum|length|uses?|using|includes?|including|contains?|mentions?|voice|audience|language|point of view)\b",
    re.IGNORECASE,
)
_PERSON_STATEMENT = re.compile(r"(?:he|she|they|we|i)(?:'s|'re|'m)? [a-z']+", re.IGNORECASE)
_VERB = r"(?:is|are|was|were|has|had|did|became|went|took|made|came|wrote|said)\b"
_IT_STATEMENT = re.compile(rf"(?:it|there|this|these|those)(?:'s|'re| {_VERB})", re.IGNORECASE)
_THING_STATEMENT = re.compile(
    rf"(?:(?i:the|a|an|his|her|their|its|our) (?:[\w'\-]+ ){{1,8}}?"
    rf"|(?!You )[A-Z][\w'\-]+ (?:[A-Z][\w'\-]+ ){{0,3}}){_VERB}"
)
_QUESTION = re.compile(
    r"(?:what|who|whom|whose|when|where|why|which|how|is|are|was|were|do|does|did|can|could|will|would|has|have)\b.*\?",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER_ONLY = re.compile(rf"(?:{NUMBER})", re.IGNORECASE)


def _read(text: str) -> Found | None:
    """What the first reader that knows the whole of normalised text makes of it."""
    bare = without_label(text)
    for sentence in dict.fromkeys((text, bare, without_purpose(bare))):
        clause = read_clause(sentence)
        for reader in READERS:
            found = reader(sentence, clause)
            if found is not None:
                return found
    return None


# What is more in a response than in each of its parts; what a part holds, the response holds too.
_GROWS = frozenset(
    {
        *(Kind.WORDS, Kind.CHARACTERS, Kind.LINES, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.BULLETS, Kind.NUMBERED),
        *(Kind.TABLES, Kind.HEADINGS, Kind.PLACEHOLDERS, Kind.HIGHLIGHTS, Kind.KEYWORD, Kind.KEYWORDS, Kind.LETTER),
        *(Kind.CAPITAL_WORDS, Kind.COMMAS, Kind.MARKS, Kind.DIGITS, Kind.SEPARATORS),
    }
)
_HELD = frozenset({Kind.BOLD, Kind.EMPHASIS, Kind.MARKDOWN})


def _at_least(found: Found | None) -> Found | None:
    """What a demand on a part, or with a condition on what is counted, says of the whole response: its lower bound."""
    if found is None or found.spec is None:
        return None
    spec = found.spec
    if spec.kind in _HELD:
        return Found(Reading.NECESSARY, spec)
    if spec.kind not in _GROWS or spec.low == 0:
        return None
    return Found(Reading.NECESSARY, replace(spec, high=None))


def _read_scoped(text: str) -> Found | None:
    """A demand on each paragraph, sentence or bullet point, or on a numbered one, if that is all it says."""
    scoped = find_scope(text) or find_scope(without_label(text))
    found = None if scoped is None else _read(scoped.text)
    if scoped is None or found is None or found.spec is None or not holds_in_part(found.spec.kind, scoped.scope):
        return None
    if found.reading is not Reading.EQUIVALENT:
        return None
    return Found(Reading.SCOPED, validate(replace(found.spec, scope=scoped.scope, index=scoped.index)))


def _read_part(text: str) -> Found | None:
    """A demand on "the title", "the sentence", "the explanation": whatever that is, it is in the response."""
    if not has_part(text) or _HEDGES.search(without_part(text)) is not None:
        return None
    return _at_least(_read(without_part(text)))


def _read_modified(text: str) -> Found | None:
    """ "at least 3 sentences about rivers": at least 3 sentences."""
    if _UNSURE.search(text) is not None:
        return None
    for modifier in list(_MODIFIERS.finditer(text))[:_MAX_JOINTS]:
        found = _at_least(_read(text[: modifier.start()].rstrip(" ,")))
        if found is not None and found.spec is not None:
            trivial = found.spec.kind is Kind.WORDS and found.spec.low < _TRIVIAL_WORDS
            return None if trivial else found
    return None


def _read_first_clause(text: str) -> Found | None:
    """A spec that the text implies by its first clause, if what follows only adds to it."""
    if _HEDGES.search(text) is not None:
        return None
    for joint in list(_JOINT.finditer(text))[:_MAX_JOINTS]:
        found = _read(text[: joint.start()].rstrip(" ,.;"))
        if found is None or found.spec is None:
            continue
        # Without quotation marks nobody can tell where a phrase at an end stops.
        if OPEN in text[: joint.start()] or found.spec.kind not in (Kind.STARTS_WITH, Kind.ENDS_WITH):
            return Found(Reading.NECESSARY, found.spec)
    return None


def _is_statement(text: str, raw: str) -> bool:
    """Clearly no demand: a question, a number, or a plain sentence about the world without a word of demanding."""
    if _NUMBER_ONLY.fullmatch(text) is not None:
        return True
    if OPEN in text or ":" in text or _DEMAND.search(text) is not None:
        return False
    if _QUESTION.fullmatch(raw) is not None or _PERSON_STATEMENT.match(text) is not None:
        return True
    if _IT_STATEMENT.match(text) is not None:
        return _MANNER.search(text) is None
    thing = _THING_STATEMENT.match(text)
    return thing is not None and _MANNER.search(thing.group()) is None


def parse_constraint(text: str) -> Constraint:
    """Reads one line of an Instructor's output. Never raises; linear in the text, which is capped at `MAX_LENGTH`.

    Bounds that no response can miss or meet ("at least 0 words", "at most 0 words", "exactly 10^9 words", "between 9
    and 3 words") make a text NOT_A_CONSTRAINT.
    """
    if len(text) > MAX_LENGTH:
        return Constraint(text, Reading.NEEDS_JUDGE)
    sentence = normalise(text)
    if not any(char.isalnum() for char in sentence):
        return Constraint(text, Reading.NOT_A_CONSTRAINT)
    if is_chinese(text):
        found = read_chinese(text)
        return Constraint(text, Reading.NEEDS_JUDGE) if found is None else Constraint(text, found.reading, found.spec)
    found = _read(sentence)
    if found is None or found.reading is Reading.NECESSARY:
        found = _read_scoped(sentence) or found
    if found is None and _VACUOUS.fullmatch(read_clause(without_label(sentence)).rest) is not None:
        found = Found(Reading.NOT_A_CONSTRAINT)
    for reader in (_read_part, _read_first_clause, _read_modified):
        found = found or reader(sentence)
    if found is None and _is_statement(sentence, text.strip()):
        found = Found(Reading.NOT_A_CONSTRAINT)
    return Constraint(text, Reading.NEEDS_JUDGE) if found is None else Constraint(text, found.reading, found.spec)
