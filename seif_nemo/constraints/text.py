"""Words, sentences, paragraphs and phrases of a response: the one reading of text that all rules share.

Every function here takes text that `clean` or `fold` has been through. Patterns are linear: possessive or followed by
nothing that could fail.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from seif_nemo.constraints.punkt import DATE_ABBREVIATIONS, NAME_ABBREVIATIONS
from seif_nemo.constraints.remembering import remember

# Invisible characters would split a word for a rule and not for a reader: zero-width, soft hyphen, joiners, BOM.
_TRANSLATE: dict[int, str | None] = {
    **dict.fromkeys((0x00AD, 0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)),
    **dict.fromkeys((0x2018, 0x2019, 0x201A, 0x201B, 0x02BC, 0xFF07, 0x2032), "'"),
    **dict.fromkeys((0x201C, 0x201D, 0x201E, 0x201F, 0xFF02, 0x2033), '"'),
    **dict.fromkeys((0x2010, 0x2011), "-"),
}
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Where scripts have vowel signs, points and other marks that belong to the letter before them.
_MARKED_BLOCKS = ((0x0300, 0x1E00), (0xA66F, 0xAC00), (0xFB1E, 0xFB1F), (0xFE20, 0xFE30))


def _find_marks() -> str:
    """The combining marks of these blocks, as ranges of a character class. Letters may stand in a range, too."""
    found: list[str] = []
    for start, end in _MARKED_BLOCKS:
        classes = "".join(unicodedata.category(chr(code))[0] for code in range(start, end))
        for run in re.finditer("M(?:[MLC]*M)?", classes):
            found.append(f"{chr(start + run.start())}-{chr(start + run.end() - 1)}")
    return "".join(found)


_MARKS = _find_marks()
_LETTERS = rf"[^\W_{_CJK}]|[{_MARKS}]"
_JOINT = r"['\-]|(?<=\d)[.,](?=\d)"
# A compound is one word, but four parts at most: else a whole answer glued with hyphens would be one word.
_WORD = re.compile(rf"[{_CJK}]|(?:{_LETTERS})++(?:(?:{_JOINT})(?:{_LETTERS})++){{0,3}}")
_WORD_CHAR = re.compile(_LETTERS)
_FIRST_PART = re.compile(r"[^\-]++")

COMMAS = ",，،﹐"  # "、" has a name of its own in Chinese

_TITLE = re.compile(r"<<([^<>\n]*)>>")
_LEADING_TITLE = re.compile(r"\s*+<<[^<>\n]*>>[ \t]*+(?:\n|$)")
# What markdown has needs white space after it; a dot that no keyboard has, and numbers before CJK text, do not.
_BULLET_MARK = r"(?:[*+\-–][ \t]++|[•◦‣▪●○■·][ \t]*+)(?=\S)"
_NUMBER_MARK = r"(?:\*\*|__)?\d{1,3}(?:[.)](?:[ \t]++(?=\S)|(?=[^\W\d_a-zA-Z]))|[、．）][ \t]*+(?=[^\s\d]))"
_BULLET = re.compile(rf"[ \t]*+{_BULLET_MARK}")
_NUMBERED = re.compile(rf"[ \t]*+{_NUMBER_MARK}")
_ITEM = re.compile(rf"[ \t]*+\"*+[ \t]*+(?:{_BULLET_MARK}|{_NUMBER_MARK})")
_TABLE_RULE = re.compile(r"[ \t]*+\|?+(?=[ \t:|]*-)(?:[ \t]*+:?+-++:?+[ \t]*+(?:\||$)){1,64}+[ \t]*+")
_HEADING = re.compile(r"[ \t]*+#{1,6}(?:[ \t]|(?=[^\W\d_a-zA-Z][^#]*+$))")
_CODE = re.compile(r"[ \t]*+(```|~~~)[^`]*+$")
_DIVIDER = re.compile(r"[ \t]*+(?:\*[ \t]*+){3,}+$|[ \t]*+(?:-[ \t]*+){3,}+$|[ \t]*+(?:_[ \t]*+){3,}+$")
# Each run of stops is looked at once, from its start.
_SENTENCE_END = re.compile(r"(?:(?<![.!?…।॥؟۔])[.!?…।॥؟۔]++|[。！？]++)[\"')\]*_»}」』]*+")
_VISIBLE = re.compile(r"\S")
_LAST_WORD = re.compile(r"[^\s(\"'\[]+$")
# Speech goes on after its closing mark: with a small letter, or with who says it.
_CLOSING_QUOTE = re.compile(r"[\"'»」』]")
_SAYS = re.compile(r"[^\W\d_]{1,6}?(?:(?<!小)说|问(?!题)|喊|回答|叫道|笑道)")
# What never ends a sentence, what does so before neither names nor numbers, what is a word of its own unless a number
# follows, and what ends a sentence before a capital letter alone.
_INNER = frozenset({"e.g", "i.e", "cf", "vs"})
_ABBREVIATED = "capt hon rev sgt approx u.s u.k a.m p.m al dept est"
_ABBREVIATIONS = NAME_ABBREVIATIONS | frozenset(_ABBREVIATED.split())
_BEFORE_NUMBERS = frozenset({"no", "fig"})
_UNITS = "etc mon thu thur thurs ft lb lbs oz kg km cm mm hr hrs yr yrs"
_BEFORE_CAPITALS = DATE_ABBREVIATIONS | frozenset(_UNITS.split())
_INITIALS = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})++")  # "Ph.D", "a.k.a"
_NUMERALS = frozenset("一二三四五六七八九十")  # "一.苹果" is an item
# Words that open sentences and that neither a name nor a time zone starts with, in capitals.
_OPENING_WORDS = """
a an the this that these those there here i you he she it we they my your his her its our their
then so but and or if when while after before because although however therefore thus also what why how who where
"""
_OPENING = frozenset(_OPENING_WORDS.split())
_NEXT_WORD = re.compile(r"[\"'(*_]*+([^\W\d_]++)(?!\.)")


def clean(text: str) -> str:
    """NFC, without invisible characters and outer white space, with straight quotes and hyphens and one line end."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").translate(_TRANSLATE).strip()


