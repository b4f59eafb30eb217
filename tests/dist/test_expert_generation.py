"""Generation with mixture-of-experts models: every layout gives transformers' tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import shutdown
from seif_nemo.types.rollouts import GenerationRequest, LogProbs, Rollout, SamplingParams, TokenIds
from seif_nemo.weights.hf import load_hf_weights
from tests.dist.harness import run_ranks
from tests.dist.test_experts import Layout, build
from tests.tiny_hf import make_tiny_hf

GREEDY = SamplingParams(max_new_tokens=9, temperature=0.0)
SAMPLED = SamplingParams(max_new_tokens=9, temperature=0.7, top_p=0.95)
LAYOUTS = {
    1: [Layout(1)],
    2: [Layout(2, expert=2), Layout(2, tensor=2, sequence=True, expert=2, expert_tensor=1)],
    4: [
        Layout(4, expert=2),
        Layout(4, tensor=2, sequence=True, expert=2),
        Layout(4, pipeline=2, expert=2),
        Layout(4, tensor=2, sequence=True, expert=4, expert_tensor=1),
    ],
}
FAMILIES = ("mixtral", "qwen3_moe")


class Numbers:
    """Each token is its number and a space; one in nine ends a response."""

    vocab_size = 99
    eos_ids = tuple(range(2, 99, 9))
    pad_id = 0

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        return "".join(f"{int(i)} " for i in ids)


def requests() -> list[GenerationRequest]:
    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, 99, length) for length in (5, 1, 9, 13)]
    return [GenerationRequest(prompts[i], seed=50 + n) for n, i in enumerate((0, 1, 2, 3, 0, 2, 0))]


def generate(layouts: list[Layout], models: dict[str, Path]) -> list[dict[str, list[list[Rollout]]]]:
    results: list[dict[str, list[list[Rollout]]]] = []
    for layout in layouts:
        topology = build(layout)
        answers: dict[str, list[list[Rollout]]] = {}
        for family, path in models.items():
            arch = read_architecture(path)
            modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64)
            load_hf_weights(modules, arch, topology, path)
            tokenizer: Any = Numbers()
            engine = MegatronEngine(
                modules, topology, tokenizer, max_batch_rows=3, max_sequence_length=64, weight_version=lambda: "w"
            )
            answers[family] = [engine.generate(requests(), each, weight_version="w") for each in (GREEDY, SAMPLED)]
        results.append(answers)
        shutdown(topology)
    return results


def by_transformers(path: Path) -> list[tuple[list[int], LogProbs]]:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    answers: list[tuple[list[int], LogProbs]] = []
    for request in requests():
        out = model.generate(
            torch.from_numpy(request.prompt_ids)[None],
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=list(Numbers.eos_ids),
            output_logits=True,
            return_dict_in_generate=True,
        )
        ids = out.sequences[0, len(request.prompt_ids) :]
        scores = torch.cat(out.logits).log_softmax(1).gather(1, ids[:, None])[:, 0]
        answers.append((ids.tolist(), scores.numpy()))
    return answers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("generation")
    return {family: make_tiny_hf(root / family, family, seed=3, num_hidden_layers=2) for family in FAMILIES}


def test_every_layout_gives_the_tokens_of_transformers(models: dict[str, Path]) -> None:
    greedy = {family: by_transformers(path) for family, path in models.items()}
    first = run_ranks(1, generate, LAYOUTS[1], models)[0][0]
    assert any(len(ids) < 9 for ids, _ in greedy["mixtral"] + greedy["qwen3_moe"])  # some end early
    for world, layouts in LAYOUTS.items():
        chosen = models if world < 4 else {"mixtral": models["mixtral"]}
        for results in run_ranks(world, generate, layouts, chosen):
            for layout, (family, (plain, sampled)) in (
                (layout, item) for layout, answers in zip(layouts, results, strict=True) for item in answers.items()
            ):
                label = f"{family} {layout}"
                for rollout, (ids, logprobs) in zip(plain, greedy[family], strict=True):
                    assert rollout.response_ids.tolist() == ids, label
                    np.testing.assert_allclose(rollout.logprobs, logprobs, atol=3e-5, err_msg=label)
                for a, b in zip(sampled, first[family][1], strict=True):
                    assert a.response_ids.tolist() == b.response_ids.tolist(), label


def test_biases_and_stretched_positions_give_the_tokens_of_transformers(tmp_path: Path) -> None:
    """Dense, but of the same kind: what lies between the layers' linear parts is the engine's own."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 500.0}
    options = {"num_hidden_layers": 2, "attention_bias": True, "mlp_bias": True, "rope_parameters": yarn}
    path = make_tiny_hf(tmp_path / "llama", "llama", seed=3, **options)
    greedy = by_transformers(path)
    for results in run_ranks(2, generate, [Layout(2, tensor=2)], {"llama": path}):
        for rollout, (ids, logprobs) in zip(results[0]["llama"][0], greedy, strict=True):
            assert rollout.response_ids.tolist() == ids
            np.testing.assert_allclose(rollout.logprobs, logprobs, atol=3e-5)
