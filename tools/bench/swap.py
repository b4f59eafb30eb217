"""Speed of a swap of residents beside plain `copy_` of the same bytes in the same run, and what the checks cost.

    python tools/bench/swap.py [--gib 1 --repeats 7] [--out FILE.json]

A role bank over flat bf16 buffers that are filled with matrices. "trained": the outgoing weights changed
and are stored, the incoming ones loaded: both ways, beside two copies. "frozen": the outgoing ones did not change: one
way, beside one copy. The background has checked the copy that comes, as it does during a phase of a run; the time of a
check, which a swap right after another one would wait for, is measured by itself.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from seif_nemo.data.files import write_whole
from seif_nemo.parallel.tensor_sums import row_weights, shard_sums
from seif_nemo.weights.bank import RoleBank

COLUMNS = 4096


class FlatModel:
    """What the bank needs of a model: one flat buffer, divided into matrices of 16 MiB."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self.buffer = torch.zeros(num_bytes // 2, dtype=torch.bfloat16, device=device)
        self.parameters = [torch.empty(0) for _ in self.buffer.view(-1, COLUMNS).split(2048)]
        self.step_count = 0
        self.learning_rate = 0.0

    def weight_buffers(self) -> list[torch.Tensor]:
        return [self.buffer]

    def weight_views(self, buffers: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.parameters, buffers[0].view(-1, COLUMNS).split(2048), strict=True)

    def fp8_buffers(self) -> list[torch.Tensor]:
        return []

    def moment_buffers(self) -> list[torch.Tensor]:
        return []

    def set_learning_rate(self, learning_rate: float) -> None: ...

    def after_weights_changed(self) -> None: ...


class Sums:
    """As `weights/role_digest.py` makes them, in a world of one."""

    def __init__(self, model: FlatModel) -> None:
        views = model.weight_views([model.buffer])
        self.weights = [row_weights(str(number), torch.arange(len(view))) for number, (_, view) in enumerate(views)]

    def of(self, views: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        pairs = zip(self.weights, views, strict=True)
        return torch.stack([shard_sums(view, weights.to(view.device)).sum(dim=1).cpu() for weights, (_, view) in pairs])

    def odd_one(self, expected: torch.Tensor, found: torch.Tensor) -> str:
        return str((expected != found).any(dim=1).nonzero()[0])

    def join(self, sums: torch.Tensor) -> str:
        return str(sums.sum(dim=0).tolist())


def timed(action: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(gib: float, repeats: int) -> dict[str, float]:
    """Medians, in seconds and GB/s, of all cases, interleaved."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = FlatModel(int(gib * 2**30), device)
    sums = Sums(model)
    bank = RoleBank(model, sums)
    for name in ("base", "evaluator"):
        bank.add(name, trained=False)
    for name in ("instructor", "follower"):
        bank.add(name, trained=True)
    pinned = device.type == "cuda"
    hosts = [torch.zeros(model.buffer.shape, dtype=torch.bfloat16, pin_memory=pinned).fill_(1) for _ in range(2)]
    seconds: dict[str, list[float]] = {}

    def note(case: str, action: Callable[[], object]) -> None:
        bank._weights._wait_all()  # nothing else is under way
        seconds.setdefault(case, []).append(timed(action))

    def swap(case: str, name: str) -> None:
        bank.prefetch(name)
        note(case, lambda: bank.switch(name))

    for repeat in range(repeats + 2):
        if repeat == 2:  # all is warm
            seconds.clear()
        for leaving, coming in (("follower", "instructor"), ("instructor", "follower")):
            note("two copies", lambda: (hosts[0].copy_(model.buffer), model.buffer.copy_(hosts[1])))
            model.buffer[: 1 << 20] += 1
            model.step_count += 1
            bank.mark_updated()
            assert bank.resident_name == leaving
            swap("trained", coming)
        for coming in ("base", "evaluator"):
            note("one copy", lambda: model.buffer.copy_(hosts[1]))
            swap("frozen", coming)
        note("check of a copy", lambda: sums.of(model.weight_views([hosts[1]])))
        bank.switch("follower")
    return {case: statistics.median(values) for case, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = measure(options.gib, options.repeats)
    gigabytes = options.gib * 2**30 / 1e9
    for case, value in seconds.items():
        moved = gigabytes * (2 if case in ("two copies", "trained") else 1)
        print(f"{case:16} {value:7.3f} s  {moved / value:6.2f} GB/s")
    ratios = {
        "trained": seconds["two copies"] / seconds["trained"],
        "frozen": seconds["one copy"] / seconds["frozen"],
    }
    for case, ratio in ratios.items():
        print(f"{case:16} {ratio:6.2f} of copy_")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    if options.out is not None:
        result = {"gib": options.gib, "device": device, "seconds": seconds, "of_copy": ratios}
        write_whole(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