@remember(maxsize=256)
def fold(text: str) -> str:
    """`clean`, without case: what phrases are compared in."""
    return unicodedata.normalize("NFC", clean(text).casefold())


@remember(maxsize=256)
def words(text: str) -> tuple[str, ...]:
    """Words of clean text. "don't", "well-known" and "3.5" are one word each; a CJK character is a word."""
    return tuple(m.group() for m in _WORD.finditer(text))


def word_parts(text: str) -> frozenset[str]:
    """Everything that can stand alone in the words of folded text: two texts without a common part share no word."""
    return frozenset(part for word in words(text) for part in re.split(r"['\-.,]", word) if part)


def is_wordy(char: str) -> bool:
    """Part of a word in any script."""
    return char.isalnum() or is_word_char(char)


def is_word_char(char: str) -> bool:
    """A letter, digit or combining mark of a script that separates words."""
    return _WORD_CHAR.match(char) is not None


def _is_cjk(char: str) -> bool:
    return "\u3040" <= char <= "\u9fff"


# --- phrases


@lru_cache(maxsize=256)
def _phrase_pattern(folded_phrase: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join(re.escape(part) for part in folded_phrase.split()))


@remember(maxsize=64)
def _boundaries(folded: str) -> tuple[frozenset[int], frozenset[int]]:
    """Where words start, and where a phrase may end: a word's end, before "'s", after a compound's first part."""
    starts: set[int] = set()
    ends: set[int] = set()
    for match in _WORD.finditer(folded):
        word = match.group()
        starts.add(match.start())
        ends.add(match.end())
        if word.endswith("'s"):
            ends.add(match.end() - 2)
        first = _FIRST_PART.match(word)
        if first is not None:
            ends.add(match.start() + first.end())
    return frozenset(starts), frozenset(ends)


def _is_loose(folded: str, start: int, end: int) -> bool:
    """No letter continues the phrase on either side."""
    before = start > 0 and is_word_char(folded[start]) and is_word_char(folded[start - 1])
    after = end < len(folded) and is_word_char(folded[end - 1]) and is_word_char(folded[end])
    return not before and not after


def _is_whole(folded: str, start: int, end: int) -> bool:
    """The phrase starts where a word starts and ends where one ends (edges that are punctuation are free)."""
    starts, ends = _boundaries(folded)
    return (start in starts or not is_wordy(folded[start])) and (end in ends or not is_wordy(folded[end - 1]))


def count_phrase(folded: str, phrase: str, *, whole_words: bool) -> int:
    """Occurrences of a phrase in folded text, none overlapping; white space may vary, punctuation may not.

    With `whole_words` an occurrence uses up words of its own: "river" is in "river's" and once in "river-bank", not in
    "up-river". Without it, any "river" counts that no letter continues. The first never exceeds the second. So a demand
    for a word is held to the first count and a ban to the second, and together they can be reasoned about.
    """
    pattern = _phrase_pattern(fold(phrase))
    if not pattern.pattern:
        return 0
    found, position = 0, 0
    while (match := pattern.search(folded, position)) is not None:
        start, end = match.span()
        if _is_loose(folded, start, end) and (not whole_words or _is_whole(folded, start, end)):
            found += 1
            position = end
        else:
            position = start + 1
    return found


