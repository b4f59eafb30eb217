"""The probabilities of words under a resident's weights, in every layout, are those of whole forwards of the model."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from seif_nemo.components.speaker import Speaker, continuations
from seif_nemo.parallel.topology import shutdown
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import TokenIds
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import run_ranks
from tests.dist.test_actor import UNTIED, Layout, build
from tests.dist.tiny_gpt import VOCAB

MAX_LENGTH = 24
CHATS = [[Message("user", text)] for text in ("is it so", "q", "x" * 30, "or is it")]  # the third does not fit
OPENINGS = ["[[12 ", "[[9 ", "[[1 ", "[[77 "]
WORDS = ("yes", "no")


class Characters:
    """A token per character, but a space is one with the letter after it."""

    vocab_size = VOCAB
    eos_ids = (0,)
    pad_id = 0

    def encode_chat(self, messages: Sequence[Message]) -> TokenIds:
        return self.encode("".join(f"{message.role}:{message.content}" for message in messages)[-21:])

    def encode(self, text: str) -> TokenIds:
        tokens = re.findall(r" ?\w|.", text)
        return np.array([sum(map(ord, token)) % (VOCAB - 1) + 1 for token in tokens], dtype=np.int64)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        raise NotImplementedError


def test_what_all_words_begin_with_goes_to_the_prompt() -> None:
    tokenizer = Characters()
    pairs = continuations(tokenizer, CHATS[1], "[[9 ", WORDS)
    header = tokenizer.encode_chat(CHATS[1]).tolist()
    assert [prompt.tolist() for prompt, _ in pairs] == [header + tokenizer.encode("[[9").tolist()] * 2
    assert [word.tolist() for _, word in pairs] == [tokenizer.encode(text).tolist() for text in (" yes", " no")]
    pairs = continuations(tokenizer, CHATS[1], "", ("note", "nope"))
    assert [word.tolist() for _, word in pairs] == [tokenizer.encode(text).tolist() for text in ("te", "pe")]


class Deaf(Characters):
    """All texts are the same to it."""

    def encode(self, text: str) -> TokenIds:
        return np.array([3], dtype=np.int64)


@pytest.mark.parametrize(
    ("tokenizer", "words"), [(Deaf(), WORDS), (Characters(), ("no", "nope")), (Characters(), ("no", "no"))]
)
def test_words_that_the_tokenizer_does_not_tell_apart_are_refused(
    tokenizer: Characters, words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"{words[0]!r}, {words[1]!r}.*'\[\[9 '.*reward\.judge_mode=generate"):
        continuations(tokenizer, CHATS[1], "[[9 ", words)


def _spoken(layout: Layout) -> Any:
    topology, trainable, actor = build(layout, UNTIED)
    bank = RoleBank(trainable, RoleSums(trainable.modules, UNTIED, topology))
    bank.add(Resident.FOLLOWER, trained=True)
    with torch.no_grad():
        for buffer in trainable.weight_buffers():
            buffer.mul_(1.5)
    trainable.after_weights_changed()
    bank.add(Resident.EVALUATOR, trained=False)
    bank.switch(Resident.FOLLOWER)
    tokenizer = Characters()
    speaker = Speaker(bank, actor, tokenizer, max_sequence_length=MAX_LENGTH)
    found = {
        resident.value: speaker.word_logprobs(resident, CHATS, openings=OPENINGS, words=WORDS)
        for resident in (Resident.EVALUATOR, Resident.FOLLOWER)
    }
    assert bank.resident_name == Resident.FOLLOWER
    assert speaker.word_logprobs(Resident.EVALUATOR, [], openings=[], words=WORDS) == []
    expected: dict[str, list[list[float]]] = {}
    if layout.world == 1:
        for resident in (Resident.EVALUATOR, Resident.FOLLOWER):
            bank.switch(resident)
            expected[resident.value] = [
                [
                    _whole(
                        trainable.modules[0], tokenizer.encode_chat(chat), tokenizer.encode(opening + word), len(word)
                    )
                    for word in WORDS
                ]
                for chat, opening in zip(CHATS, OPENINGS, strict=True)
            ]
    shutdown(topology)
    return found, expected


@torch.no_grad()
def _whole(model: Any, prompt: TokenIds, continuation: TokenIds, length: int) -> float:
    """The log-prob of the last `length` tokens, at temperature 1."""
    ids = torch.from_numpy(np.concatenate([prompt, continuation]))[None]
    logits = model(ids, torch.arange(ids.shape[1])[None], None)[0, :, :VOCAB].double()
    logprobs = torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    return float(logprobs[-length:].sum())


@pytest.mark.parametrize("layout", [Layout(1), Layout(2), Layout(2, tensor=2), Layout(2, pipeline=2)])
def test_word_logprobs_are_those_of_whole_forwards_at_temperature_one(layout: Layout) -> None:
    ((_, expected),) = run_ranks(1, _spoken, Layout(1))
    for found, _ in run_ranks(layout.world, _spoken, layout):
        for name, rows in found.items():
            assert rows[2] is None, "the chat that does not fit"
            for index in (0, 1, 3):
                assert rows[index] == pytest.approx(expected[name][index], abs=2e-5)
        assert abs(found["evaluator"][0][0] - found["follower"][0][0]) > 0.01, "the weights matter"
