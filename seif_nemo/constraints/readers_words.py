"""Words and phrases: to use, not to use, to start and to end with."""

import re

from seif_nemo.constraints.numbers import AFTER, BEFORE, Bound, parse_bound
from seif_nemo.constraints.phrasing import CLOSE, LANGUAGE, MODAL, OBJECT, OPEN, QUOTED, Clause, times
from seif_nemo.constraints.readers_count import STATES, TAIL, Bare, Found, Reader, bounded, compile_pattern
from seif_nemo.constraints.specs import MAX_TEXT
from seif_nemo.types.constraints import Kind, Reading, Spec

# --- words and letters

_ADJECTIVE = (
    "the|a|an|this|any|of|these|all|both|following|exact|specific|required|mandatory|forbidden|banned|prohibited|given|"
    "provided|listed|key|single|technical|important"
)
_NOUN = r"(?:key[ -]?words?|key[ -]?phrases?|words?|phrases?|terms?|expressions?|strings?|names?|letters?|characters?)"
_THING = rf"(?:(?:{_ADJECTIVE}) )*+(?P<thing>{_NOUN})(?: (?:or|and) (?:phrases?|terms?))?:? "
_UNIT = rf"{OPEN}[^{OPEN}{CLOSE}]++{CLOSE}"
TARGETS = rf"{_UNIT}(?:(?:,? (?:and |or )?| ?/ ?|,)(?:(?:the |a )?{_NOUN} )?{_UNIT})*+"
PHRASES = rf"(?:(?:{_ADJECTIVE}|main) )*+(?:{_NOUN}:? )?{TARGETS}"
_TARGET = (
    rf"(?:(?:{_THING}(?:of )?)?(?P<list>{TARGETS})"
    r"|(?:the|this) (?:exact |following |required |single )?(?P<thing2>key ?word|word|phrase|term|letter|character) "
    r"(?P<bare>[^\W_][\w'\-]*+))"
)
# Words that after "the word" or "the phrase" belong to the sentence and are not the word itself.
_NO_TARGET_WORDS = """
count counts limit limits length frequency frequencies order choice bank cloud below above provided given specified
listed mentioned following itself only once twice thrice times usage case
often again somewhere anywhere everywhere elsewhere verbatim instead too also here there together repetition repetitions
stuffing play salad association associations search searches family families
"""
_NO_TARGET = frozenset(_NO_TARGET_WORDS.split())
# Verbs that ask for a word among others; "be the word X" and "answer 'X'" ask for nothing else.
_HOLDING = "use uses using used include includes including contain contains containing have has having mention feature"
HOLDS = frozenset([*_HOLDING.split(), "insert", "incorporate", "employ", "utilize", "add", "make use of"])
_MANDATES = ("mandat", "require")  # "mandate the use of"


def is_holding(verb: str) -> bool:
    """A verb, as in `Clause.verb`, that asks for something among other things."""
    return verb in HOLDS or verb.startswith(_MANDATES)


# After a phrase that is to be used, more may be said of it, but nothing that could take the demand back.
_TAKES_BACK = compile_pattern(
    r"\b(?:or|nor|not|never|no|if|when|whenever|where|wherever|unless|except|avoid|without|only|sparingly|least|most|"
    r"less|fewer|more than|maximum|max|up to|limit\w*|at most|optional\w*|possible|appropriate|necessary|needed|any|"
    r"either|replac\w+|times?|once|twice|exactly|alternat\w+|synonyms?|similar|related|like|such)\b"
)
# After these it is another word or another form of it that is to be used.
_FORM = "tense|forms?|plural|singular|participle|gerund|infinitive|comparative|superlative|passive"
CHANGES_WORD = compile_pattern(
    rf"\b(?:in (?:(?:the|its|their|an?) )?(?:\w+ ){{0,2}}?(?:{_FORM})(?! sentence| voice)|in reverse|"
    r"reversed|backwards?|conjugat\w+|inflect\w+|misspel\w+|spel(?:led|t)(?! correctly)|transliterat\w+|"
    r"anagram\w*|abbreviat\w+|acronym|initials|hyphenated|translated (?:in)?to|"
    r"translate (?:it|them|the word|the phrase)|other than)\b"
)
IN_LANGUAGE = rf"in (?:(?:the|its|their|a) )?(?:{LANGUAGE}|latin|irish|welsh|catalan|pig latin|leetspeak|morse)\b"
_IN_LANGUAGE = compile_pattern(rf"\b{IN_LANGUAGE}")


