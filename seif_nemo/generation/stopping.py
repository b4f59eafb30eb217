"""When a response ends, and what its text is.

The text of a response is the decoding of its token ids, cut before the first stop string.
"""

from collections.abc import Sequence

from seif_nemo.protocols.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"  # what decoders put for bytes that are not yet a character
_MAX_PENDING = 16  # tokens that a character is waited for


def first_stop(text: str, stops: Sequence[str]) -> int:
    """Where the earliest stop string begins in `text`, or -1."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return min(places, default=-1)


def final_text(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> str:
    """The decoding of `ids` without special tokens, cut before the earliest stop string."""
    text = tokenizer.decode(ids)
    cut = first_stop(text, stops)
    return text if cut < 0 else text[:cut]


def check_stops(stops: Sequence[str]) -> None:
    """Raises `ValueError` for an empty stop string: it would end every response at once."""
    if "" in stops:
        raise ValueError(f"stop={tuple(stops)!r} holds an empty string; leave it out")


class StopStrings:
    """Watches one response for stop strings, token by token, also where one spans tokens.

    Only the last few tokens are decoded on each step: two offsets move along the ids as characters become complete, and
    the text before the first is not looked at again. A decoder may join tokens differently in a window than in the
    whole text (a leading space, say), so a hit in the window counts only if the whole text has it too.
    """

    __slots__ = ("_ids", "_read", "_stops", "_tail", "_tail_length", "_tokenizer", "_window")

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        assert stops and "" not in stops
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._tail_length = max(map(len, stops)) - 1
        self._ids: list[int] = []
        self._window = 0  # ids before it are in the text that was looked at, and are no context any more
        self._read = 0  # ids before it are in the text that was looked at
        self._tail = ""  # the end of that text, as long as a stop string could begin in it

    def push(self, token: int) -> bool:
        """Takes the next token; true if the response now contains a stop string."""
        self._ids.append(token)
        known = self._tokenizer.decode(self._ids[self._window : self._read])
        text = self._tokenizer.decode(self._ids[self._window :])
        fresh = text[len(known) :]
        seen = self._tail + fresh
        # The window's context must have text, or a decoder that treats the start of a text specially takes the fresh
        # part for one; so a token without text stays fresh. Bytes that are no character after a while never will be.
        is_whole = not fresh.endswith(_INCOMPLETE) or len(self._ids) - self._read > _MAX_PENDING
        if fresh and is_whole:
            self._window, self._read = self._read, len(self._ids)
            self._tail = seen[-self._tail_length :] if self._tail_length else ""
        return first_stop(seen, self._stops) >= 0 and first_stop(self._tokenizer.decode(self._ids), self._stops) >= 0
