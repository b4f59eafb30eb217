"""Whether there is room for what is about to be written."""

import os
from collections.abc import Sequence
from pathlib import Path

from seif_nemo.checkpointing.manifest import WriteError

GIB = 1 << 30


class NoSpaceError(WriteError):
    """There is not enough room for a checkpoint. Nothing was written."""


def check_free_space(needed: Sequence[tuple[Path, int]], *, min_free_bytes: int) -> None:
    """Raises NoSpaceError if `needed` bytes below each path would leave less than `min_free_bytes` free.

    Paths need not exist. Paths on one file system share its room.
    """
    of_system: dict[int, tuple[Path, int]] = {}
    for path, num_bytes in needed:
        there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        device = there.stat().st_dev
        first, total = of_system.get(device, (there, 0))
        of_system[device] = first, total + num_bytes
    for there, total in of_system.values():
        system = os.statvfs(there)
        free = system.f_bavail * system.f_frsize
        if free < total + min_free_bytes:
            raise NoSpaceError(
                f"{there}: a checkpoint needs {total / GIB:.3f} GiB and checkpoint.min_free_gib="
                f"{min_free_bytes / GIB:g} must stay free, but {free / GIB:.3f} GiB are: make room, then start again"
            )
