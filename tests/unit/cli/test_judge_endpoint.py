"""The judge command and an endpoint that hangs, is down or has a name that HTTP does not know: real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chat_server import Reply, chat_server, said
from tests.unit.source_tree import ROOT

WARM = {"response": "a b", "constraints": ["Use a warm tone."]}
COMMAND = [sys.executable, "-m", "seif_nemo", "judge", "--in", "rows", "--out", "out"]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = [json.dumps({**WARM, "response": f"a b {index}"}) for index in range(40)]
    (tmp_path / "rows").write_text("\n".join(lines))


def yes(body: dict[str, Any]) -> Reply:
    code = re.findall(r"\b[0-9a-f]{8}\b", body["messages"][-1]["content"])[0]
    return said(f"[[{code} yes]]")


HANGS = Reply(hang_s=60.0)
COME_BACK_LATER = Reply(b"later", status=503, headers={"Retry-After": "30"})


@pytest.mark.parametrize(  # answered are: nothing; the trial; that and a batch and a half of questions
    ("number", "num_answers", "then"),
    [
        (signal.SIGINT, 0, HANGS),
        (signal.SIGTERM, 0, COME_BACK_LATER),
        (signal.SIGINT, 1, COME_BACK_LATER),
        (signal.SIGTERM, 13, HANGS),
    ],
)
def test_a_signal_stops_at_once(tmp_path: Path, number: signal.Signals, num_answers: int, then: Reply) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return yes(body) if len(server.requests) <= num_answers else then

    with chat_server(answer) as server:
        arguments = [*COMMAND, "--endpoint", server.url, "--model", "m", "--batch", "8"]
        with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while len(server.requests) <= num_answers and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(server.requests) > num_answers
            time.sleep(0.1)
            asked = time.monotonic()
            process.send_signal(number)
            _, said_by_it = process.communicate(timeout=30)
            took = time.monotonic() - asked
    assert process.returncode == 128 + number
    assert said_by_it == f"seif_nemo: stopped by {number.name}; out is not written\n"
    assert took < 5.0, "well under a second where nothing else runs"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def run(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    result = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    return result.returncode, result.stderr


def test_a_key_or_an_endpoint_that_http_cannot_send_is_code_2_and_one_line(tmp_path: Path) -> None:
    code, text = run(tmp_path, "--endpoint", "http://127.0.0.1:9/ü", "--model", "m")
    assert (code, text) == (
        2,
        "seif_nemo: --endpoint 'http://127.0.0.1:9/ü' must be printable ASCII without spaces; "
        "write others as in %C3%BC\n",
    )
    arguments = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--key-variable", "MY_KEY")
    code, text = run(tmp_path, *arguments, MY_KEY="sk-SECRET\r")
    assert (code, text) == (
        2,
        "seif_nemo: --key-variable MY_KEY: what it holds must be printable ASCII, without a line's end\n",
    )
    assert not (tmp_path / "out").exists()


def test_an_endpoint_that_goes_down_is_left_alone_and_loads_no_torch(tmp_path: Path) -> None:
    """Five batches of 8: the first fails with two attempts each, nothing of the others is asked."""
    code = (
        "import sys\n"
        "from seif_nemo import api\n"
        "ask = api.endpoint_judge(sys.argv[1], 'm')\n"
        "ask._backoff = type(ask._backoff)(2, 0.1, 0.1)\n"
        "row = {'response': 'a b', 'constraints': ['Use a warm tone.']}\n"
        "for batch in range(5):\n"
        "    rows = [{**row, 'response': f'a {batch} {n}'} for n in range(8)]\n"
        "    scores = api.judge_rows(rows, ask=ask)\n"
        "    assert [score.verdicts[0].why.value for score in scores] == ['unavailable'] * 8\n"
        "print([name for name in ('torch', 'megatron', 'transformers') if name in sys.modules])"
    )

    def answer(body: dict[str, Any]) -> Reply:
        return yes(body) if len(server.requests) == 1 else Reply(b"", status=503)

    with chat_server(answer) as server:
        result = subprocess.run([sys.executable, "-c", code, server.url], cwd=tmp_path, capture_output=True, text=True)
        assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")
        assert len(server.requests) == 1 + 2 * 8
