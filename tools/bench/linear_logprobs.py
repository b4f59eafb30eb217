"""Memory and time of log-probs straight from hidden states, beside logits, log-softmax and gather.

    python tools/bench/linear_logprobs.py [--tokens 4096 --vocab 151936 --hidden 1024 --repeats 3] [--out FILE.json]

Forward and backward in fp32 on one thread. Each way runs in a process of its own, so that the peak is its own; "extra"
is what the process held at most beyond the inputs (hidden states and weight). Gradients are compared on both inputs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from seif_nemo.data.files import write_whole
from seif_nemo.parallel.linear_logprobs import linear_logprobs

WAYS = ("naive", "tiled")


def peak_bytes() -> int:
    """The most memory that this process has held since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(way: str, options: argparse.Namespace, folder: Path) -> None:
    """One way; writes WAY.json and WAY.npz (values, gradient of the hidden states, some rows of the weight's)."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(options.tokens, options.hidden, generator=generator).requires_grad_()
    weight = (torch.randn(options.vocab, options.hidden, generator=generator) / options.hidden**0.5).requires_grad_()
    tokens = torch.randint(0, options.vocab, (options.tokens,), generator=generator)
    upstream = torch.randn(options.tokens, generator=generator)
    seconds: list[float] = []
    reset_peak()
    before = peak_bytes()
    values = torch.zeros(0)
    for _ in range(options.repeats):
        hidden.grad = weight.grad = None
        start = time.perf_counter()
        if way == "naive":
            values = torch.nn.functional.linear(hidden, weight).log_softmax(1).gather(1, tokens[:, None])[:, 0]
        else:
            values = linear_logprobs(hidden, weight, tokens, vocab_size=options.vocab).logprobs_T
        (values * upstream).sum().backward()
        seconds.append(time.perf_counter() - start)
    extra = peak_bytes() - before
    assert hidden.grad is not None and weight.grad is not None
    step = max(1, options.vocab // 997)
    arrays = {"values": values.detach(), "hidden": hidden.grad, "weight": weight.grad[::step]}
    np.savez(folder / f"{way}.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    (folder / f"{way}.json").write_text(json.dumps({"seconds": min(seconds), "extra_bytes": extra}))


def compare(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", name]
            command += [f"--{key}={getattr(options, key)}" for key in ("tokens", "vocab", "hidden", "repeats")]
            subprocess.run(command, check=True)
        naive, tiled = (json.loads((folder / f"{way}.json").read_text()) for way in WAYS)
        ours, theirs = np.load(folder / "tiled.npz"), np.load(folder / "naive.npz")
        errors = {key: float(np.abs(ours[key] - theirs[key]).max() / np.abs(theirs[key]).max()) for key in theirs}
    return {
        "tokens": options.tokens,
        "vocab": options.vocab,
        "hidden": options.hidden,
        "naive": naive,
        "tiled": tiled,
        "memory_ratio": tiled["extra_bytes"] / naive["extra_bytes"],
        "time_ratio": tiled["seconds"] / naive["seconds"],
        "largest_relative_error": errors,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is not None:
        measure(options.way, options, options.folder)
        return 0
    found = compare(options)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        write_whole(options.out, json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
