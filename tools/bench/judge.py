#!/usr/bin/env python3
"""Speed and memory of `python -m seif_nemo judge` on generated rows.

    python tools/bench/judge.py --rows 10000 1000000

Rows take their instruction ids and texts from the SEIF release where its files are at hand (`--data`), and from a few
built-in ones elsewhere; responses are made of words and layouts at random. Each size runs in a process of its own,
rules only, with `--group` responses in a row to one instruction, as in GRPO. A check is a verdict that is passed or
failed. The table gives the checks per second of processor time of the whole command (start-up, reading, judging,
writing), so per second on a core of its own, and its peak resident memory.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "seif_reference"
WORDS = (  # noqa: SIM905
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man "
    "me even most made after also did many off before must well back through years much where your way down should"
).split()
FALLBACK = [
    {"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
     "kwargs": [{}, {"num_words": 100, "relation": "at least"}]},
    {"constraints": ["Use at most 200 words.", "Include exactly 3 bullet points.", "Use a formal tone."]},
    {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["river", "water"]}]},
]  # fmt: skip


def demands(data: Path) -> list[dict[str, object]]:
    """What rows ask for: each an `instruction_id_list` with `kwargs`, or `constraints`."""
    if not data.is_dir():
        return FALLBACK
    import pyarrow.parquet as pq

    ifeval = pq.read_table(data / "test.parquet").to_pylist()
    texts = pq.read_table(data / "qwen7b_q_T2.parquet", columns=["seed_question", "constraint"]).to_pylist()
    found: list[dict[str, object]] = []
    for row in ifeval:
        kwargs = [{key: value for key, value in item.items() if value is not None} for item in row["kwargs"]]
        found.append({"instruction_id_list": row["instruction_id_list"], "kwargs": kwargs, "prompt": row["prompt"]})
    found += [{"constraints": row["constraint"], "seed_question": row["seed_question"]} for row in texts]
    return found


def response(rng: random.Random, *, mean_words: int) -> str:
    """Sentences in paragraphs, some as bullets, some in bold."""
    left = max(5, int(rng.expovariate(1 / mean_words)))
    paragraphs: list[str] = []
    while left > 0:
        sentences: list[str] = []
        for _ in range(rng.randint(1, 5)):
            size = rng.randint(4, 20)
            left -= size
            sentences.append(" ".join(rng.choices(WORDS, k=size)).capitalize() + rng.choice(".,;!?"))
        text = " ".join(sentences)
        paragraphs.append(rng.choice((text, text, text, f"* {text}", f"**{text}**", f"1. {text}")))
    return "\n\n".join(paragraphs)


def rows(count: int, source: Sequence[dict[str, object]], *, mean_words: int, group: int) -> Iterator[str]:
    """Lines of input; the same for the same arguments."""
    rng = random.Random(0)
    responses = [response(rng, mean_words=mean_words) for _ in range(2000)]
    demand: dict[str, object] = {}
    for number in range(count):
        if number % group == 0:
            demand = rng.choice(source)
        yield json.dumps({"response": rng.choice(responses), **demand}) + "\n"


def peak_mib(pid: int) -> float:
    """The highest resident memory so far, by the kernel's own count."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(path: Path, arguments: Sequence[str]) -> tuple[float, float, float, Counter[str]]:
    """(seconds, processor seconds, MiB, verdicts by outcome) of one run."""
    command = [sys.executable, "-m", "seif_nemo", "judge", "--in", str(path), "--out", "-", *arguments]
    outcomes: Counter[str] = Counter()
    memory = 0.0
    start, processor_start = time.perf_counter(), processor_seconds()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            # Counting without parsing, and seldom a look at the kernel: the reader must not be the slow one.
            for outcome in ("passed", "failed", "missing"):
                outcomes[outcome] += line.count(b'"verdict": "%s"' % outcome.encode())
            outcomes["bad rows"] += line.endswith(b'"}\n')
            if number % 1000 == 0:
                memory = peak_mib(process.pid)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return time.perf_counter() - start, processor_seconds() - processor_start, memory, outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000], metavar="N")
    parser.add_argument("--words", type=int, default=150, help="mean words of a response")
    parser.add_argument("--group", type=int, default=5, help="responses in a row to one instruction")
    parser.add_argument("--kind", choices=("all", "ids", "texts"), default="all")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with test.parquet and qwen7b_q_T2.parquet")
    parser.add_argument("judge_arguments", nargs="*", metavar="ARG", help="after --: passed on, such as --jobs 2")
    options = parser.parse_args()
    wanted = {"ids": ("instruction_id_list",), "texts": ("constraints",)}.get(
        options.kind, ("instruction_id_list", "constraints")
    )
    source = [row for row in demands(options.data) if any(key in row for key in wanted)]
    print("| rows | MiB | s | core s | checks | checks/core s | passed | failed | missing | bad rows | peak MiB |")
    print("|" + "---:|" * 11)
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            with path.open("w") as file:
                file.writelines(rows(count, source, mean_words=options.words, group=options.group))
            size = path.stat().st_size / 2**20
            seconds, busy, memory, outcomes = measure(path, options.judge_arguments)
        checks = outcomes["passed"] + outcomes["failed"]
        tail = " | ".join(str(outcomes[name]) for name in ("passed", "failed", "missing", "bad rows"))
        print(
            f"| {count} | {size:.0f} | {seconds:.1f} | {busy:.1f} | {checks} | {checks / busy:.0f} | {tail} "
            f"| {memory:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
