"""A small model server that speaks the OpenAI chat protocol, well or badly, over a real socket."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Call:
    """One request as the server met it, and the means to answer it."""

    def __init__(self, handler: Handler, body: dict[str, Any]) -> None:
        self.handler = handler
        self.body = body
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    def send(self, content: bytes, *, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """A whole answer."""
        self.start(status, kind, len(content), **headers)
        self.handler.wfile.write(content)

    def start(self, status: int, kind: str, length: int, **headers: str) -> None:
        """Status and headers alone; names of headers are written with _ for -."""
        self.handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **named}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()


Behaviour = Callable[[Call], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer  # type: ignore[assignment]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = Call(self, body)
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            self.server.next_behaviour(call)(call)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class StubServer(ThreadingHTTPServer):
    """Answers each call as the next of its `behaviours` says; the last one stays.

    calls  every call so far
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = list(behaviours)
        self.calls: list[Call] = []
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}/v1"

    def next_behaviour(self, call: Call) -> Behaviour:
        with self._lock:
            self.calls.append(call)
            return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]


@contextlib.contextmanager
def serving(*behaviours: Behaviour) -> Iterator[StubServer]:
    """A running stub server."""
    with StubServer(*behaviours) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def choice(text: str | None, index: int = 0, logprobs: list[float] | None = None) -> dict[str, Any]:
    tokens = [{"token": "t", "logprob": one} for one in logprobs or []]
    return {
        "index": index,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": {"content": tokens} if tokens else None,
    }


def completion(choices: list[dict[str, Any]], **fields: Any) -> bytes:
    usage = {"completion_tokens": 7 * len(choices)}
    return json.dumps(
        {"model": "stub-1", "system_fingerprint": "fp-9", "choices": choices, "usage": usage} | fields
    ).encode()


# Behaviours: answers well


def answers(call: Call) -> None:
    """As many different replies as were asked for."""
    said = call.body["messages"][-1]["content"]
    texts = [f"Reply {place} (seed {call.body['seed']}) to: {said}" for place in range(call.body["n"])]
    call.send(completion([choice(text, place, [-0.5, -1.5]) for place, text in enumerate(texts)]))


def says(*texts: str | None, **fields: Any) -> Behaviour:
    """These replies, however many were asked for."""
    return lambda call: call.send(completion([choice(text, place) for place, text in enumerate(texts)], **fields))


def knows_no_logprobs(call: Call) -> None:
    """A server that takes no `logprobs`."""
    if "logprobs" in call.body:
        call.send(b'{"error": {"message": "logprobs are not supported"}}', status=400)
    else:
        answers(call)


# Behaviours: answers badly


def refuses(status: int, message: str = "", **headers: str) -> Behaviour:
    return lambda call: call.send(json.dumps({"error": {"message": message}}).encode(), status=status, **headers)


def sends(content: bytes, kind: str = "application/json", **headers: str) -> Behaviour:
    return lambda call: call.send(content, kind=kind, **headers)


def hangs(call: Call) -> None:
    time.sleep(5)


def drips(call: Call) -> None:
    """One byte at a time, never late enough for a read to time out."""
    call.start(200, "application/json", 10_000)
    for _ in range(200):
        call.handler.wfile.write(b" ")
        time.sleep(0.05)


def hangs_up(call: Call) -> None:
    call.handler.connection.close()


def breaks_off(call: Call) -> None:
    """Half of an answer, though the whole was announced."""
    content = completion([choice("A reply that is never", 0)])
    call.start(200, "application/json", len(content))
    call.handler.wfile.write(content[: len(content) // 2])


def floods(call: Call) -> None:
    """50 MB."""
    call.start(200, "application/json", 50 * 2**20)
    for _ in range(50):
        call.handler.wfile.write(b" " * 2**20)


def floods_compressed(call: Call) -> None:
    """A small answer that unfolds beyond the limit."""
    call.send(gzip.compress(b" " * 8 * 2**20), Content_Encoding="gzip")


def redirects_to(url: str) -> Behaviour:
    return lambda call: call.send(b"", status=307, Location=url)
