"""Deal requests out over data-parallel replicas, and pack their answers into one tensor to gather."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seif_nemo.types.rollouts import FinishReason, LogProbs, TokenIds

_REASONS = (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What one replica knows of one response."""

    response_ids: TokenIds
    logprobs: LogProbs
    text: str
    finish_reason: FinishReason


def deal(prompts: Sequence[TokenIds], num_shares: int, *, tokens_per_response: int) -> list[list[int]]:
    """Request indices per replica; the same on every rank that passes the same arguments.

    Requests with the same prompt stay together where that costs no balance, since a replica prefills a prompt once.
    A request costs the tokens it can come to. Groups go to the least loaded replica, dearest first; then single
    requests move from the most to the least loaded while that narrows the gap. Inside a share, same prompts are
    neighbours and long prompts come first.
    """
    groups: dict[bytes, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.tobytes(), []).append(index)
    cost = [len(prompt) + tokens_per_response for prompt in prompts]
    fair = -(-len(prompts) // num_shares)
    pieces = [group[i : i + fair] for group in groups.values() for i in range(0, len(group), fair)]
    pieces.sort(key=lambda piece: (-cost[piece[0]] * len(piece), piece[0]))
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    load = [0] * num_shares
    for piece in pieces:
        lightest = load.index(min(load))
        shares[lightest] += piece
        load[lightest] += cost[piece[0]] * len(piece)
    while True:
        heaviest, lightest = load.index(max(load)), load.index(min(load))
        gap = load[heaviest] - load[lightest]
        movable = [index for index in shares[heaviest] if cost[index] < gap]
        if not movable:
            break
        moved = min(movable, key=lambda index: (abs(gap - 2 * cost[index]), index))
        shares[heaviest].remove(moved)
        shares[lightest].append(moved)
        load[heaviest] -= cost[moved]
        load[lightest] += cost[moved]
    first_of = {index: group[0] for group in groups.values() for index in group}
    for share in shares:
        share.sort(key=lambda index: (-cost[index], first_of[index], index))
    return shares


def pack(answers: Sequence[Answer]) -> NDArray[np.uint8]:
    """Bytes of: per answer (tokens, text bytes, reason) as int32, then all tokens int32, log-probs float32, UTF-8."""
    texts = [answer.text.encode() for answer in answers]
    header = np.array(
        [
            (len(answer.response_ids), len(text), _REASONS.index(answer.finish_reason))
            for answer, text in zip(answers, texts, strict=True)
        ],
        dtype=np.int32,
    ).reshape(-1, 3)
    empty: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    ids = np.concatenate([answer.response_ids for answer in answers] or empty).astype(np.int32)
    logprobs = np.concatenate([answer.logprobs for answer in answers] or empty).astype(np.float32)
    return np.frombuffer(header.tobytes() + ids.tobytes() + logprobs.tobytes() + b"".join(texts), dtype=np.uint8)


def unpack(packed: NDArray[np.uint8], num_answers: int) -> list[Answer]:
    """The inverse of `pack`. Bytes after the payload (padding) are not looked at."""
    data = packed.tobytes()
    header = np.frombuffer(data, dtype=np.int32, count=3 * num_answers).reshape(-1, 3)
    num_tokens = int(header[:, 0].sum())
    at = header.nbytes
    ids = np.frombuffer(data, dtype=np.int32, count=num_tokens, offset=at).astype(np.int64)
    logprobs = np.frombuffer(data, dtype=np.float32, count=num_tokens, offset=at + 4 * num_tokens).copy()
    at += 8 * num_tokens
    answers: list[Answer] = []
    token = 0
    for length, num_bytes, reason in header.tolist():
        answers.append(
            Answer(
                response_ids=ids[token : token + length],
                logprobs=logprobs[token : token + length],
                text=data[at : at + num_bytes].decode(),
                finish_reason=_REASONS[reason],
            )
        )
        token += length
        at += num_bytes
    return answers
