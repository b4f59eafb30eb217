"""tools/launch.py: the ranks' environment, exit codes, and how they end."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "tools" / "launch.py"
# Finishes its "step" after a SIGTERM and then ends with 130, as `evolve` does. Writes a file when it listens.
POLITE = """
import os, pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(str(os.getpid()))
while not asked: time.sleep(0.02)
pathlib.Path(sys.argv[1], "finished" + os.environ["RANK"]).touch()
raise SystemExit(130)
"""
DEAF = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(str(os.getpid()))
if os.environ["RANK"] == sys.argv[2]: raise SystemExit(3)
time.sleep(100)
"""


def launch(code: str, *arguments: object, ranks: int = 2) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(LAUNCH),
        "--ranks",
        str(ranks),
        "--",
        sys.executable,
        "-c",
        code,
        *map(str, arguments),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids(folder: pathlib.Path) -> list[int]:
    """Of both ranks, once both have written theirs."""
    wait_for(lambda: all((folder / rank).exists() and (folder / rank).read_text() for rank in "01"))
    return [int((folder / rank).read_text()) for rank in "01"]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_ranks_are_told_their_place() -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    code = f"import os, sys; sys.stdout.write(' '.join(os.environ[n] for n in {names}) + chr(10))"
    process = launch(code, ranks=3)
    output, _ = process.communicate(timeout=60)
    lines = sorted(line.split() for line in output.splitlines())
    port = lines[0][4]
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    assert process.returncode == 0
    assert lines == [[str(rank), str(rank), "3", "127.0.0.1", port, threads] for rank in range(3)]
    assert 1024 <= int(port) < 65536


def test_the_exit_code_of_the_failing_rank_is_passed_through_and_ends_the_others(tmp_path: pathlib.Path) -> None:
    process = launch(DEAF, tmp_path, 1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert not any(map(alive, pids(tmp_path)))


def test_one_interrupt_lets_the_ranks_finish_their_step(tmp_path: pathlib.Path) -> None:
    process = launch(POLITE, tmp_path)
    pids(tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert sorted(path.name for path in tmp_path.glob("finished*")) == ["finished0", "finished1"]
    assert "once more to stop at once" in errors


def test_a_second_interrupt_ends_the_ranks_at_once(tmp_path: pathlib.Path) -> None:
    process = launch(DEAF, tmp_path, "none")
    ranks = pids(tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert all(map(alive, ranks))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not any(map(alive, ranks))
    assert "the same command continues" in errors


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path: pathlib.Path) -> None:
    process = launch(POLITE, tmp_path)
    ranks = pids(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, ranks)))
    assert (tmp_path / "finished1").exists()
