"""What all demands share in English: quotation marks, labels, purposes, "your response should (not) contain ..."."""

import re
from dataclasses import dataclass

from seif_nemo.constraints.text import clean

# Quotations, whatever their marks, stand between two private characters.
OPEN, CLOSE = "\ue000", "\ue001"
QUOTED = rf"{OPEN}(?P<quoted>[^{OPEN}{CLOSE}]++){CLOSE}"

_BOLD = re.compile(r"(?<!\*)\*\*([^*]++)\*\*(?!\*)")
_MARKED = re.compile(
    r"\"([^\"]++)\"|“([^”]++)”|`([^`]++)`|«([^»]++)»|「([^」]++)」|『([^』]++)』"
    r"|(?<!\w)'((?:[^'\"]|(?<=\w)'(?=\w))++)'(?!\w)"
)
_SPACE = re.compile(r"\s++")
_PLEASE = re.compile(r",? please$", re.IGNORECASE)
_LIST_MARK = re.compile(r"(?:[-*•]|\d{1,2}[.)]|\(\d{1,2}\)|[a-z]\)) ")
# Labels that say nothing about the part of the response meant. "Title:", "Sentence length:" and "Ending:" do.
_LABEL_WORD = (
    "response|answer|lexical|semantic|syntactic|content|format|formatting|structure|structural|length|keywords?|words?|"
    "count|punctuation|case|letters?|frequency|constraints?|limit|number|of|and|the|include|inclusion|exclusion|element|"
    "forbidden|required|style|form|output|all-caps|lowercase|uppercase|capitalization|requirement|rule|detectable|"
    "language|change|json|no|commas?|bespoke|specialized|fundamental|highlighted|spans?|english|caps|"
    "(?:sentence|paragraph|bullet|bullet points?|bullets|placeholder)s? count"
)
_LABEL = re.compile(rf"(?P<label>(?:(?:{_LABEL_WORD})[ /-]*+){{1,5}}+)(?:: ?| ?[—–] ?| - )", re.IGNORECASE)
# Labels that are part of the demand: "Forbidden: commas" demands the contrary of "commas".
_FORBIDS = re.compile(r"\b(?:forbidden|exclusion|no)\b", re.IGNORECASE)
_LISTS_WORDS = re.compile(r"\b(?:keywords?|words?|letters?)\b", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:language|json)\b", re.IGNORECASE)
_IS_DEMAND = re.compile(
    r"(?:please |the |your |you |in your entire )*(?:response|answer|must|should|shall|do not|don't|never|use|include|"
    r"includes|contain|mention|avoid|refrain|incorporate|limit|write|no|words? (?:in|must|should)|at least|at most|"
    r"exactly|less than|more than|fewer than|between|up to|\d|mandat\w+)\b",
    re.IGNORECASE,
)
# Under a label that forbids, "use the word X" says what is forbidden; only these say themselves what is wanted.
_IS_OWN_DEMAND = re.compile(
    r"(?:please |the |your |you |in your entire )*(?:(?:response|answer|words?),? )*(?:must|should|shall|do not|don't|"
    r"never|avoid|refrain|no (?!more|less|fewer))\b",
    re.IGNORECASE,
)
_COUNTS = re.compile(r"\b(?:count|limit|number|frequency|length)\b", re.IGNORECASE)

# Purposes that demand nothing of their own.
_VALUE = r"(?:importance|significance|meaning|value|relevance|role|impact|presence|use|usage)"
_GOAL = (
    r"(?:(?:greater|better|improved|visual|added|overall|more|easy|easier|maximum) )?"
    r"(?:emphasis|clarity|readability|visibility|brevity|conciseness|simplicity|consistency|focus|reading|reference|"
    r"understanding|attention|distinction|identification|comprehension|ease of (?:reading|understanding|reference))"
)
_PURPOSE = re.compile(
    rf",? (?:for {_GOAL}(?: and {_GOAL})?"
    rf"|(?:in order )?to (?:emphasi[sz]e|stress|highlight|underscore|indicate|show|signify|denote|note) "
    rf"(?:it|them|this|(?:its|their|the) {_VALUE})"
    rf"|(?:in order )?to (?:draw attention(?: to it| to them)?|make (?:it|them) stand out"
    rf"|(?:ensure|maintain|enhance|improve|increase|add) {_GOAL}(?: and {_GOAL})?))"
    r"(?: (?:in|of|within|throughout) (?:the|your) [a-z]+)?$",
    re.IGNORECASE,
)

