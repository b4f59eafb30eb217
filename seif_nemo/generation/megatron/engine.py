"""The in-place engine: `protocols/engine.py` on the Megatron model that is being trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel

from seif_nemo.generation.megatron.decoding import Decoding
from seif_nemo.generation.megatron.forward import ChunkForward
from seif_nemo.generation.megatron.kv_cache import KVCache
from seif_nemo.generation.sampling import check_sampling
from seif_nemo.generation.sharing import Answer, deal, pack, unpack
from seif_nemo.generation.stopping import check_stops
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.engine import OnFinished, StaleWeightsError
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams

_COLUMN_STEP = 64  # columns of the cache come in multiples of this, so that a slightly longer batch fits the old one


class MegatronEngine:
    """Generates with `modules` (the chunks of this rank's stage), sharing requests out over data-parallel replicas.

    max_batch_rows: rows decoded together on one replica. max_sequence_length: prompt and response, tokens.
    weight_version: says which weights the model holds now. The key/value buffers are made by the first call and again
    only when a later one needs more rows or columns. Training state is not touched; every module's mode is put back.
    Raises `ValueError` for a model that the cached forward does not compute exactly.
    """

    def __init__(
        self,
        modules: Sequence[GPTModel],
        topology: Topology,
        tokenizer: Tokenizer,
        *,
        max_batch_rows: int,
        max_sequence_length: int,
        weight_version: Callable[[], str],
    ) -> None:
        if max_batch_rows < 1:
            raise ValueError(f"max_batch_rows={max_batch_rows} must be at least 1")
        self._modules = list(modules)
        self._topology = topology
        self._tokenizer = tokenizer
        self._max_batch_rows = max_batch_rows
        self._max_sequence_length = max_sequence_length
        self._weight_version = weight_version
        self._dtype = next(modules[0].parameters()).dtype
        self._layers: list[Any] = []  # of all chunks, megatron's
        self._chunks: list[ChunkForward] = []
        for module in modules:
            chunk = ChunkForward(
                module,
                first_layer=len(self._layers),
                max_sequence_length=max_sequence_length,
                device=topology.device,
                dtype=self._dtype,
            )
            self._chunks.append(chunk)
            self._layers += module.decoder.layers
        self._cache: KVCache | None = None

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        *,
        weight_version: str,
        on_finished: OnFinished | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in order. Collective, see `protocols/engine.py`.

        Raises `StaleWeightsError` for another weight version than the model's, `ValueError` for a prompt that is empty,
        leaves no room for a token or holds an id outside the vocabulary, and for sampling parameters out of range, and
        `FloatingPointError` on every rank if the model gave a logit that is not finite.
        """
        held = self._weight_version()
        if held != weight_version:
            raise StaleWeightsError(f"asked for weights {weight_version!r}, but the engine holds {held!r}")
        check_sampling(sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens)
        check_stops(sampling.stop)
        self._check_prompts(requests)
        shares = deal(
            [request.prompt_ids for request in requests],
            self._topology.generators,
            tokens_per_response=min(sampling.max_new_tokens, self._max_sequence_length),
        )

        def rollout_of(index: int, answer: Answer) -> Rollout:
            return Rollout(
                prompt_ids=requests[index].prompt_ids,
                response_ids=answer.response_ids,
                logprobs=answer.logprobs,
                text=answer.text,
                finish_reason=answer.finish_reason,
                weight_version=weight_version,
            )

        def hand_out(index: int, answer: Answer) -> None:
            if on_finished is not None:
                on_finished(index, rollout_of(index, answer))

        # Megatron keeps a buffer for what sequence parallelism gathers, Transformer Engine one for FP8 weights. Outside
        # of inference mode nothing can be written to those of it.
        is_shared = self._topology.sequence or bool(self._modules[0].config.fp8)
        with torch.no_grad() if is_shared else torch.inference_mode(), _eval_mode(self._modules):
            own = self._answer(requests, shares[self._topology.generator_rank], sampling, hand_out)
            answers = self._gather(own, shares)
        for index, answer in enumerate(answers):
            if not np.isfinite(answer.logprobs).all():
                token = int(np.flatnonzero(~np.isfinite(answer.logprobs))[0])
                raise FloatingPointError(f"request {index}: the log-prob of response token {token} is not finite")
        return [rollout_of(index, answer) for index, answer in enumerate(answers)]

    def invalidate_caches(self) -> None:
        """Forgets all keys and values, and the FP8 weights that Transformer Engine has. The buffers stay.

        Megatron's schedules have them made anew at each first micro-batch, but generation does not go through those.
        """
        for module in self._modules:
            module.set_is_first_microbatch()  # with Transformer Engine it never ran
        if self._cache is not None:
            with torch.inference_mode():
                self._cache.clear()

    def _check_prompts(self, requests: Sequence[GenerationRequest]) -> None:
        for index, request in enumerate(requests):
            length = len(request.prompt_ids)
            if length == 0:
                raise ValueError(f"request {index}: the prompt is empty")
            if length >= self._max_sequence_length:
                raise ValueError(
                    f"request {index}: the prompt has {length} tokens, but the maximum sequence length is "
                    f"{self._max_sequence_length} and at least one token of it is the response's"
                )
            low, high = int(request.prompt_ids.min()), int(request.prompt_ids.max())
            vocab_size = self._modules[0].vocab_size
            if low < 0 or high >= vocab_size:
                raise ValueError(
                    f"request {index}: token id {low if low < 0 else high} is outside the vocabulary "
                    f"(0 to {vocab_size - 1})"
                )

    def _answer(
        self,
        requests: Sequence[GenerationRequest],
        share: Sequence[int],
        sampling: SamplingParams,
        hand_out: Callable[[int, Answer], None],
    ) -> list[Answer]:
        if not share:
            return []
        longest = max(len(requests[index].prompt_ids) for index in share)
        num_columns = min(longest + sampling.max_new_tokens, self._max_sequence_length)
        decoding = Decoding(
            self._chunks,
            self._cache_for(min(self._max_batch_rows, len(share)), num_columns),
            self._topology,
            self._tokenizer,
            requests,
            share,
            sampling,
            max_sequence_length=self._max_sequence_length,
            dtype=self._dtype,
            hand_out=hand_out,
        )
        return decoding.run()

    def _cache_for(self, num_rows: int, num_columns: int) -> KVCache:
        if self._cache is None or not self._cache.fits(num_rows, num_columns):
            held_rows = self._cache.num_rows if self._cache else 0
            held_columns = self._cache.num_columns if self._cache else 0
            self._cache = None  # free it before the larger one is made
            columns = -(-max(num_columns, held_columns) // _COLUMN_STEP) * _COLUMN_STEP
            attention = self._layers[0].self_attention
            self._cache = KVCache(
                num_layers=len(self._layers),
                num_rows=max(num_rows, held_rows),
                num_columns=columns,
                num_groups=attention.num_query_groups_per_partition,
                head_size=attention.hidden_size_per_attention_head,
                dtype=self._dtype,
                device=self._topology.device,
            )
        return self._cache

    def _gather(self, own: list[Answer], shares: list[list[int]]) -> list[Answer]:
        """All answers in the order of the requests. Every rank of a replica holds that replica's; replicas exchange."""
        everything = [own]
        if self._topology.generators > 1:
            # of the replicas that share experts, and so their answers too, the first is heard
            copies = self._topology.replicas // self._topology.generators
            counts = [len(share) for share in shares for _ in range(copies)]
            everything = self._exchange(own, counts)[::copies]
        by_request: dict[int, Answer] = {}
        for share, answers in zip(shares, everything, strict=True):
            by_request.update(zip(share, answers, strict=True))
        return [by_request[index] for index in range(len(by_request))]

    def _exchange(self, own: list[Answer], counts: list[int]) -> list[list[Answer]]:
        group, device = self._topology.replica_group, self._topology.device
        packed = torch.from_numpy(pack(own).copy()).to(device)
        size = torch.tensor([len(packed)], dtype=torch.int64, device=device)
        sizes = torch.empty(len(counts), dtype=torch.int64, device=device)
        dist.all_gather_into_tensor(sizes, size, group=group)
        longest = int(sizes.max())
        padded = torch.zeros(longest, dtype=torch.uint8, device=device)
        padded[: len(packed)] = packed
        gathered = torch.empty(len(counts) * longest, dtype=torch.uint8, device=device)
        dist.all_gather_into_tensor(gathered, padded, group=group)
        rows = gathered.view(len(counts), longest).cpu().numpy()
        return [unpack(row, count) for row, count in zip(rows, counts, strict=True)]


@contextmanager
def _eval_mode(models: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Evaluation mode inside; after it every module is in the mode it was found in."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
