"""Which language a text is in.

`detect_language` is langdetect as the public IFEval checkers use it, with a fixed seed. langdetect draws random numbers
and keeps them in a module-wide factory. This factory is our own, made once, and each text gets a detector with a fresh
seed, so that one text has one answer in every thread.

`language_problem` is our own definition: the script decides where it can (langdetect takes short Chinese for Korean),
small words tell English, and langdetect is asked only for the rest and only about texts long enough for it.
"""

from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import langdetect  # pyright: ignore[reportMissingTypeStubs]
from langdetect.lang_detect_exception import LangDetectException  # pyright: ignore[reportMissingTypeStubs]

from seif_nemo.constraints.remembering import remember
from seif_nemo.constraints.text import words

MAX_CHARACTERS = 5_000  # langdetect itself looks at 10,000; the language of a text shows well before
SAMPLE = 600  # characters that `language_problem` shows to langdetect, whose time grows with them
SHORT = 20  # letters; of fewer, langdetect's profiles know too little

# First character of a block of Unicode, its last one, its script. Blocks not named here are "other".
_BLOCKS = (
    (0x0041, 0x024F, "latin"),
    (0x0370, 0x03FF, "greek"),
    (0x0400, 0x052F, "cyrillic"),
    (0x0530, 0x058F, "armenian"),
    (0x0590, 0x05FF, "hebrew"),
    (0x0600, 0x077F, "arabic"),
    (0x0900, 0x097F, "devanagari"),
    (0x0980, 0x09FF, "bengali"),
    (0x0A00, 0x0A7F, "gurmukhi"),
    (0x0A80, 0x0AFF, "gujarati"),
    (0x0B80, 0x0BFF, "tamil"),
    (0x0C00, 0x0C7F, "telugu"),
    (0x0C80, 0x0CFF, "kannada"),
    (0x0D00, 0x0D7F, "malayalam"),
    (0x0E00, 0x0E7F, "thai"),
    (0x10A0, 0x10FF, "georgian"),
    (0x1100, 0x11FF, "hangul"),
    (0x1E00, 0x1EFF, "latin"),
    (0x3040, 0x30FF, "kana"),
    (0x3130, 0x318F, "hangul"),
    (0x3400, 0x4DBF, "han"),
    (0x4E00, 0x9FFF, "han"),
    (0xAC00, 0xD7AF, "hangul"),
    (0xF900, 0xFAFF, "han"),
)
_STARTS = [first for first, _, _ in _BLOCKS]
# Languages of each script that is not Latin.
_LANGUAGES = {
    "han": "zh",
    "kana": "ja",
    "hangul": "ko",
    "greek": "el",
    "armenian": "hy",
    "hebrew": "he",
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "thai": "th",
    "georgian": "ka",
    "cyrillic": "ru uk bg mk sr kk",
    "arabic": "ar fa ur",
    "devanagari": "hi mr ne",
}
_SCRIPTS = {code: script for script, codes in _LANGUAGES.items() for code in codes.split()}
_SHARED = frozenset({"latin", "cyrillic", "arabic", "devanagari"})  # scripts of several languages here
# Words that English text is full of and that no other language with its letters spells so often.
_ENGLISH_WORDS = """
the of and to is that it for with are this from by which you have has been their they its can be at will would should
there these those how what when who your my his her our not but into about more than through while
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_ENGLISH_SHARE, _ENGLISH_HITS = 0.15, 2
_POSSIBLE = 0.1  # probability below which langdetect does not list a language


@lru_cache(maxsize=1)
def _factory() -> Any:
    factory: Any = langdetect.DetectorFactory()
    profiles = sorted((Path(langdetect.__file__).parent / "profiles").iterdir())  # a file system has its own order
    factory.load_json_profile([path.read_text(encoding="utf-8") for path in profiles if path.suffix == ""])
    factory.seed = 0
    return factory


@remember(maxsize=1024)
def detect_language(text: str) -> str | None:
    """ISO 639-1 code, with a region for Chinese ("zh-cn", "zh-tw"). None for a text without words of any language.

    langdetect reads the first 10,000 characters, but for addresses.
    """
    detector = _factory().create()
    detector.append(text)
    try:
        found = str(detector.detect())
    except LangDetectException:
        return None
    return None if found == "unknown" else found


@remember(maxsize=1024)
def _likely_languages(text: str) -> tuple[str, ...]:
    """Codes that langdetect gives a probability of `_POSSIBLE` at least, the most probable first."""
    detector = _factory().create()
    detector.append(text)
    try:
        return tuple(str(item.lang) for item in detector.get_probabilities() if item.prob >= _POSSIBLE)
    except LangDetectException:
        return ()


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    at = bisect_right(_STARTS, ord(char)) - 1
    return _BLOCKS[at][2] if at >= 0 and ord(char) <= _BLOCKS[at][1] else "other"


@remember(maxsize=256)
def _word_scripts(text: str) -> Counter[str]:
    """Words of each script; a CJK character is a word. Words without a letter are left out."""
    firsts = (next((char for char in word if char.isalpha()), "") for word in words(text[:MAX_CHARACTERS]))
    return Counter(_script(char) for char in firsts if char)


def _is_english(text: str) -> bool:
    said = [word.casefold() for word in words(text[:MAX_CHARACTERS])]
    hits = sum(word in _ENGLISH for word in said)
    return hits >= _ENGLISH_HITS and hits >= _ENGLISH_SHARE * len(said)


def language_problem(text: str, code: str) -> str | None:
    """Why clean text is not in the language of this ISO 639-1 code; None if it is, or if it is too short to tell.

    Half of the words must be of the language's script. A region ("zh-cn") is not looked at.
    """
    code = code.split("-")[0]
    scripts = _word_scripts(text)
    total = sum(scripts.values())
    wanted = _SCRIPTS.get(code, "latin")
    own = scripts[wanted] + (scripts["han"] if code in ("ja", "ko") else 0)
    most = max(scripts, key=lambda s: scripts[s]) if scripts else "no"
    if total == 0 or 2 * own < total:
        return f"is in {most} script, not in {code!r}"
    if code == "zh" and 5 * scripts["kana"] > total:
        return f"holds kana, not only {code!r}"
    if code in ("ja", "ko") and scripts[wanted] == 0 and own > 4:
        return f"is in han script without any {wanted}, not in {code!r}"
    if wanted not in _SHARED:
        return None
    if wanted == "latin" and _is_english(text):
        return None if code == "en" else f"is in 'en', not in {code!r}"
    likely = _likely_languages(text[:SAMPLE]) if sum(map(str.isalpha, text[:SAMPLE])) >= SHORT else ()
    return None if not likely or code in likely else f"is in {likely[0]!r}, not in {code!r}"
