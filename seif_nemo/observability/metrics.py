"""metrics.jsonl: one line per finished step, written by global rank 0 and read by the report.

A line is `{"round": 1, "phase": "instructor", "step": 3, "time_s": …, "values": {"reward/mean": 0.4, …}}`. It is strict
JSON: values that JSON has no number for are the strings "NaN", "Infinity" and "-Infinity".
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from seif_nemo.types.records import Phase, StepMetrics, UnitKey

_PHASE_ORDER = {phase: index for index, phase in enumerate(Phase)}


def chronological(key: UnitKey) -> tuple[int, int, int]:
    """Sort key: units of work in the order in which a run does them."""
    return key.round, _PHASE_ORDER[key.phase], key.step


def encode_line(metrics: StepMetrics) -> str:
    """The JSON line of `metrics`, without the newline."""
    values = {name: _encode_float(value) for name, value in metrics.values.items()}
    row = {"round": metrics.key.round, "phase": metrics.key.phase.value, "step": metrics.key.step}
    return json.dumps({**row, "time_s": metrics.time_s, "values": values}, allow_nan=False)


def decode_line(line: str) -> StepMetrics:
    """Inverse of `encode_line`. Raises ValueError for anything else."""
    row = json.loads(line)
    try:
        key = UnitKey(round=int(row["round"]), phase=Phase(row["phase"]), step=int(row["step"]))
        values = {str(name): float(value) for name, value in row["values"].items()}
        return StepMetrics(key=key, time_s=float(row["time_s"]), values=values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a line of metrics: {line[:200]!r}") from error


def read_metrics(path: Path) -> list[StepMetrics]:
    """All steps of the file, in the order of round, phase and step. The last line of a (round, phase, step) counts.

    A torn last line (the writer was killed) is left out. Raises ValueError, with the line's number, for any other line
    that cannot be read, and FileNotFoundError if there is no file.
    """
    lines = path.read_bytes().split(b"\n")
    found: dict[UnitKey, StepMetrics] = {}
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            metrics = decode_line(raw.decode("utf-8"))
        except ValueError as error:
            if number == len(lines):  # no newline at its end: torn
                continue
            raise ValueError(f"{path}:{number}: {error}") from error
        found[metrics.key] = metrics
    return sorted(found.values(), key=lambda metrics: chronological(metrics.key))


class MetricsWriter:
    """Appends steps to metrics.jsonl; with `tensorboard_dir`, also writes them as TensorBoard scalars.

    A line goes to the operating system in one write, so that a killed process leaves at most a torn last line, which
    the next writer removes. In TensorBoard a value is `<phase>/<name>`, at the number of the phase's earlier steps in
    the whole run. Raises ValueError if TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, tensorboard_dir: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._board = None if tensorboard_dir is None else _Board(tensorboard_dir)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        _mend_end(self._fd)
        if self._board is not None:
            for metrics in read_metrics(path):
                self._board.position(metrics.key)

    def write(self, metrics: StepMetrics) -> None:
        """Appends one line. Raises OSError if the disk takes less than all of it."""
        line = (encode_line(metrics) + "\n").encode()
        written = os.write(self._fd, line)
        if written != len(line):
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written; is the disk full?")
        os.fsync(self._fd)  # the ledger's line follows, and no step is measured again
        if self._board is not None:
            self._board.write(metrics)

    def close(self) -> None:
        os.close(self._fd)
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SummaryWriter(Protocol):
    """The part of torch.utils.tensorboard.SummaryWriter that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, walltime: float) -> Any: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class _Board:
    """TensorBoard has one step axis: a phase kind counts its steps over the rounds; a redone step keeps its place."""

    def __init__(self, directory: Path) -> None:
        try:
            import tensorboard  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "TensorBoard output is asked for, but the package `tensorboard` cannot be imported; "
                "install it (pip install tensorboard) or turn the output off"
            ) from error
        self._writer: _SummaryWriter = SummaryWriter(log_dir=str(directory))
        self._positions: dict[Phase, dict[UnitKey, int]] = {phase: {} for phase in Phase}

    def position(self, key: UnitKey) -> int:
        positions = self._positions[key.phase]
        return positions.setdefault(key, len(positions))

    def write(self, metrics: StepMetrics) -> None:
        position = self.position(metrics.key)
        for name, value in metrics.values.items():
            self._writer.add_scalar(f"{metrics.key.phase.value}/{name}", value, position, metrics.time_s)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def latest(metrics: Sequence[StepMetrics], round_: int, phase: Phase) -> StepMetrics | None:
    """The last step of a phase in `metrics` (in the order of `read_metrics`); None if it has none yet."""
    return next((m for m in reversed(metrics) if m.key.round == round_ and m.key.phase is phase), None)


def _encode_float(value: float) -> float | str:
    value = float(value)  # also NumPy and zero-dimensional tensors
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _mend_end(fd: int) -> None:
    """Removes a torn last line; a whole one that lacks only its newline gets it."""
    size = os.fstat(fd).st_size
    if size == 0:
        return
    tail, start, block = b"", size, 1 << 16
    while start > 0 and b"\n" not in tail:
        length = min(block, start)
        start -= length
        tail = os.pread(fd, length, start) + tail
    last = tail.rpartition(b"\n")[2]
    if not last:
        return
    try:
        decode_line(last.decode("utf-8"))
    except ValueError:
        os.ftruncate(fd, size - len(last))
    else:
        os.write(fd, b"\n")
