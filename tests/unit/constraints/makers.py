"""Specs to draw from, and responses that try hard to satisfy them."""

import json
import random
from collections.abc import Sequence

from seif_nemo.constraints.text import fold, words
from seif_nemo.constraints.verify import verify
from seif_nemo.types.constraints import Kind, Spec
from seif_nemo.types.verdicts import Outcome

FILLER = "moon tree bird song lamp road hill cloud stone leaf wind rain snow milk corn ship".split()  # noqa: SIM905
PHRASES = ("river", "art", "the", "well", "thank you", "river bank", "that is all", "well-known", "moon, tree", "sun")
# Kinds that `build` does not know how to satisfy yet.
_NOT_DRAWN = """
characters lines numbered tables headings separators language postscript repeat_prompt two_responses one_of
paragraph_start keywords marks digits markdown bold emphasis
"""
DRAWN = [kind for kind in Kind if kind not in _NOT_DRAWN.split()]
LETTERS = ("e", "z", "r", "m")


def passes(specs: Sequence[Spec], response: str) -> bool:
    return all(verify(spec, response, seed_question="").outcome is Outcome.PASSED for spec in specs)


def draw_spec(rng: random.Random, *, common: bool) -> Spec:
    """Any valid spec of a kind; `common` keeps to what instructions usually ask for."""
    kind = rng.choice(DRAWN)
    if kind in (Kind.UPPERCASE, Kind.LOWERCASE, Kind.TITLE, Kind.QUOTED, Kind.JSON):
        return Spec(kind)
    if kind in (Kind.STARTS_WITH, Kind.ENDS_WITH):
        return Spec(kind, text=rng.choice(PHRASES))
    text = None
    if kind is Kind.KEYWORD:
        text = rng.choice(PHRASES)
    elif kind is Kind.LETTER:
        text = rng.choice(LETTERS)
    elif kind is Kind.SECTIONS:
        text = rng.choice(["Section", "Part"])
    elif kind is Kind.PARAGRAPHS and rng.random() < 0.3:
        text = "***"
    most = 40 if kind is Kind.WORDS and common else 5
    low = rng.randint(0, most)
    high = rng.choice([None, low, low + rng.randint(0, 6)])
    if kind in (Kind.WORDS, Kind.SENTENCES, Kind.PARAGRAPHS):
        low, high = max(low, 1), None if high is None else max(high, 1)
    if rng.random() < 0.3 and high is not None:
        low = 0
    if kind in (Kind.KEYWORD, Kind.COMMAS, Kind.LETTER) and rng.random() < 0.4:
        low, high = 0, 0
    return Spec(kind, low=max(low, 1) if high is None else low, high=high, text=text)


def _target(rng: random.Random, specs: Sequence[Spec], kind: Kind, default: Sequence[int]) -> int:
    """A count that suits the specs of a kind, as far as one does."""
    own = [s for s in specs if s.kind is kind]
    low = max((s.low for s in own), default=0)
    high = min((s.high for s in own if s.high is not None), default=None)
    if not own:
        return rng.choice(default)
    return low if high is None or high <= low else rng.choice([low, high, rng.randint(low, high)])


def _filler(rng: random.Random, specs: Sequence[Spec], count: int) -> list[str]:
    banned = [s for s in specs if s.high is not None and s.kind in (Kind.KEYWORD, Kind.LETTER)]
    pool = [w for w in [*FILLER, "I", "x"] if not any((s.text or "") in w.lower() for s in banned)] or ["x"]
    return [rng.choice(pool) for _ in range(count)]


def _fragments(rng: random.Random, specs: Sequence[Spec]) -> list[str]:
    """What must be somewhere in the body."""
    found: list[str] = []
    for spec in specs:
        text = spec.text or ""
        if spec.kind is Kind.KEYWORD:
            found += [text] * spec.low
        elif spec.kind is Kind.LETTER:
            found += [text * spec.low] if spec.low else []
        elif spec.kind is Kind.PLACEHOLDERS:
            found += ["[x]"] * spec.low
        elif spec.kind is Kind.HIGHLIGHTS:
            found += ["*x*"] * spec.low
        elif spec.kind is Kind.CAPITAL_WORDS:
            found += ["X"] * spec.low
        elif spec.kind is Kind.COMMAS and spec.low:
            found += ["x" + "," * spec.low]
    rng.shuffle(found)
    return found


