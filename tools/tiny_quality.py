"""How good a tiny model is at both roles, on the dev prompts and the probe seeds. Never on the held-out prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import tiny_data
import tiny_tokenizer
import torch
from tiny_tokenizer import ANSWER, FOLLOW, INSTRUCT
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from seif_nemo.constraints.conflict import conflicts, repeats
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.verify import verify
from seif_nemo.data.seeds import load_seeds
from seif_nemo.data.store import load_heldout
from seif_nemo.types.constraints import Reading
from seif_nemo.types.verdicts import Outcome

MAX_NEW_TOKENS = 56
KEYS = ["c1", "c2", "c3"]


@dataclass(frozen=True, slots=True)
class Quality:
    """All at temperature 1, by the project's parser, conflict rules and verifiers."""

    follow_rate: float  # mean share of satisfied constraints on dev
    strict_rate: float  # share of dev prompts with all of them satisfied
    parse_share: float  # share of Instructor outputs that are three readable constraints
    conflict_share: float  # of those, share with a conflict or a repetition
    difficulty: float  # 1 - follow rate of the same model on what is left
    follow_rate_by_kind: dict[str, float]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {rate:.2f}" for kind, rate in sorted(self.follow_rate_by_kind.items()))
        return (
            f"follow rate {self.follow_rate:.3f} (strict {self.strict_rate:.3f}) on dev; "
            f"Instructor: parse {self.parse_share:.3f}, conflict {self.conflict_share:.3f}, "
            f"difficulty {self.difficulty:.3f}\n{kinds}"
        )


def measure(folder: Path, *, seed: int = 0) -> Quality:
    """Samples once per dev prompt and probe seed. About ten seconds."""
    tokenizer = tiny_tokenizer.load_tokenizer(folder)
    model = Qwen2ForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    dev = load_heldout(folder / "data" / "dev.parquet")
    tasks = [(row.seed_question, row.constraints) for row in dev]
    passed, kinds = _follow(model, tokenizer, tasks)
    probe = load_seeds(folder / "data" / "probe_seeds.parquet", column=tiny_data.SEED_COLUMN, max_characters=1000)
    seeds = [row.text for row in probe.seeds]
    outputs = _sample(model, tokenizer, [f"{INSTRUCT}{text}{ANSWER}" for text in seeds])
    parsed = [(text, _readable(output)) for text, output in zip(seeds, outputs, strict=True)]
    readable = [(text, constraints) for text, constraints in parsed if constraints is not None]
    kept = [(text, constraints) for text, constraints in readable if not _refused(constraints)]
    asked, _ = _follow(model, tokenizer, kept)
    by_kind = {kind: float(np.mean([ok for k, ok in kinds if k == kind])) for kind in {kind for kind, _ in kinds}}
    return Quality(
        follow_rate=float(np.mean([np.mean(row) for row in passed])),
        strict_rate=float(np.mean([all(row) for row in passed])),
        parse_share=len(readable) / len(seeds),
        conflict_share=1 - len(kept) / len(readable) if readable else 0.0,
        difficulty=1 - float(np.mean([np.mean(row) for row in asked])) if asked else float("nan"),
        follow_rate_by_kind=by_kind,
    )


def _readable(output: str) -> tuple[str, ...] | None:
    """The three constraints of an Instructor's output; None if it is no such thing."""
    try:
        fields = json.loads(output)
    except ValueError:
        return None
    if not isinstance(fields, dict) or list(fields) != KEYS or not all(isinstance(v, str) for v in fields.values()):
        return None
    texts = tuple(fields.values())
    return texts if all(parse_constraint(text).reading is Reading.EQUIVALENT for text in texts) else None


def _refused(texts: Sequence[str]) -> bool:
    constraints = [parse_constraint(text) for text in texts]
    return bool(repeats(constraints) or conflicts([constraint.spec for constraint in constraints]))


def _follow(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[tuple[str, Sequence[str]]]
) -> tuple[list[list[bool]], list[tuple[str, bool]]]:
    """Per task which constraints one sample satisfies, and the same as (kind, satisfied) pairs."""
    prompts = [FOLLOW + seed + "".join(f"\n* {text}" for text in texts) + ANSWER for seed, texts in tasks]
    passed: list[list[bool]] = []
    kinds: list[tuple[str, bool]] = []
    for (seed, texts), response in zip(tasks, _sample(model, tokenizer, prompts), strict=True):
        specs = [spec for text in texts if (spec := parse_constraint(text).spec) is not None]
        assert len(specs) == len(texts)
        passed.append([verify(spec, response, seed_question=seed).outcome is Outcome.PASSED for spec in specs])
        kinds += [(spec.kind.value, ok) for spec, ok in zip(specs, passed[-1], strict=True)]
    return passed, kinds


@torch.inference_mode()
def _sample(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """One response per prompt at temperature 1."""
    if not prompts:
        return []
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    generate = cast(Any, model).generate  # its type does not admit any model
    output_BT = generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=True, temperature=1.0, top_k=None)
    responses_BT = output_BT[:, batch["input_ids"].shape[1] :]
    return tokenizer.batch_decode(responses_BT, skip_special_tokens=True)
