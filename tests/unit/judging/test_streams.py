import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from seif_nemo.judging.streams import Chunk, chunks, judge_chunk, judge_lines, open_whole, read_lines
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Verdict


def row(response: str) -> bytes:
    return json.dumps({"response": response, "constraints": ["At most 2 words."]}).encode() + b"\n"


def judged(lines: Sequence[bytes | None], **options: int) -> list[dict[str, object]]:
    parts = judge_lines(lines, ask=None, loose=False, **{"batch": 1, "jobs": 1, **options})
    return [json.loads(line) for part in parts for line in part.output.splitlines()]


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n\nb\n", [b"a\n", b"\n", b"b\n"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [b"a\n", b"\xef\xbb\xbfb"]),
        (b"1234567\n12345678\n1\n", [b"1234567\n", None, b"1\n"]),
        (b"12345678", [b"12345678"]),
        (b"123456789", [None]),
        (b"1" * 200_000 + b"\nab\n", [None, b"ab\n"]),
    ],
)
def test_lines_with_a_limit_of_8_bytes(data: bytes, expected: list[bytes | None]) -> None:
    assert list(read_lines(io.BytesIO(data), max_bytes=8)) == expected


def test_chunks_keep_order_and_count() -> None:
    assert list(chunks([b"a", None, b"c"], 2)) == [Chunk(0, (b"a", None)), Chunk(2, (b"c",))]
    assert list(chunks([], 2)) == []


def test_a_chunk_counts_its_bad_rows() -> None:
    found = judge_chunk(Chunk(4, (row("a b"), b"no", None, row("a b c"))))
    assert (found.rows, found.bad) == (4, 2)
    assert found.first_error == "line 6: not JSON: Expecting value at character 1"
    lines = [json.loads(line) for line in found.output.splitlines()]
    assert [line["index"] for line in lines] == [4, 5, 6, 7]
    assert [line["follow_rate"] for line in lines] == [1.0, None, None, 0.0]
    assert lines[2]["error"] == "line 7: longer than 8388608 bytes"


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_change_nothing(batch: int) -> None:
    lines = [row("a " * size) if size else b"bad\n" for size in range(8)]
    assert judged(lines, batch=batch) == judged(lines)


def test_processes_keep_the_order() -> None:
    lines = [row("a " * (number % 5)) if number % 7 else b"bad\n" for number in range(700)]
    assert judged(lines, jobs=2) == judged(lines)


def test_no_line_is_read_before_the_one_before_it_is_judged() -> None:
    read: list[int] = []

    def lines() -> Iterator[bytes]:
        for number in range(3):
            read.append(number)
            yield row("a")

    parts = judge_lines(lines(), ask=None, loose=False, batch=1, jobs=1)
    next(parts)
    assert read == [0]


def test_a_model_is_not_asked_from_several_processes() -> None:
    def ask(questions: Sequence[Question]) -> list[Verdict]:
        raise AssertionError

    with pytest.raises(ValueError, match="--jobs"):
        list(judge_lines([row("a")], ask=ask, loose=False, batch=1, jobs=2))


def test_a_fault_says_where() -> None:
    def ask(questions: Sequence[Question]) -> list[Verdict]:
        raise KeyError("broken")

    line = json.dumps({"response": "a", "constraints": ["Use a warm tone."]}).encode()
    with pytest.raises(KeyError) as caught:
        judge_chunk(Chunk(9, (line,)), ask=ask)
    assert caught.value.__notes__ == ["while judging lines 10 to 10"]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_whole(path) as stream:
        stream.write(b"half")
        stream.flush()
        assert not path.exists()
        [partial] = tmp_path.iterdir()
        assert (partial.name, partial.read_bytes()) == (f".out.jsonl.{os.getpid()}.partial", b"half")
        stream.write(b" whole")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("out.jsonl", b"half whole")]


@pytest.mark.parametrize("name", ["x" * 245, "x" * 255, "é" * 127])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    with open_whole(tmp_path / name) as stream:
        stream.write(b"new")
        [partial] = tmp_path.iterdir()
        assert partial.name.endswith(f".{os.getpid()}.partial")
        assert partial.name.startswith(f".{name[:100]}")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"new")]


def test_a_link_to_itself_is_an_error_of_the_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"), open_whole(loop):
        pass
    assert loop.is_symlink()


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def write() -> None:
        with open_whole(path) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("out.jsonl", b"old")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with open_whole(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_device_is_written_and_not_replaced() -> None:
    with open_whole(Path(os.devnull)) as stream:
        stream.write(b"new")
    assert not Path(os.devnull).is_file()
    assert Path(os.devnull).exists()
