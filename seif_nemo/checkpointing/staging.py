"""A copy in host memory of what this rank writes: training changes the live tensors while it is on its way to disk.

The copy is made into one buffer per kind of checkpoint and place in a job, allocated once (pinned where CUDA is).
"""

from collections.abc import Sequence

import torch

from seif_nemo.checkpointing.pieces import Piece

_ALIGNMENT = 64  # bytes


class Staging:
    """Buffers for pieces of given shapes. `copy` overwrites them: never while a save of them is in flight."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        sizes = [piece.source.numel() * piece.source.element_size() for piece in pieces]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        pinned = torch.cuda.is_available()  # true never ran on a GPU
        self._memory = torch.zeros(starts[-1], dtype=torch.uint8, device="cpu", pin_memory=pinned)
        # Through NumPy each tensor gets a storage of its own size: torch.save writes whole storages.
        raw = self._memory.numpy()
        self.tensors = [
            torch.from_numpy(raw[start : start + size]).view(piece.source.dtype).view(piece.source.shape)
            for piece, start, size in zip(pieces, starts, sizes, strict=False)
        ]
        self.num_bytes = sum(sizes)

    @torch.no_grad()
    def copy(self, pieces: Sequence[Piece]) -> None:
        """Make the buffers hold the pieces' values of now. Returns when they do."""
        for piece, target in zip(pieces, self.tensors, strict=True):
            target.copy_(piece.source, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # never ran on a GPU
