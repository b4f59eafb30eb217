"""Remembering what was worked out for a text, without keeping long texts alive."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LONG = 2**16  # characters, several times what a model is usually allowed
_FEW = 2  # of the long ones: one response is asked about several times in a row


def remember(maxsize: int) -> Callable[[Callable[Concatenate[str, P], R]], Callable[Concatenate[str, P], R]]:
    """As `functools.lru_cache`, for functions of a text; of texts over `LONG` characters only the newest two."""

    def decorate(function: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
        usual, long = lru_cache(maxsize)(function), lru_cache(_FEW)(function)

        @wraps(function)
        def call(text: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return (long if len(text) > LONG else usual)(text, *args, **kwargs)

        return call

    return decorate
