"""What a seed question itself demands of the answer's form, read sentence by sentence and conservatively.

Only three forms are read: a whole sentence that `parse_constraint` reads without rest and that speaks of the answer
("Your answer must not contain more than one word."); a length at the end of an imperative sentence ("Summarize the text
in one sentence.", "... (no more than 50 words)"); a list of the only allowed outputs ('Output "fact" or "opinion"').
The input of a task, examples, quotations and what describes them are never read.
"""

import re
from dataclasses import dataclass

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.phrasing import RESPONSE
from seif_nemo.constraints.remembering import remember
from seif_nemo.constraints.text import words
from seif_nemo.types.constraints import Kind, Reading, Scope, Spec

MAX_SEED = 20_000  # characters that are looked at
MAX_DEMANDS = 6


@dataclass(frozen=True, slots=True)
class Demand:
    """A demand of the seed: the words that say it, and the spec that they say."""

    text: str
    spec: Spec


# From here on a seed speaks of its input or gives examples.
_INPUT = re.compile(
    r"\b(?:input|passage|text|question|context|sentence(?: ?\d)?|article|paragraph|story|premise|statement|prompt|"
    r"email|poem|document|title|review|dialogue|conversation|abstract|example|examples|sample|output) ?\d? ?:"
    r"|\b(?:positive|negative) examples?\b|\bfor (?:example|instance)\b|\be\.g\.|```",
    re.IGNORECASE,
)
_QUOTATION = re.compile(r"\"[^\"\n]{60,}?\"|“[^”\n]{60,}?”")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_SLOT = re.compile(r":? ?\"\[your answer\]\" ?", re.IGNORECASE)

_OF_ANSWER = re.compile(
    rf"\b{RESPONSE}\b|^(?:please )?(?:limit|keep|use|write|answer|respond|reply|do not use|avoid|make sure it)\b",
    re.IGNORECASE,
)
# Tasks whose product is the answer. "Write" and "create" may be followed by much that has lengths of its own.
_TASK = (
    r"(?:convert|summari[sz]e|summari[sz]ing|sum up|describe|explain|answer|respond|reply|outline|express|condense|"
    r"paraphrase|discuss|rephrase|shorten|critique|combine|compress|articulate|formulate|share)"
)
_IMPERATIVE = re.compile(
    rf"(?:^|, |\b(?:and|please|should|must|(?:task is|need|have|asked|required|try) to) ){_TASK}\b", re.IGNORECASE
)
_NOUN = r"(?:complete |short |full )?(?:words?|sentences?|paragraphs?|characters|lines|bullet points?)"
_LENGTH = (
    r"(?P<length>(?:no more than|at most|less than|fewer than|under|up to|exactly|at least|no less than|"
    r"a maximum of|maximum|max|(?:just |only )?(?:a )?single|(?:just|only))? ?"
    rf"(?:\d[\d,]*|one|two|three|four|five|six|seven|eight|nine|ten|single)?(?:(?: to |-| or )(?:\d+|two|three))? ?"
    rf"{_NOUN}(?: or (?:less|fewer|more))?)"
)
_ONE_WORD = re.compile(r"\b(?<!than )(?<!least )(?:(?:just|only) )?(?:a single|one|a one) word$", re.IGNORECASE)
_TAIL = re.compile(rf" (?:in|within|into|using|to) (?:just |only )?{_LENGTH}[.:!?]*$", re.IGNORECASE)
_BRACKET = re.compile(r"\((?P<length>[^()]{4,60})\)[.:!?]*$")
_LENGTHS = frozenset({Kind.WORDS, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.CHARACTERS, Kind.LINES, Kind.BULLETS})
# "Your summary must ...", where the summary is the answer.
_PRODUCT = re.compile(
    r"^(?:the |your )(?:summary|headline|paraphrase|question|story|translation|rewrite|sentence|essay|poem|title|"
    r"explanation|description|overview)(?= (?:must|should|has to|needs to) )",
    re.IGNORECASE,
)
_WRITE = re.compile(
    r"(?:^|, )(?:please )?(?:write|generate|create|provide|give|compose|craft|draft)(?: me)? (?:a|an|the) "
    r"(?!.*\b(?:about|how|that|which|who|where|between|conversation|dialog)\b)",
    re.IGNORECASE,
)
_SENTENCES_LONG = re.compile(
    r"(?:^|, )(?:please )?(?:write|generate|create|provide|give|compose|craft|draft|add)(?: me)? (?:a|an) "
    r"(?:(?:short|brief|appropriate|concise|new) )*(?P<number>one|single|two|three|four|five|\d+)[ -]sentence "
    r"(?:summary|summari[sz]ation|description|story|explanation|overview|response|answer|reply|reflection)\b",
    re.IGNORECASE,
)
# Where several things are made, or a part is spoken of, a length may be that of one of them.
_PARTIAL = re.compile(
    r"\b(?:each|every|per|both|respectively|title|headline|introduction|first|last|then|also|following (?:two|three) "
    r"(?!sentences)|list|questions|examples|stories|tweets|versions?|options|ideas)\b",
    re.IGNORECASE,
)

