from seif_nemo.constraints.remembering import LONG, remember

SHORT = ["a", "b", "c"]
LONG_TEXTS = [letter * (LONG + 1) for letter in "def"]


def test_short_texts_stay_and_of_long_ones_only_the_newest_two() -> None:
    calls: list[tuple[str, int]] = []

    @remember(maxsize=8)
    def shout(text: str, times: int = 1) -> str:
        calls.append((text[0], times))
        return text[0].upper() * times

    for text in [*SHORT, *LONG_TEXTS]:
        assert shout(text) == text[0].upper()
    calls.clear()
    assert [shout(text) for text in [*SHORT, *LONG_TEXTS[1:]]] == ["A", "B", "C", "E", "F"]
    assert calls == []
    assert shout(LONG_TEXTS[0]) == "D"
    assert shout("a", 2) == "AA"
    assert shout("a", times=2) == "AA"
    assert calls == [("d", 1), ("a", 2), ("a", 2)]


def test_the_least_used_is_forgotten_first() -> None:
    calls: list[str] = []

    @remember(maxsize=2)
    def shout(text: str) -> str:
        calls.append(text)
        return text.upper()

    assert "".join(map(shout, "abaca")) == "ABACA"
    assert "".join(map(shout, "b")) == "B"
    assert calls == ["a", "b", "c", "b"]
    assert shout.__name__ == "shout"
