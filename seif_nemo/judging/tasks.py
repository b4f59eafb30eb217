"""Rows of JSON to tasks: what to judge, and by what.

A row has a `response` and exactly one of `instruction_id_list` (with `kwargs`), `constraints` and `specs`. A task has
one demand, and so one verdict, per entry of that list, in its order. Keys that are null count as absent; keys that this
file does not know are the user's own.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from seif_nemo.constraints.ifeval import from_ifeval
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.specs import spec_from_fields
from seif_nemo.roles.reasoning import judged_text
from seif_nemo.types.constraints import Constraint, Kind, Spec

RESPONSE, SEED, PROMPT = "response", "seed_question", "prompt"
IDS, KWARGS, CONSTRAINTS, SPECS = "instruction_id_list", "kwargs", "constraints", "specs"
DEMANDS = (IDS, CONSTRAINTS, SPECS)
_SPEC_DEFAULTS: dict[str, object] = {
    "low": 0, "high": None, "text": None, "scope": "response", "index": None, "definition": "ours",
}  # fmt: skip
_MAX_MESSAGE = 300  # characters of an error: a value of a row may be a book


@dataclass(frozen=True, slots=True)
class Demand:
    """What one verdict is about: a text, read by the parser, or specs that a rule must find satisfied, all of them.

    Exactly one of the two. An instruction id may need several specs (a list of keywords).
    """

    constraint: Constraint | None = None
    specs: tuple[Spec, ...] = ()

    def __post_init__(self) -> None:
        assert (self.constraint is None) == bool(self.specs), self


@dataclass(frozen=True, slots=True)
class Task:
    """One row. `response` is without its reasoning; `seed_question` and `prompt` are "" where the row has none."""

    response: str
    demands: tuple[Demand, ...]
    seed_question: str = ""
    prompt: str = ""


def parse_line(line: bytes) -> Task:
    """The task of one line of JSON. Raises ValueError, one short line that names the key, for whatever is wrong."""
    try:
        return read_task(parse_object(line.decode()))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is 0x{line[error.start]:02x}") from error
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    except ValueError as error:
        raise ValueError(shorten(str(error))) from error


def parse_object(text: str) -> dict[str, object]:
    """The JSON object that `text` is.

    Raises ValueError for other JSON, NaN, infinities, a key given twice, and nesting deeper than Python can read.
    """
    if not text.strip():
        raise ValueError("empty line, not a JSON object")
    try:
        value = cast(object, json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {kind_of(value)}")
    return cast(dict[str, object], value)


def read_task(row: Mapping[str, object]) -> Task:
    """The task of a row of JSON values. Raises ValueError that names the key."""
    task = Task(
        response=judged_text(_text(row, RESPONSE)),
        demands=read_demands(row),
        seed_question="" if row.get(SEED) is None else _text(row, SEED),
        prompt="" if row.get(PROMPT) is None else _text(row, PROMPT),
    )
    if not task.seed_question and any(map(_repeats_question, task.demands)):
        raise ValueError(f"{SEED!r} is missing: a constraint asks to repeat it")
    return task


def read_demands(row: Mapping[str, object]) -> tuple[Demand, ...]:
    """What the row demands. Raises ValueError that names the key, also for no demand at all."""
    given = [key for key in DEMANDS if row.get(key) is not None]
    if not given:
        raise ValueError(f"none of {', '.join(map(repr, DEMANDS))}{_near_key(row)}")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(map(repr, given))} both say what to judge; keep one of them")
    key = given[0]
    if key != IDS and row.get(KWARGS) is not None:
        raise ValueError(f"{KWARGS!r} without {IDS!r}, to which it belongs")
    values = _list(row, key)
    if not values:
        raise ValueError(f"{key!r} is empty: nothing to judge")
    if key == IDS:
        return _from_ids(values, row)
    read = _from_text if key == CONSTRAINTS else _from_spec
    return tuple(read(f"{key}[{number}]", value) for number, value in enumerate(values))


def _from_ids(ids: Sequence[object], row: Mapping[str, object]) -> tuple[Demand, ...]:
    if row.get(KWARGS) is None:
        raise ValueError(f"{KWARGS!r} is missing: one object (or null) for each of the {len(ids)} instruction ids")
    kwargs = _list(row, KWARGS)
    if len(kwargs) != len(ids):
        raise ValueError(f"{KWARGS!r} has {len(kwargs)} entries but {IDS!r} has {len(ids)}")
    demands: list[Demand] = []
    for number, (name, values) in enumerate(zip(ids, kwargs, strict=True)):
        if not isinstance(name, str):
            raise ValueError(f"{IDS}[{number}] must be a string, not {kind_of(name)}")
        if values is not None and not isinstance(values, Mapping):
            raise ValueError(f"{KWARGS}[{number}] must be an object or null, not {kind_of(values)}")
        try:
            specs = from_ifeval(name, {} if values is None else cast(Mapping[str, object], values))
        except ValueError as error:
            raise ValueError(f"{IDS}[{number}]: {error}") from error
        demands.append(Demand(specs=tuple(specs)))
    return tuple(demands)


def _from_text(where: str, value: object) -> Demand:
    text = cast(Mapping[str, object], value).get("text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        kind = kind_of(cast(object, value))
        raise ValueError(f"{where} must be a string or an object with a string 'text', not {kind}")
    return Demand(constraint=_parsed(_checked(where, text)))


def _from_spec(where: str, value: object) -> Demand:
    try:
        fields = parse_object(value) if isinstance(value, str) else value
        if not isinstance(fields, Mapping):
            raise ValueError(f"must be an object or its JSON, not {kind_of(value)}")
        return Demand(specs=(spec_from_fields({**_SPEC_DEFAULTS, **cast(Mapping[str, object], fields)}),))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


@lru_cache(maxsize=4096)  # one text is asked of many responses; the size bounds the memory of a long stream
def _parsed(text: str) -> Constraint:
    return parse_constraint(text)


def _repeats_question(demand: Demand) -> bool:
    spec = None if demand.constraint is None else demand.constraint.spec
    specs = demand.specs if spec is None else (spec,)
    return any(spec.kind is Kind.REPEAT_PROMPT and spec.text is None for spec in specs)


def _text(row: Mapping[str, object], key: str) -> str:
    if row.get(key) is None:
        raise ValueError(f"{key!r} is missing")
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a string, not {kind_of(value)}")
    return _checked(repr(key), value)


def _checked(where: str, text: str) -> str:
    r"""The text, if it is one: JSON can say "\ud800", half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} is no text: half of a surrogate pair at character {error.start + 1}") from error
    return text


def _list(row: Mapping[str, object], key: str) -> Sequence[object]:
    value = row[key]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key!r} must be a list, not {kind_of(value)}")
    return cast(Sequence[object], value)


def _near_key(row: Mapping[str, object]) -> str:
    for key in (str(key) for key in row if key not in DEMANDS):
        near = difflib.get_close_matches(key[:100], DEMANDS, n=1, cutoff=0.8)
        if near:
            return f"; is {key[:100]!r} meant to be {near[0]!r}?"
    return ""


def kind_of(value: object) -> str:
    """What JSON calls the value, such as "a list", for messages."""
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is given twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"not JSON: {name}")


def shorten(message: str) -> str:
    """One line of at most 300 characters."""
    line = " ".join(message.split())
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 1]}…"
