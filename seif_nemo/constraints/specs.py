"""Specs as values: which fields a kind uses, validation, JSON."""

import json
import re
from typing import Any, cast

from seif_nemo.constraints.text import fold, phrase_core, words
from seif_nemo.types.constraints import Definition, Kind, Scope, Spec

MAX_BOUND = 100_000  # more of anything than any response holds
MAX_TEXT = 200
MAX_LONG_TEXT = 20_000  # of a prompt to repeat and a list of allowed answers
MAX_INDEX = 1000

# Kinds without bounds: they hold or they do not.
WHOLE_KINDS = frozenset(
    {
        Kind.UPPERCASE,
        Kind.LOWERCASE,
        Kind.STARTS_WITH,
        Kind.ENDS_WITH,
        Kind.TITLE,
        Kind.QUOTED,
        Kind.JSON,
        Kind.MARKDOWN,
        Kind.BOLD,
        Kind.EMPHASIS,
        Kind.LANGUAGE,
        Kind.POSTSCRIPT,
        Kind.REPEAT_PROMPT,
        Kind.TWO_RESPONSES,
        Kind.ONE_OF,
    }
)
COUNT_KINDS = frozenset(Kind) - WHOLE_KINDS - {Kind.PARAGRAPH_START}
TEXT_KINDS = frozenset(
    {
        Kind.KEYWORD,
        Kind.KEYWORDS,
        Kind.LETTER,
        Kind.BOLD,
        Kind.EMPHASIS,
        Kind.SECTIONS,
        Kind.SEPARATORS,
        Kind.STARTS_WITH,
        Kind.ENDS_WITH,
        Kind.LANGUAGE,
        Kind.POSTSCRIPT,
        Kind.TWO_RESPONSES,
        Kind.ONE_OF,
        Kind.PARAGRAPH_START,
    }
)
# Kinds whose text holds several phrases, one per line.
LIST_KINDS = frozenset({Kind.KEYWORDS, Kind.BOLD, Kind.EMPHASIS, Kind.ONE_OF})
LONG_TEXT_KINDS = frozenset({Kind.REPEAT_PROMPT, Kind.ONE_OF, Kind.KEYWORDS})
# Kinds that every response has some of, so that a limit of 0 is nonsense.
NEVER_ZERO = frozenset({Kind.WORDS, Kind.CHARACTERS, Kind.LINES, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.PARAGRAPH_START})
NTH_SCOPES = frozenset({Scope.NTH_PARAGRAPH, Scope.NTH_SENTENCE, Scope.NTH_ITEM})
PARAGRAPH_DIVIDER = "***"
BOLD_MARK = "**"
# Kinds whose text is a choice or left out.
CHOSEN_TEXTS: dict[Kind, tuple[str, ...]] = {
    Kind.PARAGRAPHS: (PARAGRAPH_DIVIDER,),
    Kind.BULLETS: ("*", "-", "+", "•"),
    Kind.HIGHLIGHTS: (BOLD_MARK,),
}

_FIELDS = ("kind", "low", "high", "text", "scope", "index", "definition")
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2})?")


def validate(spec: Spec) -> Spec:
    """The same spec, if its fields fit its kind. Raises ValueError that names the field and the value otherwise."""
    where = f"spec of kind {spec.kind.value}"
    if spec.low < 0 or spec.low > MAX_BOUND:
        raise ValueError(f"{where}: low={spec.low} must be in [0, {MAX_BOUND}]")
    if spec.high is not None and not spec.low <= spec.high <= MAX_BOUND:
        raise ValueError(f"{where}: high={spec.high} must be in [low={spec.low}, {MAX_BOUND}] or None")
    if spec.kind in WHOLE_KINDS and (spec.low != 0 or spec.high is not None):
        raise ValueError(f"{where}: low={spec.low}, high={spec.high} but this kind counts nothing; leave them out")
    if spec.kind in COUNT_KINDS and spec.low == 0 and spec.high is None:
        raise ValueError(f"{where}: low=0, high=None demands nothing; set one of them")
    if spec.kind in NEVER_ZERO and spec.high == 0:
        raise ValueError(f"{where}: high=0 no response can satisfy; the least is 1")
    _validate_index(spec, where)
    _validate_text(spec, where)
    return spec


def _validate_index(spec: Spec, where: str) -> None:
    needs_index = spec.kind is Kind.PARAGRAPH_START or spec.scope in NTH_SCOPES
    if needs_index != (spec.index is not None):
        what = "one of 1, 2, … or -1, -2, …" if needs_index else "None"
        raise ValueError(f"{where}, scope {spec.scope.value}: index={spec.index} must be {what}")
    if spec.index is not None and not 1 <= abs(spec.index) <= MAX_INDEX:
        raise ValueError(f"{where}: index={spec.index} must be from 1 to {MAX_INDEX} or, from the end, from -1")
    if spec.kind is Kind.PARAGRAPH_START and spec.scope is not Scope.RESPONSE:
        raise ValueError(f"{where}: scope={spec.scope.value} must be response")


