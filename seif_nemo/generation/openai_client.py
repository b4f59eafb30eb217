"""A chat model behind an OpenAI-compatible HTTP endpoint (vLLM, SGLang, NIM, …). Standard library only.

The key stands in a header and nowhere else: it is cut out of every message, and no redirect is followed with it.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.protocols.tokenizer import Message

_MAX_BYTES = 16 * 2**20  # of one reply
_RETRYABLE = frozenset({408, 409, 425, 429})  # and all from 500 on
_SEED_BOUND = 2**31  # servers take 32 bits at least
_MESSAGE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class TokenAlternatives:
    """One token of an answer, and the log-probs of the likeliest tokens at its place, its own among them."""

    text: str
    logprobs: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """`finished` is False if the answer ran out of tokens. `tokens` is None where the endpoint gave no log-probs."""

    text: str
    finished: bool
    tokens: tuple[TokenAlternatives, ...] | None


class OpenAIClient:
    """Thread-safe. `timeout_s` is for a whole answer; `key` may be None."""

    def __init__(self, *, endpoint: str, model: str, key: str | None, timeout_s: float) -> None:
        self._url = endpoint.rstrip("/") + "/chat/completions"
        self._model = model
        self._key = key
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_NoRedirect)

    def complete(
        self, chat: Sequence[Message], *, seed: int, max_new_tokens: int, top_logprobs: int | None = None
    ) -> Completion:
        """The greedy answer to one chat, with the `top_logprobs` likeliest tokens at each place if asked for.

        Raises JudgeUnavailableError for whatever goes wrong on the way.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in chat],
            "max_tokens": max_new_tokens,
            "temperature": 0.0,
            "seed": seed % _SEED_BOUND,
        }
        if top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        reply = self._post(json.dumps(body).encode())
        try:
            return _read_completion(json.loads(reply))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            shown = self._hide(reply.decode(errors="replace"))[:_MESSAGE_CHARACTERS]
            raise self._unavailable(f"the reply is no chat completion: {shown!r}") from error

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "seif_nemo"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return self._read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except urllib.error.URLError as error:
            raise self._unavailable(f"no connection: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # time-outs and broken connections while reading
            raise self._unavailable(str(error) or type(error).__name__) from error
        except ValueError:  # its text may hold the key in a form that `_hide` does not know
            raise self._unavailable(
                "the request cannot be sent: HTTP does not allow a character of the endpoint or the key",
                retryable=False,
            ) from None

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        """The whole body. The socket's own time-out starts anew with every byte, so the time is watched here too."""
        parts: list[bytes] = []
        size = 0
        while part := response.read1(2**16):
            parts.append(part)
            size += len(part)
            if size > _MAX_BYTES:
                raise self._unavailable(f"the reply is longer than {_MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise self._unavailable(f"no whole reply within {self._timeout_s:g} s")
        return b"".join(parts)

    def _refused(self, error: urllib.error.HTTPError) -> JudgeUnavailableError:
        try:
            said = error.read(4096).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        wait = error.headers.get("Retry-After", "") if error.headers is not None else ""
        return self._unavailable(
            f"HTTP {error.code}: {' '.join(self._hide(said).split())[:_MESSAGE_CHARACTERS]}",
            retryable=error.code in _RETRYABLE or error.code >= 500,
            retry_after_s=float(wait) if wait.isascii() and wait.isdigit() else 0.0,
        )

    def _unavailable(
        self, message: str, *, retryable: bool = True, retry_after_s: float = 0.0
    ) -> JudgeUnavailableError:
        return JudgeUnavailableError(self._hide(message), retryable=retryable, retry_after_s=retry_after_s)

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "(key)") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to wherever it points: it is an error instead."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _read_completion(reply: Any) -> Completion:
    choice = reply["choices"][0]
    text = choice["message"].get("content")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"content is {type(text).__name__}")
    content = (choice.get("logprobs") or {}).get("content")
    return Completion(text or "", choice["finish_reason"] == "stop", None if content is None else _read_tokens(content))


def _read_tokens(content: Any) -> tuple[TokenAlternatives, ...]:
    return tuple(
        TokenAlternatives(
            str(token["token"]),
            tuple((str(each["token"]), float(each["logprob"])) for each in token["top_logprobs"]),
        )
        for token in content
    )
