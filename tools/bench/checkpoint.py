"""What a save costs training: the time it waits, against the time of a save that it waits for.

    python tools/bench/checkpoint.py [--size 100m] [--out docs/checkpoint_bench.json]
    python tools/launch.py --ranks 2 -- python tools/bench/checkpoint.py          # data-parallel

A randomly initialised Qwen2 with Adam's state, in float32 or bfloat16. Between saves a fixed amount of matrix products
stands for training; all weights are changed. `slowdown` is how much longer it takes while a save is in flight: on a CPU
the writing takes cores and memory bandwidth from it. Medians of `--repeats` after one warm-up.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from qwen_sizes import SIZES, architecture

from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.data.files import write_whole
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.collectives import barrier
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.role_digest import RoleSums

ROLE = "follower"


def work(trainable: TrainableModel, bank: RoleBank, seconds_alone: float, products: int) -> tuple[float, int]:
    """Seconds of `products` matrix products, or of as many as take `seconds_alone` (0 products), and their number."""
    left = torch.randn(512, 512)
    started = time.perf_counter()
    done = 0
    while done < products or (not products and time.perf_counter() - started < seconds_alone):
        torch.mm(left, left)
        done += 1
    for buffer in trainable.weight_buffers():
        buffer.mul_(1.0001)
    bank.mark_updated()
    return time.perf_counter() - started, done


def measure(options: argparse.Namespace, topology: Topology, folder: Path) -> dict[str, object]:
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    arch = architecture(options.size)
    modules = build_gpt(arch, topology, dtype=dtype, max_sequence_length=512)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(), topology)
    trainable.after_weights_changed()
    bank = RoleBank(trainable, RoleSums(modules, arch, topology))
    bank.add(ROLE, trained=True)
    store = CheckpointStore(folder, topology)
    found: dict[str, list[float]] = {"sync": [], "stall": [], "write": [], "slowdown": [], "copy": []}
    live = [*trainable.weight_buffers(), *trainable.moment_buffers()]
    copies = [tensor.clone() for tensor in live]
    _, products = work(trainable, bank, options.work_s, 0)
    for repeat in range(options.repeats + 1):
        alone, _ = work(trainable, bank, 0.0, products)
        bank.digest(ROLE)  # that of the step, which the ledger needs whether it is saved or not
        started = time.perf_counter()
        store.save(trainable, bank, folder / "step-0")
        sync = time.perf_counter() - started
        work(trainable, bank, 0.0, 1)
        bank.digest(ROLE)
        started = time.perf_counter()
        store.stage(trainable, bank, folder / "step-1")
        store.start()
        stall = time.perf_counter() - started
        during, _ = work(trainable, bank, 0.0, products)
        finished = store.take(wait=True)
        assert finished is not None
        started = time.perf_counter()
        for copy, tensor in zip(copies, live, strict=True):
            copy.copy_(tensor)
        copied = time.perf_counter() - started
        if repeat:
            for name, value in (("sync", sync), ("stall", stall), ("write", finished.seconds), ("copy", copied)):
                found[name].append(value)
            found["slowdown"].append(during / alone)
    weights = sum(buffer.nbytes for buffer in trainable.weight_buffers())
    return {
        "size": options.size,
        "ranks": topology.world_size,
        "dtype": str(dtype),
        "weights_mb": weights / 1e6,
        "checkpoint_mb": sum(path.stat().st_size for path in (folder / "step-1").iterdir()) / 1e6,
        "sync_s": statistics.median(found["sync"]),
        "stall_s": statistics.median(found["stall"]),
        "write_s": statistics.median(found["write"]),
        "slowdown": statistics.median(found["slowdown"]),
        "plain_copy_s": statistics.median(found["copy"]),  # of weights and moments
        "all": found,
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        ).stdout.strip(),
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="100m")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work-s", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the file system to be measured")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    topology = build_topology(ParallelConfig(), seed=0, threads=options.threads, rendezvous_timeout_s=600)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        names = [name]
        dist.broadcast_object_list(names)
        found = measure(options, topology, Path(names[0]))
        barrier(topology)
    if topology.is_main:
        print(json.dumps(found, indent=1))
        if options.out is not None:
            write_whole(options.out, json.dumps(found, indent=1) + "\n")
    shutdown(topology)


if __name__ == "__main__":
    main()