# --- the two ends

_OPENERS = " \t\n\r\"'*_#>`([{+-–•◦‣▪●○■·「『"
_CLOSERS = " \t\n\r\"'*_`)]}>」』"
_STOPS = ".!?…。！？।॥؟۔"


def phrase_core(phrase: str) -> str:
    """A start or end phrase in folded form, without the stop or comma that belongs to the sentence around it."""
    return " ".join(fold(phrase).strip("\"'「」『』").rstrip(".,;: ").split())


def starts_with(text: str, phrase: str) -> bool:
    """The phrase comes first, after quotation marks, a title on a line of its own, and list or emphasis marks."""
    folded, core = fold(text), phrase_core(phrase)
    body = folded.lstrip("\"' \t\n「『")
    title = _LEADING_TITLE.match(body)
    body = body[title.end() :] if title is not None else body
    body = body.lstrip(_OPENERS) if is_wordy(core[:1]) else body.lstrip()
    match = _phrase_pattern(core).match(body)
    return bool(core) and match is not None and _is_whole(body, 0, match.end())


def ends_with(text: str, phrase: str) -> bool:
    """The phrase comes last, but for closing marks and the sentence's own stop."""
    core = phrase_core(phrase)
    folded = fold(text)
    pattern = re.compile(_phrase_pattern(core).pattern + r"\Z")
    for body in (folded, folded.rstrip(_CLOSERS), folded.rstrip(_STOPS + _CLOSERS)):
        match = pattern.search(body, max(0, len(body) - 4 * len(core) - 16))
        if core and match is not None and _is_whole(body, match.start(), match.end()):
            return True
    return False


# --- units


def titles(text: str) -> list[str]:
    """Texts in <<double angle brackets>> that hold a word."""
    return [inner for inner in _TITLE.findall(text) if words(inner)]


def _in_code(lines: list[str]) -> list[bool]:
    """Which lines are in a block of code that is closed, or are its fences."""
    flags = [False] * len(lines)
    start, mark = 0, ""
    for number, line in enumerate(lines):
        fence = _CODE.match(line)
        if fence is None:
            continue
        if not mark:
            start, mark = number, fence[1]
        elif fence[1] == mark and line.strip() == mark:
            flags[start : number + 1] = [True] * (number + 1 - start)
            mark = ""
    return flags


def lines_without_code(text: str) -> list[str]:
    """The lines outside of blocks of code, where a list mark or a bracket is what it looks like."""
    lines = text.split("\n")
    if "```" not in text and "~~~" not in text:
        return lines
    return [line for line, is_code in zip(lines, _in_code(lines), strict=True) if not is_code]


def bullets(text: str, mark: str | None = None) -> list[str]:
    """Contents of bullet lines ("* x", "- x", "•x") that hold a word; of those with this mark, if given."""
    lines = [line for line in lines_without_code(text.strip('"')) if not _DIVIDER.match(line)]
    lines = [line for line in lines if _BULLET.match(line) and (mark is None or line.lstrip(" \t").startswith(mark))]
    items = [_BULLET.sub("", line, count=1) for line in lines]
    return [item for item in items if words(item)]


def numbered_items(text: str) -> list[str]:
    """Contents of lines such as "1. x", "2) x", "**3. x**" and "4、文" that hold a word."""
    lines = [line for line in lines_without_code(text.strip('"')) if _NUMBERED.match(line)]
    items = [_NUMBERED.sub("", line, count=1) for line in lines]
    return [item for item in items if words(item)]


def items(text: str) -> list[str]:
    """List items: bullets if there are any, else the items of numbered lists."""
    return bullets(text) or numbered_items(text)


def headings(text: str) -> list[str]:
    """Markdown headings ("# x" to "###### x", "#文") that hold a word."""
    return [line for line in lines_without_code(text) if _HEADING.match(line) and words(line)]


def count_tables(text: str) -> int:
    """Markdown tables: a row of cells with a row of dashes under it."""
    lines = text.split("\n")
    return sum("|" in upper and _TABLE_RULE.fullmatch(lower) is not None for upper, lower in pairwise(lines))


def _is_frame(line: str) -> bool:
    """A line that is no prose: a divider, a heading, a title alone, also within quotation marks."""
    bare = line.strip(' \t"')
    return bool(_DIVIDER.match(bare) or _HEADING.match(bare) or _TITLE.fullmatch(bare))


