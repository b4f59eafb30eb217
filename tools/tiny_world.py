"""A closed world of 24 nouns in which instruction following can be learnt from scratch on one CPU core.

Seeds are short questions, demands are fifteen types of verifiable constraint in fixed phrasings. Everything here is a
deterministic function of the random generator it is given. The demonstrations are in tiny_demos.py.
"""

import functools
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from seif_nemo.constraints.conflict import conflicts
from seif_nemo.data.streams import derive_seed, permutation
from seif_nemo.types.constraints import Kind, Spec

NOUNS = tuple(
    (  # noqa: SIM905
        "river garden tiger bridge market castle forest engine window harbor island kitchen "
        "ladder mountain mirror basket candle desert dragon farmer feather flower hammer jacket"
    ).split()
)
ADJECTIVES = tuple("bright quiet heavy gentle ancient clever simple narrow golden frozen hollow modern".split())  # noqa: SIM905
VERBS = ("keeps", "holds", "finds", "moves", "guards", "follows")
PLACES = ("city", "village", "north", "school", "station")
OPENINGS = ("well", "today", "maybe", "clearly")
ENDINGS = ("that is all", "hope this helps", "thank you", "good luck")
COMMON_WORDS = ("the", "a", "heavy", "people", "like")  # forbidding one of these is hard
PLACEHOLDERS = ("[name]", "[place]", "[date]")

SEED_TEMPLATES = (
    "Tell me about the {noun} in the {place}.",
    "Why is the {noun} so {adjective}?",
    "How does a {noun} help the {other}?",
    "Describe a {adjective} {noun} for me.",
    "What makes a {noun} {adjective}?",
    "Write about a {noun} and a {other}.",
    "Explain the {adjective} {noun} to a friend.",
    "Give advice about the {noun} near the {other}.",
)
TRAINING_SEEDS, PROBE_SEEDS, DEV_SEEDS, HELDOUT_SEEDS = 2000, 240, 300, 300


class Demand(StrEnum):
    """The fifteen types of constraint."""

    MIN_WORDS = "min_words"
    MAX_WORDS = "max_words"
    INCLUDE = "include"
    FREQUENCY = "frequency"
    FORBID = "forbid"
    LOWERCASE = "lowercase"
    CAPITALS = "capitals"
    NO_COMMAS = "no_commas"
    END = "end"
    START = "start"
    BULLETS = "bullets"
    SENTENCES = "sentences"
    TITLE = "title"
    QUOTE = "quote"
    PLACEHOLDERS = "placeholders"


@dataclass(frozen=True, slots=True)
class TinyConstraint:
    """A demand with its arguments; `number` and `word` are unused where the type has none."""

    demand: Demand
    number: int = 0
    word: str = ""

    @property
    def spec(self) -> Spec:
        """The same in the terms of the project's verifiers."""
        number, word = self.number, self.word
        match self.demand:
            case Demand.MIN_WORDS:
                return Spec(Kind.WORDS, low=number)
            case Demand.MAX_WORDS:
                return Spec(Kind.WORDS, high=number)
            case Demand.INCLUDE:
                return Spec(Kind.KEYWORD, low=1, text=word)
            case Demand.FREQUENCY:
                return Spec(Kind.KEYWORD, low=number, text=word)
            case Demand.FORBID:
                return Spec(Kind.KEYWORD, high=0, text=word)
            case Demand.LOWERCASE:
                return Spec(Kind.LOWERCASE)
            case Demand.CAPITALS:
                return Spec(Kind.UPPERCASE)
            case Demand.NO_COMMAS:
                return Spec(Kind.COMMAS, high=0)
            case Demand.END:
                return Spec(Kind.ENDS_WITH, text=word)
            case Demand.START:
                return Spec(Kind.STARTS_WITH, text=word)
            case Demand.BULLETS:
                return Spec(Kind.BULLETS, low=number, high=number)
            case Demand.SENTENCES:
                return Spec(Kind.SENTENCES, low=number, high=number)
            case Demand.TITLE:
                return Spec(Kind.TITLE)
            case Demand.QUOTE:
                return Spec(Kind.QUOTED)
            case Demand.PLACEHOLDERS:
                return Spec(Kind.PLACEHOLDERS, low=number)


PHRASINGS: dict[Demand, tuple[str, ...]] = {
    Demand.MIN_WORDS: ("use at least {number} words", "write {number} or more words"),
    Demand.MAX_WORDS: ("use at most {number} words", "write no more than {number} words"),
    Demand.INCLUDE: ("include the word {word}",),
    Demand.FREQUENCY: ("use the word {word} at least {number} times",),
    Demand.FORBID: ("do not use the word {word}",),
    Demand.LOWERCASE: ("use only lowercase letters",),
    Demand.CAPITALS: ("use only capital letters",),
    Demand.NO_COMMAS: ("do not use commas",),
    Demand.END: ("end with the phrase {word}",),
    Demand.START: ("start with the word {word}",),
    Demand.BULLETS: ("use exactly {number} bullet points",),
    Demand.SENTENCES: ("write exactly {number} sentences",),
    Demand.TITLE: ("add a title in double angle brackets",),
    Demand.QUOTE: ("wrap the answer in double quotes",),
    Demand.PLACEHOLDERS: ("include at least {number} placeholders in square brackets",),
}

