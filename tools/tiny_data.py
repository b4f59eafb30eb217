"""The data files of the tiny world: seeds to train on, seeds to probe with, prompts to tune on and to measure with."""

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tiny_demos
import tiny_world
from tiny_demos import TinyPrompt

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.data.store import ReleasedInstruction, write_released
from seif_nemo.evolution.codec import CODEC
from seif_nemo.types.constraints import Constraint, Reading

SEED_COLUMN = "prompt"
# The first draw ("heldout") has influenced one choice of settings; this one is for measuring alone.
HELDOUT_LABEL = "heldout, second draw"


def write_data(folder: Path) -> None:
    """Writes seeds.parquet, probe_seeds.parquet, dev.parquet and heldout.parquet. The same files every time."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = tiny_world.seed_splits()
    _write_seeds(folder / "seeds.parquet", splits.training)
    _write_seeds(folder / "probe_seeds.parquet", splits.probe)
    write_released(folder / "dev.parquet", _rows(tiny_demos.evaluation_prompts(splits.dev, "dev")))
    write_released(folder / "heldout.parquet", _rows(tiny_demos.evaluation_prompts(splits.heldout, HELDOUT_LABEL)))


def sample() -> tuple[object, ...]:
    """The evaluation rows and some demonstrations: they change if anything does that the data or the training see."""
    rng = random.Random(0)
    splits = tiny_world.seed_splits()
    demos = [(tiny_demos.draw_follower_demo(rng, s), tiny_demos.draw_instructor_demo(rng, s)) for s in splits.training]
    return splits, _rows(tiny_demos.evaluation_prompts(splits.dev, "dev")), demos


def _rows(prompts: Sequence[TinyPrompt]) -> list[ReleasedInstruction]:
    return [
        ReleasedInstruction(
            seed_question=prompt.seed,
            constraints=prompt.texts,
            instruction_ids=tuple(CODEC.to_id(read(text)) for text in prompt.texts),
            prompt=prompt.prompt,
        )
        for prompt in prompts
    ]


def read(text: str) -> Constraint:
    """A constraint of this world as the project reads it: always in full."""
    constraint = parse_constraint(text)
    assert constraint.reading is Reading.EQUIVALENT, text
    return constraint


def _write_seeds(file: Path, seeds: Sequence[str]) -> None:
    pq.write_table(pa.table({SEED_COLUMN: pa.array(seeds, pa.string())}), file, compression="zstd")
