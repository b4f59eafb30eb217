"""The rewarded rollouts of the next step, which belong to a checkpoint where they were made before its update.

With `algorithm.max_staleness=1` the weights that sampled them are gone after the update: a resumed run cannot make them
again, so it reads them.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seif_nemo.evolution.changed_files import ChangedFileError, all_see
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.rewarded import RewardedRollout, Sampled
from seif_nemo.types.records import Phase
from seif_nemo.types.rollouts import FinishReason, Rollout

UPCOMING = "upcoming.parquet"  # in the directory of the checkpoint that it belongs to
_METRICS = b"metrics"
_SCHEMA = pa.schema(
    [
        ("prompt_ids", pa.list_(pa.int64())),
        ("response_ids", pa.list_(pa.int64())),
        ("logprobs", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("weight_version", pa.string()),
        ("group", pa.int64()),
        ("reward", pa.float64()),
        ("note", pa.string()),  # JSON
    ]
)


def write_upcoming(directory: Path, sampled: Sampled) -> None:
    """All of a step's rollouts, exactly, and its metrics so far."""
    rewarded, values = sampled
    rows = [
        {
            "prompt_ids": item.rollout.prompt_ids,
            "response_ids": item.rollout.response_ids,
            "logprobs": item.rollout.logprobs,
            "text": item.rollout.text,
            "finish_reason": item.rollout.finish_reason.value,
            "weight_version": item.rollout.weight_version,
            "group": item.group,
            "reward": item.reward,
            "note": json.dumps(item.note, ensure_ascii=False),
        }
        for item in rewarded
    ]
    pq.write_table(
        pa.Table.from_pylist(rows, _SCHEMA.with_metadata({_METRICS: json.dumps(values)})), directory / UPCOMING
    )


def read_upcoming(directory: Path) -> Sampled:
    """What `write_upcoming` was given."""
    table = pq.read_table(directory / UPCOMING, schema=_SCHEMA)
    rewarded = [
        RewardedRollout(
            Rollout(
                prompt_ids=np.array(row["prompt_ids"], dtype=np.int64),
                response_ids=np.array(row["response_ids"], dtype=np.int64),
                logprobs=np.array(row["logprobs"], dtype=np.float32),
                text=row["text"],
                finish_reason=FinishReason(row["finish_reason"]),
                weight_version=row["weight_version"],
            ),
            group=row["group"],
            reward=row["reward"],
            note=json.loads(row["note"]),
        )
        for row in table.to_pylist()
    ]
    return rewarded, json.loads(pq.read_schema(directory / UPCOMING).metadata[_METRICS])


def resume_upcoming(context: Context, round: int, phase: Phase, step: int) -> Sampled | None:
    """The rollouts of `step` if the checkpoint that the run goes on from has them. Collective.

    Raises ChangedFileError, on all ranks, if one of them does not see the ledger's file.
    """
    entry = None if step == 0 else context.ledger.find(round, phase, step - 1)
    if entry is None or UPCOMING not in entry.digests:
        return None
    assert entry.checkpoint is not None
    directory = context.paths.root / entry.checkpoint
    if not all_see(directory / UPCOMING, entry.digests[UPCOMING], context.topology):
        raise ChangedFileError(f"{directory / UPCOMING} is not the file that the run wrote: put that one back")
    return read_upcoming(directory)