def _takes_back(more: str) -> bool:
    return any(pattern.search(more) is not None for pattern in (_TAKES_BACK, CHANGES_WORD, _IN_LANGUAGE))


_ALL_OF = compile_pattern(r"\b(?:both|all)\b")
_ANY_OF = compile_pattern(r"\bany\b")
_CHOICE = compile_pattern(rf"{CLOSE}(?:,? or | ?/)")


def is_choice(listed: str, before: str = "") -> bool:
    """Whether not all of the quoted phrases of a list are meant, by what joins them or by the words before them."""
    return _CHOICE.search(listed) is not None or _ANY_OF.search(before) is not None


def phrases_in(text: str) -> list[str]:
    """The quoted phrases of normalised text, without the stop or comma of the sentence around them."""
    found = [phrase.strip().rstrip(".,") for phrase in re.findall(rf"{OPEN}([^{OPEN}{CLOSE}]+){CLOSE}", text)]
    return list(dict.fromkeys(phrase for phrase in found if phrase))


def _target(match: re.Match[str], negated: bool) -> tuple[Kind, str, bool] | None:
    """Kind and text of what is named, and whether that is all of it. None: "a" or "b", no word at all."""
    thing = (match["thing"] or match["thing2"] or "").lower()
    is_letter = thing.startswith(("letter", "character"))
    if match["list"] is not None:
        named = (
            phrases_in(match["list"]) if not is_letter else re.findall(rf"{OPEN}([^{CLOSE}]+){CLOSE}", match["list"])
        )
        before = match.string[match.start() : match.start("list")]
        # "Not both" is not "neither".
        if not named or (_ALL_OF.search(before) if negated else is_choice(match["list"], before)):
            return None
    else:
        named = [match["bare"]]
        if named[0].lower() in _NO_TARGET or named[0].isdigit() or named[0].lower().endswith("ly"):
            return None
    if is_letter:
        letter = named[0].strip()
        return (Kind.LETTER, letter, len(named) == 1) if len(letter) == 1 else None
    if any(len(phrase) > MAX_TEXT for phrase in named):
        return None
    return (Kind.KEYWORD if len(named) == 1 else Kind.KEYWORDS), "\n".join(named), True


def _use(kind: Kind, text: str, reading: Reading = Reading.EQUIVALENT) -> Found:
    return Found(reading, Spec(kind, low=1, text=text))


