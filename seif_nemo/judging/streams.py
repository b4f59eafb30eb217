"""Lines in, lines out: one line of verdicts per line of input, in order, in constant memory."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from seif_nemo.judging.rulings import judge_tasks, score_line
from seif_nemo.judging.tasks import Task, parse_line
from seif_nemo.roles.judger import AskQuestions
from seif_nemo.types.verdicts import Why

MAX_LINE_BYTES = 8 * 2**20  # a longer line is a bad row, and is never held in memory
_MAX_NAME_BYTES = 255  # of a file, on all usual file systems
_BOM = b"\xef\xbb\xbf"
_LINES_PER_JOB = 64
_CHUNKS_AHEAD = 4  # per process: enough to keep all busy, few enough to keep memory constant


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive lines of input, the first of them number `first` (0-based). None: the line was too long."""

    first: int
    lines: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A chunk's lines of output, with counts: rows, bad ones, and verdicts for which the model could not be reached."""

    output: bytes
    rows: int
    bad: int
    first_error: str | None
    unreached: int


def read_lines(stream: BinaryIO, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """The lines of `stream` without a byte order mark; None for one of more than `max_bytes`, its newline included."""
    first = True
    while line := stream.readline(max_bytes + 1):
        if len(line) > max_bytes:
            while line and not line.endswith(b"\n"):
                line = stream.readline(2**16)
            yield None
        else:
            yield line.removeprefix(_BOM) if first else line
        first = False


def chunks(lines: Iterable[bytes | None], size: int) -> Iterator[Chunk]:
    """`lines` in groups of `size`."""
    first, source = 0, iter(lines)
    while group := tuple(islice(source, size)):
        yield Chunk(first, group)
        first += len(group)


def judge_chunk(chunk: Chunk, *, ask: AskQuestions | None = None, loose: bool = False) -> Judged:
    """Verdicts on each line. A bad row has its error in the output and stops nothing."""
    rows = [_parse(chunk.first + offset, line) for offset, line in enumerate(chunk.lines)]
    tasks = [row for row in rows if isinstance(row, Task)]
    try:
        scores = judge_tasks(tasks, ask=ask, loose=loose)
    except Exception as error:
        error.add_note(f"while judging lines {chunk.first + 1} to {chunk.first + len(rows)}")
        raise
    remaining = iter(scores)
    output = [
        score_line(chunk.first + offset, next(remaining), None)
        if isinstance(row, Task)
        else score_line(chunk.first + offset, None, row)
        for offset, row in enumerate(rows)
    ]
    errors = [row for row in rows if isinstance(row, str)]
    unreached = sum(verdict.why is Why.UNAVAILABLE for score in scores for verdict in score.verdicts)
    return Judged(b"".join(output), len(rows), len(errors), errors[0] if errors else None, unreached)


def judge_lines(
    lines: Iterable[bytes | None], *, ask: AskQuestions | None, loose: bool, batch: int, jobs: int
) -> Iterator[Judged]:
    """Judges `lines`, `batch` rows at a time, or 64 by each of `jobs` processes. The order is kept.

    Raises ValueError for a model together with more than one process: it answers a batch at once by itself.
    """
    if jobs == 1:
        for chunk in chunks(lines, batch):
            yield judge_chunk(chunk, ask=ask, loose=loose)
        return
    if ask is not None:
        raise ValueError("a model is asked by one process: leave --jobs at 1 and raise --batch")
    waiting: deque[Future[Judged]] = deque()
    # Not forked: the caller may have threads. Workers leave Ctrl-C to the caller.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_ignore_interrupts) as pool:
        try:
            for chunk in chunks(lines, _LINES_PER_JOB):
                waiting.append(pool.submit(judge_chunk, chunk, loose=loose))
                if len(waiting) > jobs * _CHUNKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def file_status(path: Path) -> os.stat_result | None:
    """What the system says of the file, or None if there is none. Raises OSError where it cannot even say that."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def open_whole(path: Path) -> Generator[BinaryIO, None, None]:
    """A file for writing that gets its name only when the block ends well: else it is as if nothing was written.

    What is no regular file, such as a pipe or /dev/null, is written directly. Raises OSError.
    """
    status = file_status(path)
    if status is not None and not S_ISREG(status.st_mode):
        with path.open("wb") as stream:
            yield stream
        return
    target = path.resolve()  # a link stays a link
    partial = _partial(target)
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _partial(target: Path) -> Path:
    """Where the file is written until it is whole: beside it, under its name as far as that leaves room."""
    ending = f".{os.getpid()}.partial"
    name = target.name
    while len(os.fsencode(f".{name}{ending}")) > _MAX_NAME_BYTES:
        name = name[:-1]
    return target.with_name(f".{name}{ending}")


def _parse(index: int, line: bytes | None) -> Task | str:
    """The task of a line, or what is wrong with it."""
    try:
        if line is None:
            raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
        return parse_line(line)
    except ValueError as error:
        return f"line {index + 1}: {error}"


def _ignore_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
