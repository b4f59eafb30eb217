import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seif_nemo.cli.main import main
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Source, Verdict, Why
from tests.chat_server import Reply, chat_server, said
from tests.unit.source_tree import ROOT

GOOD = {"response": "a b", "constraints": ["At most 2 words."]}
COMMAND = [sys.executable, "-m", "seif_nemo", "judge"]


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(*arguments: str | Path) -> int:
    return main(["judge", *map(str, arguments)])


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_good_rows_give_verdicts_and_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_rows(tmp_path / "rows", GOOD, {**GOOD, "response": "a b c"}), tmp_path / "out"
    assert judge("--in", source, "--out", out) == 0
    assert [(row["index"], row["follow_rate"], row["error"]) for row in read(out)] == [(0, 1.0, None), (1, 0.0, None)]
    assert read(out)[1]["verdicts"] == [{"verdict": "failed", "source": "rule", "evidence": "3 words, at most 2"}]
    assert capsys.readouterr() == ("", "")


def test_bad_rows_give_code_1_and_their_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_rows(tmp_path / "rows", GOOD, 5, {}, GOOD), tmp_path / "out"
    assert judge("--in", source, "--out", out) == 1
    assert [row["error"] for row in read(out)] == [
        None, "line 2: not a JSON object but a number", "line 3: 'response' is missing", None,
    ]  # fmt: skip
    expected = "seif_nemo: 2 of 4 rows are bad; the first: line 2: not a JSON object but a number\n"
    assert capsys.readouterr().err == expected


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    assert judge("--in", write_rows(tmp_path / "rows"), "--out", tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_loose_is_an_option(tmp_path: Path) -> None:
    row = {"response": "Sure, ok:\nno comma", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    source = write_rows(tmp_path / "rows", row)
    assert judge("--in", source, "--out", tmp_path / "strict") == 0
    assert judge("--in", source, "--out", tmp_path / "loose", "--loose") == 0
    assert [read(tmp_path / name)[0]["follow_rate"] for name in ("strict", "loose")] == [0.0, 1.0]


def test_bad_usage_is_code_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "rows", GOOD)
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "old").write_text("old")
    cases = [
        ((tmp_path / "no", "--out", tmp_path / "out"), f"--in {tmp_path}/no: there is no such file"),
        ((tmp_path, "--out", tmp_path / "out"), f"--in {tmp_path} is a directory"),
        ((source, "--out", tmp_path), f"--out {tmp_path} is a directory"),
        ((source, "--out", source, "--force"), f"--out {source} is the same file as --in"),
        ((source, "--out", tmp_path / "link", "--force"), f"--out {tmp_path}/link is the same file as --in"),
        ((source, "--out", tmp_path / "old"), f"--out {tmp_path}/old exists; --force replaces it"),
        ((source, "--out", tmp_path / "no" / "out"), f"--out {tmp_path}/no/out: there is no directory {tmp_path}/no"),
    ]
    for arguments, message in cases:
        assert judge("--in", *arguments) == 2, message
        assert capsys.readouterr().err == f"seif_nemo: {message}\n"
    assert (tmp_path / "old").read_text() == "old"
    assert judge("--in", source, "--out", tmp_path / "old", "--force") == 0
    assert len(read(tmp_path / "old")) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--in", "x"], ["--in", "-", "--out", "-", "--jobs", "0"], ["--in", "-", "--out", "-", "--lose"]]
)
def test_wrong_arguments_are_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        judge(*arguments)
    assert caught.value.code == 2


def test_a_file_that_cannot_be_read_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "full"
    source = write_rows(tmp_path / "rows", GOOD)
    loop.symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert judge("--in", source, "--out", loop) == 2
    assert "No space left on device" in capsys.readouterr().err


