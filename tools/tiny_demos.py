"""Imperfect demonstrations of both roles in the tiny world, and its evaluation prompts.

Follower demonstrations satisfy each constraint with a given probability, Instructor demonstrations are easy, sometimes
contradictory and sometimes malformed. So a model that imitates them is good at neither role and has room to learn.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tiny_world
from tiny_world import (
    ADJECTIVES,
    ENDINGS,
    NOUNS,
    OPENINGS,
    PLACEHOLDERS,
    PLACES,
    VERBS,
    Demand,
    TinyConstraint,
)

from seif_nemo.data.streams import derive_seed

INSTRUCTOR_CONSTRAINTS = 3
HARDNESS_FOLLOWER = 0.5  # of the demonstrations' constraints; see tiny_world.draw_constraint
HARDNESS_INSTRUCTOR = 0.15
HARDNESS_EVALUATION = 0.75
KEEP = 0.6  # probability that a Follower demonstration tries to satisfy a constraint
UNFILTERED = 0.2  # share of the Instructor demonstrations that nobody filtered
MALFORMED = 0.1


@dataclass(frozen=True, slots=True)
class Demonstration:
    """`prompt` and `response` as text, without the tokens of the chat template."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class TinyPrompt:
    """A seed with constraints, as typed values and as the texts that stand for them."""

    seed: str
    constraints: tuple[TinyConstraint, ...]
    texts: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return self.seed + "".join(f"\n* {text}" for text in self.texts)


def draw_prompt(rng: random.Random, seed: str, count: int, hard: float) -> TinyPrompt:
    """A prompt whose constraints go together."""
    return _prompt(rng, seed, tiny_world.draw_constraints(rng, count, hard, filtered=True))


def evaluation_prompts(seeds: Sequence[str], label: str) -> tuple[TinyPrompt, ...]:
    """One hard prompt per seed, with 2, 3, 4, 5, 2, … constraints. `label` names the split and decides the draw."""
    rng = random.Random(derive_seed(0, "tiny world", label))
    return tuple(draw_prompt(rng, seed, 2 + i % 4, HARDNESS_EVALUATION) for i, seed in enumerate(seeds))


def draw_follower_demo(rng: random.Random, seed: str, *, keep: float = KEEP) -> Demonstration:
    """One to three constraints, each taken up with probability `keep`."""
    prompt = draw_prompt(rng, seed, rng.randint(1, 3), HARDNESS_FOLLOWER)
    return Demonstration(prompt.prompt, demonstrate(rng, prompt.constraints, keep=keep))


def draw_copy_drill(rng: random.Random, seed: str) -> Demonstration:
    """Constraints that only need words of the prompt repeated in their place, always satisfied: teaches to copy."""
    if rng.random() < 0.5:
        constraints = [
            TinyConstraint(Demand.END, word=rng.choice(ENDINGS)),
            TinyConstraint(Demand.START, word=rng.choice(OPENINGS)),
        ]
    else:
        constraints = [TinyConstraint(Demand.INCLUDE, word=word) for word in rng.sample(NOUNS, rng.randint(1, 2))]
    return Demonstration(_prompt(rng, seed, constraints).prompt, demonstrate(rng, constraints, keep=1.0))


def draw_instructor_demo(
    rng: random.Random,
    seed: str,
    *,
    hard: float = HARDNESS_INSTRUCTOR,
    unfiltered: float = UNFILTERED,
    malformed: float = MALFORMED,
) -> Demonstration:
    """A JSON object {"c1": …, "c2": …, "c3": …} of constraint texts, damaged with probability `malformed`."""
    filtered = rng.random() >= unfiltered
    constraints = tiny_world.draw_constraints(rng, INSTRUCTOR_CONSTRAINTS, hard, filtered=filtered)
    texts = [tiny_world.render(constraint, rng) for constraint in constraints]
    response = json.dumps({f"c{i}": text for i, text in enumerate(texts, start=1)})
    if rng.random() < malformed:
        unclosed, merged, unquoted = (
            response[:-2],
            response.replace('", "c2": "', " "),
            response.replace('": "', " ", 1),
        )
        response = rng.choices((unclosed, merged, unquoted), weights=(4, 3, 3))[0]
    return Demonstration(seed, response)


def demonstrate(rng: random.Random, constraints: Sequence[TinyConstraint], *, keep: float) -> str:
    """A response that tries to satisfy each constraint with probability `keep` and ignores it otherwise."""
    return _Writer(rng, [constraint for constraint in constraints if rng.random() < keep]).write()


def _prompt(rng: random.Random, seed: str, constraints: Sequence[TinyConstraint]) -> TinyPrompt:
    return TinyPrompt(seed, tuple(constraints), tuple(tiny_world.render(constraint, rng) for constraint in constraints))


