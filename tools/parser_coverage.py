"""How much of real constraints the parser of free text reads: counts per reading, coverage and speed per file.

    python tools/parser_coverage.py FILE.parquet ...

A file has a column `constraint`, a list of texts per row, as in the public SEIF release. Prints a markdown table.
"""

import argparse
import pathlib
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.types.constraints import Reading


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


_RULE = (Reading.EQUIVALENT, Reading.NECESSARY, Reading.SCOPED)


def table(rows: Sequence[Coverage]) -> str:
    """Markdown table, one line per file."""
    names = [reading.value.replace("_", " ") for reading in Reading]
    header = ["file", "texts", *names, "rule", "rule, of constraints", "eq. or nec.", "µs mean", "median", "p99"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in rows:
        shares = [f"{row.share(reading):.1%}" for reading in Reading]
        shares += [f"{row.share(*_RULE):.1%}", f"{row.share(*_RULE, of_constraints=True):.1%}"]
        shares += [f"{row.share(Reading.EQUIVALENT, Reading.NECESSARY):.1%}"]
        times = [f"{t:.0f}" for t in (row.mean_us, row.median_us, row.p99_us)]
        lines.append(f"| {' | '.join([row.name, str(row.total), *shares, *times])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    files: list[pathlib.Path] = parser.parse_args().files
    print(table([measure(file.stem, texts_of(file)) for file in files]))


if __name__ == "__main__":
    main()
