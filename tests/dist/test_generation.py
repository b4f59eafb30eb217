"""Generation in every layout gives, token by token, what whole forwards without a cache give for one request alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.models.gpt import GPTModel

from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.generation.sampling import draw, noise_keys, seed_keys
from seif_nemo.models.architecture import Architecture
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.types.rollouts import FinishReason, GenerationRequest, Rollout, SamplingParams, TokenIds
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, Layout, build_tiny

MAX_LENGTH = 40
ONE_GROUP = replace(TINY, num_kv_heads=1, tied_embeddings=False, qkv_bias=False, qk_norm=True, family="qwen3")
SAMPLINGS = {
    "greedy": SamplingParams(max_new_tokens=12, temperature=0.0),
    "sampled": SamplingParams(max_new_tokens=25, temperature=0.8, top_p=0.95, top_k=30),
    "stops": SamplingParams(max_new_tokens=25, stop=("ab", "eed", "ccc")),
}
CASES = {TINY: ("greedy", "sampled", "stops"), ONE_GROUP: ("sampled",)}


class Letters:
    """Token i is the letter i modulo 6; tokens 0 and 1 are special."""

    vocab_size = VOCAB
    eos_ids = (1, 7)
    pad_id = 0

    def encode_chat(self, messages: Sequence[Message]) -> TokenIds:
        raise NotImplementedError

    def encode(self, text: str) -> TokenIds:
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        return "".join("abcdef"[int(i) % 6] for i in ids if i > 1)


def make_requests() -> list[GenerationRequest]:
    """23 requests on 14 prompts of 1 to 39 tokens, in no order; two prompts leave room for seven tokens and for one."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(2, VOCAB, length) for length in (3, 9, 1, 17, 9, 4, 12, 6, 2, 8, 5, 11, 33, 39)]
    order = rng.permutation([*range(14), *[0] * 4, *[6] * 3, 1, 12])
    return [GenerationRequest(prompts[which], seed=1000 + index) for index, which in enumerate(order.tolist())]


def plain(rollouts: Sequence[Rollout]) -> list[tuple[list[int], str, str]]:
    return [(r.response_ids.tolist(), r.text, r.finish_reason.value) for r in rollouts]


def without_cache(model: GPTModel, request: GenerationRequest, sampling: SamplingParams) -> Rollout:
    """One response by whole forwards of the model itself. World of one."""
    tokenizer = Letters()
    ids, logprobs, reason = request.prompt_ids.tolist(), [], FinishReason.LENGTH
    start = len(ids)
    text = ""
    while len(ids) < min(start + sampling.max_new_tokens, MAX_LENGTH):
        tokens = torch.tensor([ids])
        logits = model(tokens, torch.arange(len(ids))[None], None)[:, -1]
        noise = noise_keys(seed_keys([request.seed]), np.array([len(ids) - start]))
        drawn = draw(
            logits,
            torch.from_numpy(noise),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )
        scaled = logits[0, :VOCAB] / (sampling.temperature or 1.0)
        token = int(drawn.token_B)
        ids.append(token)
        logprobs.append(float(scaled.log_softmax(-1)[token]))
        text = tokenizer.decode(ids[start:])
        found = [text.index(stop) for stop in sampling.stop if stop in text]
        if found or token in tokenizer.eos_ids:
            text = text[: min(found)] if found else text
            reason = FinishReason.STOP
            break
    return Rollout(request.prompt_ids, np.array(ids[start:]), np.array(logprobs, dtype=np.float32), text, reason, "w")


def build(
    layout: Layout, arch: Architecture, max_batch_rows: int
) -> tuple[Topology, GPTModel, MegatronEngine, list[str]]:
    topology = build_topology(layout.config, seed=0, threads=1, rendezvous_timeout_s=60)
    modules = build_tiny(topology, arch)
    version = ["w"]
    engine = MegatronEngine(
        modules,
        topology,
        Letters(),
        max_batch_rows=max_batch_rows,
        max_sequence_length=MAX_LENGTH,
        weight_version=lambda: version[0],
    )
    return topology, modules[0], engine, version


def run_layouts(layouts: Sequence[Layout], max_batch_rows: int) -> list[dict[str, list[Rollout]]]:
    """Per layout, what the engine answers for every architecture and sampling, on this rank."""
    results: list[dict[str, list[Rollout]]] = []
    for layout in layouts:
        answers: dict[str, list[Rollout]] = {}
        for arch, kinds in CASES.items():
            topology, _, engine, _ = build(layout, arch, max_batch_rows)
            for kind in kinds:
                answers[f"{arch.family} {kind}"] = engine.generate(make_requests(), SAMPLINGS[kind], weight_version="w")
            shutdown(topology)
        results.append(answers)
    return results


