"""Logging of this package: one handler on the logger "seif_nemo", a rank on each line, one talking rank.

Modules take `logging.getLogger(__name__)` as usual and never add handlers.
"""

import logging
import sys
import warnings
from typing import TextIO

ROOT_NAME = "seif_nemo"

# What libraries say at every start and nobody here can act on.
_KNOWN_WARNINGS = (
    r".*Apex (is|are) not installed.*",  # megatron-core on the CPU
    r".*full scope is deprecated.*",  # megatron-core about its own default
    r"The \.grad attribute of a Tensor that is not a leaf.*",  # megatron-core's optimizer looks at views
    r"`torch\.distributed\.\w+` is deprecated.*",  # megatron-core 0.16 on torch 2.13
)


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Marked by its type, so that a second set-up replaces it. On a terminal it first wipes the live progress line."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"\r\x1b[K{text}" if self.stream.isatty() else text


def set_up_logging(
    rank: int, *, level: int = logging.INFO, other_ranks_level: int = logging.WARNING, stream: TextIO | None = None
) -> None:
    """Sends this package's log records to `stream` (standard error if None), from `level` up on global rank 0.

    The other ranks speak from `other_ranks_level` up. A second call replaces the first. Loggers of other libraries are
    left alone.
    """
    handler = _ConsoleHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s [rank {rank}] %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger(ROOT_NAME)
    for old in [h for h in logger.handlers if isinstance(h, _ConsoleHandler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level if rank == 0 else other_ranks_level)
    logger.propagate = False


def quiet_known_warnings() -> None:
    """Silence the warnings that megatron-core gives at every start; others still show."""
    for message in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
