"""Reasoning that a model writes before its answer, in <think> tags."""

_BEGIN, _END = "<think>", "</think>"
_ANSWER_BEGIN, _ANSWER_END = "<answer>", "</answer>"


def after_reasoning(text: str) -> str | None:
    """The answer: what follows the last </think>, or all of the text. None if reasoning was begun and never ended.

    The opening tag may be missing, since chat templates write it. In the middle of an answer it is only text.
    """
    answer = text.rpartition(_END)[2]
    return None if answer.lstrip().startswith(_BEGIN) else answer


def judged_text(response: str) -> str:
    """What a Follower's response is judged on: its answer, without the reasoning before it and <answer> tags around it.

    A response without reasoning or tags is judged as it stands, one whose reasoning never ends as an empty one.
    """
    answer = after_reasoning(response)
    if answer is None:
        return ""
    stripped = answer.strip()
    if stripped.startswith(_ANSWER_BEGIN) and stripped.endswith(_ANSWER_END):
        return stripped[len(_ANSWER_BEGIN) : -len(_ANSWER_END)].strip()
    return response if answer == response else stripped