def read_keyword() -> Reader:
    """Words, phrases and letters: to use, to use N times, not to use."""
    each = r"(?P<each>,? each| times each| for each)?"
    often = rf"(?:,? (?P<often>{BEFORE} times?{AFTER}))?{each}"
    mention = r"(?:(?:any |the )?(?:instances?|mentions?|mentioning|occurrences?|use|uses|usage|inclusion) of )?"
    active = compile_pattern(rf"{mention}{_TARGET}{often}{TAIL}")
    instances = compile_pattern(
        rf"{BEFORE} (?:instances?|occurrences?|mentions?|uses|repetitions?|appearances?) of {_TARGET}{TAIL}"
    )
    passive = compile_pattern(
        rf"{_TARGET} {MODAL}(?P<negated> not| never)? (?:{STATES}|(?P<avoided>be (?:avoided|excluded))){often}{TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        rest, sentence = times(clause.rest), times(sentence)
        negated, bound_is_given = clause.negated, False
        match = active.fullmatch(rest) if is_holding(clause.verb) or clause.negated else None
        if match is not None:
            bound_is_given = match["often"] is not None
        elif (match := instances.fullmatch(rest)) is not None:
            bound_is_given = True
        elif (match := passive.fullmatch(sentence)) is not None:
            bound_is_given = match["often"] is not None
            if match["negated"] is not None and match["avoided"] is not None:  # "must not be avoided"
                return None
            negated = match["negated"] is not None or match["avoided"] is not None
        if match is None or (target := _target(match, negated)) is None:
            return None
        kind, text, is_all = target
        reading = Reading.EQUIVALENT if is_all else Reading.NECESSARY
        if not bound_is_given:
            return Found(reading, Spec(kind, low=0 if negated else 1, high=0 if negated else None, text=text))
        bound = parse_bound(match, negated=negated)
        if bound is None:
            return None
        if kind is Kind.KEYWORDS and match.groupdict().get("each") is None and bound.low != 1:
            # Of each of them, or of all together?
            return _use(kind, text, Reading.NECESSARY) if bound.low > 1 else None
        found = bounded(kind, bound, Bare.AT_LEAST, limiting=clause.limiting, text=text)
        return found if found is None or found.spec is None or is_all else Found(reading, found.spec)

    return read


def _read_examples() -> Reader:
    """ "no forbidden words such as 'a' or 'b'": what is named is forbidden for certain, and more may be."""
    pattern = compile_pattern(
        rf"(?:(?:{_ADJECTIVE}) )*+{_NOUN}(?: or {_NOUN})?,? \(?(?:such as|like|including|e\.g\.,?|i\.e\.,?):? "
        rf"(?P<list>{TARGETS})\)?{TAIL}"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(clause.rest) if clause.negated else None
        phrases = phrases_in(match["list"]) if match is not None else []
        if match is None or not phrases or _ALL_OF.search(match.string[: match.start("list")]):
            return None
        kind = Kind.KEYWORD if len(phrases) == 1 else Kind.KEYWORDS
        return Found(Reading.NECESSARY, Spec(kind, high=0, text="\n".join(phrases)))

    return read


def _read_required() -> Reader:
    """ "at least two required keywords: 'a' and 'b'", where as many are named; "Mandatory use of terms: 'a', 'b'"."""
    numbered = compile_pattern(
        rf"{BEFORE}(?: (?:of|the|these|following|required|mandatory|specific|given))*+ {_NOUN},? ?(?:\(|:|-)? ?"
        rf"(?P<list>{TARGETS})\)?{TAIL}"
    )
    labelled = compile_pattern(
        rf"(?:(?:required|mandatory|specific|mandatory use of(?: specific)?|must[ -]use) )+{_NOUN}(?: to (?:use|"
        rf"include))?"
        rf"(?: ?: ?| ?[—–-] )(?P<list>{TARGETS})"
    )
    forbidden = compile_pattern(
        rf"(?:forbidden|banned|prohibited) {_NOUN}(?: ?: ?| ?[—–-] | {MODAL} be avoided:? )(?P<list>{TARGETS})"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = numbered.fullmatch(clause.rest) if not clause.negated else None
        if match is not None:
            bound = parse_bound(match, negated=False)
            phrases = phrases_in(match["list"])
            if bound is None or bound.low != len(phrases) or is_choice(match["list"]):
                return None
        elif (match := labelled.fullmatch(sentence) or forbidden.fullmatch(sentence)) is not None:
            phrases = phrases_in(match["list"])
        else:
            return None
        if not phrases or (match.re is labelled and is_choice(match["list"])):
            return None
        kind = Kind.KEYWORD if len(phrases) == 1 else Kind.KEYWORDS
        if match.re is forbidden:
            return Found(Reading.EQUIVALENT, Spec(kind, high=0, text="\n".join(phrases)))
        return _use(kind, "\n".join(phrases))

    return read


def _read_made_with() -> Reader:
    """ "Write a haiku that includes the word 'a'": the response holds it."""
    pattern = compile_pattern(
        r"(?:write|compose|create|generate|construct|craft|provide|give|formulate|make|form|produce) (?:a|an|one|"
        r"the|your) "
        r"[^,.;:]{2,60}? (?:that (?:must )?(?:includes?|contains?|uses?|has|features?|incorporates?)|using|including|"
        rf"containing|incorporating|with) {_TARGET}(?P<more>,? .++)?"
    )

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(sentence)
        if match is None or match["list"] is None or (match["thing"] is None):
            return None
        target = _target(match, negated=False)
        if target is None or target[0] is Kind.LETTER or (match["more"] and _takes_back(match["more"])):
            return None
        return _use(target[0], target[1], Reading.NECESSARY)

    return read


def _read_used_somehow() -> Reader:
    """ "use the word 'a' before ...": whatever is said besides, the word must be there."""
    often = rf"(?:,? (?P<often>{BEFORE} times?{AFTER}))?"
    pattern = compile_pattern(rf"(?:use of |the use of )?{_TARGET}{often}(?P<more>,? .++)")
    instead = compile_pattern(rf" (?:instead|in place) of (?:the )?(?:{_NOUN} )?{_UNIT}(?: [^,;.]*+)?")
    replaced = compile_pattern(r"replac|substitut|chang|swap")

    def read(sentence: str, clause: Clause) -> Found | None:
        match = pattern.fullmatch(times(clause.rest)) if is_holding(clause.verb) and not clause.negated else None
        if match is None or match["list"] is None or replaced.search(sentence):
            return None
        target = _target(match, negated=False)
        if target is None or target[0] is Kind.LETTER:
            return None
        more = re.sub(rf"{OPEN}[^{CLOSE}]*+{CLOSE}", OPEN + CLOSE, match["more"])
        if _takes_back(more) and instead.fullmatch(match["more"]) is None:
            return None
        bound = parse_bound(match, negated=False) if match["often"] is not None else Bound(1, None)
        if bound is None or bound.low < 1:
            return None
        low = bound.low if target[0] is Kind.KEYWORD else 1
        return Found(Reading.NECESSARY, Spec(target[0], low=low, text=target[1]))

    return read


# --- the two ends

_PLAIN_PHRASE = r"(?P<plain>[\w'\-]++(?: [\w'\-]++){0,7}+)"
_NO_PHRASE_STARTS = """
that which who whose where of from about in for to provided given below above you used like such found chosen spoken
said written most as with similar related associated on at by
"""
_NO_PHRASE_START = frozenset(_NO_PHRASE_STARTS.split())
_NO_PHRASE_WORDS = "include use write add avoid must should response answer paragraph sentence each every"
_NO_PHRASE_WORD = frozenset(_NO_PHRASE_WORDS.split())
# Whole phrases that open like a relative clause.
_WHOLE_PHRASES = frozenset({"that is all", "that's all", "that is it", "that's it", "that will be all"})


def phrase(kind: Kind, verb: str) -> Reader:
    """Reader of "VERB with the phrase P". Without quotation marks the noun must announce a word or a phrase."""
    noun = (
        r"(?P<which>(?:(?:the|this|a|an|exact|following|closing|final|last|concluding|opening|specific) )*+)"
        r"(?:(?P<noun>phrase|words?|sentence|line|statement|text|expression|string)(?P<colon>:| of)? ?)?"
    )
    after = (
        r"(?:[,.;]? (?:and nothing (?:else )?(?:after(?: it| that)?|should follow(?: it)?)|with nothing after it|"
        r"no other words should follow(?: this phrase| it)?|without any additional (?:words|text)))?"
    )
    pattern = compile_pattern(
        rf"(?:{verb})(?: {OBJECT})? (?:with|by saying|by|on|using) {noun}(?:{QUOTED}|{_PLAIN_PHRASE}){TAIL}{after}"
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
            # "A phrase of thanks", "the phrase summing up ..." describe it.
            is_definite = re.match(r"(?:the|this)\b", match["which"], re.IGNORECASE) is not None
            if not is_definite or match["colon"] == " of" or any(part.endswith("ing") for part in parts[:2]):
                return None
            if CHANGES_WORD.search(text) is not None or _IN_LANGUAGE.search(text) is not None:
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


WORD_READERS: tuple[Reader, ...] = (
    phrase(Kind.ENDS_WITH, "ends?|finish|finishes|concludes?|closes?"),
    phrase(Kind.STARTS_WITH, "starts?|begins?|opens?"),
    read_keyword(),
    _read_examples(),
    _read_required(),
    _read_used_somehow(),
    _read_made_with(),
)
