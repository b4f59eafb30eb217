"""Writes run directories that look like real ones, for tests of the report. What is random comes from a fixed seed."""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seif_nemo.observability.metrics import MetricsWriter
from seif_nemo.types.records import Phase, StepMetrics, UnitKey

HOSTILE = '</script></div><img src=x onerror=alert(1)> & "quotes" \x1b[31m \u202e https://evil.example/x.js'
START_TIME = 1_767_225_600.0  # 2026-01-01 00:00 UTC

_NOUNS = ("river", "lamp", "garden", "engine", "bridge", "letter", "market", "window")
_KINDS = {
    "words": ("at least {n} words", "at most {n} words"),
    "keyword": ('include the word "{noun}"', 'do not use the word "{noun}"'),
    "commas": ("use no commas",),
    "starts_with": ('start with "Well then"',),
    "ends_with": ('end with "That is all."',),
    "bullets": ("use exactly {n} bullet points",),
    "sentences": ("write exactly {n} sentences",),
    "title": ("give it a title in double angular brackets",),
    "quoted": ("put the whole answer in double quotes",),
    "uppercase": ("use capital letters only",),
    "lowercase": ("use lowercase letters only",),
    "placeholders": ("use at least {n} placeholders in square brackets",),
}


@dataclass
class FakeRun:
    """What was written, for comparison with the page."""

    path: Path
    follow_rates: dict[int, float] = field(default_factory=dict[int, float])
    kinds: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])


def write_fake_run(
    path: Path,
    *,
    rounds: int = 3,
    planned: int = 3,
    prompts: int = 120,
    answers: int = 1,
    steps: tuple[int, int] = (10, 40),
) -> FakeRun:
    """A run with `rounds` finished rounds of `planned`, and round 0. `steps`: Instructor and Follower, per round.

    Each of the held-out `prompts` gets so many `answers`, of which the samples hold the first.
    """
    rng = random.Random(7)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(
        f"run:\n  name: tiny-world\n  seed: 0\nevolution:\n  rounds: {planned}\nparallel:\n  tensor: 2\n"
    )
    provenance = {
        "torch": "2.13.0+cpu",
        "megatron-core": "0.16.1",
        "git": "0123abcd",
        "host": "node-17",
        "layout": "tp2 pp1 dp1",
    }
    (path / "provenance.json").write_text(json.dumps(provenance))
    run = FakeRun(path)
    held_out = [_held_out_prompt(rng, index) for index in range(prompts)]
    clock = START_TIME
    with MetricsWriter(path / "metrics.jsonl") as writer:
        for round_ in range(rounds + 1):
            (path / "rounds" / f"{round_:02d}").mkdir(parents=True, exist_ok=True)
            if round_:
                for key, values in _round_steps(rng, round_, steps):
                    clock += values.get("time_s/total", 2.0)
                    writer.write(StepMetrics(key, clock, values))
                _write_probes(rng, path, round_)
                _write_tables(rng, path, round_)
            clock += 10
            values = _write_evaluation(rng, run, round_, held_out, answers)
            if round_ == 0:
                values |= {"data/seeds/used": 5001, "data/seeds/empty": 3, "data/held-out prompts/used": prompts}
            writer.write(StepMetrics(UnitKey(round_, Phase.EVALUATION, 0), clock, values))
    return run


def _held_out_prompt(rng: random.Random, index: int) -> tuple[str, list[tuple[str, str]]]:
    seed = f"Write about the {rng.choice(_NOUNS)} near house {index}."
    return seed, _constraints(rng, rng.randint(1, 3))


def _constraints(rng: random.Random, number: int) -> list[tuple[str, str]]:
    """(kind, text) pairs of different kinds."""
    return [
        (kind, rng.choice(_KINDS[kind]).format(n=rng.randint(2, 30), noun=rng.choice(_NOUNS)))
        for kind in rng.sample(sorted(_KINDS), number)
    ]


def _round_steps(rng: random.Random, round_: int, steps: tuple[int, int]) -> list[tuple[UnitKey, dict[str, float]]]:
    rows: list[tuple[UnitKey, dict[str, float]]] = []
    base = 0.2 + 0.08 * round_
    rows.append((UnitKey(round_, Phase.PROBE_BEFORE, 0), _probe(base, round_, 0.95)))
    for phase, count in ((Phase.INSTRUCTOR, steps[0]), (Phase.FOLLOWER, steps[1])):
        for number in range(count):
            share = number / max(1, count - 1)
            level = base + 0.25 * share if phase is Phase.INSTRUCTOR else 0.45 + 0.07 * round_ + 0.2 * math.sqrt(share)
            values = {
                "reward/mean": min(1.0, level + rng.gauss(0, 0.03)),
                "reward/missing": 1.0 if number == 0 else 0.0,
                "groups/used": 18,
                "groups/zero_variance": 5,
                "groups/missing": 1,
                "train/loss": -0.01,
                "train/kl": 0.012 * share + abs(rng.gauss(0, 0.001)),
                "train/clip_fraction": 0.004,
                "train/grad_norm": 0.8 + rng.random(),
                "mismatch/ratio": 1.004 + abs(rng.gauss(0, 0.002)),
                "generate/tokens_per_s": 13_000 + rng.gauss(0, 400),
                "generate/mean_tokens": 16 + 4 * share,
                "time_s/generate": 0.9,
                "time_s/reference": 0.2,
                "time_s/train": 1.1,
                "time_s/total": 2.5,
            }
            if phase is Phase.INSTRUCTOR:
                values |= {"time_s/answer": 0.5, "time_s/total": 3.0}
                values |= {
                    "gate/asked": 144,
                    "gate/kept": 120,
                    "gate/unparsable": 9,
                    "gate/repeated": 6,
                    "gate/conflict": 9,
                }
            rows.append((UnitKey(round_, phase, number), values))
    rows.append((UnitKey(round_, Phase.PROBE_AFTER, 0), _probe(base + 0.27, round_, 0.9)))
    for number in range(2):
        gate = {"gate/asked": 600.0, "gate/kept": 490.0, "gate/unparsable": 35, "gate/wrong_count": 10}
        gate |= {"gate/repeated": 20, "gate/conflict": 30, "gate/no_rule": 15}
        gate |= {"time_s/generate": 9.0, "time_s/total": 10.5}
        if number == 1:  # the last step merges: 20 of the kept are duplicates
            rejected = {"unparsable": 70, "wrong_count": 20, "repeated": 40, "conflict": 60, "no_rule": 30}
            gate |= {f"synthesis/rejected/{reason}": n for reason, n in {**rejected, "duplicate": 20}.items()}
            gate |= {"synthesis/kept": 960, "synthesis/asked": 1200, "synthesis/conflict_share": 0.002}
            gate |= {"synthesis/distinct_template_share": 0.9 - 0.06 * round_}
        rows.append((UnitKey(round_, Phase.SYNTHESIS, number), gate))
    return rows


