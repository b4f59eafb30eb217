"""Runs a command once per rank on this machine and ends all ranks together.

    python tools/launch.py --ranks 2 -- python -m seif_nemo evolve experiment=quickstart

Like torchrun, with the environment that torch.distributed reads, and three differences: the rendezvous is on the
loopback address, whatever the machine's name resolves to; a rank's exit code is passed through; Ctrl-C lets the ranks
finish the step in progress, and a second Ctrl-C ends them at once. When a rank fails, the others get a few seconds to
end.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

GRACE_S = 5.0  # between a rank's failure and the end of the others
STOPPED = 130
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def exit_code(returncode: int) -> int:
    """A shell's view of how a process ended: death by signal N is 128 + N."""
    return 128 - returncode if returncode < 0 else returncode


class Ranks:
    """The processes of one launch. Each leads a process group of its own, so the terminal's Ctrl-C reaches only us."""

    def __init__(self) -> None:
        self.requests = 0  # how often we were asked to stop
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], count: int) -> None:
        """Raises OSError if the command cannot be started."""
        common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in range(count):
            environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment.setdefault("OMP_NUM_THREADS", "1")
            environment.setdefault("OMP_WAIT_POLICY", "passive")
            self.processes.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_parent
                )
            )

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1
        if self.requests == 1:
            say("stopping after the step in progress; once more to stop at once")
        self.send(signal.SIGTERM if self.requests == 1 else signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Signals every rank that still runs, with its children when it is killed."""
        for process in self.processes:
            if process.poll() is None:
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)

    def wait(self) -> int:
        """Returns 0 if every rank did, else the code of the rank that failed first, or STOPPED if we were asked to."""
        code, deadline = 0, float("inf")
        while None in (codes := [process.poll() for process in self.processes]):
            failed = [returncode for returncode in codes if returncode]
            if failed and code == 0:
                code, deadline = exit_code(failed[0]), time.monotonic() + GRACE_S
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.05)
        ends = [exit_code(process.returncode) for process in self.processes if process.returncode]
        code = code or (ends[0] if ends else 0)
        if self.requests and code in (STOPPED, 128 + signal.SIGTERM, 128 + signal.SIGKILL):
            if STOPPED not in ends:
                say("stopped; the same command continues")
            return STOPPED
        return code


def _die_with_parent() -> None:
    """In the rank, before its command starts: ask Linux for SIGTERM should this launcher be killed outright."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def say(line: str) -> None:
    print(f"\nlaunch: {line}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args()
    if options.ranks < 1:
        parser.error(f"--ranks {options.ranks} must be at least 1")
    ranks = Ranks()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ranks.on_signal)
    ranks.start(options.command, options.ranks)
    return ranks.wait()


if __name__ == "__main__":
    raise SystemExit(main())
