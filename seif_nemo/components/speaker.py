"""Any resident's weights as something to talk to: chats in, rollouts or probabilities out."""

from collections.abc import Sequence

import numpy as np

from seif_nemo.components.actor import Actor
from seif_nemo.protocols.engine import OnFinished
from seif_nemo.protocols.tokenizer import Message, Tokenizer
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams, TokenIds
from seif_nemo.weights.bank import RoleBank

Chat = Sequence[Message]


class Speaker:
    """Swaps the asked-for resident in, generates, and swaps back. Collective."""

    def __init__(self, bank: RoleBank, actor: Actor, tokenizer: Tokenizer, *, max_sequence_length: int) -> None:
        self._bank = bank
        self._actor = actor
        self._tokenizer = tokenizer
        self._max_sequence_length = max_sequence_length

    def digest(self, resident: Resident) -> str:
        """Of the resident's newest weights, the same on every rank."""
        return self._bank.digest(resident)

    def speak(
        self,
        resident: Resident,
        chats: Sequence[Chat],
        *,
        seeds: Sequence[int],
        sampling: SamplingParams,
        on_finished: OnFinished | None = None,
    ) -> list[Rollout]:
        """One rollout per chat, in order; `seeds` has one entry per chat. `on_finished`: see `protocols/engine.py`."""
        assert len(chats) == len(seeds), f"{len(chats)} chats, {len(seeds)} seeds"
        if not chats:
            return []
        requests = [
            GenerationRequest(self._tokenizer.encode_chat(chat), seed) for chat, seed in zip(chats, seeds, strict=True)
        ]
        with self._bank.resident(resident):
            version = self._bank.version_of(resident)
            return self._actor.generate(requests, sampling, weight_version=version, on_finished=on_finished)

    def speak_fitting(
        self, resident: Resident, chats: Sequence[Chat], *, seeds: Sequence[int], sampling: SamplingParams
    ) -> list[Rollout | None]:
        """As `speak`, with None for a chat that does not fit the model."""
        fitting = [index for index, chat in enumerate(chats) if self.fits(chat)]
        spoken = self.speak(
            resident, [chats[index] for index in fitting], seeds=[seeds[index] for index in fitting], sampling=sampling
        )
        rollouts: list[Rollout | None] = [None] * len(chats)
        for index, rollout in zip(fitting, spoken, strict=True):
            rollouts[index] = rollout
        return rollouts

    def word_logprobs(
        self, resident: Resident, chats: Sequence[Chat], *, openings: Sequence[str], words: Sequence[str]
    ) -> list[tuple[float, ...] | None]:
        """log P(word | chat, answer so far) of each of `words`, for each chat; at temperature 1.

        The answer so far is the chat's opening, as far as the tokens of all opening + word agree. None for a chat that
        does not fit the model with its words.
        """
        assert len(chats) == len(openings), f"{len(chats)} chats, {len(openings)} openings"
        pairs: list[tuple[TokenIds, TokenIds]] = []
        found: list[tuple[float, ...] | None] = [None] * len(chats)
        places: list[int] = []
        for index, (chat, opening) in enumerate(zip(chats, openings, strict=True)):
            continued = continuations(self._tokenizer, chat, opening, words)
            if max(len(prompt) + len(word) for prompt, word in continued) <= self._max_sequence_length:
                pairs += continued
                places.append(index)
        if pairs:
            with self._bank.resident(resident):
                sums = [float(np.sum(each, dtype=np.float64)) for each in self._actor.logprobs(pairs, temperature=1.0)]
            for row, index in enumerate(places):
                found[index] = tuple(sums[row * len(words) : (row + 1) * len(words)])
        return found

    def fits(self, chat: Chat) -> bool:
        """Whether the chat leaves room for at least one new token."""
        return len(self._tokenizer.encode_chat(chat)) < self._max_sequence_length


def continuations(
    tokenizer: Tokenizer, chat: Chat, opening: str, words: Sequence[str]
) -> list[tuple[TokenIds, TokenIds]]:
    """(prompt ids, ids that make the difference) of each word after the chat and the opening.

    A tokenizer may merge the opening's end with a word: what all tokenisations begin with goes to the prompt. Raises
    ValueError if nothing is left of one of them, as if two words are the same tokens.
    """
    wholes = [tokenizer.encode(opening + word) for word in words]
    shortest = min(map(len, wholes))
    shared = 0
    while shared < shortest and len({int(whole[shared]) for whole in wholes}) == 1:
        shared += 1
    if shared == shortest:
        raise ValueError(
            f"the model's tokenizer does not tell the words {', '.join(map(repr, words))} apart after {opening!r}: "
            "reward.judge_mode=logprob needs that; choose reward.judge_mode=generate"
        )
    header = tokenizer.encode_chat(chat)
    return [(np.concatenate([header, whole[:shared]]), whole[shared:]) for whole in wholes]
