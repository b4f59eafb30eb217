"""Which language a text is in: langdetect's profiles, the ones the IFEval checkers use, with a fixed seed.

langdetect draws random numbers and keeps them in a module-wide factory. This factory is our own, made once, and each
text gets a detector with a fresh seed, so that one text has one answer in every thread.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import langdetect  # pyright: ignore[reportMissingTypeStubs]
from langdetect.lang_detect_exception import LangDetectException  # pyright: ignore[reportMissingTypeStubs]

MAX_CHARACTERS = 5_000  # langdetect itself looks at 10,000; the language of a text shows well before


@lru_cache(maxsize=1)
def _factory() -> Any:
    factory: Any = langdetect.DetectorFactory()
    factory.load_profile(str(Path(langdetect.__file__).parent / "profiles"))
    factory.seed = 0
    return factory


@lru_cache(maxsize=1024)
def detect_language(text: str) -> str | None:
    """ISO 639-1 code, with a region for Chinese ("zh-cn", "zh-tw"). None for a text without words of any language."""
    detector = _factory().create()
    detector.append(text[:MAX_CHARACTERS])
    try:
        found = str(detector.detect())
    except LangDetectException:
        return None
    return None if found == "unknown" else found
