"""Any resident's weights as something to talk to: chats in, rollouts out."""

from collections.abc import Sequence

from seif_nemo.components.actor import Actor
from seif_nemo.protocols.tokenizer import Message, Tokenizer
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams
from seif_nemo.weights.bank import RoleBank

Chat = Sequence[Message]


class Speaker:
    """Swaps the asked-for resident in, generates, and swaps back. Collective."""

    def __init__(self, bank: RoleBank, actor: Actor, tokenizer: Tokenizer, *, max_sequence_length: int) -> None:
        self._bank = bank
        self._actor = actor
        self._tokenizer = tokenizer
        self._max_sequence_length = max_sequence_length

    def speak(
        self, resident: Resident, chats: Sequence[Chat], *, seeds: Sequence[int], sampling: SamplingParams
    ) -> list[Rollout]:
        """One rollout per chat, in order; `seeds` has one entry per chat."""
        assert len(chats) == len(seeds), f"{len(chats)} chats, {len(seeds)} seeds"
        if not chats:
            return []
        requests = [
            GenerationRequest(self._tokenizer.encode_chat(chat), seed) for chat, seed in zip(chats, seeds, strict=True)
        ]
        with self._bank.resident(resident):
            return self._actor.generate(requests, sampling, weight_version=self._bank.version_of(resident))

    def fits(self, chat: Chat) -> bool:
        """Whether the chat leaves room for at least one new token."""
        return len(self._tokenizer.encode_chat(chat)) < self._max_sequence_length
