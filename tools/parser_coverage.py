"""How much of real constraints the parser of free text reads, how fast, and how often it is right.

    python tools/parser_coverage.py [--labels tests/data/parser_labels.jsonl] [FILE.parquet ...]

A file has a column `constraint`, a list of texts per row, as in the public SEIF release. Prints markdown tables.
"""

import argparse
import json
import math
import pathlib
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.specs import BOLD_MARK, spec_from_fields
from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the parser made of the constraints of one file; times are in microseconds per constraint."""

    name: str
    counts: Counter[Reading]
    mean_us: float
    median_us: float
    p99_us: float

    @property
    def total(self) -> int:
        return self.counts.total()

    def share(self, *readings: Reading, of_constraints: bool = False) -> float:
        """Share of these readings among all texts, or among those that are read as constraints at all."""
        total = self.total - (self.counts[Reading.NOT_A_CONSTRAINT] if of_constraints else 0)
        return sum(self.counts[reading] for reading in readings) / max(total, 1)


def texts_of(path: pathlib.Path) -> list[str]:
    """All texts of the file's column `constraint`, in order."""
    return [text for row in pq.read_table(path, columns=["constraint"])["constraint"].to_pylist() for text in row or ()]


def measure(name: str, texts: Sequence[str]) -> Coverage:
    """Parses every text once, timed one by one in CPU time. Raises ValueError if there are none."""
    if not texts:
        raise ValueError(f"{name}: no constraints")
    counts: Counter[Reading] = Counter()
    times: list[float] = []
    for text in texts:
        started = time.thread_time()
        counts[parse_constraint(text).reading] += 1
        times.append(time.thread_time() - started)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    return Coverage(name, counts, 1e6 * statistics.fmean(times), 1e6 * statistics.median(times), 1e6 * cuts[98])


RULE = (Reading.EQUIVALENT, Reading.NECESSARY, Reading.SCOPED)


def table(rows: Sequence[Coverage]) -> str:
    """Markdown table, one line per file."""
    names = [reading.value.replace("_", " ") for reading in Reading]
    header = ["file", "texts", *names, "rule", "rule, of constraints", "eq. or nec.", "µs mean", "median", "p99"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in rows:
        shares = [f"{row.share(reading):.1%}" for reading in Reading]
        shares += [f"{row.share(*RULE):.1%}", f"{row.share(*RULE, of_constraints=True):.1%}"]
        shares += [f"{row.share(Reading.EQUIVALENT, Reading.NECESSARY):.1%}"]
        times = [f"{t:.0f}" for t in (row.mean_us, row.median_us, row.p99_us)]
        lines.append(f"| {' | '.join([row.name, str(row.total), *shares, *times])} |")
    return "\n".join(lines)


# --- labels


@dataclass(frozen=True, slots=True)
class Label:
    """What a person made of a text. `also` holds further specs that the text implies."""

    text: str
    set_name: str
    file: str
    reading: Reading
    spec: Spec | None
    also: tuple[Spec, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `total`, with a Wilson interval of 95%."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / max(self.total, 1)

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson score interval (E. B. Wilson 1927)."""
        n = max(self.total, 1)
        middle = (self.value + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(self.value * (1 - self.value) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits}/{self.total} = {self.value:.1%} ({low:.1%} to {high:.1%})"


def load_labels(path: pathlib.Path) -> list[Label]:
    """The items of a label file; its first line is a header."""
    found: list[Label] = []
    for line in path.read_text().splitlines()[1:]:
        item: dict[str, Any] = json.loads(line)
        label = item["label"]
        specs = [
            None if fields is None else spec_from_fields(fields) for fields in (label["spec"], *label.get("also", ()))
        ]
        also = tuple(spec for spec in specs[1:] if spec is not None)
        found.append(Label(item["text"], item["set"], item["file"], Reading(label["reading"]), specs[0], also))
    return found


_EMPHASIS = {Kind.BOLD: 0, Kind.EMPHASIS: 1, Kind.HIGHLIGHTS: 2}


def implies(known: Spec, other: Spec) -> bool:
    """Whether every response that has `known` has `other`, for the pairs that the parser weakens a spec to."""
    if known == other:
        return True
    if other.kind is Kind.HIGHLIGHTS and known.kind in _EMPHASIS and other.low <= 1 and other.high is None:
        return other.text is None or known.kind is Kind.BOLD or known.text == BOLD_MARK
    same = (known.kind, known.text, known.scope, known.index) == (other.kind, other.text, other.scope, other.index)
    fits = known.low >= other.low and (other.high is None or (known.high is not None and known.high <= other.high))
    return same and fits


def is_right(label: Label, constraint: Constraint) -> bool:
    """Whether what the parser says is true: a whole spec must be the label's, a necessary one must follow from it."""
    if constraint.reading in (Reading.EQUIVALENT, Reading.SCOPED):
        return (label.reading, label.spec) == (constraint.reading, constraint.spec)
    if constraint.reading is Reading.NECESSARY:
        assert constraint.spec is not None
        known = (*label.also, *(() if label.spec is None else (label.spec,)))
        return any(implies(spec, constraint.spec) for spec in known)
    return constraint.reading is label.reading


def precision(labels: Sequence[Label], readings: Sequence[Reading]) -> Share:
    """Share of right answers among those with one of these readings."""
    answers = [(label, parse_constraint(label.text)) for label in labels]
    given = [(label, answer) for label, answer in answers if answer.reading in readings]
    return Share(sum(is_right(label, answer) for label, answer in given), len(given))


def recall(labels: Sequence[Label], reading: Reading) -> Share:
    """Share of the labels with this reading that the parser reads just so."""
    wanted = [label for label in labels if label.reading is reading]
    answers = [(label, parse_constraint(label.text)) for label in wanted]
    return Share(sum(a.reading is reading and a.spec == label.spec for label, a in answers), len(wanted))


def report(labels: Sequence[Label]) -> str:
    """Precision and recall per set of labels, as lines of markdown."""
    lines: list[str] = []
    for name in dict.fromkeys(label.set_name for label in labels):
        own = [label for label in labels if label.set_name == name]
        shares = {"precision of rule readings": precision(own, RULE)}
        shares["precision of no constraint"] = precision(own, [Reading.NOT_A_CONSTRAINT])
        if name == "all":
            shares |= {f"recall of {reading.value}": recall(own, reading) for reading in Reading}
        lines += [f"- {name}, {what}: {share}" for what, share in shares.items() if share.total]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--labels", type=pathlib.Path)
    arguments = parser.parse_args()
    files: list[pathlib.Path] = arguments.files
    if files:
        print(table([measure(file.stem, texts_of(file)) for file in files]))
    if arguments.labels is not None:
        print(report(load_labels(arguments.labels)))


if __name__ == "__main__":
    main()
