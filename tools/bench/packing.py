"""How full micro-batches are, and how even the ranks, on the lengths of a released instruction file.

    python tools/bench/packing.py q_T1.parquet [--out FILE.json]

Prompts count four characters to a token; each has five responses of seeded log-normal lengths (median 400 tokens, at
most 2,596). Costs are the FLOPs of a Qwen2.5-7B. A step of the paper has 384 prompts, a mini-batch a quarter of them.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from qwen_sizes import architecture

from seif_nemo.data.files import write_whole
from seif_nemo.data.packing import first_fit_decreasing, plan_packing
from seif_nemo.models.flops import forward_flops


@dataclass(frozen=True, slots=True)
class Row:
    prompts: int
    sequences: int
    tokens: int
    budget: int
    ranks: int
    micro_batches_per_rank: int
    first_fit_fill: float  # of the budget, before all ranks get as many micro-batches
    plan_fill: float  # of the largest micro-batch
    imbalance: float
    imbalance_by_count: float  # were sequences dealt out by their number alone
    seconds: float


def draw_lengths(characters: list[int], num_prompts: int) -> list[int]:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(characters), num_prompts).repeat(5)
    responses = np.clip(rng.lognormal(np.log(400), 0.6, len(chosen)), 8, 2596).astype(int)
    return [characters[index] // 4 + int(response) for index, response in zip(chosen, responses, strict=True)]


def measure(lengths: list[int], num_prompts: int, budget: int, ranks: int) -> Row:
    costs = [forward_flops(architecture("7b"), length) for length in lengths]
    start = time.perf_counter()
    plan = plan_packing(lengths, costs, budget=budget, ranks=ranks)
    seconds = time.perf_counter() - start
    by_count = [sum(costs[rank::ranks]) for rank in range(ranks)]
    return Row(
        prompts=num_prompts,
        sequences=len(lengths),
        tokens=sum(lengths),
        budget=budget,
        ranks=ranks,
        micro_batches_per_rank=len(plan.ranks[0]),
        first_fit_fill=sum(lengths) / (len(first_fit_decreasing(lengths, budget)) * budget),
        plan_fill=plan.fill,
        imbalance=plan.imbalance,
        imbalance_by_count=max(by_count) / (sum(by_count) / ranks) - 1,
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    characters = [len(text) for text in pq.read_table(options.file, columns=["prompt"])["prompt"].to_pylist()]
    rows: list[Row] = []
    for num_prompts in (384, 96):
        lengths = draw_lengths(characters, num_prompts)
        rows += [measure(lengths, num_prompts, budget, 8) for budget in (4096, 8192, 10240, 16384)]
    for row in rows:
        print(
            f"{row.prompts:4} prompts, budget {row.budget:6}, {row.ranks} ranks x {row.micro_batches_per_rank:3}: "
            f"first fit {row.first_fit_fill:.4f}, plan {row.plan_fill:.4f}, imbalance {row.imbalance:.4f} "
            f"(by count {row.imbalance_by_count:.4f}), {row.seconds * 1e3:.0f} ms"
        )
    if options.out is not None:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