def shell(tmp_path: Path, line: str) -> tuple[int, str]:
    """The code and the words on stderr of `judge` as a shell starts it: `line` has its arguments and redirections."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", f"{shlex.join(COMMAND)} {line}"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, timeout=120)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    "source, out", [("-", "rows"), ("-", "link"), ("rows", "-"), ("link", "-"), ("-", "-"), ("pipe", "pipe")]
)
def test_a_stream_that_is_the_other_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = write_rows(Path("rows"), GOOD)
    Path("link").symlink_to(rows)
    os.mkfifo("pipe")
    before = rows.read_bytes()
    with rows.open() as stdin, rows.open("a") as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        assert judge("--in", source, "--out", out, "--force") == 2
    assert capsys.readouterr().err == f"seif_nemo: --out {out} is the same file as --in\n"
    assert rows.read_bytes() == before


def test_streams_of_two_files_or_of_one_device_are_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = write_rows(tmp_path / "rows", GOOD), tmp_path / "out"
    for source, target in ((rows, out), (Path(os.devnull), Path(os.devnull))):
        with source.open() as stdin, target.open("w") as stdout:
            monkeypatch.setattr("sys.stdin", stdin)
            monkeypatch.setattr("sys.stdout", stdout)
            assert judge("--in", "-", "--out", "-") == 0
    assert [row["follow_rate"] for row in read(out)] == [1.0]
    assert capsys.readouterr().err == ""


LONG = "x" * 300


@pytest.mark.parametrize(
    "source, out, message",
    [
        (LONG, "out", f"--in {LONG}: File name too long"),
        ("rows", LONG, f"--out {LONG}: File name too long"),
        ("loop", "out", "--in loop: Too many levels of symbolic links"),
        ("rows", "loop", "--out loop: Too many levels of symbolic links"),
        ("rows", "loop/out", "--out loop/out: Too many levels of symbolic links"),
        ("rows/no", "out", "--in rows/no: there is no such file"),
        ("-", "out", "--in -: it is closed"),
        ("rows", "-", "--out -: it is closed"),
        ("/proc/self/mem", "out", "--in /proc/self/mem: Input/output error; out is not written"),
    ],
)
def test_files_of_no_use_are_code_2_and_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    out: str,
    message: str,
) -> None:
    if source.startswith("/") and not Path(source).exists():
        pytest.skip(f"this system has no {source}")
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows"), GOOD)
    Path("loop").symlink_to("loop")
    with monkeypatch.context() as closed:
        closed.setattr("sys.stdin", None)
        closed.setattr("sys.stdout", None)
        assert judge("--in", source, "--out", out) == 2
    assert capsys.readouterr().err == f"seif_nemo: {message}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "rows"]


def test_streams_that_a_shell_closed_or_cannot_be_used(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", 5)
    assert shell(tmp_path, "--in - --out out <&-") == (2, "seif_nemo: --in -: it is closed\n")
    assert shell(tmp_path, "--in rows --out - > out 2>&-") == (1, "")
    assert len(read(tmp_path / "out")) == 1
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    expected = "seif_nemo: --out -: No space left on device; the output ends early\n"
    assert shell(tmp_path, "--in rows --out - > /dev/full") == (2, expected)


def test_a_name_of_245_letters_can_be_written(tmp_path: Path) -> None:
    source, out = write_rows(tmp_path / "rows", GOOD), tmp_path / ("x" * 245)
    assert judge("--in", source, "--out", out) == 0
    assert [row["follow_rate"] for row in read(out)] == [1.0]


class Endpoint:
    """Stands in for `api.endpoint_judge` and for the judge that it gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> None:
        self.arguments: list[object] = []
        self.asked: list[int] = []
        self._verdicts = iter(verdicts)
        monkeypatch.setattr("seif_nemo.api.endpoint_judge", self._make)

    def _make(self, endpoint: str, model: str, *, key_variable: str | None, mode: str) -> "Endpoint":
        self.arguments = [endpoint, model, key_variable, mode]
        return self

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        self.asked.append(len(questions))
        return [next(self._verdicts) for _ in questions]


YES = Verdict(Outcome.PASSED, Source.MODEL, "[[yes]]")
WARM = {"response": "a b", "constraints": ["At most 2 words.", "Use a warm tone."]}
MODEL = ("--endpoint", "http://node:8000/v1", "--model", "big")


def test_a_model_judges_what_no_rule_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_rows(tmp_path / "rows", WARM, 5, WARM, GOOD, WARM), tmp_path / "out"
    endpoint = Endpoint(monkeypatch, YES, YES, YES)
    more = ("--key-variable", "KEY", "--judge-mode", "logprob", "--batch", "3")
    assert judge("--in", source, "--out", out, *MODEL, *more) == 1
    assert endpoint.arguments == ["http://node:8000/v1", "big", "KEY", "logprob"]
    assert endpoint.asked == [2, 1]
    assert [row["follow_rate"] for row in read(out)] == [1.0, None, 1.0, 1.0, 1.0]
    assert read(out)[4]["verdicts"] == [
        {"verdict": "passed", "source": "rule", "evidence": "2 words, at most 2"},
        {"verdict": "passed", "source": "model", "evidence": "[[yes]]"},
    ]


