import io
import logging
import re
from collections.abc import Iterator

import pytest

from seif_nemo.observability.logging import ROOT_NAME, set_up_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    logger = logging.getLogger(ROOT_NAME)
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(before[1])  # also clears the levels that loggers cache


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rank_zero_speaks_from_info_and_others_from_warning() -> None:
    texts = []
    for rank in (0, 3):
        stream = io.StringIO()
        set_up_logging(rank, stream=stream)
        logger = logging.getLogger("seif_nemo.weights.bank")
        logger.debug("d")
        logger.info("i")
        logger.warning("w %d", 7)
        texts.append(re.sub(r"^\d\d:\d\d:\d\d ", "", stream.getvalue(), flags=re.MULTILINE))
    assert texts[0] == "[rank 0] INFO seif_nemo.weights.bank: i\n[rank 0] WARNING seif_nemo.weights.bank: w 7\n"
    assert texts[1] == "[rank 3] WARNING seif_nemo.weights.bank: w 7\n"


def test_a_second_set_up_replaces_the_first_and_leaves_foreign_handlers() -> None:
    foreign = logging.NullHandler()
    logging.getLogger(ROOT_NAME).addHandler(foreign)
    old, new = io.StringIO(), io.StringIO()
    set_up_logging(0, stream=old)
    set_up_logging(0, stream=new)
    logging.getLogger(ROOT_NAME).info("once")
    assert old.getvalue() == ""
    assert new.getvalue().count("once") == 1
    assert foreign in logging.getLogger(ROOT_NAME).handlers


def test_on_a_terminal_the_live_line_is_wiped_first() -> None:
    stream = Terminal()
    set_up_logging(0, stream=stream)
    logging.getLogger(ROOT_NAME).info("hello")
    assert stream.getvalue().startswith("\r\x1b[K")
