"""One call to a server of somebody else's: its time, its size and its answer's status are bounded and checked.

What goes wrong becomes a sentence for people. Nothing is retried here: the row that wanted the call is.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2

from feedback.errors import GenerationFailed
from rewardtrain.backends.outbound import Destination

LARGEST_ANSWER = 4 * 1024 * 1024  # bytes
CONNECT_SECONDS = 5.0
LONGEST_RETRY_AFTER = 300.0  # seconds


@dataclass(frozen=True)
class Server:
    """Who is called, as messages name it.

    name     such as "model server"
    address  what to correct when it sends us elsewhere
    seconds  how long it may take
    """

    name: str
    address: str
    seconds: float


class RequestRefused(GenerationFailed):
    """The server does not take what was asked; `content` is how it said so."""

    def __init__(self, message: str, *, permanent: bool, status: int, content: bytes) -> None:
        super().__init__(message, permanent=permanent)
        self.status = status
        self.content = content


def post(server: Server, goal: Destination, body: Mapping[str, Any], key: str) -> bytes:
    """Send one request and read its whole answer, within the limits of time and size.

    Raises  GenerationFailed with a reason for people; RequestRefused where the server wants something else
    """
    headers = {"Host": goal.host_header, "Accept": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    deadline = time.monotonic() + server.seconds
    timeout = httpx2.Timeout(server.seconds, connect=min(CONNECT_SECONDS, server.seconds))
    try:
        with (
            httpx2.Client(verify=certificates(), trust_env=False, follow_redirects=False, timeout=timeout) as client,
            client.stream(
                "POST", goal.url, json=dict(body), headers=headers, extensions={"sni_hostname": goal.host}
            ) as response,
        ):
            content = _read(server, response, deadline)
    except httpx2.TimeoutException as err:
        raise GenerationFailed(f"The {server.name} did not answer within {server.seconds} seconds.") from err
    except httpx2.HTTPError as err:
        raise GenerationFailed(f"The connection to the {server.name} broke ({type(err).__name__}).") from err
    _refuse_status(server, response, content, key)
    return content


@cache
def certificates() -> ssl.SSLContext:
    """Whose word to take for who a server is: the usual authorities, or SSL_CERT_FILE's for a network of one's own."""
    return httpx2.create_ssl_context(trust_env=True)


def _read(server: Server, response: httpx2.Response, deadline: float) -> bytes:
    """The body as sent. Compressed ones were not asked for: they could unfold to any size."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise GenerationFailed(f"The {server.name} compressed its answer although it was asked not to.", permanent=True)
    content = bytearray()
    for part in response.iter_raw():
        content += part
        if len(content) > LARGEST_ANSWER:
            raise GenerationFailed(f"The {server.name}'s answer is larger than {LARGEST_ANSWER // 2**20} MB.")
        if time.monotonic() > deadline:
            raise GenerationFailed(f"The {server.name} sent its answer too slowly.")
    return bytes(content)


def _refuse_status(server: Server, response: httpx2.Response, content: bytes, key: str) -> None:
    """Raise unless the status is 200; what a server says is quoted short, as text, and without the key."""
    status = response.status_code
    if status == 200:
        return
    if status == 429:
        after = _retry_after(response)
        raise GenerationFailed(f"The {server.name} is busy (429).", retry_after=after)
    if status >= 500:
        raise GenerationFailed(f"The {server.name} failed ({status}).", retry_after=_retry_after(response))
    if status in {401, 403}:
        raise GenerationFailed(f"The {server.name} refused its key ({status}).", permanent=True)
    if 300 <= status < 400:
        raise GenerationFailed(
            f"The {server.name} sends us elsewhere ({status}); correct {server.address}.", permanent=True
        )
    message = f"The {server.name} refused the request ({status}). {_said(content, key)}".strip()
    raise RequestRefused(message, permanent=status != 408, status=status, content=content)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds the server asks to be left alone, within reason; None when it does not say so in seconds."""
    value = response.headers.get("retry-after", "")
    return min(float(value), LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else None


def _said(content: bytes, key: str) -> str:
    """The message of an error answer: at most 200 printable characters; empty when it has none in the usual form."""
    try:
        error = json.loads(content).get("error", "")
        message = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        return ""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(message))
    return f"It said: {(plain.replace(key, '…') if key else plain)[:200]}" if plain.strip() else ""
