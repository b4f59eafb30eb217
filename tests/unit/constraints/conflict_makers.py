"""Specs of every kind and scope, and a search for responses that satisfy them: the attack on the conflict rules."""

import json
import random
from collections.abc import Sequence

from seif_nemo.constraints.specs import COUNT_KINDS, NEVER_ZERO, validate
from seif_nemo.constraints.text import words
from seif_nemo.constraints.verify import verify
from seif_nemo.types.constraints import Kind, Scope, Spec
from seif_nemo.types.verdicts import Outcome

PHRASES = (
    "river",
    "art",
    "well",
    "thank you",
    "river bank",
    "well-known",
    "moon, tree",
    "off",
    "文",
    "a b",
    "P.S. well",
)
SEPARATORS = ("***", "---", "******", ",", "Part 2")
OPTIONS = ("yes\nno\nmaybe", "yes\nyes, partly", "river, sun\nmoon, tree", "a\nart")
SINGLES = [Kind.UPPERCASE, Kind.LOWERCASE, Kind.TITLE, Kind.QUOTED, Kind.JSON]
NTH = (Scope.NTH_PARAGRAPH, Scope.NTH_SENTENCE, Scope.NTH_ITEM)
EACH = (Scope.EACH_PARAGRAPH, Scope.EACH_SENTENCE, Scope.EACH_ITEM)


def passes(specs: Sequence[Spec], response: str) -> bool:
    return all(verify(spec, response, seed_question="").outcome is Outcome.PASSED for spec in specs)


def score(specs: Sequence[Spec], response: str) -> int:
    return sum(verify(spec, response, seed_question="").outcome is Outcome.PASSED for spec in specs)


def _text(rng: random.Random, kind: Kind) -> str | None:
    if kind in (Kind.KEYWORD, Kind.STARTS_WITH, Kind.ENDS_WITH, Kind.REPEAT_PROMPT, Kind.PARAGRAPH_START):
        return rng.choice(PHRASES)
    match kind:
        case Kind.LETTER:
            return rng.choice("efstr,")
        case Kind.SECTIONS:
            return rng.choice(["Section", "Part", "The Part"])
        case Kind.SEPARATORS | Kind.TWO_RESPONSES:
            return rng.choice(SEPARATORS)
        case Kind.ONE_OF:
            return rng.choice(OPTIONS)
        case Kind.LANGUAGE:
            return rng.choice(["en", "fr", "zh-cn", "zh-tw"])
        case Kind.POSTSCRIPT:
            return rng.choice(["P.S.", "P.P.S", "Note:"])
        case Kind.PARAGRAPHS:
            return rng.choice([None, None, "***"])
        case Kind.BULLETS:
            return rng.choice([None, None, "*", "-"])
        case Kind.HIGHLIGHTS:
            return rng.choice([None, None, "**"])
        case Kind.MARKS:
            return rng.choice([None, "!", ",", "*", "!,", "[]", "."])
        case Kind.KEYWORDS | Kind.BOLD | Kind.EMPHASIS:
            return "\n".join(rng.sample(PHRASES, rng.randint(1, 2)))
        case _:
            return None


def draw(rng: random.Random, kinds: Sequence[Kind] | None = None) -> Spec:
    """A small valid spec of any kind and scope. Languages are rare: telling them takes long."""
    kind = rng.choice(kinds or [k for k in Kind if k is not Kind.LANGUAGE or rng.random() < 0.1])
    index, scope = None, Scope.RESPONSE
    if kind is not Kind.PARAGRAPH_START and rng.random() < 0.45:
        scope = rng.choice([*EACH, *NTH])
    if scope in NTH or kind is Kind.PARAGRAPH_START:
        index = rng.choice([1, 1, 2, 3, -1, -2])
    if kind not in COUNT_KINDS and kind is not Kind.PARAGRAPH_START:
        return validate(Spec(kind, text=_text(rng, kind), scope=scope, index=index))
    most = {Kind.WORDS: 8, Kind.CHARACTERS: 14}.get(kind, 4)
    low = rng.randint(0, most)
    high = rng.choice([None, low, low + rng.randint(0, 2)])
    if rng.random() < 0.4:
        low, high = 0, rng.randint(0, most)
    if kind in NEVER_ZERO and high is not None:
        high = max(high, 1)
    if high is None and kind is not Kind.PARAGRAPH_START:
        low = max(low, 1)
    return validate(Spec(kind, low, high, _text(rng, kind), scope, index))


