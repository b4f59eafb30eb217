"""Peak memory between two looks, of the device that computes: CUDA's allocator, or this process on the CPU."""

from pathlib import Path
from typing import Protocol

import torch

_GIB = 2**30
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): VmHWM becomes VmRSS


class PeakMemory(Protocol):
    def take(self) -> float:
        """The highest use since the last call, GiB; begins anew from what is in use now."""
        ...


class CudaPeak:
    """Of torch's allocator on the current device."""

    def take(self) -> float:
        peak = torch.cuda.max_memory_allocated() / _GIB
        torch.cuda.reset_peak_memory_stats()
        return peak


class ProcessPeak:
    """Resident memory of this process, as Linux counts it."""

    def take(self) -> float:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        _CLEAR_REFS.write_text(_RESET_PEAK)
        return int(line.split()[1]) * 1024 / _GIB


def peak_memory(device: torch.device) -> PeakMemory | None:
    """What can be measured on this device; None where the system does not let a process reset its peak."""
    if device.type == "cuda":
        return CudaPeak()
    try:
        ProcessPeak().take()
    except (OSError, StopIteration):
        return None
    return ProcessPeak()
