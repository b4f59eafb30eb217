"""Reasoning that a model writes before its answer, in <think> tags."""

_BEGIN, _END = "<think>", "</think>"


def after_reasoning(text: str) -> str | None:
    """The answer: what follows the last </think>, or all of the text. None if reasoning was begun and never ended.

    The opening tag may be missing, since chat templates write it. In the middle of an answer it is only text.
    """
    answer = text.rpartition(_END)[2]
    return None if answer.lstrip().startswith(_BEGIN) else answer