_UNITS = (
    "x",
    "X",
    "x.",
    "X y.",
    "* x",
    "- x.",
    "1. x",
    "2) X y.",
    "# x",
    "## X",
    "|\n-",
    "| a |\n|---|",
    "***",
    "---",
    "\n\n",
    "\n",
    "[x]",
    "*x*",
    "**X**",
    ",",
    "，",
    "e",
    "ee",
    "ﬀ",
    "ﬃ",
    "ß",
    "文",
    "文。文",
    "<<x>>",
    "Section 1",
    "Part 2",
    "section i",
    '"',
    '"# x',
    '"* x',
    "P.S. x",
    "P.P.S x",
    "Note: x",
    "yes",
    "no",
    "maybe",
    "yes, partly",
    "{}",
    "[]",
    "```",
    "J. B. X",
    "5 p.m.",
    "I",
    "I A",
    "B",
    "XY",
    "!",
    "…",
    "ª",
    "ŉ",
    "Ǆ",
    "J\u030c",
    "\u200b",
    "1.5",
    "a-b-c-d-e",
    "river's",
    "-1",
    "0",
    "le chat est noir et la vie est belle",
    "well, then",
    "**river**",
    "__art__",
    "<b>well</b>",
    "_x_",
    "***x***",
    "！",
    "。",
    "(x)",
    "+ x",
    "• x",
    "– x",
    "7",
    "٣",
    "•一",
    "· x",
    "1、一",
    "1.一",
    "**1. x**",
    "#标",
    "==x==",
    "<b>x</b>",
    "2*x*y",
    "- [x] y",
    "「文」",
    "```\n# x\n\n* x\n```",
    "```",
    '"x!" y',
    "文?文",
    "、",
    "²",
)
_GLUES = (
    "",
    " ",
    " ",
    "\n",
    "\n\n",
    ". ",
    ", ",
    "\n* ",
    "\n1. ",
    "\n***\n",
    "\n---\n",
    "-",
    "。",
    '"',
    "'",
    "\n# ",
    "|",
)
_CASES = (str, str, str, str.lower, str.upper, str.title)


def _in_json(rng: random.Random, text: str) -> str:
    body = json.dumps(
        [text] if rng.random() < 0.5 else {text[:9]: text}, ensure_ascii=False, indent=rng.choice([None, 0])
    )
    return f"```json\n{body}\n```" if rng.random() < 0.3 else body


def _close(text: str) -> str:
    return text if text.startswith('"') else f'"{text}"'


def _spec_units(specs: Sequence[Spec]) -> list[str]:
    found: list[str] = []
    for spec in specs:
        if spec.text is not None:
            found += spec.text.split("\n")
        if spec.kind in (Kind.BOLD, Kind.EMPHASIS):
            found += [f"**{phrase}**" for phrase in (spec.text or "").split("\n")]
        if spec.kind is Kind.POSTSCRIPT:
            found.append(f"\n\n{spec.text} x")
        if spec.kind is Kind.SECTIONS:
            found.append(f"\n{spec.text} 1")
    return found