def run_references() -> dict[str, list[Rollout]]:
    answers: dict[str, list[Rollout]] = {}
    for arch, kinds in CASES.items():
        topology, model, _, _ = build(Layout(world=1), arch, 1)
        model.eval()
        with torch.no_grad():
            for kind in kinds:
                answers[f"{arch.family} {kind}"] = [
                    without_cache(model, request, SAMPLINGS[kind]) for request in make_requests()
                ]
        shutdown(topology)
    return answers


@cache
def references() -> dict[str, list[Rollout]]:
    return run_ranks(1, run_references)[0]


def compare(answers: dict[str, list[Rollout]], label: str) -> None:
    for kind, expected in references().items():
        got = answers[kind]
        assert plain(got) == plain(expected), f"{label} {kind}"
        for a, b, request in zip(got, expected, make_requests(), strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=3e-5, err_msg=f"{label} {kind}")
            assert a.logprobs.dtype == np.float32
            assert a.prompt_ids.tolist() == request.prompt_ids.tolist()
            assert a.weight_version == "w"


def test_the_references_stop_in_every_way() -> None:
    """Otherwise the comparisons below would leave something untested."""
    for kind, rollouts in references().items():
        limit = SAMPLINGS[kind.split()[1]].max_new_tokens
        reasons = {(r.finish_reason, len(r.response_ids) == limit) for r in rollouts}
        assert (FinishReason.LENGTH, False) in reasons, kind  # the model's maximum length
        assert (FinishReason.STOP, False) in reasons, kind
        if "greedy" in kind:
            assert (FinishReason.LENGTH, True) in reasons
        if "sampled" in kind:
            assert any(r.response_ids[-1] in Letters.eos_ids for r in rollouts)
        if "stops" in kind:
            spans = [r for r in rollouts if r.text + "ab" == Letters().decode(r.response_ids)]
            assert len(spans) >= 1  # a stop string over two tokens, cut from the text
    assert len({len(r.response_ids) for r in references()["qwen2 sampled"]}) >= 8  # rows retire at different times


@pytest.mark.parametrize("max_batch_rows", [1, 5, 64])
def test_one_rank_with_few_and_many_slots(max_batch_rows: int) -> None:
    compare(run_ranks(1, run_layouts, [Layout(1)], max_batch_rows)[0][0], f"{max_batch_rows} rows")


LAYOUTS = {
    2: [Layout(2), Layout(2, tensor=2), Layout(2, tensor=2, sequence=True), Layout(2, pipeline=2)],
    4: [Layout(4, tensor=2, pipeline=2, sequence=True), Layout(4, pipeline=2), Layout(4, context=2, tensor=2)],
}


@pytest.mark.parametrize("world", LAYOUTS)
def test_layouts(world: int) -> None:
    layouts = LAYOUTS[world]
    for rank, results in enumerate(run_ranks(world, run_layouts, layouts, 6)):
        for layout, answers in zip(layouts, results, strict=True):
            compare(answers, f"{layout} rank {rank}")


def run_order_and_composition() -> list[bool]:
    topology, _, engine, _ = build(Layout(1), TINY, 7)
    requests, sampling = make_requests(), SAMPLINGS["sampled"]
    whole = plain(engine.generate(requests, sampling, weight_version="w"))
    backwards = plain(engine.generate(requests[::-1], sampling, weight_version="w"))[::-1]
    alone = [plain(engine.generate([request], sampling, weight_version="w"))[0] for request in requests[::5]]
    other_seed = replace(requests[0], seed=77)
    changed = plain(engine.generate([other_seed, *requests[1:]], sampling, weight_version="w"))
    nothing = engine.generate([], sampling, weight_version="w")
    shutdown(topology)
    return [
        backwards == whole,
        alone == whole[::5],
        changed[1:] == whole[1:] and changed[0] != whole[0],
        nothing == [],
    ]


def test_a_response_depends_on_its_request_alone() -> None:
    assert run_ranks(1, run_order_and_composition)[0] == [True] * 4


