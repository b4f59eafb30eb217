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
from functools import lru_cache
from itertools import pairwise

# Abbreviations that constraints/text.py knows, too, in small letters: titles and firms; months and days.
_NAME_WORDS = "mr mrs ms dr prof rep reps sen gen col lt maj adm st jr sr messrs inc corp co cos ltd bros cie"
_DATE_WORDS = "jan feb aug sep sept oct nov dec tues wed fri"
NAME_ABBREVIATIONS = frozenset(_NAME_WORDS.split())
DATE_ABBREVIATIONS = frozenset(_DATE_WORDS.split())
# Others that only newspapers are full of: states of the USA, units, firms, initials. More of them would change what
# IFEval's checkers count.
_ABBREVIATION_WORDS = """
ok
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
_TITLE_WORDS = """
a about according across actually add added after again against ago air all also am an and another answer any are area
around as asks at average away b baby back bad ball based be because been before began begins below best big boat book
books both bring brought business but buy by called can care case cat cats certain change changed changes chapter
child children cities city class clear clearly close closed code come comes common company computer computers could
countries country customers cut data day days death despite did disease do dog down dream dreams during each earth
easy eat education end ended ends energy even every everyone everything face family far father feel feelings few find
finds fine fire first food for force forest form found free friends from full function game games garden general
generally get gets give go goal good got government great group had half hand hard has have he head health heart heat
help hey high his history home hope hospital house how however human if in indeed information instead introduction is
it its job join just keep kind know knows large last late later law leave less let letter license life light like
little live local long look love low made main make makes man many market may maybe me medicine meet members men
methods might money month more mountain move movie much music must my name names near network never new next night no
nobody none nor not notes now nurse obviously of off offer often old on once one only open option options or order
other others our out over own paper parents part pay peace people perhaps place plan plant plants point possible power
president price products project public quality quick quite rather read ready real really reason reasons report
research rest return review road room rule rules run said say says school science sea second see sees service services
set several share she ship short should show side since small so social software some something song sound space
special star stars start starts state states stay steps stop story street student students studies study subject sun
sure system systems table take takes talk technology tell tells test than that the their then there these they thing
this those though three time to today told too top total toward town tree two under university until up use used users
usually value view visit wall want war was water way we week well what whatever when where while white who whose why
will wind with woman women word work world would write wrote year yet you young z
"""
# Ordinary words: written with a capital only where a sentence begins.
_ORDINARY_WORDS = """
above absolutely adapted adds afterwards almost along already always amount animal animals answers anyone anything
article ask asked author authors become begin behind being besides better between beyond birds blood body bone box boy
boys brain brother build bus call came cannot car certainly character characters check choice choices choose climate
closes comment compared complete concerning conclusion consider contact contains contributed copying copyright cost
course create created creates currently customer depending different difficult doctor does dogs done door draw
drinking early eating either else enjoy enough ensure environment especially eventually ever example examples except
experience eye eyes fact fear feeling figure file files fill finally fish floor follow following friend furthermore
gave girl girls given gives goes going hair hands happy hate hear hence her here hers him horse hot hour husband idea
imagine important include including initially inside into item keeps kept kitchen knew language learn least lets
licensed likewise list lot loud maximum mean member method mind minimum mix moon morning most mother need neither note
nothing number okay opened opens originally overall page paragraphs particularly patient patients performance
permission person phone pick plane play please present preserve previously problem problems process product program
provide put question questions rain ran reader readers reads recently redistribution regarding regardless regards
released remember remove removed requirements result results right runs same saw section seem seemed select send
sentence simple simply sincerely sister skin snow solution solutions someone sometimes soon sorry speak specifically
speed started step still stopped stops stories such suppose teacher team temperature terms text thank thanks them
think thinks thought thoughts through throughout title together tomorrow took towards train treatment trees tried
tries true try turn turned turns type typically unfortunately unless upon us user using various very village wait walk
weather web welcome went were whenever wherever whether which whichever whole wife window wish within without
wonderful words writes writing written yes yesterday your
"""

ABBREVIATIONS = NAME_ABBREVIATIONS | DATE_ABBREVIATIONS | frozenset(_ABBREVIATION_WORDS.split())
OPENERS = frozenset(_OPENING_WORDS.split())
IN_TITLES = frozenset(_TITLE_WORDS.split())
ORDINARY = frozenset(_ORDINARY_WORDS.split())

_UP_TO_SPACE = re.compile(r"[\s\S]*[ \t\n\r\x0b\x0c]")
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


_SHORT = 24  # characters of a word that is worth remembering
_short_piece = lru_cache(4096)(_piece)


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
    texts = [text for line in context.split("\n") for text in _PIECE.findall(line)]
    pieces = [_short_piece(text) if len(text) < _SHORT else _piece(text) for text in texts]
    return any(_is_break(piece, following) for piece, following in pairwise(pieces))


def _stops(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Stops that may end a sentence, each with the word before it and what follows. The last one of each word."""
    start, end = 0, 0  # of the word before the last stop
    last: re.Match[str] | None = None
    for match in _END.finditer(text):
        space = _UP_TO_SPACE.match(text, end + 1, match.start())
        new_start = space.end() if space is not None else start
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


# Runs of words that can hold nothing in capitals and that no neighbour is read by.
_SMALL = re.compile(r"(?<!\S)[A-Z]?[a-z]++[.,;:!?]?(?:\s++[A-Z]?[a-z]++[.,;:!?]?(?!\S))*+(?!\S)")


def count_capital_tokens(text: str) -> int:
    """How many of `tokens` are in capitals. Much quicker: runs of small words are not looked at."""
    parts = (_SMALL.sub("x", sentence) for sentence in split_sentences(text))
    return sum(word.isupper() for part in parts if part != part.lower() for word in _words(part))
