"""What all demands share in English: quotation marks, labels, "your response should (not) contain ..."."""

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
    "response|answer|lexical|content|format|formatting|structure|structural|length|keywords?|words?|count|punctuation|"
    "case|letters?|frequency|constraints?|limit|number|of|and|the|include|inclusion|exclusion|forbidden|required|style|"
    "form|output|all-caps|lowercase|uppercase|capitalization|requirement|rule|detectable|language|change|json|no|commas?|"
    "(?:sentence|paragraph|bullet|bullet points?|bullets|placeholder)s? count"
)
_LABEL = re.compile(rf"(?:(?:{_LABEL_WORD})[ /-]*+){{1,5}}+(?:: ?| ?[—–] ?| - )", re.IGNORECASE)

RESPONSE = (
    r"(?:(?:your|the|this|my|a) )?(?:(?:entire|whole|full|final|complete|overall|generated|total) )?"
    r"(?:response|answer|reply|output|completion)"
)
_LEAD = (
    r"(?:(?:please|also|and|kindly|always|then|however|but|it is required that|you are required to|remember to|"
    r"make sure to|make sure that|make sure|ensure that|ensure|be sure to|it must be that),? )*+"
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
    r"use|uses|using|used|write|writes|include|includes|including|contain|contains|containing|have|has|having|add|adds|"
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
    """Normalised text without a label such as "Length constraint:" in front; unknown labels stay."""
    label = _LABEL.match(text)
    return text[label.end() :].lstrip("* ") if label is not None and label.end() < len(text) else text


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
