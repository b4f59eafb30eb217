"""`python -m seif_nemo judge --in rows.jsonl --out verdicts.jsonl`: verdicts on (response, constraints) rows."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from errno import EBADF
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG
from types import FrameType
from typing import BinaryIO, TextIO

from seif_nemo.judging.streams import MAX_LINE_BYTES, Judged, file_status, judge_lines, open_whole, read_lines
from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.roles.judger import AskQuestions

EXIT_BAD_ROWS = 1
EXIT_BAD_USAGE = 2
EXIT_NO_MODEL = 3
EXIT_SIGNAL = 128  # plus the signal's number
_STREAM = "-"
_MODEL_BATCH = 32

_EPILOG = f"""\
A row of input: "response" and one of
  "instruction_id_list" with "kwargs"   ids of IFEval, judged by its own definitions
  "constraints"                         texts, or objects with a "text"
  "specs"                               this project's canonical specs, objects or their JSON
and, optionally, "seed_question" (what was asked without the constraints) and "prompt" (with them).

A line of output per line of input, in order:
  {{"index": 0, "follow_rate": 1.0, "error": null,
   "verdicts": [{{"verdict": "passed", "source": "rule", "evidence": "12 words, at least 10"}}]}}
"verdict" is passed, failed or missing. "source" is rule or model, the model also where it was asked and its verdict is
missing, or null where nobody was asked: no rule covers the text and no model is named, or it is not a constraint.
"follow_rate" is null if a verdict is missing. A bad row has no verdicts and an "error" that names the line and the key.
Lines of more than {MAX_LINE_BYTES} bytes are bad rows.

exit codes: 0 no bad row; 1 some bad rows (stderr says how many), or a fault, with a traceback; 2 bad usage, or a file
cannot be read or written; 3 the model could not be reached, at all or for some verdicts (stderr says how many); 128 + n
stopped by signal n. With 1 and 3 stderr says whether --out is written; what has its name is always complete.
"""


class _Stopped(BaseException):
    """A signal asked to stop. Not an Exception: nobody but this file may catch it."""


class _Signals:
    """Turns SIGINT and SIGTERM into `_Stopped`, but not in the middle of a line of output."""

    def __init__(self) -> None:
        self.number = 0
        self._is_writing = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def write(self, stream: BinaryIO, data: bytes) -> None:
        self._is_writing = True
        try:
            stream.write(data)
            stream.flush()
        finally:
            self._is_writing = False
        if self.number:
            raise _Stopped

    def _handle(self, number: int, _: FrameType | None) -> None:
        waits = self._is_writing and not self.number  # who asks twice need not wait
        self.number = number
        if not waits:
            raise _Stopped


def run_judge(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = _parser().parse_args(list(arguments))
    problem = _problem(options)
    if problem is not None:
        return _refuse(problem)
    signals = _Signals()
    try:
        with signals.handled():
            try:
                ask = _model(options)
            except ValueError as error:
                return _refuse(_as_options(str(error)))
            except JudgeUnavailableError as error:
                _say(f"{_as_options(str(error))}; nothing is written")
                return EXIT_NO_MODEL
            totals = _judge(options, ask, signals)
    except _Stopped:
        _say(f"stopped by {signal.Signals(signals.number).name}; {_left(options)}")
        return EXIT_SIGNAL + signals.number
    except BrokenPipeError:  # who reads our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SIGNAL + signal.SIGPIPE
    except OSError as error:
        return _refuse(f"{error.filename or f'--out {options.out}'}: {error.strerror}; {_left(options)}")
    return _report(totals)


@dataclass(slots=True)
class _Totals:
    """Sums over `Judged`."""

    rows: int = 0
    bad: int = 0
    first_error: str | None = None
    unreached: int = 0

    def add(self, part: Judged) -> None:
        self.rows += part.rows
        self.bad += part.bad
        self.first_error = self.first_error or part.first_error
        self.unreached += part.unreached


def _report(totals: _Totals) -> int:
    if totals.bad:
        _say(f"{totals.bad} of {totals.rows} rows are bad; the first: {totals.first_error}")
    if totals.unreached:
        _say(f"{totals.unreached} verdicts are missing since the model could not be reached; all rows are written")
        return EXIT_NO_MODEL
    return EXIT_BAD_ROWS if totals.bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seif_nemo judge",
        description="Verdicts on responses: one line of JSON per line of input.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--in", dest="source", required=True, metavar="FILE", help="rows, one JSON per line; - is stdin"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="verdicts; - is stdout")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--loose",
        action="store_true",
        help="judge instruction ids and specs by IFEval's loose criterion; texts stay strict",
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes; default 1")
    _add_model(parser)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a model for what no rule covers, behind an OpenAI-compatible endpoint")
    group.add_argument("--endpoint", metavar="URL", help="such as http://node:8000/v1")
    group.add_argument("--model", metavar="NAME", help="its name there")
    group.add_argument("--key-variable", metavar="NAME", help="the environment variable that holds its key")
    group.add_argument(
        "--judge-mode", choices=("generate", "logprob"), help="how it says its verdict; default generate"
    )
    group.add_argument("--batch", type=_positive, metavar="N", help=f"rows judged at once; default {_MODEL_BATCH}")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer from 1 to 1024")
    return int(text)


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, the files and the streams, before anything is read."""
    for name in ("model", "key_variable", "judge_mode", "batch"):
        if options.endpoint is None and getattr(options, name) is not None:
            return f"--{name.replace('_', '-')} has no effect without --endpoint"
    if options.endpoint is not None and options.model is None:
        return "--endpoint needs --model, the model's name there"
    if options.endpoint is not None and options.jobs > 1:
        return "--jobs: a model is asked by one process; leave it at 1 and raise --batch"
    try:
        source = _status(options.source, sys.stdin)
    except OSError as error:
        return f"--in {options.source}: {error.strerror}"
    try:
        out = _status(options.out, sys.stdout)
    except OSError as error:
        return f"--out {options.out}: {error.strerror}"
    return _file_problem(options, source, out)