_EASY_NUMBERS = {
    Demand.MIN_WORDS: (2, 9),
    Demand.MAX_WORDS: (16, 36),
    Demand.FREQUENCY: (2, 2),
    Demand.BULLETS: (2, 3),
    Demand.SENTENCES: (1, 2),
    Demand.PLACEHOLDERS: (1, 1),
}
_HARD_NUMBERS = {
    Demand.MIN_WORDS: (11, 28),
    Demand.MAX_WORDS: (4, 10),
    Demand.FREQUENCY: (2, 3),
    Demand.BULLETS: (3, 5),
    Demand.SENTENCES: (2, 4),
    Demand.PLACEHOLDERS: (2, 3),
}
# What an easy Instructor asks for; the weights are the shares of the list.
_EASY_DEMANDS = (
    *(Demand.MIN_WORDS, Demand.MAX_WORDS, Demand.FORBID) * 3,
    *(Demand.NO_COMMAS, Demand.INCLUDE, Demand.SENTENCES, Demand.LOWERCASE, Demand.PLACEHOLDERS),
)


@dataclass(frozen=True, slots=True)
class SeedSplits:
    """Disjoint seed questions, the same for every model."""

    training: tuple[str, ...]
    probe: tuple[str, ...]
    dev: tuple[str, ...]
    heldout: tuple[str, ...]


@functools.cache
def seed_splits() -> SeedSplits:
    """All seeds of the world in a fixed random order, cut into the four splits."""
    seeds = all_seeds()
    order = iter([seeds[i] for i in permutation(len(seeds), derive_seed(0, "tiny world", "seeds"))])
    sizes = (TRAINING_SEEDS, PROBE_SEEDS, DEV_SEEDS, HELDOUT_SEEDS)
    return SeedSplits(*(tuple(itertools.islice(order, size)) for size in sizes))


def all_seeds() -> list[str]:
    """Every distinct seed question, sorted."""
    choices = {"noun": NOUNS, "other": NOUNS, "adjective": ADJECTIVES, "place": PLACES}
    seeds: set[str] = set()
    for template in SEED_TEMPLATES:
        names = [name for name in choices if f"{{{name}}}" in template]
        for values in itertools.product(*(choices[name] for name in names)):
            if len(set(values)) == len(values):  # never a noun with itself
                seeds.add(with_articles(template.format(**dict(zip(names, values, strict=True)))))
    return sorted(seeds)


def with_articles(text: str) -> str:
    """ "a" made "an" before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def render(constraint: TinyConstraint, rng: random.Random) -> str:
    """The constraint as an Instructor of this world would write it."""
    return rng.choice(PHRASINGS[constraint.demand]).format(number=constraint.number, word=constraint.word)


def draw_constraint(rng: random.Random, hard: float) -> TinyConstraint:
    """With probability `hard` any type with a hard argument, else an easy type with an easy argument."""
    is_hard = rng.random() < hard
    demand = rng.choice(tuple(Demand) if is_hard else _EASY_DEMANDS)
    numbers = (_HARD_NUMBERS if is_hard else _EASY_NUMBERS).get(demand)
    number = rng.randint(*numbers) if numbers else 0
    match demand:
        case Demand.INCLUDE | Demand.FREQUENCY:
            word = rng.choice(NOUNS)
        case Demand.FORBID:
            word = rng.choice(COMMON_WORDS if is_hard else NOUNS)
        case Demand.END:
            word = rng.choice(ENDINGS)
        case Demand.START:
            word = rng.choice(OPENINGS)
        case _:
            word = ""
    return TinyConstraint(demand, number, word)


def draw_constraints(rng: random.Random, count: int, hard: float, *, filtered: bool) -> list[TinyConstraint]:
    """`count` constraints; if `filtered`, redrawn until they go together."""
    while True:
        constraints = [draw_constraint(rng, hard) for _ in range(count)]
        if not filtered or compatible(constraints):
            return constraints


def compatible(constraints: Sequence[TinyConstraint]) -> bool:
    """No two of one type, no bullet points beside sentences or an opening, and no conflict by the project's rules."""
    demands = {constraint.demand for constraint in constraints}
    if len(demands) < len(constraints):
        return False
    if Demand.BULLETS in demands and demands & {Demand.SENTENCES, Demand.START}:
        return False
    return not conflicts([constraint.spec for constraint in constraints]) and _words_fit(constraints)


def _words_fit(constraints: Iterable[TinyConstraint]) -> bool:
    """Whether what has to be in the response leaves it within the word limit: a unit of text takes two words here."""
    limit, needed = None, 2
    for constraint in constraints:
        match constraint.demand:
            case Demand.MAX_WORDS:
                limit = constraint.number
            case Demand.BULLETS | Demand.SENTENCES:
                needed += 2 * (constraint.number - 1)
            case Demand.PLACEHOLDERS | Demand.FREQUENCY:
                needed += constraint.number
            case Demand.INCLUDE | Demand.START | Demand.END:
                needed += len(constraint.word.split())
            case Demand.TITLE:
                needed += 2
            case _:
                pass
    return limit is None or limit >= needed
