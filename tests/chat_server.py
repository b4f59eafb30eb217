"""A small OpenAI-compatible chat server on this machine, whose every answer a test writes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """`body` is sent as it is if it is bytes, as JSON else. `dribble_s` is the wait between its bytes."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    hang_s: float = 0.0
    dribble_s: float = 0.0
    cut: bool = False  # promise more bytes than come


@dataclass
class ChatServer:
    url: str
    requests: list[dict[str, Any]]  # bodies, with "path" and "authorization"


def said(text: str, *, finish: str = "stop", tokens: list[tuple[str, dict[str, float]]] | None = None) -> Reply:
    """A chat completion; `tokens` are its tokens with the log-probs of the likeliest ones at their places."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": 0.0,
                    "top_logprobs": [{"token": t, "logprob": value} for t, value in near.items()],
                }
                for token, near in tokens
            ]
        }
    return Reply({"id": "1", "object": "chat.completion", "choices": [choice]})


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """Serves `answer(request body)` until the end of the block."""
    requests: list[dict[str, Any]] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({**body, "path": self.path, "authorization": self.headers.get("Authorization")})
            reply = answer(body)
            ended.wait(reply.hang_s)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content) + reply.cut), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for place in range(0, len(content), 1 if reply.dribble_s else len(content)):
                    self.wfile.write(content[place : place + (1 if reply.dribble_s else len(content))])
                    if reply.dribble_s:
                        time.sleep(reply.dribble_s)
            except OSError:
                pass  # the client has gone

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield ChatServer(f"http://127.0.0.1:{server.server_port}/v1", requests)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
