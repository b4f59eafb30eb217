"""Trains the tiny base model with transformers on one CPU thread, deterministically for a seed.

Shapes: B examples of a chunk, T tokens (right-padded), V vocabulary, R response tokens of a chunk.
"""

import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tiny_demos
import tiny_world
import torch
from tiny_demos import Demonstration
from tiny_tokenizer import ANSWER, EOS, FOLLOW, INSTRUCT
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from seif_nemo.data.streams import derive_seed

BATCH = 32
POOL_BATCHES = 16  # examples are drawn and tokenized so many batches at a time
FIRST_CHUNK = 20  # a batch, sorted by length, is padded in two chunks: its 20 shortest examples and the rest
MAX_RESPONSE = 56
COPY_DRILL, FOLLOWER = 0.15, 0.62  # shares of the examples; the rest are Instructor demonstrations
LEARNING_RATE, RAMP_STEPS, FINAL_SHARE = 3e-3, 50, 0.1
BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.98), 0.01, 1.0
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a whole prompt, with its special tokens, and of the response with its end."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def new_model(*, vocabulary: int, eos: int, pad: int, max_positions: int, seed: int) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2-layout model: hidden 96, 3 layers, 4 heads and 2 key-value heads, tied, fp32."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        eos_token_id=eos,
        pad_token_id=pad,
        bos_token_id=None,
        use_cache=True,
        dtype=torch.float32,
    )
    model = Qwen2ForCausalLM(config)
    _initialise(model, torch.Generator().manual_seed(derive_seed(seed, "tiny model", "weights")))
    model.generation_config.eos_token_id = eos
    model.generation_config.pad_token_id = pad
    return model


def _initialise(model: Qwen2ForCausalLM, generator: torch.Generator) -> None:
    """Embeddings N(0, .1), projections into the residual stream N(0, .02), other matrices N(0, 1/√fan_in)."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            if "embed_tokens" in name:
                std = 0.1
            elif "o_proj" in name or "down_proj" in name:
                std = 0.02
            else:
                std = 1 / math.sqrt(weight.shape[1])
            weight.normal_(0.0, std, generator=generator)


def train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, *, seed: int, steps: int) -> float:
    """Trains in place on `steps` × 32 demonstrations, loss on responses only. Returns the smoothed final loss.

    On one thread, so that the weights are a function of the seed: sums over threads differ with their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(model, tokenizer, seed, steps)
    finally:
        torch.set_num_threads(threads)


def _train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int, steps: int) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY)
    examples = demonstrations(tokenizer, seed)
    progress = _Progress(steps)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = sorted((next(examples) for _ in range(BATCH)), key=lambda example: example.length)
        num_tokens = sum(len(example.response_ids) for example in batch)
        optimizer.zero_grad()
        total = 0.0
        for chunk in (batch[:FIRST_CHUNK], batch[FIRST_CHUNK:]):
            loss = response_loss(model, chunk) / num_tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        progress.show(step + 1, total)
    model.eval()
    return progress.loss


def learning_rate(step: int, steps: int) -> float:
    """Linear ramp over 50 steps under a linear decay to a tenth."""
    return LEARNING_RATE * min(1.0, (step + 1) / RAMP_STEPS) * (1 - (1 - FINAL_SHARE) * step / steps)


def response_loss(model: Qwen2ForCausalLM, chunk: Sequence[Example]) -> torch.Tensor:
    """Summed negative log-likelihood of the response tokens. Logits are made at their positions only."""
    width = max(example.length for example in chunk)
    ids_BT = torch.zeros(len(chunk), width, dtype=torch.long)
    targets_BT = torch.full((len(chunk), width), IGNORED)
    for row, example in enumerate(chunk):
        start, end = len(example.prompt_ids), example.length
        ids_BT[row, :end] = torch.tensor(example.prompt_ids + example.response_ids)
        targets_BT[row, start - 1 : end - 1] = ids_BT[row, start:end]
    # Right padding under a causal mask changes no position before it, so no attention mask is needed.
    hidden_BTH = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
    is_response_BT = targets_BT[:, :-1] != IGNORED
    logits_RV = model.lm_head(hidden_BTH[is_response_BT])
    return torch.nn.functional.cross_entropy(logits_RV, targets_BT[:, :-1][is_response_BT], reduction="sum")


def demonstrations(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Example]:
    """The endless stream of training examples of a seed."""
    rng = random.Random(derive_seed(seed, "tiny model", "demonstrations"))
    seeds = tiny_world.seed_splits().training
    while True:
        pool = [_draw(rng, rng.choice(seeds)) for _ in range(BATCH * POOL_BATCHES)]
        prompts = tokenizer([opening + demo.prompt + ANSWER for opening, demo in pool])["input_ids"]
        responses = tokenizer([demo.response + EOS for _, demo in pool])["input_ids"]
        for prompt_ids, response_ids in zip(prompts, responses, strict=True):
            yield Example(tuple(prompt_ids), tuple(response_ids[:MAX_RESPONSE]))


def _draw(rng: random.Random, seed: str) -> tuple[str, Demonstration]:
    """A demonstration and the special token that its prompt opens with."""
    part = rng.random()
    if part < COPY_DRILL:
        return FOLLOW, tiny_demos.draw_copy_drill(rng, seed)
    if part < COPY_DRILL + FOLLOWER:
        return FOLLOW, tiny_demos.draw_follower_demo(rng, seed)
    return INSTRUCT, tiny_demos.draw_instructor_demo(rng, seed)


class _Progress:
    """One line on standard error, rewritten on a terminal, repeated every tenth of the way elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._start = time.monotonic()
        self.loss = math.nan

    def show(self, step: int, loss: float) -> None:
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
        is_terminal = sys.stderr.isatty()
        if step != self._steps and step % (10 if is_terminal else max(1, self._steps // 10)) != 0:
            return
        left = (time.monotonic() - self._start) / step * (self._steps - step)
        line = f"tiny model: step {step}/{self._steps}, loss {self.loss:.3f}, {left:.0f} s left"
        end = "\n" if not is_terminal or step == self._steps else ""
        print(("\r\033[K" if is_terminal else "") + line, end=end, file=sys.stderr, flush=True)
