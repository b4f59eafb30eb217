"""Which demands exclude each other: of one instruction, and of its constraints and its seed question.

Provable under `verify`: a reported conflict means that no response can pass all of its specs. Silence proves nothing.
The rules are in `conflict_rules`; this file finds the smallest sets that they refuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from seif_nemo.constraints.conflict_rules import contradiction
from seif_nemo.constraints.duplicates import Duplicate, duplicates, repeats
from seif_nemo.constraints.seed_demands import Demand, read_demands, wants_one_word
from seif_nemo.types.constraints import Constraint, Kind, Spec

__all__ = ["Conflict", "Duplicate", "SeedConflict", "conflicts", "duplicates", "find_conflicts", "repeats"]

_TRIPLES_UP_TO = 12  # specs; of more than that only pairs are all tried


@dataclass(frozen=True, slots=True)
class Conflict:
    """No response satisfies all specs at these places (in rising order)."""

    indices: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class SeedConflict:
    """No response satisfies the constraints at `indices` (in rising order) and what the seed itself demands.

    `demands` is empty where the constraints exclude each other without the seed's help.
    """

    indices: tuple[int, ...]
    demands: tuple[Demand, ...]
    reason: str


def _smallest(specs: Sequence[Spec], *, refuse_vacuous: bool) -> list[Conflict]:
    """The smallest refused sets: all single specs, pairs and triples; of larger ones, one."""
    places = range(len(specs))
    found: list[Conflict] = []
    for size in (1, 2, 3) if len(specs) <= _TRIPLES_UP_TO else (1, 2):
        for chosen in combinations(places, size):
            if any(set(conflict.indices) <= set(chosen) for conflict in found):
                continue
            reason = contradiction([specs[i] for i in chosen], refuse_vacuous=refuse_vacuous)
            if reason is not None:
                found.append(Conflict(chosen, reason))
    if found:
        return found
    kept = list(places)
    reason = contradiction(specs, refuse_vacuous=refuse_vacuous)
    assert reason is not None
    for place in places:
        rest = [i for i in kept if i != place]
        without = contradiction([specs[i] for i in rest], refuse_vacuous=refuse_vacuous)
        if without is not None:
            kept, reason = rest, without
    return [Conflict(tuple(kept), reason)]


def conflicts(specs: Sequence[Spec | None], *, refuse_vacuous: bool = True) -> tuple[Conflict, ...]:
    """The smallest conflicts found, pairs before triples. None stands for a constraint without a spec.

    Sound: no response passes `verify` for all specs of a conflict. Not complete: silence proves nothing. A conflict of
    one place is a spec that nothing satisfies. `refuse_vacuous` = False where the seed question wants one word.
    """
    places = [i for i, spec in enumerate(specs) if spec is not None]
    given = [spec for spec in specs if spec is not None]
    if contradiction(given, refuse_vacuous=refuse_vacuous) is None:
        return ()
    found = _smallest(given, refuse_vacuous=refuse_vacuous)
    return tuple(Conflict(tuple(places[i] for i in c.indices), c.reason) for c in found)


def find_conflicts(constraints: Sequence[Constraint], seed_question: str) -> tuple[SeedConflict, ...]:
    """Conflicts among the constraints and between them and what the seed question itself demands, with who says what.

    A seed that contradicts itself is not reported: that is not the constraints' fault.
    """
    demands = read_demands(seed_question)
    specs: list[Spec] = []
    places: list[int] = []
    for place, constraint in enumerate(constraints):
        spec = constraint.spec
        if spec is None:
            continue
        if spec.kind is Kind.REPEAT_PROMPT and spec.text is None:
            spec = replace(spec, text=seed_question)
        specs.append(spec)
        places.append(place)
    found: list[SeedConflict] = []
    together = [*specs, *(demand.spec for demand in demands)]
    for conflict in conflicts(together, refuse_vacuous=not wants_one_word(seed_question)):
        own = tuple(places[i] for i in conflict.indices if i < len(specs))
        said = tuple(demands[i - len(specs)] for i in conflict.indices if i >= len(specs))
        if own:
            found.append(SeedConflict(own, said, conflict.reason))
    return tuple(found)
