"""Attempts of one run as real processes, forked from a server that has imported torch and megatron-core already."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from tests.dist.harness import process_context, rank_environment


class Attempt:
    """One attempt of `evolve` on `world_size` ranks; output goes to `<log>.<rank>`."""

    def __init__(self, world_size: int, overrides: Sequence[str], log: Path) -> None:
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=120))
        self._ranks: list[Any] = []
        for rank in range(world_size):
            environment = rank_environment(rank, world_size, self._store.port)
            process = process_context().Process(
                target=_evolve, args=(environment, list(overrides), f"{log}.{rank}"), daemon=True
            )
            process.start()
            self._ranks.append(process)

    def wait(self, *, timeout_s: float) -> list[int]:
        """Exit codes of all ranks, in order. Kills what is left after `timeout_s` and raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        for process in self._ranks:
            process.join(max(0.0, deadline - time.monotonic()))
        if any(process.is_alive() for process in self._ranks):
            self.kill()
            raise TimeoutError(f"the attempt did not end in {timeout_s} s")
        return [process.exitcode for process in self._ranks]

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Poll until `condition` holds (True) or the attempt ended by itself (False)."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            if not any(process.is_alive() for process in self._ranks):
                return False
            time.sleep(0.002)
        self.kill()
        raise TimeoutError(f"nothing happened for {timeout_s} s")

    def signal(self, number: int) -> None:
        for process in self._ranks:
            if process.is_alive():
                os.kill(process.pid, number)

    def kill(self) -> None:
        """SIGKILL to every rank, as a power cut would."""
        self.signal(signal.SIGKILL)
        for process in self._ranks:
            process.join()


def _evolve(environment: dict[str, str], overrides: list[str], log: str) -> None:
    os.environ.update(environment)
    with open(log, "w", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout, sys.stderr = stream, stream
        from seif_nemo.cli.main import main

        try:
            code = main(["evolve", *overrides])
        except BaseException:
            traceback.print_exc()
            code = 1
    os._exit(code)


def num_ledger_lines(run_dir: Path) -> int:
    path = run_dir / "ledger.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outcome(run_dir: Path) -> dict[str, dict[str, str]]:
    """What a run came to: for each unit of the ledger the digests of all that it made, attempts left aside."""
    entries: dict[str, dict[str, str]] = {}
    for line in (run_dir / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "rewind" in entry:  # what counts no longer is made again
            continue
        key = entry["key"]
        entries[f"{key['round']}/{key['phase']}/{key['step']}"] = entry["digests"]
    return entries


def parquet_bytes(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in sorted(run_dir.rglob("*.parquet"))}