def paragraphs(text: str, divider: str | None = None) -> list[str]:
    """Paragraphs that hold a sentence, separated by blank lines or rules; by `divider` alone where one is named.

    A list of items that no stop ends is none, nor is a heading; parts between dividers need a word only. A block of
    code is never cut, so that what is code in the whole text is code in its paragraph.
    """
    if divider is not None:
        return [part for part in text.split(divider) if words(part)]
    parts: list[str] = []
    current: list[str] = []
    lines = [*text.split("\n"), ""]
    for line, is_code in zip(lines, _in_code(lines), strict=True):
        if is_code or (line.strip() and not _DIVIDER.match(line)):
            current.append(line)
        elif current:
            parts.append("\n".join(current))
            current = []
    return [part for part in parts if sentences(part)]


def _sentence_blocks(text: str) -> list[tuple[bool, str]]:
    """(is a list item, text) runs of prose within which a line break ends no sentence.

    What a line is does not depend on other lines, so what is a sentence in a paragraph is one in the whole text.
    """
    blocks: list[tuple[bool, str]] = []
    open_block = False
    for line in text.split("\n"):
        if not line.strip() or _is_frame(line):
            open_block = False
            continue
        item = _ITEM.match(line)
        if item is not None:
            blocks.append((True, line[item.end() :]))
        elif open_block:
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + "\n" + line)
        else:
            blocks.append((False, line))
        open_block = True
    return blocks


def _ends_sentence(block: str, match: re.Match[str], *, in_quotes: bool, in_capitals: bool) -> bool:
    """False for the stops of abbreviations, initials and speech, and for an ellipsis that the sentence goes on after.

    `in_quotes`: after an odd number of straight quotation marks; `in_capitals`: so is the whole block.
    """
    following = _VISIBLE.search(block, match.end())
    if following is None:
        return True
    closes = _CLOSING_QUOTE.search(match.group()) is not None
    if closes and following.group().islower():
        return False
    if closes and (in_quotes or '"' not in match.group()) and _SAYS.match(block, match.end()) is not None:
        return False
    if match.group()[0] in "。！？":
        return True
    if following.start() == match.end():
        return _ends_unspaced(block, match)
    if match.group()[0] == "…" or match.group().startswith(".."):
        return not following.group().islower()
    return match.group() != "." or _stop_ends(block, match, following, in_capitals=in_capitals)


def _ends_unspaced(block: str, match: re.Match[str]) -> bool:
    """Whether marks of ASCII end a sentence without white space: before a CJK character, a single stop between two."""
    if not _is_cjk(block[match.end()]):
        return False
    if "!" in match.group() or "?" in match.group():
        return True
    before = block[match.start() - 1 : match.start()]
    return match.group().rstrip(_CLOSERS) == "." and _is_cjk(before) and before not in _NUMERALS


def _stop_ends(block: str, match: re.Match[str], following: re.Match[str], *, in_capitals: bool) -> bool:
    """`_ends_sentence` of a single stop, by the word before it and what follows.

    "Plan B. Then", "5 p.m. Then": a single capital letter or "p.m." may end a sentence or not ("J. Bond", "5 p.m.
    Eastern"). Names follow initials and abbreviations far more often than sentences do, so the stop ends nothing,
    unless the next word is one that opens sentences and no names.
    """
    last = _LAST_WORD.search(block, max(0, match.start() - 24), match.start())
    word = last.group() if last is not None else ""
    folded = word.casefold()
    if folded in _INNER:
        return False
    if folded in _BEFORE_NUMBERS:
        return not following.group().isdigit()
    goes_on = following.group().islower() or following.group().isdigit()
    if goes_on and (folded in _BEFORE_CAPITALS or _INITIALS.fullmatch(word) is not None):
        return False
    opener = _NEXT_WORD.match(block, following.start())
    if opener is not None and opener[1][0].isupper() and opener[1].casefold() in _OPENING:
        return True
    initial = len(word) == 1 and word.isupper() and word != "I" and following.group().isupper() and not in_capitals
    return folded not in _ABBREVIATIONS and not initial


def sentences(text: str) -> list[str]:
    """Sentences that hold a word. Titles and headings are none; a list item is one only where a stop ends it."""
    found: list[str] = []
    for is_item, block in _sentence_blocks(text):
        start, in_capitals = 0, block.isupper()
        quotes = counted = 0
        for match in _SENTENCE_END.finditer(block):
            quotes, counted = quotes + block.count('"', counted, match.start()), match.start()
            if _ends_sentence(block, match, in_quotes=quotes % 2 == 1, in_capitals=in_capitals):
                found.append(block[start : match.end()])
                start = match.end()
        if not is_item:
            found.append(block[start:])
    return [sentence.strip() for sentence in found if words(sentence)]