def _probe(difficulty: float, round_: int, kept: float) -> dict[str, float]:
    return {
        "probe/difficulty": difficulty,
        "probe/parse_share": 0.97,
        "probe/kept_share": kept,
        "probe/conflict_share": 0.03 + 0.01 * round_,
        "probe/distinct_template_share": 0.93 - 0.05 * round_,
    }


def _write_evaluation(
    rng: random.Random, run: FakeRun, round_: int, held_out: list[tuple[str, list[tuple[str, str]]]], answers: int
) -> dict[str, float]:
    passed_of: dict[str, list[bool]] = {}
    rates: list[float] = []
    with (run.path / "rounds" / f"{round_:02d}" / "evaluation_samples.jsonl").open("w") as file:
        for index, (seed, constraints) in enumerate(held_out):
            outcomes = [[rng.random() < 0.42 + 0.11 * round_ for _ in constraints] for _ in range(answers)]
            found = [sum(passed) / len(passed) for passed in outcomes]
            rates += found
            for place, (kind, _) in enumerate(constraints):
                passed_of.setdefault(kind, []).extend(passed[place] for passed in outcomes)
            text = "The river is long. " * rng.randint(1, 6 if index % 10 else 90)
            verdicts = [
                {"outcome": "passed" if ok else "failed", "source": "rule", "evidence": "12 words, at most 10 allowed"}
                for ok in outcomes[0]
            ]
            texts = [text for _, text in constraints]
            row = {"seed_question": seed, "prompt": "\n".join([seed, *texts]), "constraints": texts}
            row |= {"response": HOSTILE if index == 0 else text, "verdicts": verdicts}
            file.write(json.dumps({**row, "follow_rate": sum(found) / answers}) + "\n")
    run.follow_rates[round_] = sum(rates) / len(rates)
    run.kinds[round_] = {kind: sum(found) / len(found) for kind, found in passed_of.items()}
    values = {f"eval/kind/{kind}": rate for kind, rate in run.kinds[round_].items()}
    values |= {f"eval/kind_count/{kind}": float(len(found)) for kind, found in passed_of.items()}
    strict = sum(rate == 1 for rate in rates) / len(rates)
    values |= {
        "eval/follow_rate": run.follow_rates[round_],
        "eval/strict_rate": strict,
        "eval/num_responses": len(rates),
        "eval/missing": 0,
    }
    return {**values, "eval/mean_tokens": 16.5, "time_s/total": 9.0}


def _write_probes(rng: random.Random, path: Path, round_: int) -> None:
    for name in ("probe_before", "probe_after"):
        with (path / "rounds" / f"{round_:02d}" / f"{name}_samples.jsonl").open("w") as file:
            for index in range(24):
                texts = [text for _, text in _constraints(rng, 2 if name == "probe_before" else 3)]
                refused = index % 8 == 3
                row = {
                    "seed_question": f"Describe the {_NOUNS[index % len(_NOUNS)]} at dawn, part {index}.",
                    "raw": HOSTILE if refused else json.dumps({"constraints": texts}),
                    "constraints": None if refused else texts,
                    "reason": "unparsable" if refused else None,
                    "follow_rate": None if refused else rng.randint(0, 3) / 3,
                }
                file.write(json.dumps(row) + "\n")


def _write_tables(rng: random.Random, path: Path, round_: int) -> None:
    folder = path / "rounds" / f"{round_:02d}"
    kept = [
        ["use no commas", *(text for _, text in _constraints(rng, 2))] if i % 4 == 0 else [f"say item {i}"]
        for i in range(400)
    ]
    pq.write_table(
        pa.table(
            {
                "seed_question": [f"seed {i}" for i in range(len(kept))],
                "constraint": kept,
                "round": [round_] * len(kept),
            }
        ),
        folder / "q.parquet",
    )
    refused = [
        ("unparsable", HOSTILE, "no JSON object"),
        ("conflict", '{"constraints": ["at least 9 words", "at most 3 words"]}', "at least 9 words / at most 3 words"),
        ("unparsable", "{", "no JSON object"),
    ]
    rows = [
        {"seed_question": "seed", "raw": raw, "reason": reason, "detail": detail} for reason, raw, detail in refused
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rejected.parquet")