def _lines(rng: random.Random, specs: Sequence[Spec]) -> list[str]:
    """Blocks of prose, then bullets, as many as the specs say."""
    num_sentences = _target(rng, specs, Kind.SENTENCES, (1, 1, 2, 3))
    num_paragraphs = max(1, _target(rng, specs, Kind.PARAGRAPHS, (1, 1, 1, 2)))
    body = _fragments(rng, specs)
    start = [s.text or "" for s in specs if s.kind is Kind.STARTS_WITH]
    end = [s.text or "" for s in specs if s.kind is Kind.ENDS_WITH]
    body = [*sorted(start, key=len)[-1:], *body]
    bullets = _target(rng, specs, Kind.BULLETS, (0,))
    goal = _target(rng, specs, Kind.WORDS, (2, 3, 5, 8, 12))
    have = len(words(fold(" ".join([*body, *end[:1]])))) + bullets
    body += _filler(rng, specs, max(goal - have, 0))
    body += sorted(end, key=len)[-1:]
    pieces = max(num_sentences, num_paragraphs, 1)
    body += _filler(rng, specs, max(pieces - len(body), 0))
    cuts = sorted(rng.sample(range(1, len(body)), pieces - 1)) if pieces > 1 else []
    sentences = [
        " ".join(body[i:j]) + ("." if n < num_sentences else "")
        for n, (i, j) in enumerate(zip([0, *cuts], [*cuts, len(body)], strict=True))
    ]
    items = [f"* {word}" for word in _filler(rng, specs, bullets)]
    if items and end:  # the phrase at the end needs the last line
        items[-1], sentences[-1] = f"* {end[0]}", sentences[-1].removesuffix(end[0] + ".").strip() or "x."
    divider = "\n***\n" if any(s.text == "***" for s in specs) else "\n\n"
    per = len(sentences) // num_paragraphs
    blocks = [" ".join(sentences[n * per : (n + 1) * per]) for n in range(num_paragraphs - 1)]
    blocks.append(" ".join(sentences[(num_paragraphs - 1) * per :]))
    return [divider.join(blocks), *items]


def build(rng: random.Random, specs: Sequence[Spec]) -> str:
    """One try at a response that satisfies all specs."""
    lines = _lines(rng, specs)
    sections = [s for s in specs if s.kind is Kind.SECTIONS]
    if sections:
        count = _target(rng, sections, Kind.SECTIONS, (0,))
        headings = [f"{'# ' if rng.random() < 0.7 else ''}{sections[0].text} {n + 1}" for n in range(count)]
        lines = [lines[0], *headings, *lines[1:]] if rng.random() < 0.5 else [*headings, *lines]
    kinds = {s.kind for s in specs}
    if Kind.TITLE in kinds:
        place = rng.choice(["first", "second", "inside"])
        if place == "first":
            lines = ["<<x>>", *lines]
        elif place == "second":
            lines = [lines[0], "<<x>>", *lines[1:]]
        else:
            lines[0] = lines[0].replace(" ", " <<x>> ", 1)
    text = "\n".join(line for line in lines if line)
    if Kind.LOWERCASE in kinds:
        text = text.lower()
    if Kind.UPPERCASE in kinds:
        text = text.upper()
    if Kind.JSON in kinds:
        text = json.dumps([text] if rng.random() < 0.5 else [part for part in text.split("\n") if part], indent=0)
        if rng.random() < 0.5:
            text = text.replace("\n", "\n\n")
    return f'"{text}"' if Kind.QUOTED in kinds else text


_JOINTS = ("-", " ", "'", "\n", ", ", ". ", "_", "\u200b", "", "\n\n", "\n* ", "—", "/", "'s ", " <<", ">> ", "*", "]")
_ODD = (
    "x",
    "I",
    "A",
    "1.5",
    "don't",
    "[x]",
    "*x*",
    "<<x>>",
    "Section 1",
    "section i",
    "文",
    "É",
    "ß",
    "…",
    "!",
    "```",
    "{}",
)


def scramble(rng: random.Random, specs: Sequence[Spec]) -> str:
    """Phrases of the specs and oddities, glued in ways that a rule might not expect."""
    parts = [s.text for s in specs if s.text is not None] * rng.randint(1, 3)
    parts += [rng.choice(_ODD) for _ in range(rng.randint(0, 4))]
    rng.shuffle(parts)
    glue = rng.choice([rng.choice(_JOINTS), None])
    text = parts[0] if parts else "x"
    for part in parts[1:]:
        text += (rng.choice(_JOINTS) if glue is None else glue) + part
    wrap = rng.choice(["{}", '"{}"', '["{}"]', '```json\n["{}"]\n```', "<<{}>>", "* {}", "{}."])
    text = wrap.replace("{}", text)
    return rng.choice([text, text.lower(), text.upper(), text.title()])