# What is asked for, where the seed question asks for nothing else, and what may be a part of the response.
_PRODUCT = (
    "summary|story|essay|article|poem|review|description|analysis|text|content|report|email|translation|speech|"
    "narrative"
)
_PART = (
    "explanation|sentence|question|title|headline|solution|paragraph|introduction|conclusion|passage|list|table|code|"
    "definition|recipe|script|statement|proof|outline|dialogue|conversation|message|post|tweet|caption|slogan|example|"
    "examples|recommendations|instructions|steps|bullet points|bullets|abstract|body|quote|name|product|prompt|result|"
    "argument|"
    "hypothesis|plan|guide|lyrics|song|joke|riddle|discussion|rewrite|rewritten text|document|justification"
)
RESPONSE = (
    r"(?:(?:your|the|this|my|a) )?(?:(?:entire|whole|full|final|complete|overall|generated|total) )?"
    rf"(?:response|answer|reply|output|completion|(?<=the |our |ire |ole )(?:{_PRODUCT}))"
)
_PART_OF = re.compile(
    rf"\b(?:the|your|each of the|its) (?:(?:first|second|third|last|final|opening|new|revised|corrected|translated|"
    rf"rewritten|generated|search|main|entire|whole|same|following|output|closing) )*+"
    rf"(?:{_PART})\b(?! (?:count|length|limit))",
    re.IGNORECASE,
)
_LEAD = (
    r"(?:(?:please|also|and|kindly|always|then|however|but|it is required that|you are required to|remember to|"
    rf"make sure to|make sure that|make sure|ensure that|ensure|be sure to|it must be that|in {RESPONSE}),? )*+"
)
MODAL = r"(?:must|should|shall|will|has to|have to|needs to|need to|is to|are to|is required to|ought to)"
_AUXILIARY_NOT = (
    r"(?:(?:must|should|shall|will|may|can|do|does|is|are|has to|have to|needs to)(?: not| never|n't)|cannot|can't|"
    r"mustn't|shouldn't|don't|doesn't|won't|never|not)"
)
_VERB = (
    r"(?:be written (?:in|with|using)|be composed of|be made up of|be formatted (?:in|as|with)|consist of|consists of|"
    r"(?:be|stay|remain|fall|keep it|keep|is|are) (?=within|under|below|over|between|at|no|in|a|all|only|exactly|up|"
    r"more|less|fewer|longer|shorter|entirely|\d|\ue000)|"
    r"mandat(?:e|es|ory)(?: the)? (?:use|usage|inclusion) of|requires?d?(?: the)? (?:use|inclusion) of|"
    r"(?:conform|adhere) to|compose|draft|construct|craft|deliver|express|"
    r"use|uses|using|used|write|writes|written|include|includes|including|contain|contains|containing|have|has|"
    r"having|add|adds|"
    r"provide|give|produce|generate|insert|feature|employ|incorporate|present|mention|comprise|comprises|make use of|"
    r"respond|reply|answer|output|format|be|is|are|make|put|keep|utilize|state|show|return)"
)
_AVOID = r"(?:avoid|avoids|refrain from|exclude|excludes|omit|without|abstain from|stay away from|steer clear of)"
# "the response be", "it", "your answer" after a verb: "keep your response under ...", "format the answer as ...".
OBJECT = rf"(?:{RESPONSE}|it|them)"
_LIMIT = (
    rf"(?:be )?(?:limit|limits|limited|restrict|restricted|cap|capped|confine|confined)"
    rf"(?: {OBJECT}| (?:the )?(?:word count|length))?(?: length)?"
)
DIVIDE = rf"(?:be )?(?:divided?|split|separated?|break|broken|organized?|structured?)(?: {OBJECT})?(?: up| down)?"

