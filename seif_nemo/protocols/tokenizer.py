"""The little of a tokenizer that this project uses, so that its users need not import transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from seif_nemo.types.rollouts import TokenIds


@dataclass(frozen=True, slots=True)
class Message:
    role: str  # "system" or "user"
    content: str


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ...

    @property
    def pad_id(self) -> int: ...

    def encode_chat(self, messages: Sequence[Message]) -> TokenIds:
        """Token ids of the chat with the header of the assistant's turn at the end, by its own chat template."""
        ...

    def encode(self, text: str) -> TokenIds:
        """Token ids of plain text, without tokens that begin or end a text. May be no ids for no text."""
        ...

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Text without special tokens."""
        ...
