"""Asking a model: what roles need of a component that owns an engine."""

from collections.abc import Sequence
from typing import Protocol

from seif_nemo.protocols.tokenizer import Message


class AskModel(Protocol):
    """Greedy or sampled answers of the frozen evaluator, one per chat, in order. None where no answer was reached."""

    def __call__(self, chats: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[str | None]: ...