def seed_response(rng: random.Random, specs: Sequence[Spec]) -> str:
    """A first try: parts of a kind that the specs speak of, as many as they say or a few."""
    shapes = {
        Kind.WORDS: "x ",
        Kind.CHARACTERS: "x",
        Kind.LINES: "x\n",
        Kind.SENTENCES: "X y. ",
        Kind.PARAGRAPHS: "x y\n\n",
        Kind.BULLETS: "* x\n",
        Kind.NUMBERED: "1. x\n",
        Kind.TABLES: "|\n-\n",
        Kind.HEADINGS: "# x\n",
        Kind.PLACEHOLDERS: "[x] ",
        Kind.HIGHLIGHTS: "**x** ",
        Kind.CAPITAL_WORDS: rng.choice(["X ", "XY "]),
        Kind.COMMAS: ",",
        Kind.DIGITS: "7",
    }
    parts: list[str] = []
    for spec in specs:
        count = rng.choice([spec.low, spec.high or spec.low, 1])
        if spec.kind is Kind.SECTIONS:
            parts.append("".join(f"\n{spec.text} {n + 1}\n" for n in range(count)))
        elif spec.kind is Kind.PARAGRAPHS and spec.text is not None:
            parts.append("***".join(["x"] * max(count, 1)))
        elif spec.kind in (Kind.BOLD, Kind.EMPHASIS):
            parts += [f"**{phrase}** " for phrase in (spec.text or "").split("\n")]
        elif spec.kind is Kind.KEYWORDS:
            parts.append((spec.text or "").replace("\n", " ") * max(count, 1) + " ")
        elif spec.kind in (Kind.MARKS, Kind.LETTER, Kind.SEPARATORS):
            unit = (spec.text or "!")[0] if spec.kind is Kind.MARKS else spec.text or ""
            parts.append((unit if rng.random() < 0.8 else {"f": "ﬀ", "s": "ß"}.get(unit, unit)) * count)
        elif spec.kind is Kind.BULLETS:
            parts.append(f"{spec.text or '*'} x\n" * count)
        elif spec.kind in shapes:
            parts.append(shapes[spec.kind] * count)
        elif spec.text is not None:
            shape = "\n" if spec.kind is Kind.STARTS_WITH and rng.random() < 0.3 else " "
            parts.append((spec.text.split("\n")[0] + shape) * max(count, 1))
    rng.shuffle(parts)
    edges = [s.text or "" for s in specs if s.kind in (Kind.STARTS_WITH, Kind.REPEAT_PROMPT)]
    tails = [s.text or "" for s in specs if s.kind is Kind.ENDS_WITH]
    if rng.random() < 0.6:
        parts = [*edges, *parts, *tails]
    text = rng.choice(_GLUES).join(parts) or "x"
    if any(s.scope is not Scope.RESPONSE or s.kind is Kind.PARAGRAPH_START for s in specs) and rng.random() < 0.7:
        text = rng.choice(["\n\n", ". ", "\n* ", "\n1. ", "\n\n* ", "\n\n1. "]).join([text] * rng.randint(1, 3))
        text = rng.choice(["", "* ", "1. ", "x\n\n"]) + text
    return wrap(rng, specs, text)


def wrap(rng: random.Random, specs: Sequence[Spec], text: str) -> str:
    kinds = {spec.kind for spec in specs}
    if Kind.TITLE in kinds and "<<" not in text:
        text = rng.choice(["<<x>>\n", "<<x>> ", "x <<x>>"]) + text
    if Kind.LOWERCASE in kinds and rng.random() < 0.8:
        text = text.lower()
    if Kind.UPPERCASE in kinds and rng.random() < 0.8:
        text = text.upper()
    if Kind.QUOTED in kinds and rng.random() < 0.8:
        text = _close(text)
    return _in_json(rng, text) if Kind.JSON in kinds and rng.random() < 0.8 else text


def mutate(rng: random.Random, specs: Sequence[Spec], text: str) -> str:
    """A small change: a unit in, out, doubled or swapped, a letter less, another case, a frame around all of it."""
    pool = _spec_units(specs) if rng.random() < 0.5 else []
    unit = rng.choice(pool or _UNITS)
    at = rng.choice([0, len(text), rng.randint(0, len(text))])
    match rng.randint(0, 9):
        case 0 | 1 | 2:
            return text[:at] + rng.choice(_GLUES) + unit + rng.choice(_GLUES) + text[at:]
        case 3:
            return text[:at] + unit + text[at:]
        case 4 | 5:
            end = at + rng.choice([1, 1, 2, 4, 12])
            return text[:at] + text[end:]
        case 6:
            parts = text.split(glue) if (glue := rng.choice(_GLUES[1:])) in text else [text]
            parts.insert(rng.randint(0, len(parts)), rng.choice(parts))
            return glue.join(parts)
        case 7:
            lines = text.split("\n")
            rng.shuffle(lines)
            return "\n".join(lines)
        case 8:
            return rng.choice(_CASES)(text)
        case _:
            return wrap(rng, specs, text)


def attack(rng: random.Random, specs: Sequence[Spec], tries: int) -> str | None:
    """A response that satisfies all specs, found by climbing from several starts, or None after `tries` responses."""
    text, best = seed_response(rng, specs), -1
    for number in range(tries):
        if number % 12 == 0:
            text, best = seed_response(rng, specs), -1
            trial = text
        else:
            trial = mutate(rng, specs, text)
        if len(trial) > 400 or not words(trial):
            continue
        value = score(specs, trial)
        if value == len(specs):
            return trial
        if value >= best:
            text, best = trial, value
    return None


SINGLE_KINDS = tuple(SINGLES)
