import pytest

from seif_nemo.roles.reasoning import judged_text


@pytest.mark.parametrize(
    ("response", "judged"),
    [
        ("Hello there.\n", "Hello there.\n"),
        ("<think>ok</think>\n\nHello there.\n", "Hello there."),
        ('<think>a</think>{"a": 1}', '{"a": 1}'),
        ("no opening tag, the template wrote it</think> Hi", "Hi"),
        ("<think>a</think><answer> Hi. </answer>\n", "Hi."),
        ("<answer>Hi.</answer>", "Hi."),
        ("<think>it never ends", ""),
        ("I say <answer>Hi.</answer> to you", "I say <answer>Hi.</answer> to you"),
        ("<answer>Hi.", "<answer>Hi."),
        ("", ""),
    ],
)
def test_what_a_response_is_judged_on(response: str, judged: str) -> None:
    assert judged_text(response) == judged