def _file_problem(options: argparse.Namespace, source: os.stat_result | None, out: os.stat_result | None) -> str | None:
    if source is None:
        return f"--in {options.source}: there is no such file"
    if S_ISDIR(source.st_mode):
        return f"--in {options.source} is a directory"
    if out is None:
        parent = Path(options.out).absolute().parent
        return None if parent.is_dir() else f"--out {options.out}: there is no directory {parent}"
    if S_ISDIR(out.st_mode):
        return f"--out {options.out} is a directory"
    # A terminal or a socket may well be both; what is written to a file or a pipe would be read again.
    if os.path.samestat(source, out) and (S_ISREG(out.st_mode) or S_ISFIFO(out.st_mode)):
        return f"--out {options.out} is the same file as --in"
    if options.out != _STREAM and S_ISREG(out.st_mode) and not options.force:
        return f"--out {options.out} exists; --force replaces it"
    return None


def _status(name: str, stream: TextIO | None) -> os.stat_result | None:
    """What the system says of the file that an option names, or of the standard stream. None if there is no file."""
    if name != _STREAM:
        return file_status(Path(name))
    if stream is None:
        raise OSError(EBADF, "it is closed")
    return os.fstat(stream.fileno())


def _model(options: argparse.Namespace) -> AskQuestions | None:
    """The model to ask, tried out. Raises ValueError or JudgeUnavailableError."""
    if options.endpoint is None:
        return None
    from seif_nemo.api import endpoint_judge

    return endpoint_judge(
        options.endpoint, options.model, key_variable=options.key_variable, mode=options.judge_mode or "generate"
    )


def _as_options(message: str) -> str:
    """The message with the names of this command's options for those of the configuration."""
    for name in ("endpoint", "model", "key_variable", "mode"):
        option = "--judge-mode" if name == "mode" else f"--{name.replace('_', '-')}"
        message = message.replace(f"reward.judge_{name}=", f"{option} ").replace(f"reward.judge_{name}", option)
    return message


def _judge(options: argparse.Namespace, ask: AskQuestions | None, signals: _Signals) -> _Totals:
    totals = _Totals()
    with ExitStack() as stack:
        streams_in = options.source == _STREAM
        source = sys.stdin.buffer if streams_in else stack.enter_context(Path(options.source).open("rb"))
        out = sys.stdout.buffer if options.out == _STREAM else stack.enter_context(open_whole(Path(options.out)))
        batch = 1 if ask is None else options.batch or _MODEL_BATCH
        lines = _named(read_lines(source), f"--in {options.source}")
        for part in judge_lines(lines, ask=ask, loose=options.loose, batch=batch, jobs=options.jobs):
            signals.write(out, part.output)
            totals.add(part)
    return totals


def _named(lines: Iterator[bytes | None], name: str) -> Iterator[bytes | None]:
    """The lines; an error in reading them has this name, since the system gives it none."""
    try:
        yield from lines
    except OSError as error:
        error.filename = name
        raise


def _left(options: argparse.Namespace) -> str:
    return "the output ends early" if options.out == _STREAM else f"{options.out} is not written"


def _refuse(message: str) -> int:
    _say(message)
    return EXIT_BAD_USAGE


def _say(line: str) -> None:
    if sys.stderr is not None:  # closed; to print, None means stdout
        print(f"seif_nemo: {line}", file=sys.stderr, flush=True)