def _validate_text(spec: Spec, where: str) -> None:
    if spec.kind in CHOSEN_TEXTS:
        if spec.text is not None and spec.text not in CHOSEN_TEXTS[spec.kind]:
            choices = " or ".join(map(repr, CHOSEN_TEXTS[spec.kind]))
            what = ", the divider" if spec.kind is Kind.PARAGRAPHS else ""
            raise ValueError(f"{where}: text={spec.text!r} must be None or {choices}{what}")
        return
    if spec.text is None and spec.kind in (Kind.REPEAT_PROMPT, Kind.MARKS, Kind.UPPERCASE, Kind.LOWERCASE):
        return
    if spec.kind is Kind.MARKS:
        if not spec.text or len(spec.text) > MAX_TEXT or any(c.isalnum() or c.isspace() for c in spec.text):
            raise ValueError(f"{where}: text={spec.text!r} must be None or punctuation marks without white space")
        return
    if spec.kind in (Kind.UPPERCASE, Kind.LOWERCASE, Kind.LANGUAGE):
        if _LANGUAGE_CODE.fullmatch(spec.text or "") is None:
            raise ValueError(f"{where}: text={spec.text!r} must be an ISO 639-1 code, such as 'en' or 'zh-cn'")
        return
    if spec.kind not in TEXT_KINDS | LONG_TEXT_KINDS:
        if spec.text is not None:
            raise ValueError(f"{where}: text={spec.text!r} but this kind takes none; leave it out")
        return
    longest = MAX_LONG_TEXT if spec.kind in LONG_TEXT_KINDS else MAX_TEXT
    if spec.text is None or not fold(spec.text) or len(spec.text) > longest:
        raise ValueError(f"{where}: text={spec.text!r} must be 1 to {longest} visible characters")
    if spec.kind in LIST_KINDS and not all(fold(line) for line in spec.text.split("\n")):
        raise ValueError(f"{where}: text={spec.text!r} must hold a phrase in each line")
    if spec.kind is Kind.LETTER and (len(spec.text) != 1 or spec.text.isspace()):
        raise ValueError(f"{where}: text={spec.text!r} must be one character")
    if spec.kind is Kind.SECTIONS and not words(spec.text):
        raise ValueError(f"{where}: text={spec.text!r} must hold a word, such as 'Section'")
    if spec.kind in (Kind.STARTS_WITH, Kind.ENDS_WITH) and not phrase_core(spec.text):
        raise ValueError(f"{where}: text={spec.text!r} must be more than punctuation that a sentence ends with")


def spec_to_fields(spec: Spec) -> dict[str, str | int | None]:
    """The spec as plain JSON values; all fields, in a fixed order."""
    return {
        "kind": spec.kind.value,
        "low": spec.low,
        "high": spec.high,
        "text": spec.text,
        "scope": spec.scope.value,
        "index": spec.index,
        "definition": spec.definition.value,
    }


def spec_from_fields(fields: dict[str, Any]) -> Spec:
    """Inverse of `spec_to_fields`. Raises ValueError for missing, unknown or ill-typed fields and misfit values."""
    if sorted(fields) != sorted(_FIELDS):
        raise ValueError(f"spec fields {sorted(fields)} must be exactly {sorted(_FIELDS)}")
    kind, low, high, text, scope, index, definition = (fields[name] for name in _FIELDS)
    kinds, scopes, definitions = ([member.value for member in enum] for enum in (Kind, Scope, Definition))
    if kind not in kinds:
        raise ValueError(f"spec kind={kind!r} must be one of {kinds}")
    if scope not in scopes:
        raise ValueError(f"spec scope={scope!r} must be one of {scopes}")
    if definition not in definitions:
        raise ValueError(f"spec definition={definition!r} must be one of {definitions}")
    if index is not None and type(index) is not int:
        raise ValueError(f"spec index={index!r} must be an integer or null")
    if type(low) is not int:
        raise ValueError(f"spec low={low!r} must be an integer")
    if high is not None and type(high) is not int:
        raise ValueError(f"spec high={high!r} must be an integer or null")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"spec text={text!r} must be a string or null")
    return validate(
        Spec(
            kind=Kind(kind),
            low=low,
            high=high,
            text=text,
            scope=Scope(scope),
            index=index,
            definition=Definition(definition),
        )
    )


def spec_to_json(spec: Spec) -> str:
    """One line of canonical JSON: equal specs give equal strings."""
    return json.dumps(spec_to_fields(spec), ensure_ascii=False, separators=(",", ":"))


def spec_from_json(text: str) -> Spec:
    """Inverse of `spec_to_json`. Raises ValueError if `text` is not JSON of a valid spec."""
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError("spec JSON is nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError(f"spec JSON must be an object, not {type(fields).__name__}")
    return spec_from_fields(cast(dict[str, Any], fields))
