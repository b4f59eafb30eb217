"""Copies between the model's flat buffers and their host copies, chunk by chunk."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# On the CPU a chunk should still be in a core's cache when it is overwritten, on a GPU it should hide the launches.
_CHUNK_BYTES = {"cpu": 1 << 19, "cuda": 64 << 20}

Buffers = Sequence[Tensor]


def host_like(buffers: Buffers) -> list[Tensor]:
    """Empty buffers of the same shapes in host memory, pinned where CUDA is."""
    pinned = torch.cuda.is_available()  # true never ran on a GPU
    return [torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu", pin_memory=pinned) for buffer in buffers]


@torch.no_grad()
def transfer(sources: Buffers, targets: Buffers) -> None:
    """Copy `sources` into `targets`. Everything is there when it returns."""
    for source, target in zip(sources, targets, strict=True):
        assert (source.shape, source.dtype) == (target.shape, target.dtype)
        target.copy_(source, non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # never ran on a GPU


@torch.no_grad()
def exchange(model: Buffers, outgoing: Buffers, incoming: Buffers) -> None:
    """Copy `model` into `outgoing` and `incoming` into `model`. Everything is there when it returns.

    The two directions overlap: while a chunk comes in, the next one goes out.
    """
    chunks = zip(*(_chunks(buffers, model) for buffers in (model, outgoing, incoming)), strict=True)
    if not any(buffer.is_cuda for buffer in model):
        for here, out, coming in chunks:
            out.copy_(here)
            here.copy_(coming)
        return
    _exchange_on_streams(chunks)  # never ran on a GPU


def _exchange_on_streams(chunks: Iterator[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Two copy engines work side by side; a chunk comes in when the old one there has left."""
    leaving, arriving = torch.cuda.Stream(), torch.cuda.Stream()
    for stream in (leaving, arriving):
        stream.wait_stream(torch.cuda.current_stream())
    for here, out, coming in chunks:
        with torch.cuda.stream(leaving):
            out.copy_(here, non_blocking=True)
        arriving.wait_stream(leaving)
        with torch.cuda.stream(arriving):
            here.copy_(coming, non_blocking=True)
    torch.cuda.synchronize()


def _chunks(buffers: Buffers, model: Buffers) -> Iterator[Tensor]:
    """Equal chunks of all three, whatever their devices."""
    for buffer, like in zip(buffers, model, strict=True):
        assert (buffer.shape, buffer.dtype) == (like.shape, like.dtype)
        size = max(1, _CHUNK_BYTES[like.device.type] // like.element_size())
        yield from buffer.view(-1).split(size)