class _Writer:
    """Writes one response. Its text is low in entropy: one free noun decides most of a sentence."""

    def __init__(self, rng: random.Random, wanted: Sequence[TinyConstraint]) -> None:
        self._rng = rng
        self._wanted: Mapping[Demand, TinyConstraint] = {constraint.demand: constraint for constraint in wanted}
        self._forbidden = {c.word for c in wanted if c.demand is Demand.FORBID}
        self._keywords = [c.word for c in wanted if c.demand is Demand.INCLUDE]
        self._keywords += [c.word for c in wanted if c.demand is Demand.FREQUENCY for _ in range(c.number)]
        self._joints = [word for word in ("and", "with") if word not in self._forbidden]

    def write(self) -> str:
        wanted = self._wanted
        title = f"<<{_capitalised(self._fragment())}>>" if Demand.TITLE in wanted else None
        units = self._units(title)
        if Demand.BULLETS in wanted:
            text = "\n".join(f"* {_capitalised(unit)}" for unit in units)
        else:
            text = " ".join(f"{_capitalised(unit)}." for unit in units)
        if title is not None:
            text = f"{title}\n{text}"
        if Demand.QUOTE in wanted:
            text = f'"{text}"'
        if Demand.LOWERCASE in wanted:
            text = text.lower()
        if Demand.CAPITALS in wanted:
            text = text.upper()
        return text

    def _units(self, title: str | None) -> list[str]:
        """The sentences or bullet points, in lower case and without their stops."""
        additions = [f"{self._rng.choice(self._joints)} {word}" for word in self._keywords]
        additions += [self._rng.choice(PLACEHOLDERS) for _ in range(self._number(Demand.PLACEHOLDERS, 0))]
        opening, ending = (self._wanted[d].word if d in self._wanted else "" for d in (Demand.START, Demand.END))
        fixed = _count_words([*additions, opening, ending, title or ""])
        units = self._plain_units(fixed)
        for addition in additions:
            place = self._rng.randrange(len(units))
            units[place] = f"{units[place]} {addition}"
        units[0] = f"{opening} {units[0]}".strip()
        units[-1] = f"{units[-1]} {ending}".strip()
        return units

    def _plain_units(self, fixed: int) -> list[str]:
        """Units within the word limits, of which `fixed` words will be added later."""
        at_least = self._number(Demand.MIN_WORDS, 0)
        at_most = self._number(Demand.MAX_WORDS, 1000)
        bullets, count = self._number(Demand.BULLETS, 0), self._number(Demand.SENTENCES, 0)
        if bullets:
            units = [self._fragment() if self._rng.random() < 0.7 else self._sentence() for _ in range(bullets)]
        elif count:
            units = [self._sentence() if at_most > 8 * count else self._fragment() for _ in range(count)]
        else:
            units = [self._sentence() for _ in range(1 if at_least else self._rng.choice((1, 1, 2, 2, 3)))]
            while _count_words(units) < at_least and len(units) < 6:
                units.append(self._sentence())
        while _count_words(units) + fixed < at_least:
            place = self._rng.randrange(len(units))
            units[place] = f"{units[place]} {self._joints[0]} {self._fragment()}"
        if _count_words(units) + fixed > at_most and not bullets and not count:
            units = units[:1]
        while _count_words(units) + fixed > at_most and any(" " in unit for unit in units):
            longest = max(range(len(units)), key=lambda i: len(units[i].split()))
            units[longest] = units[longest].rsplit(" ", 1)[0].rstrip(",")
        return units

    def _number(self, demand: Demand, otherwise: int) -> int:
        return self._wanted[demand].number if demand in self._wanted else otherwise

    def _sentence(self) -> str:
        rng = self._rng
        i = rng.randrange(len(NOUNS))
        noun, other = NOUNS[i], NOUNS[(i + 7) % len(NOUNS)]
        adjective, second = ADJECTIVES[i % len(ADJECTIVES)], ADJECTIVES[(i + 5) % len(ADJECTIVES)]
        verb, place = VERBS[i % len(VERBS)], PLACES[i % len(PLACES)]
        if rng.random() < 0.1:
            other = rng.choice(NOUNS)
        if Demand.NO_COMMAS not in self._wanted and rng.random() < 0.4:
            variants = (f"in the {place}, the {noun} is {adjective}", f"the {noun} is {adjective}, {second} and heavy")
            sentence = rng.choice(variants)
        else:
            variants = (
                f"the {adjective} {noun} {verb} the {other}",
                f"a {noun} is {adjective} and {second}",
                f"people of the {place} like the {noun}",
            )
            sentence = rng.choices(variants, weights=(4, 3, 3))[0]
        return self._without_forbidden(tiny_world.with_articles(sentence))

    def _fragment(self) -> str:
        i = self._rng.randrange(len(NOUNS))
        return self._without_forbidden(f"{ADJECTIVES[i % len(ADJECTIVES)]} {NOUNS[i]}")

    def _without_forbidden(self, text: str) -> str:
        return " ".join(word for word in text.split() if word.strip(",") not in self._forbidden).strip(", ")


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count_words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)
