"""The chat client against a real server on this machine: what it sends, what it reads, what goes wrong."""

import json
import time
import traceback

import pytest

from seif_nemo.generation.openai_client import OpenAIClient
from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.protocols.tokenizer import Message
from tests.chat_server import Reply, chat_server, said

CHAT = [Message("system", "Judge."), Message("user", "Is it so? {é}")]
KEY = "hush-hush-1234"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def client(url: str, *, timeout_s: float = 5.0, key: str | None = KEY) -> OpenAIClient:
    return OpenAIClient(endpoint=url, model="m", key=key, timeout_s=timeout_s)


def test_request_and_reply() -> None:
    with chat_server(lambda _: said("Yes indeed.")) as server:
        completion = client(server.url + "/").complete(CHAT, seed=2**31 + 5, max_new_tokens=9)
        client(server.url, key=None).complete(CHAT, seed=1, max_new_tokens=9, top_logprobs=3)
    assert (completion.text, completion.finished, completion.tokens) == ("Yes indeed.", True, None)
    assert server.requests[0] == {
        "path": "/v1/chat/completions",
        "authorization": f"Bearer {KEY}",
        "model": "m",
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Is it so? {é}"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 5,
    }
    other = server.requests[1]
    assert (other["authorization"], other["logprobs"], other["top_logprobs"]) == (None, True, 3)


def test_tokens_and_ends() -> None:
    tokens = [("[[", {"[[": -0.1, "no": -2.0}), (" yes", {" yes": -0.5, " no": -1.0})]
    with chat_server(lambda _: said("[[ yes", finish="length", tokens=tokens)) as server:
        completion = client(server.url).complete(CHAT, seed=1, max_new_tokens=2, top_logprobs=2)
    assert not completion.finished
    assert completion.tokens is not None
    assert [(t.text, dict(t.logprobs)) for t in completion.tokens] == tokens


def test_no_content_is_an_empty_answer() -> None:
    reply = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
    with chat_server(lambda _: Reply(reply)) as server:
        completion = client(server.url).complete(CHAT, seed=1, max_new_tokens=2)
    assert (completion.text, completion.finished) == ("", False)


@pytest.mark.parametrize(
    ("reply", "message", "retryable", "after"),
    [
        (Reply(b"boom", status=500), "HTTP 500: boom", True, 0.0),
        (Reply(b"", status=503, headers={"Retry-After": "7"}), "HTTP 503", True, 7.0),
        (Reply(b"slow down", status=429, headers={"Retry-After": "soon"}), "HTTP 429: slow down", True, 0.0),
        (Reply(b"too long", status=400), "HTTP 400: too long", False, 0.0),
        (Reply(f"bad key {KEY}".encode(), status=401), "HTTP 401: bad key (key)", False, 0.0),
        (Reply(b"<html>", status=404), "HTTP 404: <html>", False, 0.0),
        (Reply(b"", status=307, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 307", False, 0.0),
        (Reply(b"<html>garbage"), "no chat completion: '<html>garbage'", True, 0.0),
        (Reply(b"\xff\xfe"), "no chat completion", True, 0.0),
        (Reply(b""), "no chat completion: ''", True, 0.0),
        (Reply([]), "no chat completion: '[]'", True, 0.0),
        (Reply({"choices": []}), "no chat completion", True, 0.0),
        (Reply({"choices": [{"message": {"content": 3}, "finish_reason": "stop"}]}), "no chat completion", True, 0.0),
        (Reply({"choices": [{"message": "yes", "finish_reason": "stop"}]}), "no chat completion", True, 0.0),
        (Reply(b"[" * 100_000), "no chat completion", True, 0.0),
        (Reply(json.dumps({"error": KEY}).encode()), "(key)", True, 0.0),
        (Reply(b"{}", cut=True), "IncompleteRead|no chat completion", True, 0.0),
    ],
)
def test_failures(reply: Reply, message: str, retryable: bool, after: float) -> None:
    with chat_server(lambda _: reply) as server, pytest.raises(JudgeUnavailableError) as caught:
        client(server.url, timeout_s=2.0).complete(CHAT, seed=1, max_new_tokens=2)
    assert any(part in str(caught.value) for part in message.split("|")), str(caught.value)
    assert KEY not in str(caught.value)
    assert (caught.value.retryable, caught.value.retry_after_s) == (retryable, after)
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [Reply(b"{}", hang_s=30.0), Reply(b"x" * 1000, dribble_s=0.05)])
def test_an_answer_that_takes_too_long(reply: Reply) -> None:
    with chat_server(lambda _: reply) as server:
        started = time.monotonic()
        with pytest.raises(JudgeUnavailableError, match=r"timed out|within 0\.3 s") as caught:
            client(server.url, timeout_s=0.3).complete(CHAT, seed=1, max_new_tokens=2)
        assert time.monotonic() - started < 3.0
    assert caught.value.retryable


def test_nobody_there() -> None:
    with chat_server(lambda _: said("")) as server:
        url = server.url
    with pytest.raises(JudgeUnavailableError, match="no connection") as caught:
        client(url).complete(CHAT, seed=1, max_new_tokens=2)
    assert caught.value.retryable


@pytest.mark.parametrize(("path", "key"), [("", "sk-SECRET\r"), ("", "sk-SECRET-€"), ("/ü", "sk-SECRET")])
def test_what_http_cannot_send_is_an_error_without_the_key(path: str, key: str) -> None:
    with chat_server(lambda _: said("")) as server, pytest.raises(JudgeUnavailableError) as caught:
        client(server.url + path, key=key).complete(CHAT, seed=1, max_new_tokens=2)
    assert str(caught.value) == "the request cannot be sent: HTTP does not allow a character of the endpoint or the key"
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert not caught.value.retryable
    assert server.requests == []


def test_a_reply_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seif_nemo.generation.openai_client._MAX_BYTES", 1000)
    with (
        chat_server(lambda _: Reply(b" " * 200_000)) as server,
        pytest.raises(JudgeUnavailableError, match="longer than 1000 bytes"),
    ):
        client(server.url).complete(CHAT, seed=1, max_new_tokens=2)
