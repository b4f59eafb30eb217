"""What to say when a collective waits in vain, so that the message names rank, place and collective."""

import re
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from seif_nemo.parallel.topology import Topology

_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)  # gloo: "Timed out waiting 6000ms for send operation"
_CUT_OFF = re.compile(r"connection (was )?(closed|reset)|broken pipe", re.IGNORECASE)  # what the others see after it
_COLLECTIVES = "distributed_c10d.py"
_BETWEEN = ("c10d_logger.py", "contextlib.py", "typing_extensions.py")  # frames between a caller and those
_PACKAGE = Path(__file__).parents[1]


class LostRankError(RuntimeError):
    """A collective waited in vain for another rank."""


@contextmanager
def naming_lost_ranks(topology: Topology, place: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn the error of a collective that timed out, or lost its peer, into a LostRankError that says where.

    `place` says in which phase the error came. NCCL's watchdog ends the process itself, with rank and collective; the
    stacks that Python then prints have the phase.
    """
    try:
        yield
    except RuntimeError as error:
        # Only what torch.distributed raises: a class of our own may quote a judge's time-out or a path.
        is_of_torch = type(error) is RuntimeError or isinstance(error, dist.DistError)
        happened = _what_happened(str(error), topology) if is_of_torch else None
        if happened is None:
            raise
        raise LostRankError(
            f"rank {topology.rank} of {topology.world_size} on {socket.gethostname()}: {collective_of(error)} "
            f"{happened} in {place(error)}. Another rank has ended or hangs, or is slower than "
            f"parallel.collective_timeout_s={topology.collective_timeout_s:g} allows"
        ) from error


def _what_happened(message: str, topology: Topology) -> str | None:
    if _TIMED_OUT.search(message):
        return f"timed out after {topology.collective_timeout_s:g} s"
    return "lost the other side" if _CUT_OFF.search(message) else None


def collective_of(error: BaseException) -> str:
    """The torch.distributed function that an error came out of and where it was called.

    Where that has no public name (several at once, or the wait for one that was begun earlier): the function that
    called it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = [index for index, frame in enumerate(frames) if Path(frame.filename).name == _COLLECTIVES]
    outside = [frame for frame in frames[: inside[0] if inside else None] if Path(frame.filename).name not in _BETWEEN]
    caller = outside[-1] if outside else frames[-1]
    public = [frames[index].name for index in inside if not frames[index].name.startswith("_")]
    return f"{public[0] if public else caller.name} ({_where(caller)})"


def _where(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    own = path.is_relative_to(_PACKAGE)  # an environment may lie beside it, in the same checkout
    shown = path.relative_to(_PACKAGE.parent) if own else Path(*path.parts[-3:])
    return f"{shown}:{frame.lineno}"
