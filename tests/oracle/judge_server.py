"""An OpenAI-compatible endpoint on this machine: judges by a formula, and misbehaves as it is told."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import wait_until

TEMPLATE = "{prompt}\x1e{first}\x1e{second}"
"""A question that the server takes apart again."""

Reply = tuple[int, dict[str, str], bytes]


class JudgeServer:
    """A context manager. `answer` turns (prompt, first, second) into the message; faults are used up first."""

    def __init__(self, answer: Callable[[str, str, str], dict[str, Any]]) -> None:
        self.answer = answer
        self.faults: list[Reply | float] = []
        """Replies to give instead of an answer; a number is seconds of silence before one."""
        self.asked: list[tuple[str, str, str]] = []
        """Questions that were answered, in order."""
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.answers_left: int | None = None
        """After so many answers the server falls silent, until it is closed."""
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()  # ends every silence
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, requests: int, seconds: float = 30.0) -> None:
        """Until so many have come and taken their faults: a client that gives up may be ahead of its request."""
        wait_until(lambda: self._requests() >= requests, seconds, f"request {requests}")

    def _requests(self) -> int:
        with self._lock:  # a request that has come has taken its fault before the lock is free
            return len(self.bodies)

    def reply(self, body: dict[str, Any]) -> Reply:
        """What one request gets."""
        prompt, first, second = body["messages"][0]["content"].split("\x1e")
        with self._lock:
            self.bodies.append(body)
            fault = self.faults.pop(0) if self.faults else None
            silent = fault is None and self.answers_left == 0
            if fault is None and not silent:
                self.asked.append((prompt, first, second))
                self.answers_left = None if self.answers_left is None else self.answers_left - 1
        if silent or isinstance(fault, float):
            self._closing.wait(None if silent else fault)
        if fault is not None and not isinstance(fault, float):
            return fault
        choice = self.answer(prompt, first, second)
        return 200, {}, json.dumps({"choices": [choice], "usage": USAGE}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                with server._lock:
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    server.keys.add(self.headers["Authorization"])
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, content = server.reply(body)
                with server._lock:
                    server.at_once -= 1
                try:
                    self.send_response(status)
                    for name, value in (headers | {"Content-Length": str(len(content))}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has gone

        return Handler


USAGE = {"prompt_tokens": 100, "completion_tokens": 2}


def in_words(text: str) -> dict[str, Any]:
    """A message without log-probs."""
    return {"message": {"role": "assistant", "content": text}}


def with_logprobs(**logprobs: float) -> dict[str, Any]:
    """A message whose first token has these log-probs."""
    listed = [{"token": token.replace("_", " "), "logprob": value} for token, value in logprobs.items()]
    token = {"token": listed[0]["token"], "logprob": listed[0]["logprob"], "top_logprobs": listed}
    return in_words(listed[0]["token"]) | {"logprobs": {"content": [token]}}
