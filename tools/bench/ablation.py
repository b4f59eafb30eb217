"""Compares the anti-collapse arms in the tiny world: arms x seeds, a few runs at a time, and a table with errors.

    python tools/bench/ablation.py --out runs/ablation --seeds 0 1 2 3 4 --jobs 2

Each run is `evolve experiment=tiny_<arm>` on one rank, from the base model that tools/make_tiny_model.py makes with the
same seed, in OUT/<arm>-seed<seed>; its output is in the .log beside it. Runs that are finished are skipped, interrupted
ones continue, and Ctrl-C stops all after the step they are in. What stands after `--` goes to every run as overrides.
An arm whose gate keeps less has fewer Follower steps; to compare at equal steps, fix them:

    … -- 'algorithm.follower.epochs=[9]' algorithm.follower.max_steps=40

Writes OUT/ablation.json and OUT/ablation.md after every run; `--report-only` writes them and runs nothing.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from seif_nemo.data.files import write_whole
from seif_nemo.evolution.ledger import read_ledger
from seif_nemo.observability.metrics import latest, read_metrics
from seif_nemo.observability.summary import value_of
from seif_nemo.types.records import Phase

ROOT = Path(__file__).resolve().parents[2]
ARMS = ("paper", "band", "diversity", "solvable", "no_gate", "static")
BASELINE = "paper"
STOPPED = 130


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the plan and where it lives."""

    arm: str
    seed: int
    directory: Path
    base: Path

    @property
    def log(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run measured, by round from 0 on; None where it did not (yet). `ended` is how its last attempt ended."""

    arm: str
    seed: int
    ended: str
    follow_rate: list[float | None]
    strict_rate: list[float | None]
    difficulty_before: list[float | None]
    difficulty_after: list[float | None]
    solvable_share: list[float | None]  # of the Instructor's instructions, after its phase, by its k answers
    distinct_template_share: list[float | None]  # of what passed the gate in synthesis
    common_share: list[float | None]
    kept_share: list[float | None]  # of what the Instructor wrote in synthesis
    conflict_share: list[float | None]  # of the kept
    follower_steps: list[float | None]  # an arm that keeps less trains less, unless the steps are fixed

    @property
    def is_finished(self) -> bool:
        return self.ended == "finished"

    @property
    def gain(self) -> float | None:
        first, last = self.follow_rate[0], self.follow_rate[-1]
        return None if first is None or last is None else last - first


# What is compared over seeds: a name and what it is of a finished run. Of the last round where nothing else is said.
QUANTITIES: dict[str, Callable[[Result], float | None]] = {
    "gain": lambda r: r.gain,
    "strict rate": lambda r: r.strict_rate[-1],
    "difficulty before": lambda r: r.difficulty_before[-1],
    "difficulty after": lambda r: r.difficulty_after[-1],
    "solvable": lambda r: r.solvable_share[-1],
    "distinct templates": lambda r: r.distinct_template_share[-1],
    "common share": lambda r: r.common_share[-1],
    "kept": lambda r: r.kept_share[-1],
    "conflicts": lambda r: r.conflict_share[-1],
    "Follower steps, all rounds": lambda r: math.fsum(steps or 0.0 for steps in r.follower_steps),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over seeds with its standard error (None for a single seed)."""

    mean: float
    error: float | None
    num_seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")


def estimate(values: Sequence[float]) -> Estimate | None:
    """None of no values. The error is the sample standard deviation (n - 1) / sqrt(n)."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Estimate(mean, math.sqrt(variance / len(values)), len(values))


def paired_difference(
    ours: Sequence[Result], theirs: Sequence[Result], quantity: Callable[[Result], float | None]
) -> Estimate | None:
    """Of the seeds that both arms finished and measured: base model and random numbers are the same within a pair."""
    baseline = {result.seed: quantity(result) for result in theirs}
    differences: list[float] = []
    for result in ours:
        mine, other = quantity(result), baseline.get(result.seed)
        if mine is not None and other is not None:
            differences.append(mine - other)
    return estimate(differences)


def read_result(run: Run, *, rounds: int, ended: str) -> Result:
    """What the run's metrics say, rounds 0 to `rounds`."""
    path = run.directory / "metrics.jsonl"
    metrics = read_metrics(path) if path.exists() else []

    def by_round(phase: Phase, value: str) -> list[float | None]:
        return [value_of(latest(metrics, round_, phase), value) for round_ in range(rounds + 1)]

    steps = Counter((m.key.phase, m.key.round) for m in metrics)
    kept = by_round(Phase.SYNTHESIS, "synthesis/kept")
    asked = by_round(Phase.SYNTHESIS, "synthesis/asked")
    return Result(
        arm=run.arm,
        seed=run.seed,
        ended=ended,
        follow_rate=by_round(Phase.EVALUATION, "eval/follow_rate"),
        strict_rate=by_round(Phase.EVALUATION, "eval/strict_rate"),
        difficulty_before=by_round(Phase.PROBE_BEFORE, "probe/difficulty"),
        difficulty_after=by_round(Phase.PROBE_AFTER, "probe/difficulty"),
        solvable_share=by_round(Phase.PROBE_AFTER, "probe/solvable_share"),
        distinct_template_share=by_round(Phase.SYNTHESIS, "synthesis/distinct_template_share"),
        common_share=by_round(Phase.SYNTHESIS, "synthesis/common_share"),
        kept_share=[None if k is None or not a else k / a for k, a in zip(kept, asked, strict=True)],
        conflict_share=by_round(Phase.SYNTHESIS, "synthesis/conflict_share"),
        follower_steps=[float(steps[Phase.FOLLOWER, round_]) for round_ in range(rounds + 1)],
    )


def is_finished(run: Run, *, rounds: int) -> bool:
    """Whether the ledger has the unit that ends the last round."""
    ledger = run.directory / "ledger.jsonl"
    return any(e.key.round == rounds and e.key.phase is Phase.EVALUATION for e in read_ledger(ledger))


def table(results: Sequence[Result], *, rounds: int) -> str:
    """Markdown: the arms, their paired differences to the baseline, and what did not finish."""
    finished = {
        arm: [r for r in results if r.arm == arm and r.is_finished] for arm in dict.fromkeys(r.arm for r in results)
    }
    rates = {f"round {n}": (lambda r, n=n: r.follow_rate[n]) for n in range(rounds + 1)}
    parts = [
        f"Held-out follow rate by round, and the rest as round {rounds} left it. Mean ± standard error over seeds.",
        _rows(
            finished,
            rates | QUANTITIES,
            lambda rows, quantity: estimate([v for row in rows if (v := quantity(row)) is not None]),
        ),
    ]
    if finished.get(BASELINE) and len(finished) > 1:
        others = {arm: rows for arm, rows in finished.items() if arm != BASELINE}
        parts += [
            f"Paired differences to `{BASELINE}`: the same seeds. Mean ± standard error over pairs.",
            _rows(others, rates | QUANTITIES, lambda rows, q: paired_difference(rows, finished[BASELINE], q)),
        ]
    unfinished = [f"- {r.arm}, seed {r.seed}: {r.ended}" for r in results if not r.is_finished]
    if unfinished:
        parts.append("Left out, since they did not finish:\n\n" + "\n".join(unfinished))
    return "\n\n".join(parts) + "\n"


def _rows(
    arms: Mapping[str, Sequence[Result]],
    columns: Mapping[str, Callable[[Result], float | None]],
    cell: Callable[[Sequence[Result], Callable[[Result], float | None]], Estimate | None],
) -> str:
    lines = ["| arm | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for arm, rows in arms.items():
        cells = [cell(rows, quantity) for quantity in columns.values()]
        seeds = max((found.num_seeds for found in cells if found is not None), default=0)
        lines.append(f"| {arm} | {seeds} | " + " | ".join("-" if c is None else str(c) for c in cells) + " |")
    return "\n".join(lines)


class Bench:
    """Runs the plan and keeps the table up to date."""

    def __init__(self, runs: Sequence[Run], *, out: Path, rounds: int, overrides: Sequence[str]) -> None:
        self._runs = runs
        self._out = out
        self._rounds = rounds
        self._overrides = overrides
        self._ended: dict[Run, str] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._processes: dict[Run, subprocess.Popen[bytes]] = {}

    def run_all(self, *, jobs: int) -> bool:
        """Whether all runs finished."""
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self._run_one, self._runs))
        self.write()
        return all(result.is_finished for result in self.results())

    def stop(self) -> None:
        """Start nothing more and ask what runs to stop after its step."""
        self._stopping.set()
        for process in list(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def _run_one(self, run: Run) -> None:
        if is_finished(run, rounds=self._rounds) or self._stopping.is_set():
            return
        command = [
            *(sys.executable, str(ROOT / "tools" / "launch.py"), "--ranks", "1", "--"),
            *(sys.executable, "-m", "seif_nemo", "evolve"),
            *self.arguments(run),
        ]
        print(f"{run.directory.name}: started", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        with run.log.open("ab") as log:
            # A process group of its own: the terminal's Ctrl-C comes to `stop` alone.
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, process_group=0)
            self._processes[run] = process
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            code = process.wait()
        with self._lock:
            self._ended[run] = "stopped" if code == STOPPED else f"exit code {code}, see {run.log.name}"
            self.write()
        print(f"{run.directory.name}: {self._state(run)}", flush=True)

    def arguments(self, run: Run) -> list[str]:
        """The overrides of one run. What the user gives comes last and so wins."""
        return [
            f"experiment=tiny_{run.arm}",
            f"run.root={run.directory.parent}",
            f"run.name={run.directory.name}",
            f"run.seed={run.seed}",
            f"model.path={run.base}",
            *(f"data.{name}={run.base}/data/{name}.parquet" for name in ("seeds", "probe_seeds", "heldout")),
            f"evolution.rounds={self._rounds}",
            "checkpoint.every_steps=20",
            *self._overrides,
        ]

    def _state(self, run: Run) -> str:
        return "finished" if is_finished(run, rounds=self._rounds) else self._ended.get(run, "not run")

    def results(self) -> list[Result]:
        return [read_result(run, rounds=self._rounds, ended=self._state(run)) for run in self._runs]

    def write(self) -> None:
        """ablation.json and ablation.md, from what is in the run directories now."""
        results = self.results()
        rows = {"rounds": self._rounds, "overrides": list(self._overrides), "runs": [asdict(r) for r in results]}
        write_whole(self._out / "ablation.json", json.dumps(rows, indent=1) + "\n")
        write_whole(self._out / "ablation.md", table(results, rounds=self._rounds))


def make_bases(runs: Sequence[Run], *, steps: int) -> None:
    """The base model of every seed. Raises CalledProcessError."""
    for seed, base in {run.seed: run.base for run in runs}.items():
        command = [sys.executable, str(ROOT / "tools" / "make_tiny_model.py"), "--out", str(base)]
        subprocess.run([*command, "--seed", str(seed), "--steps", str(steps)], cwd=ROOT, check=True)


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the overrides after `--`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    overrides: list[str] = []
    if "--" in given:
        at = given.index("--")
        given, overrides = given[:at], given[at + 1 :]
    known = sorted(p.stem.removeprefix("tiny_") for p in (ROOT / "conf" / "experiment").glob("tiny_*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of all run directories and of the table")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=known, metavar="ARM", help=", ".join(known))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bases", type=Path, default=ROOT / ".cache" / "bases", help="folder of the base models")
    parser.add_argument("--base-steps", type=int, default=1000, help="training steps of each base model")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args(given)
    if options.jobs < 1 or options.rounds < 1:
        parser.error("--jobs and --rounds must be at least 1")
    return options, overrides


def main(arguments: Sequence[str] | None = None) -> int:
    options, overrides = parse_arguments(arguments)
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    runs = [  # seed by seed, so that a table of half the runs still compares pairs
        Run(arm, seed, out / f"{arm}-seed{seed}", options.bases.absolute() / f"tiny-{seed}")
        for seed in dict.fromkeys(options.seeds)
        for arm in dict.fromkeys(options.arms)
    ]
    bench = Bench(runs, out=out, rounds=options.rounds, overrides=overrides)
    if options.report_only:
        bench.write()
        complete = True
    else:
        make_bases(runs, steps=options.base_steps)
        complete = bench.run_all(jobs=options.jobs)
    print((out / "ablation.md").read_text())
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
