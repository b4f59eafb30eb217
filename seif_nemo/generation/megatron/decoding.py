"""The decoding loop of one replica: its share of the requests, through the slots, to answers.

Every rank of the replica (its tensor-parallel ranks times its pipeline stages) runs this loop with the same slot table.
The last stage samples; one broadcast over the pipeline group per step tells the others (token, log-prob). Replicas
that share experts work on the same rows.

Shape suffixes: R rows of the batch, B leading rows in use, N tokens, T response tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from seif_nemo.generation.megatron.forward import ChunkForward, Prompts, Step
from seif_nemo.generation.megatron.kv_cache import KVCache
from seif_nemo.generation.sampling import draw, noise_keys, seed_keys
from seif_nemo.generation.sharing import Answer
from seif_nemo.generation.slots import Admission, Indices, SlotTable
from seif_nemo.generation.stopping import StopStrings, final_text
from seif_nemo.models.builder import is_first_chunk, is_last_chunk
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.rollouts import FinishReason, GenerationRequest, SamplingParams

_PREFILL_TOKENS = 16384  # of distinct prompts in one forward; bounds activation memory


class Decoding:
    """One `generate` call on one replica. `share`: the indices of the requests that are its own, in serving order.

    `hand_out` gets each of them with its answer as soon as that is whole.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkForward],
        cache: KVCache,
        topology: Topology,
        tokenizer: Tokenizer,
        requests: Sequence[GenerationRequest],
        share: Sequence[int],
        sampling: SamplingParams,
        *,
        max_sequence_length: int,
        dtype: torch.dtype,
        hand_out: Callable[[int, Answer], None],
    ) -> None:
        self._chunks, self._cache, self._topology, self._tokenizer = chunks, cache, topology, tokenizer
        self._requests, self._share, self._sampling = requests, share, sampling
        self._max_sequence_length = max_sequence_length
        self._dtype = dtype
        self._hand_out = hand_out
        self._eos_ids = np.array(tokenizer.eos_ids, dtype=np.int64)
        num_rows = min(cache.num_rows, len(share))
        self._table = SlotTable(num_rows, share)
        self._key_R = np.zeros(num_rows, dtype=np.uint64)
        self._length_R = np.zeros(num_rows, dtype=np.int64)  # tokens in the cache = position of the next one
        self._drawn_R = np.zeros(num_rows, dtype=np.int64)  # response tokens so far
        self._limit_R = np.zeros(num_rows, dtype=np.int64)  # response tokens at most
        self._last_R = np.zeros(num_rows, dtype=np.int64)
        self._token_RT = np.zeros((num_rows, sampling.max_new_tokens), dtype=np.int64)
        self._logprob_RT = np.zeros((num_rows, sampling.max_new_tokens), dtype=np.float32)
        self._watch_R: list[StopStrings | None] = [None] * num_rows
        self._answers: dict[int, Answer] = {}
        ranks = dist.get_process_group_ranks(topology.pipeline_group)
        self._previous = ranks[topology.pipeline_rank - 1]  # a ring: with several chunks on each stage tokens go round
        self._next = ranks[(topology.pipeline_rank + 1) % topology.pipeline]

    def run(self) -> list[Answer]:
        """The answers to `share`, in its order."""
        while not self._table.finished:
            admission = self._table.admit(self._prefill_limit())
            if admission is not None:
                self._prefill(admission)
            else:
                self._decode()
            moves = self._table.compact()
            if moves is not None and len(moves.sources) > 0:
                self._move(moves.sources, moves.targets)
        return [self._answers[index] for index in self._share]

    def _prefill_limit(self) -> int:
        """How many waiting requests one prefill may take: same prompts count once."""
        seen: set[bytes] = set()
        total = 0
        waiting = self._table.next_waiting(len(self._length_R)).tolist()
        for count, index in enumerate(waiting):
            prompt = self._requests[index].prompt_ids
            if (key := prompt.tobytes()) not in seen:
                seen.add(key)
                total += len(prompt)
                if total > _PREFILL_TOKENS and count > 0:
                    return count
        return len(waiting)

    def _prefill(self, admission: Admission) -> None:
        """Reads the prompts of the admitted requests into their rows and draws the first token of each response.

        A prompt that several of them share is read once, into the first one's row, and copied.
        """
        rows, prompts = admission.rows, [self._requests[i].prompt_ids for i in admission.requests.tolist()]
        place_of: dict[bytes, int] = {}
        place = np.array([place_of.setdefault(prompt.tobytes(), len(place_of)) for prompt in prompts], dtype=np.int64)
        _, first = np.unique(place, return_index=True)  # which admitted request brings each distinct prompt
        distinct = [prompts[i] for i in first.tolist()]
        lengths = np.array([len(prompt) for prompt in distinct], dtype=np.int64)
        width = int(lengths.max())
        position_N = np.concatenate([np.arange(n) for n in lengths.tolist()])
        place_N = np.repeat(np.arange(len(distinct)), lengths)
        host_5N = np.stack(
            (
                np.concatenate(distinct),
                position_N,
                rows[first][place_N],
                place_N * width + position_N,
                np.pad(np.cumsum(lengths) - 1, (0, len(position_N) - len(lengths))),
            )
        )
        token_N, on_device_N, row_N, padded_N, last = self._to_device(host_5N)
        step = Step(
            token_N=token_N,
            position_N=on_device_N,
            flat_index_N=self._cache.flat_index(row_N, on_device_N),
            num_columns=width,
            prompts=Prompts(count=len(distinct), padded_index_N=padded_N, last_B=last[: len(distinct)]),
        )
        self._open(admission, lengths[place])
        rows_and_lengths = self._to_device(np.stack((rows, self._length_R[rows], rows[first[place]], place)))
        self._cache.open_rows(rows_and_lengths[0], rows_and_lengths[1])
        logits = self._forward(step)
        copied = np.flatnonzero(first[place] != np.arange(len(rows)))
        if len(copied) > 0:
            picked = torch.from_numpy(copied).to(self._topology.device)
            self._cache.copy_rows(rows_and_lengths[2][picked], rows_and_lengths[0][picked], width)
        self._draw(None if logits is None else logits[rows_and_lengths[3]], rows)

    def _open(self, admission: Admission, lengths: Indices) -> None:
        rows = admission.rows
        requests = admission.requests.tolist()
        self._key_R[rows] = seed_keys([self._requests[i].seed for i in requests])
        self._length_R[rows] = lengths
        self._drawn_R[rows] = 0
        self._limit_R[rows] = np.minimum(self._sampling.max_new_tokens, self._max_sequence_length - lengths)
        if self._sampling.stop:
            for row in rows.tolist():
                self._watch_R[row] = StopStrings(self._tokenizer, self._sampling.stop)

    def _decode(self) -> None:
        """One token more for every live row. Dead rows inside the width come along and are not looked at."""
        num_rows = self._table.width
        position_B = self._length_R[:num_rows]
        flat_B = np.arange(num_rows) * self._cache.num_columns + position_B
        token_B, on_device_B, flat_B = self._to_device(np.stack((self._last_R[:num_rows], position_B, flat_B)))
        self._cache.mark(flat_B)
        live_B = self._table.live_R[:num_rows]
        num_columns = int(position_B[live_B].max()) + 1
        step = Step(token_N=token_B, position_N=on_device_B, flat_index_N=flat_B, num_columns=num_columns)
        logits_BV = self._forward(step)
        self._length_R[:num_rows] += live_B
        self._draw(logits_BV, np.arange(num_rows))

    def _forward(self, step: Step) -> Tensor | None:
        """Logits on the last stage; elsewhere hidden states go on to the next stage only, and None is returned."""
        topology = self._topology
        group = topology.pipeline_group
        for number, chunk in enumerate(self._chunks):
            hidden = None
            if not is_first_chunk(topology, number):
                shape = chunk.shape_between_chunks(len(step.token_N))
                hidden = torch.empty(shape, dtype=self._dtype, device=topology.device)
                dist.recv(hidden, src=self._previous, group=group)
            out = chunk.run(self._cache, step, hidden)
            if is_last_chunk(topology, number):
                return out
            dist.send(out.contiguous(), dst=self._next, group=group)
        return None

    def _draw(self, logits_BV: Tensor | None, rows: Indices) -> None:
        """Draws a token for each of `rows` (logits in their order) and keeps it for the live ones."""
        if logits_BV is None:
            drawn_2B = torch.empty(2, len(rows), dtype=torch.float64, device=self._topology.device)
        else:
            noise_key_B = self._to_device(noise_keys(self._key_R[rows], self._drawn_R[rows]))
            sampling = self._sampling
            drawn = draw(
                logits_BV,
                noise_key_B,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
            )
            drawn_2B = torch.stack((drawn.token_B.double(), drawn.logprob_B.double()))  # both are exact in float64
            if self._topology.generators < self._topology.replicas:
                # Replicas that share experts must agree: a product may round a row by its place among the others.
                group = self._topology.expert_block_group
                dist.broadcast(drawn_2B, src=dist.get_global_rank(group, 0), group=group)
        if self._topology.pipeline > 1:
            dist.broadcast(drawn_2B, src=self._topology.last_stage_rank, group=self._topology.pipeline_group)
        drawn_host_2B: NDArray[np.float64] = drawn_2B.cpu().numpy()
        live = self._table.live_R[rows]
        rows = rows[live]
        self._keep(rows, drawn_host_2B[0, live].astype(np.int64), drawn_host_2B[1, live].astype(np.float32))

    def _keep(self, rows: Indices, token: Indices, logprob: NDArray[np.float32]) -> None:
        """Appends the tokens to the responses in `rows` and retires those that end with it."""
        at = self._drawn_R[rows]
        self._token_RT[rows, at] = token
        self._logprob_RT[rows, at] = logprob
        self._last_R[rows] = token
        self._drawn_R[rows] = at + 1
        stopped = (token[:, None] == self._eos_ids).any(axis=1)
        if self._sampling.stop:
            for i, row in enumerate(rows.tolist()):
                watch = self._watch_R[row]
                assert watch is not None
                stopped[i] |= watch.push(int(token[i]))
        ended = stopped | (at + 1 >= self._limit_R[rows])
        if not ended.any():
            return
        for row, has_stopped in zip(rows[ended].tolist(), stopped[ended].tolist(), strict=True):
            self._answer(row, FinishReason.STOP if has_stopped else FinishReason.LENGTH)
        self._table.retire(rows[ended])

    def _answer(self, row: int, reason: FinishReason) -> None:
        count = int(self._drawn_R[row])
        ids = self._token_RT[row, :count].copy()
        answer = Answer(
            response_ids=ids,
            logprobs=self._logprob_RT[row, :count].copy(),
            text=final_text(self._tokenizer, ids.tolist(), self._sampling.stop),
            finish_reason=reason,
        )
        index = int(self._table.request_R[row])
        self._answers[index] = answer
        self._watch_R[row] = None
        self._hand_out(index, answer)

    def _move(self, sources: Indices, targets: Indices) -> None:
        for array in (self._key_R, self._length_R, self._drawn_R, self._limit_R, self._last_R):
            array[targets] = array[sources]
        num_drawn = int(self._drawn_R[targets].max())
        self._token_RT[targets, :num_drawn] = self._token_RT[sources, :num_drawn]
        self._logprob_RT[targets, :num_drawn] = self._logprob_RT[sources, :num_drawn]
        for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
            self._watch_R[target], self._watch_R[source] = self._watch_R[source], None
        sources_dev, targets_dev = self._to_device(np.stack((sources, targets)))
        self._cache.copy_rows(sources_dev, targets_dev, int(self._length_R[targets].max()))

    def _to_device(self, host: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(host).to(self._topology.device)