_OPTION = r"(?:\"[^\"]{1,40}\"|'[^']{1,40}'|“[^”]{1,40}”|‘[^’]{1,40}’|yes|no|true|false|maybe)"
_OPTIONS = rf"(?P<options>(?:{_OPTION}(?:,? or |, ))+{_OPTION})"
_ONLY = r"(?:only|strictly|exclusively|just|simply)"
_CHOICE = re.compile(
    rf"(?:please |also,? |make sure to |and )*(?:"
    rf"(?:output|return|print) (?:{_ONLY} )?(?:either )?"
    rf"|(?:answer|respond|reply)(?: (?:to )?(?:the|this)(?: given| following)? (?:question|statement))?"
    rf" (?:{_ONLY} (?:with|in|by saying) |with {_ONLY} |in )(?:either |a )?"
    rf"|{RESPONSE} (?:must|should) (?:be (?:either |strictly limited to |limited to )?|{_ONLY} be (?:either )?)"
    rf"){_OPTIONS}(?: without any (?:extraneous information|explanation|other words))?[.!]*",
    re.IGNORECASE,
)

# What a later sentence asks for besides: the limit is not one of all that is answered.
_WANTS_MORE = re.compile(
    r"(?:^|, |\b(?:and|then|also|please|must|should|to) )(?:explain|justify|describe|elaborate|discuss)\b"
    r"|^(?:then|next|after that|afterwards|finally)\b|\bwhy\b",
    re.IGNORECASE,
)


def _task_text(seed_question: str) -> str:
    """The seed up to its input and examples, without long quotations."""
    text = _SLOT.sub(" ", seed_question[:MAX_SEED])
    cut = _INPUT.search(text)
    # A marker at the very start introduces everything; nothing is read then.
    return _QUOTATION.sub(" ", text[: cut.start()] if cut is not None else text)


def _length_spec(text: str) -> Spec | None:
    """The spec of a length such as "less than 15 words", only if it is one of the whole answer."""
    text = _ONE_WORD.sub("exactly one word", text)
    for phrasing in (f"Use {text}", text, f"Write {text}"):
        constraint = parse_constraint(phrasing)
        if constraint.reading is Reading.EQUIVALENT and constraint.spec is not None:
            spec = constraint.spec
            return spec if spec.kind in _LENGTHS and spec.scope is Scope.RESPONSE and spec.text is None else None
    return None


def _whole_sentence(sentence: str) -> Spec | None:
    sentence = _PRODUCT.sub("Your response", sentence)
    if _OF_ANSWER.search(sentence) is None:
        return None
    constraint = parse_constraint(_ONE_WORD.sub("exactly one word", sentence.rstrip(".!: ")))
    return constraint.spec if constraint.is_covered else None


def _tail(sentence: str) -> Spec | None:
    if _PARTIAL.search(sentence) is not None:
        return None
    bracket = _BRACKET.search(sentence)
    if bracket is not None:
        return _length_spec(bracket["length"])
    compound = _SENTENCES_LONG.search(sentence)
    if compound is not None:
        number = compound["number"].lower().replace("single", "one")
        return _length_spec(f"exactly {number} sentences")
    tail = _TAIL.search(sentence)
    if tail is None:
        return None
    verb = _IMPERATIVE.search(sentence, 0, tail.start()) or _WRITE.search(sentence, 0, tail.start())
    return None if verb is None else _length_spec(tail["length"].strip())


def _choice(sentence: str) -> Spec | None:
    """As many words as the shortest to the longest of the allowed outputs have."""
    match = _CHOICE.fullmatch(sentence)
    if match is None:
        return None
    options = re.findall(_OPTION, match["options"], re.IGNORECASE)
    lengths = [max(1, len(words(option))) for option in options]
    return Spec(Kind.WORDS, low=min(lengths), high=max(lengths))


@remember(maxsize=1024)
def read_demands(seed_question: str) -> tuple[Demand, ...]:
    """What the seed demands of the answer's form, with the words that say it; at most `MAX_DEMANDS`, in their order."""
    found: dict[Spec, Demand] = {}
    sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(_task_text(seed_question))]
    last_wish = max((i for i, sentence in enumerate(sentences) if _WANTS_MORE.search(sentence)), default=0)
    for i, sentence in enumerate(sentences):
        if not 4 <= len(sentence) <= 400:
            continue
        spec = _whole_sentence(sentence)
        if spec is None and i >= last_wish:
            spec = _choice(sentence) or _tail(sentence)
        if spec is not None and len(found) < MAX_DEMANDS:
            found.setdefault(spec, Demand(sentence, spec))
    return tuple(found.values())


def wants_one_word(seed_question: str) -> bool:
    """Whether the seed says that one word may be the whole answer: "in one word", 'Output "yes" or "no".'"""
    limits = [demand.spec for demand in read_demands(seed_question) if demand.spec.kind is Kind.WORDS]
    return any(spec.low == 1 or spec.high == 1 for spec in limits)


def seed_demands(seed_question: str) -> tuple[Spec, ...]:
    """The specs of `read_demands`."""
    return tuple(demand.spec for demand in read_demands(seed_question))
