"""Specs and the instruction ids and kwargs of IFEval (arXiv 2311.07911; instructions_registry.py of its release).

IFEval's relation is "at least" or "less than", so an interval becomes two items. What no id can say gets the id
"seif:<kind>" with the spec's own fields as kwargs, never a dummy.

Ids are read as specs with IFEval's own definition, unless the caller asks for ours: one spec per item, as an
instruction of IFEval has one verdict. Under IFEval's definition a list of words is always `Kind.KEYWORDS` and a keyword
to count is `Kind.KEYWORD`: their rules differ.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from seif_nemo.constraints.specs import PARAGRAPH_DIVIDER, spec_from_fields, spec_to_fields, validate
from seif_nemo.types.constraints import Definition, Kind, Scope, Spec

KwargValue = str | int | None | list[str]
ONE_OF_OPTIONS = "My answer is yes.\nMy answer is no.\nMy answer is maybe."  # IFEval's id has no kwargs for them
AT_LEAST, LESS_THAN = "at least", "less than"
_OWN = "seif:"


@dataclass(frozen=True, slots=True)
class IfevalItem:
    """An instruction id and its kwargs, JSON values only."""

    instruction_id: str
    kwargs: Mapping[str, KwargValue]


ToItems = Callable[[Spec], list[IfevalItem]]
FromKwargs = Callable[[Mapping[str, object], Definition], Spec]


def _integer(kwargs: Mapping[str, object], name: str) -> int:
    value = kwargs.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # data frames turn integer columns with gaps into floats
    if type(value) is not int:
        raise ValueError(f"kwargs[{name!r}]={value!r} must be an integer")
    return value


def _text(kwargs: Mapping[str, object], name: str) -> str:
    value = kwargs.get(name)
    if not isinstance(value, str):
        raise ValueError(f"kwargs[{name!r}]={value!r} must be a string")
    return value


def _texts(kwargs: Mapping[str, object], name: str) -> list[str]:
    value = kwargs.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in cast(list[object], value)):
        raise ValueError(f"kwargs[{name!r}]={value!r} must be a list of strings")
    return cast(list[str], value)


# --- forms that several ids share


@dataclass(frozen=True, slots=True)
class _Form:
    """How one id writes its spec. `matches` says whether the id can express all of a spec."""

    instruction_id: str
    kinds: tuple[Kind, ...]
    names: tuple[str, ...]  # kwargs it knows
    to_items: Callable[[Spec], list[dict[str, KwargValue]] | None]
    from_kwargs: FromKwargs


def _relation_form(instruction_id: str, kind: Kind, number: str, relation: str, text: str | None = None) -> _Form:
    """An id with a number and a relation, such as length_constraints:number_words."""

    def to_items(spec: Spec) -> list[dict[str, KwargValue]]:
        extra: dict[str, KwargValue] = {} if text is None else {text: spec.text}
        items: list[dict[str, KwargValue]] = []
        if spec.low > 0:
            items.append({**extra, number: spec.low, relation: AT_LEAST})
        if spec.high is not None:
            items.append({**extra, number: spec.high + 1, relation: LESS_THAN})
        return items

    def from_kwargs(kwargs: Mapping[str, object], _: Definition) -> Spec:
        n, comparison = _integer(kwargs, number), _text(kwargs, relation)
        if comparison not in (AT_LEAST, LESS_THAN):
            raise ValueError(f"kwargs[{relation!r}]={comparison!r} must be {AT_LEAST!r} or {LESS_THAN!r}")
        word = None if text is None else _text(kwargs, text)
        low, high = (n, None) if comparison == AT_LEAST else (0, n - 1)
        return Spec(kind, low=low, high=high, text=word)

    names = (number, relation) if text is None else (number, relation, text)
    return _Form(instruction_id, (kind,), names, to_items, from_kwargs)


def _exact_form(instruction_id: str, kind: Kind, number: str, text: str | None = None) -> _Form:
    def to_items(spec: Spec) -> list[dict[str, KwargValue]] | None:
        return [{number: spec.low}] if spec.low == spec.high and spec.text == text else None

    def from_kwargs(kwargs: Mapping[str, object], _: Definition) -> Spec:
        n = _integer(kwargs, number)
        return Spec(kind, low=n, high=n, text=text)

    return _Form(instruction_id, (kind,), (number,), to_items, from_kwargs)


def _least_form(instruction_id: str, kind: Kind, number: str, text: str | None = None) -> _Form:
    def to_items(spec: Spec) -> list[dict[str, KwargValue]] | None:
        extra: dict[str, KwargValue] = {} if text is None else {text: spec.text}
        is_least = spec.low > 0 and spec.high is None and (text is None) == (spec.text is None)
        return [{**extra, number: spec.low}] if is_least else None

    def from_kwargs(kwargs: Mapping[str, object], _: Definition) -> Spec:
        return Spec(kind, low=_integer(kwargs, number), text=None if text is None else _text(kwargs, text))

    return _Form(instruction_id, (kind,), (number,) if text is None else (number, text), to_items, from_kwargs)


def _plain_form(instruction_id: str, spec: Spec) -> _Form:
    """An id without kwargs: it says exactly this spec."""

    def to_items(given: Spec) -> list[dict[str, KwargValue]] | None:
        return [{}] if replace(given, definition=spec.definition) == spec else None

    return _Form(instruction_id, (spec.kind,), (), to_items, lambda _, __: spec)


def _list_form(instruction_id: str, low: int, high: int | None, name: str) -> _Form:
    """keywords:existence and keywords:forbidden_words."""

    def to_items(spec: Spec) -> list[dict[str, KwargValue]] | None:
        is_list = spec.kind is Kind.KEYWORDS or spec.definition is Definition.OURS
        if not is_list or (spec.low, spec.high) != (low, high) or spec.text is None:
            return None
        return [{name: spec.text.split("\n") if spec.kind is Kind.KEYWORDS else [spec.text]}]

    def from_kwargs(kwargs: Mapping[str, object], definition: Definition) -> Spec:
        texts = _texts(kwargs, name)
        if len(texts) == 1 and definition is Definition.OURS:
            return Spec(Kind.KEYWORD, low=low, high=high, text=texts[0])
        broken = [text for text in texts if "\n" in text]
        if broken:
            raise ValueError(f"kwargs[{name!r}]: {broken[0]!r} must be on one line")
        return Spec(Kind.KEYWORDS, low=low, high=high, text="\n".join(texts))

    return _Form(instruction_id, (Kind.KEYWORD, Kind.KEYWORDS), (name,), to_items, from_kwargs)


def _text_form(instruction_id: str, kind: Kind, name: str) -> _Form:
    """An id with nothing but a text."""
    return _Form(
        instruction_id,
        (kind,),
        (name,),
        lambda spec: None if spec.text is None else [{name: spec.text}],
        lambda kwargs, _: Spec(kind, text=_text(kwargs, name)),
    )


def _paragraph_start_form(instruction_id: str) -> _Form:
    def to_items(spec: Spec) -> list[dict[str, KwargValue]] | None:
        if spec.low != spec.high or spec.index is None or spec.index < 1:
            return None
        return [{"num_paragraphs": spec.low, "nth_paragraph": spec.index, "first_word": spec.text}]

    def from_kwargs(kwargs: Mapping[str, object], _: Definition) -> Spec:
        count, index = _integer(kwargs, "num_paragraphs"), _integer(kwargs, "nth_paragraph")
        return Spec(Kind.PARAGRAPH_START, low=count, high=count, text=_text(kwargs, "first_word"), index=index)

    names = ("num_paragraphs", "nth_paragraph", "first_word")
    return _Form(instruction_id, (Kind.PARAGRAPH_START,), names, to_items, from_kwargs)


# The first form of a kind that can express a spec is used.
FORMS: tuple[_Form, ...] = (
    _relation_form("length_constraints:number_words", Kind.WORDS, "num_words", "relation"),
    _relation_form("length_constraints:number_sentences", Kind.SENTENCES, "num_sentences", "relation"),
    _exact_form("length_constraints:number_paragraphs", Kind.PARAGRAPHS, "num_paragraphs", PARAGRAPH_DIVIDER),
    _exact_form("detectable_format:number_bullet_lists", Kind.BULLETS, "num_bullets"),
    _least_form("detectable_content:number_placeholders", Kind.PLACEHOLDERS, "num_placeholders"),
    _least_form("detectable_format:number_highlighted_sections", Kind.HIGHLIGHTS, "num_highlights"),
    _least_form("detectable_format:multiple_sections", Kind.SECTIONS, "num_sections", "section_spliter"),
    _list_form("keywords:existence", 1, None, "keywords"),
    _list_form("keywords:forbidden_words", 0, 0, "forbidden_words"),
    _relation_form("keywords:frequency", Kind.KEYWORD, "frequency", "relation", "keyword"),
    _relation_form("keywords:letter_frequency", Kind.LETTER, "let_frequency", "let_relation", "letter"),
    _relation_form("change_case:capital_word_frequency", Kind.CAPITAL_WORDS, "capital_frequency", "capital_relation"),
    _plain_form("punctuation:no_comma", Spec(Kind.COMMAS, high=0)),
    _plain_form("change_case:english_capital", Spec(Kind.UPPERCASE, text="en")),
    _plain_form("change_case:english_lowercase", Spec(Kind.LOWERCASE, text="en")),
    _text_form("startend:end_checker", Kind.ENDS_WITH, "end_phrase"),
    _plain_form("startend:quotation", Spec(Kind.QUOTED)),
    _plain_form("detectable_format:title", Spec(Kind.TITLE)),
    _plain_form("detectable_format:json_format", Spec(Kind.JSON)),
    _text_form("language:response_language", Kind.LANGUAGE, "language"),
    _text_form("detectable_content:postscript", Kind.POSTSCRIPT, "postscript_marker"),
    _text_form("combination:repeat_prompt", Kind.REPEAT_PROMPT, "prompt_to_repeat"),
    _plain_form("combination:two_responses", Spec(Kind.TWO_RESPONSES, text="******")),
    _plain_form("detectable_format:constrained_response", Spec(Kind.ONE_OF, text=ONE_OF_OPTIONS)),
    _paragraph_start_form("length_constraints:nth_paragraph_first_word"),
)
_BY_ID = {form.instruction_id: form for form in FORMS}


def to_ifeval(spec: Spec) -> list[IfevalItem]:
    """One or two items (an interval needs both relations) that together say the spec. Raises ValueError if invalid."""
    validate(spec)
    if spec.scope is Scope.RESPONSE:
        for form in FORMS:
            kwargs = form.to_items(spec) if spec.kind in form.kinds else None
            if kwargs:
                return [IfevalItem(form.instruction_id, k) for k in kwargs]
    return [IfevalItem(f"{_OWN}{spec.kind.value}", dict(spec_to_fields(spec)))]


def from_ifeval(
    instruction_id: str, kwargs: Mapping[str, object], *, definition: Definition = Definition.IFEVAL
) -> list[Spec]:
    """The specs of one item; there is exactly one. Kwargs that are None are taken as absent.

    An id of our own ("seif:<kind>") names its definition itself. Raises ValueError for an id that the kinds here cannot
    express, unknown kwargs and ill-typed values.
    """
    given = {name: value for name, value in kwargs.items() if value is not None}
    if instruction_id.startswith(_OWN):
        fields: dict[str, object] = {"high": None, "text": None, "index": None, **given}
        if f"{_OWN}{fields.get('kind')}" != instruction_id:
            raise ValueError(f"kwargs['kind']={fields.get('kind')!r} does not fit the id {instruction_id!r}")
        return [spec_from_fields(fields)]
    if instruction_id not in _BY_ID:
        near = difflib.get_close_matches(instruction_id, _BY_ID, n=1, cutoff=0)
        raise ValueError(f"instruction id {instruction_id!r} has no rule here; nearest: {near[0]!r}")
    form = _BY_ID[instruction_id]
    unknown = sorted(set(given) - set(form.names))
    if unknown:
        raise ValueError(f"kwargs {unknown} are not known to {instruction_id!r}, which takes {sorted(form.names)}")
    return [validate(replace(form.from_kwargs(given, definition), definition=definition))]


def merge(items: Sequence[IfevalItem], *, definition: Definition = Definition.IFEVAL) -> list[Spec]:
    """The specs of several items, in order, with intervals of the same count intersected: inverse of `to_ifeval`.

    Raises ValueError where two items leave no number between them.
    """
    merged: dict[Spec, Spec] = {}
    for item in items:
        for spec in from_ifeval(item.instruction_id, item.kwargs, definition=definition):
            key = replace(spec, low=0, high=None)
            other = merged.get(key, spec)
            highs = [s.high for s in (spec, other) if s.high is not None]
            merged[key] = validate(replace(spec, low=max(spec.low, other.low), high=min(highs, default=None)))
    return list(merged.values())
