"""A server that speaks OpenAI's API as well or badly as a test says."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cai.backends.scripted import WORDS

CANARY = "sk-canary-3141592653589793"
"""A key that must be found nowhere."""


class Handler(BaseHTTPRequestHandler):
    """One request; `server.act` decides what becomes of it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.chat = self.path.endswith("/chat/completions")
        with self.server.lock:
            self.server.asked.append(self)
            number = len(self.server.asked)
        if not self.path.startswith("/v1/"):
            self.say(404, {"error": {"message": f"no {self.path}"}})
        else:
            (self.server.act(self, number) or good)(self)

    def do_GET(self) -> None:
        """The models that it has, and whose server it says it is."""
        with self.server.lock:
            self.server.listed += 1
        card = {"id": "small", "object": "model", "created": 1, "owned_by": self.server.owner}
        (self.server.lists or body({"object": "list", "data": [card]}))(self)

    def say(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            # With a reset, as a server that is killed.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"] if self.chat else self.body["prompt"])

    def log_message(self, format: str, *args: Any) -> None:
        return None


Action = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """Speaks OpenAI's API on this machine, as well or badly as `act(request, its number)` says."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Handler] = []
        self.owner = "someone"
        self.lists: Action | None = None
        self.listed = 0
        self.act: Callable[[Handler, int], Action | None] = lambda request, number: None
        self.lock = threading.Lock()
        self.quit = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        return None  # clients that hang up are part of the play

    def stop(self) -> None:
        self.quit.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


def good(request: Handler) -> None:
    """An answer that is a pure function of what was asked."""
    asked = json.dumps([request.body.get("messages") or request.body["prompt"], request.body["seed"]])
    words = random.Random(asked).choices(WORDS, k=20)
    said(" ".join(words).capitalize() + ".")(request)


def said(text: str | None, finish_reason: str = "stop", **changes: Any) -> Action:
    def act(request: Handler) -> None:
        content = {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
        usage = {"prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 31, **changes}
        choice = {"index": 0, "finish_reason": finish_reason, **content}
        request.say(200, {"id": "1", "object": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage})

    return act


def status(code: int, message: str = "so it is", **headers: str) -> Action:
    return lambda request: request.say(code, {"error": {"message": message}}, **headers)


def body(data: Any, **headers: str) -> Action:
    return lambda request: request.say(200, data, **headers)


def silence(request: Handler) -> None:
    request.server.quit.wait(20)
    request.hang_up()


def drip(request: Handler) -> None:
    """A byte now and then, for ever: each read is quick."""
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", "100000")
    request.end_headers()
    while not request.server.quit.wait(0.05):
        request.wfile.write(b" ")
        request.wfile.flush()


def half(request: Handler) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b'{"choices": [')
    request.wfile.flush()
    request.hang_up()
