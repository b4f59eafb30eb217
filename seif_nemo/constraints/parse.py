"""Free text, English or Chinese, to `Constraint`: what it demands, and whether a rule can see all of it or a part.

The parser never guesses. A text is EQUIVALENT only if every word of it is accounted for, and SCOPED if it is but for
the part of the response that it names. NECESSARY is what it implies besides: its first clause where the rest only adds
to it, and the lower bound of a count that it narrows down or of a part of the response. All else is NEEDS_JUDGE, or
NOT_A_CONSTRAINT where it clearly demands nothing.
"""

import re
from dataclasses import replace

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
from seif_nemo.constraints.readers_words import CHANGES_WORD, IN_LANGUAGE
from seif_nemo.constraints.readers_zh import is_chinese, read_chinese
from seif_nemo.constraints.scopes import find_scope, holds_in_part
from seif_nemo.constraints.specs import validate
from seif_nemo.constraints.statements import is_statement, is_vacuous
from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec

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

# What narrows down what is counted, and what leaves open how.
_MODIFIER = re.compile(
    r",? (?=(?:about|on|that|which|using|with|containing|including|describing|explaining|listing|detailing|summarizing|"
    r"highlighting|related|of|for|to|starting|beginning|discussing|outlining|focusing|covering|focused|comparing|"
    r"stating|providing|showing|followed|regarding|in|from|long)\b)",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:average|or|if|unless|except|per|each|every|either|optional\w*|approximately|about \d)\b", re.IGNORECASE
)
_TRIVIAL_WORDS = 20  # "at least 3 words that rhyme" says next to nothing about the length
# "..., each with a heading": what is counted is counted all the same.
_EACH = re.compile(
    r",? (?:and |with )?each (?:one |paragraph |sentence |bullet point |bullet )?(?=\w+ing\b|with|of|on|in|at|must|"
    r"should|"
    r"no|separated|related|about|discusses|focuses|describes|explains)",
    re.IGNORECASE,
)
# A part that does not count, wherever it is said.
_EXEMPTS = re.compile(
    r"(?:\b(?:not|without) |n't )(?:be |being )?(?:included|including|count|counted|counting|apply)\b|"
    r"\b(?:exempt\w*|aside from|apart from|other than|(?:is|are) (?:fine|ok(?:ay)?)|acceptable|allowed|permitted|"
    r"ignored?|disregard\w*|may)\b",
    re.IGNORECASE,
)
_NOT_ALLOWED = re.compile(r"\b(?:no (?:\w+ ){1,4}?|not )(?:be )?(?:allowed|permitted)\b", re.IGNORECASE)
_THAT_IN_LANGUAGE = re.compile(rf"(?:^|\b(?:it|them|word|words|phrase) ){IN_LANGUAGE}", re.IGNORECASE)
_NAMED = frozenset({Kind.KEYWORD, Kind.KEYWORDS, Kind.BOLD, Kind.EMPHASIS, Kind.STARTS_WITH, Kind.ENDS_WITH})
_UNSURE_OF_ALL = re.compile(r"\b(?:average|or|if|unless|except|per|either|optional\w*)\b", re.IGNORECASE)

# What is more in a response than in each of its parts; what a part holds, the response holds too.
_GROWS = frozenset(
    {
        *(Kind.WORDS, Kind.CHARACTERS, Kind.LINES, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.BULLETS, Kind.NUMBERED),
        *(Kind.TABLES, Kind.HEADINGS, Kind.PLACEHOLDERS, Kind.HIGHLIGHTS, Kind.KEYWORD, Kind.KEYWORDS, Kind.LETTER),
        *(Kind.CAPITAL_WORDS, Kind.COMMAS, Kind.MARKS, Kind.DIGITS, Kind.SEPARATORS),
    }
)
# "The sentence uses the phrase ..." tells of a sentence; a demand on one has a modal verb.
_TELLS = re.compile(
    r"the response (?!must|should|shall|will|has to|have to|needs? to|ought|is to|is required)",
    re.IGNORECASE,
)
_HELD = frozenset({Kind.BOLD, Kind.EMPHASIS, Kind.MARKDOWN})


