"""How often demands of real instructions exclude each other: by rule, alone and with the seed question, per file.

    python tools/conflict_survey.py FILE.parquet ... [--seeds SEEDS.parquet] [--show 50 --random-seed 0]

A file has the columns `seed_question` and `constraint`, a list of texts per row, as in the public SEIF release; a file
of seeds has a column `prompt`. Prints a markdown table; with --show also that many flagged prompts of all files, drawn
at random, with who says what, for a check by hand.
"""

import argparse
import pathlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from seif_nemo.constraints.conflict import SeedConflict, find_conflicts
from seif_nemo.constraints.conflict_rules import VACUOUS
from seif_nemo.constraints.duplicates import duplicates, subsumptions
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.seed_demands import read_demands
from seif_nemo.types.constraints import Constraint


@dataclass(frozen=True, slots=True)
class Flagged:
    """A prompt with its first conflict."""

    file: str
    row: int
    seed: str
    constraints: tuple[Constraint, ...]
    conflict: SeedConflict


@dataclass(slots=True)
class Survey:
    """Counts of prompts of one file; `seconds` is the CPU time of finding conflicts alone."""

    name: str
    prompts: int = 0
    texts: int = 0
    specs: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    flagged: list[Flagged] = field(default_factory=list[Flagged])
    seconds: float = 0.0

    def row(self) -> str:
        shares = [self.counts[name] for name in COLUMNS]
        cells = [f"{100 * count / max(self.prompts, 1):.2f}% ({count})" for count in shares]
        covered = f"{100 * self.specs / max(self.texts, 1):.1f}%"
        return " | ".join([self.name, str(self.prompts), covered, *cells, f"{self.micros():.0f}"])

    def micros(self) -> float:
        return 1e6 * self.seconds / max(self.prompts, 1)


COLUMNS = ("among constraints", "with the seed", "any", "of them by vacuity", "duplicates", "subsumptions")


def survey(path: pathlib.Path, parse: Callable[[str], Constraint]) -> Survey:
    """Reads a file and counts. Raises what the reader of parquet raises for a missing file or column."""
    table = pq.read_table(path, columns=["seed_question", "constraint"])
    found = Survey(path.stem)
    for row, (seed, texts) in enumerate(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)):
        constraints = tuple(parse(text) for text in texts or ())
        specs = [constraint.spec for constraint in constraints]
        found.prompts += 1
        found.texts += len(specs)
        found.specs += sum(spec is not None for spec in specs)
        started = time.thread_time()
        clashes = find_conflicts(constraints, seed)
        found.seconds += time.thread_time() - started
        own = [clash for clash in clashes if not clash.demands]
        found.counts["among constraints"] += bool(own)
        found.counts["with the seed"] += len(own) < len(clashes)
        found.counts["any"] += bool(clashes)
        found.counts["of them by vacuity"] += bool(clashes) and all(VACUOUS in clash.reason for clash in clashes)
        found.counts["duplicates"] += bool(duplicates(specs))
        found.counts["subsumptions"] += bool(subsumptions(specs))
        if clashes:
            found.flagged.append(Flagged(path.stem, row, seed, constraints, clashes[0]))
            found.reasons[" + ".join(sorted(_kinds(constraints, clashes[0])))] += 1
    return found


def _kinds(constraints: Sequence[Constraint], clash: SeedConflict) -> list[str]:
    specs = [constraints[i].spec for i in clash.indices]
    return [s.kind.value for s in specs if s is not None] + [f"seed {d.spec.kind.value}" for d in clash.demands]


def show(flagged: Sequence[Flagged], number: int, seed: int) -> None:
    """Prints flagged prompts, drawn at random: the seed's demand and the constraints that exclude each other."""
    for item in random.Random(seed).sample(list(flagged), min(number, len(flagged))):
        print(f"\n[{item.file} {item.row}] {item.conflict.reason}")
        for demand in item.conflict.demands:
            print(f"  seed: {demand.text}")
        for index in item.conflict.indices:
            print(f"  constraint {index}: {item.constraints[index].text}")


def survey_seeds(path: pathlib.Path) -> None:
    """Prints how many seeds demand something themselves, and of what kinds."""
    seeds: list[str] = pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    demands = [read_demands(seed) for seed in seeds]
    kinds = Counter(demand.spec.kind.value for found in demands for demand in found)
    having = sum(bool(found) for found in demands)
    print(f"\nseeds with a demand: {having} of {len(seeds)} ({100 * having / len(seeds):.1f}%): {dict(kinds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=pathlib.Path)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--random-seed", type=int, default=0)
    options = parser.parse_args()
    known: dict[str, Constraint] = {}

    def parse(text: str) -> Constraint:
        if text not in known:
            known[text] = parse_constraint(text)
        return known[text]

    surveys = [survey(path, parse) for path in options.files]
    head = ("file", "prompts", "texts with a spec", *COLUMNS, "µs per prompt")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for found in surveys:
        print(f"| {found.row()} |")
    print("\nkinds: " + ", ".join(f"{k} {n}" for k, n in sum((s.reasons for s in surveys), Counter()).most_common(40)))
    if options.seeds is not None:
        survey_seeds(options.seeds)
    show([item for found in surveys for item in found.flagged], options.show, options.random_seed)


if __name__ == "__main__":
    main()