def test_verdicts_that_the_model_was_not_reached_for_give_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_rows(tmp_path / "rows", WARM, 5, WARM), tmp_path / "out"
    gone = Verdict(Outcome.MISSING, Source.MODEL, "HTTP 503", Why.UNAVAILABLE)
    endpoint = Endpoint(monkeypatch, YES, gone)
    assert judge("--in", source, "--out", out, *MODEL) == 3
    assert endpoint.arguments[2:] == [None, "generate"]
    assert [row["follow_rate"] for row in read(out)] == [1.0, None, None]
    assert read(out)[2]["verdicts"][1] == {"verdict": "missing", "source": "model", "evidence": "HTTP 503"}  # type: ignore[index]
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["seif_nemo: 1 verdicts are missing since the model could not be reached; all rows are written"]


def test_a_model_that_nobody_answers_for_is_code_3_and_bad_options_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "rows", GOOD)
    monkeypatch.delenv("SEIF_NO_KEY", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with chat_server(lambda _: Reply(b"", status=404)) as server:
        url = server.url
        cases = [
            (("--endpoint", url, "--model", "m"), 3, f"--endpoint {url} gives no answer as --model m: HTTP 404"),
            (("--endpoint", "node", "--model", "m"), 2, "--endpoint node must look like http://node:8000/v1"),
            ((*MODEL, "--key-variable", "SEIF_NO_KEY"), 2, "--key-variable SEIF_NO_KEY: no such environment variable"),
            (("--endpoint", url), 2, "--endpoint needs --model"),
            (("--model", "m"), 2, "--model has no effect without --endpoint"),
            (("--batch", "3"), 2, "--batch has no effect without --endpoint"),
            ((*MODEL, "--jobs", "2"), 2, "--jobs: a model is asked by one process"),
        ]
        for arguments, code, message in cases:
            assert judge("--in", source, "--out", tmp_path / "out", *arguments) == code, message
            last = capsys.readouterr().err.splitlines()[-1]  # the test's server has a word of its own before
            assert last.startswith(f"seif_nemo: {message}")
    assert not (tmp_path / "out").exists()


def test_a_model_behind_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")

    def answer(body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        code = next(word for word in re.findall(r"\b[0-9a-f]{8}\b", text))
        return said(f"It is warm. [[{code} {'no' if 'cold' in text else 'yes'}]]")

    source, out = write_rows(tmp_path / "rows", WARM, {**WARM, "response": "cold words"}), tmp_path / "out"
    with chat_server(answer) as server:
        assert judge("--in", source, "--out", out, "--endpoint", server.url, "--model", "big") == 0
        assert {request["model"] for request in server.requests} == {"big"}
    assert [row["follow_rate"] for row in read(out)] == [1.0, 0.5]


def start(*arguments: str | Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_pipe_gets_each_verdict_at_once_and_a_broken_one_ends_quietly() -> None:
    with start("--in", "-", "--out", "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for index in range(2):
            process.stdin.write(json.dumps(GOOD).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["index"] == index
        process.stdout.close()
        process.stdin.write(json.dumps(GOOD).encode() + b"\n")
        process.stdin.close()
        assert process.wait(20) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_under_the_name(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with start("--in", "-", "--out", out) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(GOOD).encode() + b"\n")
        process.stdin.flush()
        partial = tmp_path / f".out.{process.pid}.partial"
        deadline = time.monotonic() + 30
        while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(read(partial)) == 1
        process.send_signal(number)
        code = process.wait(20)
        said = process.stderr.read().decode()
    assert not out.exists()
    if number is signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number
        assert list(tmp_path.iterdir()) == []
        assert said == f"seif_nemo: stopped by {number.name}; {out} is not written\n"


def test_the_command_loads_no_trainer() -> None:
    code = (
        "import sys, seif_nemo.cli.judge, seif_nemo.api\n"
        "print([name for name in ('torch', 'megatron', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"


def is_running(pid: str) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return "State:\tZ" not in status


def test_processes_stop_with_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start("--in", "-", "--out", out, "--jobs", "2") as process:
        assert process.stdin is not None
        process.stdin.write((json.dumps(GOOD).encode() + b"\n") * 2000)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        partial = tmp_path / f".out.{process.pid}.partial"
        while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))
    assert list(tmp_path.iterdir()) == []