def raised(kind: type[Exception], call: Callable[[], object]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    return "nothing was raised"


def run_errors() -> list[str]:
    topology, model, engine, version = build(Layout(2), TINY, 4)
    good, sampling = make_requests()[:3], SAMPLINGS["sampled"]

    def ask(
        prompt: list[int], parameters: SamplingParams = sampling, weight_version: str = "w"
    ) -> Callable[[], object]:
        bad = GenerationRequest(np.array(prompt, dtype=np.int64), seed=0)
        return lambda: engine.generate([*good, bad], parameters, weight_version=weight_version)

    messages = [
        raised(StaleWeightsError, ask([3], weight_version="v")),
        raised(ValueError, ask([])),
        raised(ValueError, ask([3] * MAX_LENGTH)),
        raised(ValueError, ask([3, 64])),
        raised(ValueError, ask([3], replace(sampling, top_p=0.0))),
        raised(ValueError, ask([3], replace(sampling, stop=("",)))),
    ]
    layer: Any = model.decoder.layers[0]
    weight = layer.mlp.linear_fc2.weight
    kept = weight.detach().clone()
    before = plain(engine.generate(good, sampling, weight_version="w"))
    with torch.no_grad():
        if topology.data_rank == 1:
            weight.fill_(float("nan"))
    messages.append(raised(FloatingPointError, lambda: engine.generate(good, sampling, weight_version="w")))
    with torch.no_grad():
        weight.copy_(kept)
    engine.invalidate_caches()
    version[0] = "w2"
    after = engine.generate(good, sampling, weight_version="w2")
    messages.append(f"{plain(after) == before} {after[0].weight_version}")
    shutdown(topology)
    return messages


def test_errors_are_told_on_every_rank() -> None:
    for messages in run_ranks(2, run_errors):
        assert messages[0] == "asked for weights 'v', but the engine holds 'w'"
        assert messages[1] == "request 3: the prompt is empty"
        assert messages[2].startswith("request 3: the prompt has 40 tokens, but the maximum sequence length is 40")
        assert messages[3] == "request 3: token id 64 is outside the vocabulary (0 to 63)"
        assert messages[4].startswith("top_p=0.0")
        assert messages[5].startswith("stop=('',)")
        assert "log-prob of response token 0 is not finite" in messages[6]
        assert messages[7] == "True w2"


def run_handed_out(layout: Layout) -> tuple[list[int], list[int], bool, list[int]]:
    topology, _, engine, _ = build(layout, TINY, 7)
    requests, sampling = make_requests(), SAMPLINGS["sampled"]
    handed: list[tuple[int, Rollout]] = []
    whole = engine.generate(
        requests, sampling, weight_version="w", on_finished=lambda index, rollout: handed.append((index, rollout))
    )
    indices = [index for index, _ in handed]
    same = plain([rollout for _, rollout in handed]) == plain([whole[index] for index in indices])
    shutdown(topology)
    return sorted(indices), indices, same, [whole[index].num_response_tokens for index in indices]


@pytest.mark.parametrize("layout", [Layout(2), Layout(2, pipeline=2)])
def test_each_rollout_is_handed_out_once_where_it_is_made_and_when_it_is_whole(layout: Layout) -> None:
    results = run_ranks(2, run_handed_out, layout)
    everything = list(range(len(make_requests())))
    owned = [indices for indices, *_ in results]
    if layout.pipeline == 2:  # one replica: all of its ranks hold its rows
        assert owned == [everything, everything]
    else:
        assert sorted(owned[0] + owned[1]) == everything and owned[0] and owned[1]
    for _, order, same, lengths in results:
        assert same
        assert order != sorted(order) and len(set(lengths)) > 1, "not in the end, in the order of the requests"


def run_side_effects() -> list[object]:
    topology, model, engine, _ = build(Layout(1), TINY, 8)
    requests, sampling = make_requests(), SAMPLINGS["sampled"]
    model.train()
    list(model.decoder.layers)[1].eval()
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    first = plain(engine.generate(requests, sampling, weight_version="w"))
    facts: list[object] = [
        [module.training for module in model.modules()] == modes,
        torch.equal(torch.get_rng_state(), random_state),
        all(p.grad is None and p.requires_grad for p in model.parameters()),
    ]
    cache = engine._cache
    assert cache is not None
    engine.generate(requests[:2], SAMPLINGS["greedy"], weight_version="w")
    facts.append(engine._cache is cache)  # a smaller batch reuses the buffers
    layer = cache._layers_RCGD2[2]
    facts.append(bool(layer.any()))
    engine.invalidate_caches()
    facts.append(not bool(layer.any()))
    facts.append(engine._cache is cache)
    # The model still trains after the engine ran in inference mode (no cached inference tensor is left in it).
    tokens = torch.tensor([[5, 6, 7]])
    model.train()
    model(tokens, torch.arange(3)[None], None).float().logsumexp(-1).sum().backward()
    facts.append(all(p.grad is not None for p in model.parameters()))
    facts.append(plain(engine.generate(requests, sampling, weight_version="w")) == first)
    shutdown(topology)
    return facts


def test_nothing_is_left_behind() -> None:
    assert run_ranks(1, run_side_effects)[0] == [True] * 9
