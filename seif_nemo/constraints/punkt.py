"""Sentences and capital words as IFEval's checkers see them: by NLTK's tokenizers, but without NLTK and its data.

Sentences: the decisions of Punkt (Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection", 2006,
section 4) as NLTK 3.9 makes them. NLTK downloads parameters that were trained on newspapers. Ours are own lists: which
abbreviations there are, which words open sentences, and which words are ordinary ones, so that a capital letter after
an abbreviation means a new sentence. docs/ifeval.md says how often that makes a difference.

NLTK is not imported, because its regular expressions run against a clock since 3.10, in another dialect than before,
and take quadratic time until then.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# Read with a stop after them, in small letters: titles, firms, months, days, states of the USA, units, initials.
_ABBREVIATION_WORDS = """
mr mrs ms dr prof rep reps sen gen col lt maj adm st jr sr messrs
inc corp co cos ltd bros cie
jan feb aug sep sept oct nov dec tues wed fri
ala ariz calif colo conn fla ga ill kan ky mich minn nev okla ore pa tenn va vt wash wis w.va
ave ft ct mg yr vs v chg a.m p.m ph.d m.b.a
u.s u.s.a u.s.s.r u.k u.n d.c l.a n.y n.j n.c n.d n.h n.m n.v s.c r.i b.v s.a l.p c.v s.p.a
c d e f g h k l m n p r s t w
a.d a.s e.m j.b j.j j.k j.p j.r r.j r.k t.j
"""
# Open a sentence even after an abbreviation.
_OPENING_WORDS = """
according although among both but despite even he however i if in indeed instead it many meanwhile moreover
nevertheless nonetheless nor similarly since so some the there these they this though thus under when while yet
"""
# Ordinary words that titles and "All rights reserved" write with a capital too.
_TITLE_WORDS = "a all and be do for from name no or our shall subject then to use you"
# Ordinary words: written with a capital only where a sentence begins.
_ORDINARY_WORDS = """
about above according across actually adapted add after afterwards again against ago almost along already also always
am amount an animal another answer any anyone anything are area around article as ask at author authors away back bad
ball because become been before began begin behind being below best better between beyond big body book both box boy
bring brought build business but buy by call called came can cannot car care case change check child children choose
city class clear come comment common company complete consider contact contains contributed cook copying copyright
could country course create created cut data day days did different do does done door down draw each early easy eat
education either else enjoy enough ensure even ever every everyone everything example experience eye face fact family
far feel few files finally find fine first follow food form found free friend full game gave general get girl give
given go goal going good got great group had half hand happy hard has have he head health hear help her here hers high
him his history home hope hot hour house how however human idea if imagine important in include indeed information
inside instead into is it item its job join just keep kind knew know language large last later law learn least leave
less let letter licensed life light like list little live local long look lot love low made main make man many may
maybe me mean meet men might mind mix money month more morning most mother move much music must my near need never new
next night no nobody none nor not note nothing now number of off offer often old on once one only open order other
others our out over own page paper part pay people performance perhaps permission person pick place plan play please
point possible power present preserve problem process product program project provide public put quality question
quick quite rather read ready real really reason redistribution released remember report requirements research rest
result return review right room rule run said same saw say school science second see seem send service set several
share she short should show side simple simply since small so social some someone something sometimes soon sorry sound
space speak special start state stay step still stop story student study such sun system table take talk team tell
terms test text than thank that the their them there these they thing think this those though thought three through
time today together told tomorrow tonight too took top town tree true try turn two type under until up upon us used
using value very view visit wait walk want was water way we week welcome well went were what whatever when where which
while white who whole whose why will wish with without woman wonderful word words work world would write written year
yes yesterday yet young your yours
"""

ABBREVIATIONS = frozenset(_ABBREVIATION_WORDS.split())
OPENERS = frozenset(_OPENING_WORDS.split())
IN_TITLES = frozenset(_TITLE_WORDS.split())
ORDINARY = frozenset(_ORDINARY_WORDS.split()) - IN_TITLES

_ASCII_SPACE = " \t\n\r\x0b\x0c"
_AFTER_WORD = r"[)\";}\]*:@'({\[?!]"  # what ends a word without white space
_RUN = r"-{2,}|\.{2,}|(?:\.\s){2,}\."
_WORD_END = rf"\s|$|{_AFTER_WORD}|{_RUN}|,(?=$|\s|{_AFTER_WORD}|{_RUN})"
_PIECE = re.compile(rf"{_RUN}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?={_WORD_END})|\S")
_END = re.compile(rf"[.?!](?=(?P<after>{_AFTER_WORD}|\s++(?P<word>\S+)))")
_CLOSING = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*")
_INITIAL = re.compile(r"[^\W\d]\.")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word or mark of the text around a stop, and what is thought of it before its neighbour is looked at."""

    text: str
    kind: str  # in small letters, without the stop that ends a sentence; "#" for every number
    is_abbreviation: bool  # or dots in a row: a sentence may go on after it
    ends_sentence: bool

    @property
    def is_ordinary(self) -> bool:
        return self.kind in ORDINARY

    @property
    def is_known(self) -> bool:
        return self.kind in ORDINARY or self.kind in IN_TITLES


