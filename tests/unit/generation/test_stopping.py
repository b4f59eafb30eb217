from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.generation.stopping import StopStrings, check_stops, final_text, first_stop
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.types.rollouts import TokenIds

PIECES = [b"a", b"b", b"ab", b" a", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"###", b"#", b"\n", b""]


class Pieces:
    """Tokens are byte strings; text is their concatenation as UTF-8. A leading space of the text is dropped, as some
    tokenizers do. The last piece stands for a special token."""

    vocab_size = len(PIECES)
    eos_ids = (len(PIECES) - 1,)
    pad_id = 0

    def encode_chat(self, messages: Sequence[Message]) -> TokenIds:
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        return b"".join(PIECES[i] for i in ids).decode(errors="replace").removeprefix(" ")


def stops_at(ids: Sequence[int], stops: Sequence[str]) -> int | None:
    watch = StopStrings(Pieces(), stops)
    return next((count for count, token in enumerate(ids, 1) if watch.push(token)), None)


@pytest.mark.parametrize(
    "ids, stops, count, text",
    [
        ([0, 9, 9, 9, 0], ("##",), 3, "a"),  # spans tokens
        ([0, 8, 0], ("##",), 2, "a"),  # inside one token
        ([4, 5, 1], ("é",), 2, ""),  # one character of two tokens
        ([1, 6, 7, 10, 0], ("😀\n",), 4, "b"),  # spans tokens, one of them half a character
        ([0, 1, 11, 1], ("bb",), 4, "a"),  # a special token in between adds nothing
        ([0, 1, 0], ("ba", "ab"), 2, ""),  # the first to be complete
        ([0, 3, 1], ("a a",), 2, ""),  # the space is at the start of a token, not of the text
        ([0, 0, 0], ("b",), None, "aaa"),
    ],
)
def test_stop_strings_by_hand(ids: list[int], stops: tuple[str, ...], count: int | None, text: str) -> None:
    assert stops_at(ids, stops) == count
    assert final_text(Pieces(), ids[:count], stops) == text


# At most three bytes of a character can be incomplete, so invalid text is left out: decoders disagree about it.
texts = st.lists(st.sampled_from([[0], [1], [2], [3], [4, 5], [6, 7], [8], [9], [10], [11]]), max_size=25).map(
    lambda parts: [token for part in parts for token in part]
)


@settings(deadline=None, max_examples=400)
@given(ids=texts, stops=st.lists(st.sampled_from(["ab", "#", "####", "é", "aé", "😀a", "\na", "b a"]), min_size=1))
def test_stops_where_decoding_everything_would(ids: list[int], stops: list[str]) -> None:
    tokenizer = Pieces()
    expected = next(
        (n for n in range(1, len(ids) + 1) if any(stop in tokenizer.decode(ids[:n]) for stop in stops)), None
    )
    assert stops_at(ids, stops) == expected


def test_bytes_that_never_become_a_character_do_not_hide_a_stop() -> None:
    assert stops_at([5] * 200 + [9], ("#",)) == 201


def test_first_stop_is_the_earliest_not_the_first_named() -> None:
    assert first_stop("one two three", ("three", "two")) == 4
    assert first_stop("one", ("two",)) == -1


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="stop="):
        check_stops(("a", ""))
    check_stops(())
