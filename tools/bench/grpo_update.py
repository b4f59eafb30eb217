"""One GRPO update of a randomly initialised Qwen2: tokens/s, MFU, peak memory, and the time outside matrix products.

    python tools/bench/grpo_update.py --size 1.5b [--device cuda] [--out tools/bench/results/grpo_update_1.5b.json]
    python tools/bench/grpo_update.py --size tiny          # the same path on a CPU

Packed micro-batches of sequences with seeded lengths (prompts around 100 tokens, responses around 400, log-normal), the
log-probs of the policy and one update of all weights. Times are the best of `--repeats` after one warm-up.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen_sizes import SIZES, architecture
from torch.profiler import ProfilerActivity, profile

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import Backend, ParallelConfig
from seif_nemo.data.files import write_whole
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.flops import training_flops
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.training import TrainSample

# Names of kernels that multiply matrices: cuBLAS, CUTLASS and flash attention on GPUs, ATen's operators on CPUs.
PRODUCTS = ("gemm", "cutlass", "flash", "nvjet", "mm", "scaled_dot_product")


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 0


def samples(arch: Architecture, number: int) -> list[TrainSample]:
    rng = np.random.default_rng(0)
    found: list[TrainSample] = []
    for index in range(number):
        prompt = rng.integers(2, arch.vocab_size, int(rng.integers(50, 150)))
        length = int(np.clip(rng.lognormal(np.log(400), 0.6), 8, 3900))
        logprobs = rng.normal(-np.log(arch.vocab_size), 0.1, length).astype(np.float32)
        advantages = np.full(length, rng.choice([-1.0, 1.0]), dtype=np.float32)
        response = rng.integers(2, arch.vocab_size, length)
        found.append(TrainSample(prompt, response, logprobs, logprobs, advantages, group=index // 8))
    return found


def build(options: argparse.Namespace, topology: Topology) -> tuple[Actor, TrainableModel, Architecture]:
    arch = architecture(options.size)
    dtype = torch.bfloat16 if topology.device.type == "cuda" else torch.float32
    (module,) = build_gpt(arch, topology, dtype=dtype, max_sequence_length=options.micro_batch_tokens)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02)
            else:
                parameter.fill_(1.0)
    trainable = TrainableModel([module], module.config, OptimizerConfig(), topology)
    trainable.after_weights_changed()
    engine: Any = NoEngine()
    tokenizer: Any = OnlyPad()
    actor = Actor(
        trainable,
        engine,
        tokenizer,
        topology,
        AlgorithmConfig(),
        arch,
        micro_batch_tokens=options.micro_batch_tokens,
        max_new_tokens=4000,
    )
    return actor, trainable, arch


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs after one that does not count."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()  # never ran on a GPU
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()  # never ran on a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def share_outside_products(work: Callable[[], object], device: torch.device) -> float:
    """Share of the device's busy time (CPU: of all operators' own time) that no matrix product takes."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiler:
        work()
    own = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    times = {event.key: float(getattr(event, own)) for event in profiler.key_averages()}
    products = sum(value for name, value in times.items() if any(part in name.lower() for part in PRODUCTS))
    return 1 - products / sum(times.values())


def measure(options: argparse.Namespace) -> dict[str, object]:
    backend = Backend.gloo if options.device == "cpu" else Backend.auto
    topology = build_topology(ParallelConfig(backend=backend), seed=0, threads=options.threads)
    device = topology.device
    assert device.type == options.device, f"--device {options.device}, but this machine has {device.type}"
    actor, trainable, arch = build(options, topology)
    chosen = samples(arch, options.samples)
    pairs = [(sample.prompt_ids, sample.response_ids) for sample in chosen]
    tokens = sum(len(prompt) + len(response) - 1 for prompt, response in pairs)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # never ran on a GPU

    def update() -> object:
        return actor.train_step(chosen, kl_coefficient=0.01, mini_batches=1, seed=0)

    logprobs_s = timed(lambda: actor.logprobs(pairs), device, options.repeats)
    update_s = timed(update, device, options.repeats)
    stats = actor.train_step(chosen, kl_coefficient=0.01, mini_batches=1, seed=0)
    flops = sum(
        training_flops(arch, len(prompt) + len(response) - 1, num_scored=len(response)) for prompt, response in pairs
    )
    result: dict[str, object] = {
        "size": options.size,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "dtype": str(trainable.config.params_dtype),
        "parameters": sum(buffer.numel() for buffer in trainable.weight_buffers()),
        "sequences": len(chosen),
        "tokens": tokens,
        "micro_batch_tokens": options.micro_batch_tokens,
        "micro_batches": stats.num_micro_batches,
        "packing_fill": stats.packing_fill,
        "logprobs_s": logprobs_s,
        "update_s": update_s,
        "logprobs_tokens_per_s": tokens / logprobs_s,
        "update_tokens_per_s": tokens / update_s,
        "update_tflops": flops / update_s / 1e12,
        "mfu": flops / update_s / (options.peak_tflops * 1e12) if options.peak_tflops else None,
        "share_outside_products": share_outside_products(update, device),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }
    shutdown(topology)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--micro-batch-tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, help="of the device, dense bf16; without it there is no MFU")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options), indent=1) + "\n"
    print(text, end="")
    if options.out is not None:
        write_whole(options.out, text)


if __name__ == "__main__":
    main()