def _piece(text: str) -> _Piece:
    lower = text.lower()
    kind = "#" if _NUMBER.fullmatch(lower) is not None else lower
    if text in (".", "?", "!"):
        return _Piece(text, kind, is_abbreviation=False, ends_sentence=True)
    if not text.endswith(".") or text.endswith(".."):
        dots = len(text) > 1 and not text.strip(".")
        return _Piece(text, kind, is_abbreviation=dots, ends_sentence=False)
    stem = lower[:-1]
    if stem in ABBREVIATIONS or stem.rpartition("-")[2] in ABBREVIATIONS:
        return _Piece(text, kind, is_abbreviation=True, ends_sentence=False)
    return _Piece(text, kind if kind == "#" else stem, is_abbreviation=False, ends_sentence=True)


def _opens_sentence(piece: _Piece) -> bool | None:
    """What the next word's first letter says; None if nothing."""
    if piece.text in (";", ":", ",", ".", "!", "?") or piece.text[0].islower():
        return False
    return True if piece.text[0].isupper() and piece.is_ordinary else None


def _is_break(piece: _Piece, following: _Piece) -> bool:
    """Whether a sentence ends after `piece`. Sections 4.1 to 4.3 of the paper."""
    if not piece.text.endswith("."):
        return piece.ends_sentence
    initial = _INITIAL.fullmatch(piece.text) is not None
    opens = _opens_sentence(following)
    capital = following.text[0].isupper()
    ends = piece.ends_sentence
    if piece.is_abbreviation and not initial and (opens or (capital and following.kind in OPENERS)):
        ends = True
    elif initial or piece.kind == "#":
        is_name = opens is None and initial and capital and not following.is_known
        ends = ends and opens is not False and not is_name
    return ends


def _holds_break(context: str) -> bool:
    pieces = [_piece(text) for line in context.split("\n") for text in _PIECE.findall(line)]
    return any(_is_break(piece, following) for piece, following in pairwise(pieces))


def _stops(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Stops that may end a sentence, each with the word before it and what follows. The last one of each word."""
    start, end = 0, 0  # of the word before the last stop
    last: re.Match[str] | None = None
    for match in _END.finditer(text):
        space = max(text.rfind(char, end + 1, match.start()) for char in _ASCII_SPACE)
        new_start = space + 1 if space >= 0 else start
        if last is not None and end <= new_start:
            yield last, text[start:end] + last[0] + last["after"]
        last, start, end = match, new_start, match.start()
    if last is not None:
        yield last, text[start:end] + last[0] + last["after"]


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the white space between them."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match, context in _stops(text):
        if _holds_break(context):
            spans.append((start, match.end()))
            start = match.start("word") if match["word"] else match.end()
    spans.append((start, len(text.rstrip())))
    found: list[str] = []
    taken = 0  # closing quotes and brackets that went to the sentence before
    for (first, last), following in zip(spans, [*spans[1:], None], strict=True):
        closing = None if following is None else _CLOSING.match(text[following[0] : following[1]])
        if closing is not None and following is not None:
            found.append(text[first + taken : following[0] + len(closing[0].rstrip())])
            taken = closing.end()
            continue
        if first + taken < last:
            found.append(text[first + taken : last])
        taken = 0
    return found


# --- words

_OPENING_MARK = re.compile(r"[«“‘„`]")
_COMMA = re.compile(r"([:,])(\D|$)")  # of two in a row, the second one stays where it is
_APART = re.compile(r"[»”’\";@#$%&?!*()\[\]{}<>\u2012-\u2015]|\.{2,}|''|--")
_OPENING_QUOTE = re.compile(r"(?<=[ (\[{<])(?:\"|'')")
_AFTER_APOSTROPHE = re.compile(r"'(?=(?![mtsdn])\w\b)", re.IGNORECASE)
_CLITIC = re.compile(r"(?<=[^' ])('[sSmMdD]?) ")
_LONG_CLITIC = re.compile(r"(?<=[^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ")
# Two words written as one.
_PAIRS = (("can", "not"), ("d", "'ye"), ("gim", "me"), ("gon", "na"), ("got", "ta"), ("lem", "me"), ("more", "'n"))
_DOUBLE = re.compile(
    "|".join(rf"\b({first})({second})\b" for first, second in _PAIRS) + r"|\b(wan)(na)(?=\s)",
    re.IGNORECASE,
)
_TIS = re.compile(r"(?<= )('t)(is|was)\b", re.IGNORECASE)


def _apart(double: re.Match[str]) -> str:
    return f" {' '.join(part for part in double.groups() if part)} "


def _words(sentence: str) -> list[str]:
    text = _OPENING_QUOTE.sub(" `` ", _OPENING_MARK.sub(r" \g<0> ", sentence))
    text = _AFTER_APOSTROPHE.sub("' ", text)
    head = text.rstrip().rstrip("])}>\"'»”’ ")
    if head.endswith(".") and len(head) > 1 and head[-2] != ".":
        text = f"{head[:-1]} . {text[len(head) :]}"
    text = " ".join(_APART.sub(r" \g<0> ", _COMMA.sub(r" \1 \2", text)).split())
    text = _LONG_CLITIC.sub(r" \1 ", _CLITIC.sub(r" \1 ", f" {text} "))
    return _TIS.sub(_apart, _DOUBLE.sub(_apart, text)).split()


def tokens(text: str) -> list[str]:
    """Words and marks of a text: "can't (USA)." is ca, n't, (, USA, ) and the stop.

    Not NLTK's tokens in all, but as many that hold a letter, and of the same letters.
    """
    return [word for sentence in split_sentences(text) for word in _words(sentence)]
