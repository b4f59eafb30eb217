"""What goes into a generation engine and what comes out. Token ids are int64, log-probs float32 NumPy arrays."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int64]
LogProbs = NDArray[np.float32]


class FinishReason(StrEnum):
    STOP = "stop"  # an end-of-sequence token or a stop string
    LENGTH = "length"  # max_new_tokens, or the model's maximum sequence length


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. temperature 0 is greedy; top_k 0 and top_p 1 are off.

    `stop` strings end a response; the text is cut before the stop string, the token ids keep it.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """One response to one prompt. `seed` alone decides its random numbers (with the position), whatever the batch."""

    prompt_ids: TokenIds
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One response.

    response_ids include the end-of-sequence token where there was one. logprobs are those of the distribution that was
    sampled from (after temperature, before top-k/top-p), one per response token; for greedy decoding at temperature 1.
    """

    prompt_ids: TokenIds
    response_ids: TokenIds
    logprobs: LogProbs
    text: str
    finish_reason: FinishReason
    weight_version: str

    @property
    def num_response_tokens(self) -> int:
        return len(self.response_ids)
