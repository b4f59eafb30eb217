"""What an instruction demands.

An Instructor's line of text is a `Constraint`; where a rule can judge it, it carries a `Spec`, the canonical form that
verifiers, conflict rules and the IFEval mapping work on.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a spec counts or looks for. The unit of `low`/`high` is an occurrence of it, unless said otherwise."""

    WORDS = "words"
    CHARACTERS = "characters"
    LINES = "lines"  # that hold a visible character
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    BULLETS = "bullets"  # text: the mark they start with, such as "*"; None: any
    NUMBERED = "numbered"  # items of numbered lists
    TABLES = "tables"  # markdown tables
    HEADINGS = "headings"  # markdown headings
    PLACEHOLDERS = "placeholders"  # [name] in square brackets
    HIGHLIGHTS = "highlights"  # *highlighted section*; text "**": **in bold** only
    SECTIONS = "sections"  # text: the splitter word, such as "Section"
    KEYWORD = "keyword"  # text: the word or phrase; forbidding it is high = 0
    KEYWORDS = "keywords"  # text: words or phrases, one per line; the bounds hold for each of them
    LETTER = "letter"  # text: one letter
    CAPITAL_WORDS = "capital_words"
    COMMAS = "commas"  # forbidding them is high = 0
    MARKS = "marks"  # text: punctuation marks of which each counts, such as "!"; None: all punctuation
    DIGITS = "digits"
    SEPARATORS = "separators"  # text: the separator, such as "***" or "---"
    UPPERCASE = "uppercase"  # the whole response; no bounds; text: a language code that is demanded besides, or None
    LOWERCASE = "lowercase"  # text: as above
    STARTS_WITH = "starts_with"  # text: the phrase
    ENDS_WITH = "ends_with"  # text: the phrase
    TITLE = "title"  # <<title>>
    QUOTED = "quoted"  # the whole response in double quotes
    JSON = "json"
    MARKDOWN = "markdown"  # some markup that markdown renders
    BOLD = "bold"  # text: words or phrases, one per line; each is in bold somewhere
    EMPHASIS = "emphasis"  # text: as above; in bold, italics or marked
    LANGUAGE = "language"  # text: ISO 639-1 code
    POSTSCRIPT = "postscript"  # text: its marker, such as "P.S."
    REPEAT_PROMPT = "repeat_prompt"  # text: what to repeat first; None: the seed question
    TWO_RESPONSES = "two_responses"  # different ones; text: what separates them
    ONE_OF = "one_of"  # text: the allowed answers, one per line
    PARAGRAPH_START = "paragraph_start"  # text: first word of paragraph `index`; the bounds count the paragraphs


class Scope(StrEnum):
    """Which part of the response a spec speaks of."""

    RESPONSE = "response"
    EACH_PARAGRAPH = "each_paragraph"
    EACH_SENTENCE = "each_sentence"
    EACH_ITEM = "each_item"
    NTH_PARAGRAPH = "nth_paragraph"  # with Spec.index
    NTH_SENTENCE = "nth_sentence"
    NTH_ITEM = "nth_item"


class Definition(StrEnum):
    """By whose rules a spec is checked."""

    OURS = "ours"  # what a reader would call a word, a sentence, a paragraph: constraints/verify.py
    IFEVAL = "ifeval"  # the public IFEval checkers', for rows that name an IFEval id: constraints/ifeval_rules.py


@dataclass(frozen=True, slots=True)
class Spec:
    """A demand a rule can check: `low` ≤ count(kind) ≤ `high` (both inclusive; `high` None = unbounded) within `scope`.

    Kinds that are not counts (case, title, quotation, start, end, JSON) leave the bounds at their defaults. `index` is
    1 for the first part and -1 for the last; it belongs to the NTH scopes and to PARAGRAPH_START.
    """

    kind: Kind
    low: int = 0
    high: int | None = None
    text: str | None = None
    scope: Scope = Scope.RESPONSE
    index: int | None = None
    definition: Definition = Definition.OURS


class Reading(StrEnum):
    """What the parser of free text can say about a line."""

    EQUIVALENT = "equivalent"  # the spec says exactly what the text says
    NECESSARY = "necessary"  # the spec is implied by the text, but is not all of it
    SCOPED = "scoped"  # the spec says exactly what the text says, of a part or of each part of the response
    NEEDS_JUDGE = "needs_judge"  # a demand that no rule here covers
    NOT_A_CONSTRAINT = "not_a_constraint"  # a fact, an answer, a vacuous demand


@dataclass(frozen=True, slots=True)
class Constraint:
    """One line of an Instructor's output, with what the parser made of it. `spec` is present iff a rule applies."""

    text: str
    reading: Reading
    spec: Spec | None = None

    @property
    def is_covered(self) -> bool:
        """Whether a rule can say all of it, so that no model need be asked."""
        return self.reading in (Reading.EQUIVALENT, Reading.SCOPED)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A seed question with the constraints added to it. `prompt` is what the Follower is asked: both as one text."""

    seed: str
    constraints: tuple[Constraint, ...]
    prompt: str