_SUBJECT = rf"(?:{RESPONSE}|you|it|there)"
_CLAUSE = re.compile(
    rf"{_LEAD}(?:{_SUBJECT} )?"
    rf"(?:(?P<negation>{_AUXILIARY_NOT}) |(?:{MODAL} )(?:(?:also|always|explicitly) )?)?"
    rf"(?:(?P<avoid>{_AVOID}) )?"
    rf"(?:(?P<limit>{_LIMIT}) (?:to |at |within )|(?:(?P<verb>{_VERB}) )(?:{OBJECT} )?)?"
    rf"(?P<no>no (?!more|fewer|less|greater|longer|other|additional))?(?P<rest>.++)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A demand without its wrapping: `rest` is what to use, or what not to use where `negated`.

    `verb` is the verb taken off in lower case, "" for none.
    `limiting` says that the verb was "limit to", which turns a bare number into a maximum.
    """

    rest: str
    negated: bool
    verb: str
    limiting: bool


def has_part(text: str) -> bool:
    """Whether normalised text speaks of something that may be a part of the response ("the title")."""
    return _PART_OF.search(text) is not None


def without_part(text: str) -> str:
    """Normalised text that speaks of the response where it spoke of a part of it ("the title", "the sentence")."""
    return _PART_OF.sub("the response", text)


def without_purpose(text: str) -> str:
    """Normalised text without "for clarity", "to emphasize its importance" and the like at the end."""
    for _ in range(2):
        text = _PURPOSE.sub("", text)
    return text


def normalise(text: str) -> str:
    """One line, plain white space, quotations between `OPEN` and `CLOSE`, without list mark and final stop."""
    text = _SPACE.sub(" ", text.replace(OPEN, " ").replace(CLOSE, " ")).strip()
    text = _BOLD.sub(r"\1", text)
    mark = _LIST_MARK.match(text)
    text = text[mark.end() :] if mark is not None else text

    def quote(match: re.Match[str]) -> str:
        inner = next(group for group in match.groups() if group is not None)
        return f"{OPEN}{inner.strip()}{CLOSE}"

    # Single curly quotes become straight before the search, so that apostrophes and quotes are told apart in one way.
    text = _MARKED.sub(quote, text.replace("‘", "'").replace("’", "'"))
    return _PLEASE.sub("", _SPACE.sub(" ", clean(text)).rstrip(" .;!,"))


def without_label(text: str) -> str:
    """Normalised text without a label such as "Length constraint:" in front; unknown labels stay.

    A label that forbids or lists words stays where the rest is no demand of its own: in "Forbidden: lowercase letters"
    and "Keywords: JSON" the label is what demands. Under a label that forbids, a modal verb or a negation makes one.
    """
    label = _LABEL.match(text)
    if label is None or label.end() >= len(text):
        return text
    rest, name = text[label.end() :].lstrip("* "), label["label"]
    if _FORBIDS.search(name):
        return text if _IS_OWN_DEMAND.match(rest) is None else rest
    own = _NAMED.search(name) or (_LISTS_WORDS.search(name) and not _COUNTS.search(name))
    return text if own and _IS_DEMAND.match(rest) is None else rest


def read_clause(text: str) -> Clause:
    """Takes subject, modal verb, negation and plain verb off normalised text. Never fails: the rest may be all."""
    match = _CLAUSE.fullmatch(text)
    if match is None:
        return Clause(text, negated=False, verb="", limiting=False)
    signs = [match["negation"], match["avoid"], match["no"]]
    negations = sum(sign is not None for sign in signs)
    if negations > 1:  # "do not avoid", "use no ... without": not worth reading wrongly
        return Clause(text, negated=False, verb="", limiting=False)
    return Clause(
        match["rest"], negated=negations == 1, verb=(match["verb"] or "").lower(), limiting=match["limit"] is not None
    )


_LANGUAGES_TEXT = """
english en chinese zh mandarin zh japanese ja korean ko french fr german de spanish es italian it portuguese pt
dutch nl russian ru arabic ar hindi hi bengali bn turkish tr vietnamese vi thai th polish pl swedish sv greek el
hebrew he ukrainian uk persian fa indonesian id danish da finnish fi norwegian no czech cs romanian ro hungarian hu
urdu ur tamil ta telugu te marathi mr punjabi pa gujarati gu kannada kn malayalam ml nepali ne swahili sw tagalog tl
"""
LANGUAGE_CODES: dict[str, str] = dict(zip(_LANGUAGES_TEXT.split()[::2], _LANGUAGES_TEXT.split()[1::2], strict=True))
LANGUAGE = "|".join(LANGUAGE_CODES)

_TIMES_WORD = {"once": "1 times", "twice": "2 times", "thrice": "3 times"}
_TIMES_PATTERN = re.compile(rf"{OPEN}[^{CLOSE}]*+{CLOSE}|\b(?:once|twice|thrice)\b", re.IGNORECASE)


def times(text: str) -> str:
    """ "at least twice" as "at least 2 times", outside of quotations."""
    return _TIMES_PATTERN.sub(lambda m: _TIMES_WORD.get(m.group().lower(), m.group()), text)
