"""Reads a run directory for the report. What is absent is None; what cannot be read becomes a notice on the page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import yaml

from seif_nemo.observability.metrics import read_metrics
from seif_nemo.types.records import Phase, StepMetrics
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluationSample:
    """One held-out prompt with the first of its answers. `follow_rate` is the mean over all its judged answers."""

    seed_question: str
    prompt: str
    constraints: tuple[str, ...]
    response: str
    verdicts: tuple[Verdict, ...]
    follow_rate: float | None

    @property
    def score(self) -> float | None:
        return Score(self.verdicts).follow_rate


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """One output of the Instructor and, if the gate kept it, how far the frozen Follower follows it."""

    seed_question: str
    raw: str
    constraints: tuple[str, ...] | None
    reason: str | None  # why the gate refused it
    follow_rate: float | None


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row of q.parquet, as far as the report shows it."""

    seed_question: str
    constraints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of rejected.parquet, as far as the report shows it."""

    seed_question: str
    raw: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RoundFiles:
    """The files of `rounds/NN`. None: there is no such file (yet)."""

    round: int
    evaluation: tuple[EvaluationSample, ...] | None
    probe_before: tuple[ProbeSample, ...] | None
    probe_after: tuple[ProbeSample, ...] | None
    kept: tuple[KeptRow, ...] | None
    rejected: tuple[RejectedRow, ...] | None


@dataclass(frozen=True, slots=True)
class RunData:
    """A run directory. `metrics` is in the order of `read_metrics`; `notices`: files that could not be read."""

    name: str
    planned_rounds: int | None
    config_text: str | None
    provenance: tuple[tuple[str, str], ...]
    metrics: tuple[StepMetrics, ...]
    rounds: tuple[RoundFiles, ...]
    notices: tuple[str, ...]

    def steps(self, phase: Phase) -> list[StepMetrics]:
        """All steps of a phase kind, over the rounds."""
        return [m for m in self.metrics if m.key.phase is phase]

    def files(self, round_: int) -> RoundFiles | None:
        return next((r for r in self.rounds if r.round == round_), None)

    @property
    def rounds_done(self) -> int:
        """Rounds ≥ 1 that ended. The evaluation is their last step, without values if there are no held-out prompts."""
        return sum(m.key.round >= 1 for m in self.steps(Phase.EVALUATION))


def load_run(run_dir: Path) -> RunData:
    """Everything the report shows. Raises ValueError if `run_dir` is no directory; else it never fails."""
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a directory; give a run directory, such as runs/<name>")
    reader = _Reader(run_dir)
    config_text = reader.read("config.yaml", lambda path: path.read_text(encoding="utf-8"))
    config = reader.read("config.yaml", _read_mapping) if config_text is not None else None
    provenance = reader.read("provenance.json", _read_provenance)
    metrics = reader.read("metrics.jsonl", read_metrics)
    folders = [p for p in (run_dir / "rounds").glob("*") if p.is_dir() and p.name.isdigit()]
    rounds = [_read_round(reader, folder) for folder in sorted(folders, key=lambda p: int(p.name))]
    name = _entry(config, "run", "name")
    planned = _entry(config, "evolution", "rounds")
    reached = max((m.key.round for m in metrics or ()), default=0)  # a later attempt may have been given more rounds
    return RunData(
        name=name if isinstance(name, str) else run_dir.resolve().name,
        planned_rounds=max(planned, reached) if isinstance(planned, int) else None,
        config_text=config_text,
        provenance=provenance or (),
        metrics=tuple(metrics or ()),
        rounds=tuple(rounds),
        notices=tuple(reader.notices),
    )


class _Reader:
    """Reads files below a run directory and keeps a notice for each that is there but cannot be read."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.notices: list[str] = []

    def read(self, name: str, parse: Callable[[Path], T]) -> T | None:
        path = self._run_dir / name
        try:
            return parse(path) if path.exists() else None
        # KeyError, TypeError: a row lacks a field or has one of another type. ArrowInvalid is a ValueError.
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            self.notices.append(f"{name} could not be read: {type(error).__name__}: {error}")
            return None

    def rows(self, name: str, parse: Callable[[dict[str, Any]], T]) -> tuple[T, ...] | None:
        """Rows of a JSON lines file. A torn last line, left by a killed writer, is left out with a notice."""

        def parse_file(path: Path) -> tuple[T, ...]:
            lines = path.read_bytes().split(b"\n")
            if lines[-1].strip():
                self.notices.append(f"{name}: the last line has no end and is left out")
            return tuple(parse(json.loads(line)) for line in lines[:-1] if line.strip())

        return self.read(name, parse_file)

    def table(self, name: str, columns: Sequence[str], parse: Callable[[dict[str, Any]], T]) -> tuple[T, ...] | None:
        """Rows of a parquet file, of which only `columns` are read."""
        return self.read(
            name, lambda path: tuple(parse(row) for row in pq.read_table(path, columns=list(columns)).to_pylist())
        )


def _read_round(reader: _Reader, folder: Path) -> RoundFiles:
    base = f"rounds/{folder.name}"
    return RoundFiles(
        round=int(folder.name),
        evaluation=reader.rows(f"{base}/evaluation_samples.jsonl", _evaluation_sample),
        probe_before=reader.rows(f"{base}/probe_before_samples.jsonl", _probe_sample),
        probe_after=reader.rows(f"{base}/probe_after_samples.jsonl", _probe_sample),
        kept=reader.table(f"{base}/q.parquet", ("seed_question", "constraint"), _kept_row),
        rejected=reader.table(f"{base}/rejected.parquet", ("seed_question", "raw", "reason", "detail"), _rejected_row),
    )


def _evaluation_sample(row: dict[str, Any]) -> EvaluationSample:
    verdicts = tuple(Verdict(Outcome(v["outcome"]), Source(v["source"]), str(v["evidence"])) for v in row["verdicts"])
    rate = row["follow_rate"] if "follow_rate" in row else Score(verdicts).follow_rate  # older files lack it
    return EvaluationSample(
        seed_question=str(row["seed_question"]),
        prompt=str(row["prompt"]),
        constraints=tuple(map(str, row["constraints"])),
        response=str(row["response"]),
        verdicts=verdicts,
        follow_rate=None if rate is None else float(rate),
    )


def _probe_sample(row: dict[str, Any]) -> ProbeSample:
    constraints = row["constraints"]
    return ProbeSample(
        seed_question=str(row["seed_question"]),
        raw=str(row["raw"]),
        constraints=None if constraints is None else tuple(map(str, constraints)),
        reason=None if row["reason"] is None else str(row["reason"]),
        follow_rate=None if row["follow_rate"] is None else float(row["follow_rate"]),
    )


def _kept_row(row: dict[str, Any]) -> KeptRow:
    return KeptRow(str(row["seed_question"]), tuple(map(str, row["constraint"])))


def _rejected_row(row: dict[str, Any]) -> RejectedRow:
    return RejectedRow(str(row["seed_question"]), str(row["raw"]), str(row["reason"]), str(row["detail"]))


def _read_mapping(path: Path) -> object:
    mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise ValueError("not a mapping")
    return mapping


def _read_provenance(path: Path) -> tuple[tuple[str, str], ...]:
    mapping = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise ValueError("not a mapping")
    return tuple((str(key), value if isinstance(value, str) else json.dumps(value)) for key, value in mapping.items())


def _entry(config: object, group: str, key: str) -> object:
    """`config[group][key]`, None where there is none: a hand-made run directory may lack it."""
    inner = config[group] if isinstance(config, dict) and group in config else None
    return inner[key] if isinstance(inner, dict) and key in inner else None