def _read(text: str) -> Found | None:
    """What the readers make of the whole of normalised text: the first that sees all of it, else the first."""
    bare = without_label(text)
    weaker: Found | None = None
    aimless = without_purpose(bare)
    for sentence in dict.fromkeys((text, bare, aimless)):
        clause = read_clause(sentence)
        for reader in READERS:
            found = reader(sentence, clause)
            if found is not None and found.reading is not Reading.NECESSARY:
                # "Capital letters for emphasis" are not for all of the response.
                is_case = found.spec is not None and found.spec.kind in (Kind.UPPERCASE, Kind.LOWERCASE)
                return None if is_case and sentence != bare and sentence == aimless else found
            weaker = weaker or found
    return weaker


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
    scoped = find_scope(without_label(text))
    found = None if scoped is None else _read(scoped.text)
    if scoped is None or found is None or found.spec is None or not holds_in_part(found.spec.kind, scoped.scope):
        return None
    low, high = found.spec.low, found.spec.high
    is_ban = high == 0 or (low == 0 and high is None and read_clause(scoped.text).negated)  # the latter of a case
    is_limit = low == 0 and high is not None
    if found.reading is not Reading.EQUIVALENT or (is_ban and not scoped.allows_ban):
        return None
    if scoped.limits_only and not is_limit:
        return None
    return Found(Reading.SCOPED, validate(replace(found.spec, scope=scoped.scope, index=scoped.index)))


def _changes_word(spec: Spec, more: str) -> bool:
    """Whether what follows asks for a named word in another form ("in the past tense", "and write it in French")."""
    if spec.kind not in _NAMED or spec.high == 0:
        return False
    return CHANGES_WORD.search(more) is not None or _THAT_IN_LANGUAGE.search(more) is not None


def _read_part(text: str) -> Found | None:
    """A demand on "the title", "the sentence", "the explanation": whatever that is, it is in the response."""
    whole = without_part(text)
    if not has_part(text) or _HEDGES.search(whole) is not None or _TELLS.match(whole) is not None:
        return None
    return _at_least(_read(whole))


def _read_first_clause(text: str) -> Found | None:
    """A spec that the text implies by its first clause, if what follows only adds to it."""
    if _EXEMPTS.search(_NOT_ALLOWED.sub("", text)) is not None:
        return None
    each = _EACH.search(text)
    if each is not None and _UNSURE_OF_ALL.search(text[: each.start()]) is None and "unless" not in text:
        counted = text[: each.start()].rstrip(" ,.;")
        found = _read(counted) or _read_first_clause(counted)
        if found is not None and found.spec is not None:
            return Found(Reading.NECESSARY, found.spec)
    if _HEDGES.search(text) is not None:
        return None
    for joint in list(_JOINT.finditer(text))[:_MAX_JOINTS]:
        found = _read(text[: joint.start()].rstrip(" ,.;"))
        if found is None or found.spec is None or _changes_word(found.spec, text[joint.start() :]):
            continue
        # Without quotation marks nobody can tell where a phrase at an end stops.
        if OPEN in text[: joint.start()] or found.spec.kind not in (Kind.STARTS_WITH, Kind.ENDS_WITH):
            return Found(Reading.NECESSARY, found.spec)
    return None


def _read_modified(text: str) -> Found | None:
    """ "at least 3 sentences about rivers": at least 3 sentences."""
    if _UNSURE.search(text) is not None:
        return None
    for modifier in list(_MODIFIER.finditer(text))[:_MAX_JOINTS]:
        found = _at_least(_read(text[: modifier.start()].rstrip(" ,")))
        if found is not None and found.spec is not None:
            if _changes_word(found.spec, text[modifier.end() :]):
                return None
            trivial = found.spec.kind is Kind.WORDS and found.spec.low < _TRIVIAL_WORDS
            # "the term related to rivers": a word without quotation marks may go on.
            return None if trivial or found.spec.kind in (Kind.KEYWORD, Kind.LETTER) else found
    return None


def _read_english(text: str, raw: str) -> Found | None:
    found = _read(text)
    if found is None or found.reading is Reading.NECESSARY:
        found = _read_scoped(text) or _read_part(text) or found
    if found is not None:
        return found
    if is_vacuous(read_clause(without_label(text)).rest):
        return Found(Reading.NOT_A_CONSTRAINT)
    for reader in (_read_first_clause, _read_modified):
        found = reader(text)
        if found is not None:
            return found
    return Found(Reading.NOT_A_CONSTRAINT) if is_statement(text, raw) else None


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
    found = read_chinese(text) if is_chinese(text) else _read_english(sentence, text.strip())
    return Constraint(text, Reading.NEEDS_JUDGE) if found is None else Constraint(text, found.reading, found.spec)
